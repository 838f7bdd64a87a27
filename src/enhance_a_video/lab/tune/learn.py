"""Learns a policy, a small network, by reinforcement: policy gradient with parameter-based exploration.

PGPE with symmetric sampling (Sehnke et al., Parameter-exploring policy gradients, Neural Networks 23, 2010): an
episode draws noise eps over the network's numbers and makes the clip of one prompt and noise twice, with theta +
sigma · eps and with theta - sigma · eps. (r+ - r-) / (2 sigma) · eps, averaged over the episodes of an update,
estimates the gradient of the expected reward; what prompt and noise do to the reward drops out of the difference, and
the plain model's clip of the same noise is the zero of each. Adam climbs. sigma stays fixed.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import OutputExistsError
from ...generation.files import atomic, write_text
from .clips import Rewards
from .search import Found
from .space import Space


@dataclass(frozen=True)
class Recipe:
    """hidden: width of the network. sigma: of the exploration. rate: Adam's. memory: of the mean of theta over the
    updates, which is the result (it is steadier than the last theta)."""

    hidden: int = 4
    sigma: float = 0.3
    rate: float = 0.06
    memory: float = 0.8
    seed: int = 0


def start_of(recipe: Recipe, space: Space) -> Tensor:
    """The first theta, (hidden · (FEATURES + 2) + 1,): random inside, and outside nothing but what makes the strength
    that of the space's start at any moment."""
    generator = torch.Generator().manual_seed(recipe.seed)
    width = space.network.FEATURES + 1
    first = torch.randn(recipe.hidden * width, generator=generator) / width**0.5
    outside = torch.tensor([math.atanh(space.start / space.network.most)])
    return torch.cat([first, torch.zeros(recipe.hidden), outside])


def network_of(theta: Tensor, hidden: int, space: Space) -> Any:
    """The policy of these numbers, to four places."""
    numbers = [round(number, 4) for number in theta.double().tolist()]
    width = space.network.FEATURES + 1
    rows = tuple(tuple(numbers[row * width : (row + 1) * width]) for row in range(hidden))
    return space.network(rows, tuple(numbers[hidden * width :]))


def learn(
    rewards: Rewards, clips: int, space: Space, *, updates: int, pairs: int, checkpoint: Path,
    recipe: Recipe = Recipe(), began: Callable[[int, float], None] = lambda update, best: None,
) -> Found:  # fmt: skip
    """Learns for `updates` updates, those of earlier runs included, of `pairs` antithetic pairs each.

    The noise of an update comes from its number: a resumed run is the run that was interrupted.

    Args:
        clips: prompts (with their noise) that the episodes go through, in a new order each time.
        checkpoint: written after each update, continued where it is there; the log lies beside it, .jsonl.
        began: called with (number of the update, best mean reward of an update so far) before each update.

    Returns:
        The mean theta's policy, with its reward on all clips.

    Raises:
        OutputExistsError: the checkpoint is something else, or of another recipe.
    """
    theta = torch.nn.Parameter(start_of(recipe, space))
    adam = torch.optim.Adam([theta], lr=recipe.rate, betas=(0.9, 0.99))
    mean, log = theta.detach().clone(), []
    if checkpoint.exists():
        kept = _read(checkpoint, {**asdict(recipe), "pairs": pairs, "clips": clips})
        theta.data, mean, log = kept["theta"], kept["mean"], kept["log"]
        adam.load_state_dict(kept["adam"])
    while len(log) < updates:
        update = len(log)
        began(update, max((row["reward"] for row in log), default=0.0))
        log.append(_step(rewards, theta, adam, recipe, space, update, pairs, clips))
        mean = recipe.memory * mean + (1 - recipe.memory) * theta.detach()
        _write(checkpoint, theta, mean, adam, log, {**asdict(recipe), "pairs": pairs, "clips": clips})
    began(updates, max((row["reward"] for row in log), default=0.0))
    policy = network_of(mean, recipe.hidden, space)
    reward = float(np.mean(rewards([(policy, which) for which in range(clips)])))
    return Found(policy, reward, tuple(log))


def _step(
    rewards: Rewards, theta: Tensor, adam: Any, recipe: Recipe, space: Space, update: int, pairs: int, clips: int
) -> dict[str, Any]:
    """One update of theta; its line of the log."""
    generator = torch.Generator().manual_seed((recipe.seed * 1_000_003 + update + 1) % 2**64)
    noise = torch.randn(pairs, theta.numel(), generator=generator)  # (pairs, numbers)
    which = episodes(recipe.seed, update * pairs, pairs, clips)
    signs = (1.0, -1.0)
    tried = [
        (network_of(theta.detach() + sign * recipe.sigma * eps, recipe.hidden, space), prompt)
        for eps, prompt in zip(noise, which, strict=True)
        for sign in signs
    ]
    found = torch.as_tensor(rewards(tried), dtype=torch.float32).view(pairs, 2)  # (pairs, 2): plus, minus
    slope = (found[:, 0] - found[:, 1]) / (2 * recipe.sigma)  # (pairs,)
    gradient = (slope[:, None] * noise).mean(0)
    theta.grad = -gradient  # Adam descends
    adam.step()
    row = {"try": update, "reward": found.mean(), "slope": slope.abs().mean(), "moved": theta.detach().norm()}
    return {key: value if isinstance(value, int) else round(float(value), 6) for key, value in row.items()}


def episodes(seed: int, first: int, count: int, clips: int) -> list[int]:
    """Which prompt the episodes from number `first` on have: all of them once, in a new order each time round."""
    found = []
    for number in range(first, first + count):
        turn, place = divmod(number, clips)
        found.append(int(np.random.default_rng((seed, turn)).permutation(clips)[place]))
    return found


def _write(path: Path, theta: Tensor, mean: Tensor, adam: Any, log: list[Any], recipe: dict[str, Any]) -> None:
    state = {"theta": theta.detach(), "mean": mean, "adam": adam.state_dict(), "log": log, "recipe": recipe}
    data = io.BytesIO()
    torch.save(state, data)  # into memory: torch reports a full disk as an error of its own kind
    with atomic(path, force=True) as draft:
        draft.write_bytes(data.getvalue())
    write_text(path.with_suffix(".jsonl"), "".join(f"{json.dumps(row)}\n" for row in log), force=True)


def _read(path: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = torch.load(path, weights_only=True)
        same = kept["recipe"] == recipe
    except Exception as error:  # torch.load raises whatever its readers do
        raise OutputExistsError(f"{path} is no checkpoint of this command ({error}). Choose another --out.") from error
    if not same:
        raise OutputExistsError(f"{path} was learned with {kept['recipe']}, not {recipe}. Choose another --out.")
    return kept
