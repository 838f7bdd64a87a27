"""Draws a tuning as PNG: how it went, what was found, which strengths mattered. Needs no display."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...generation.files import atomic
from ...policies import GainContext

_MASS, _FRAMES = 0.7, 9  # of the picture of a policy


@contextmanager
def _axes(path: Path, width: float, height: float) -> Iterator[Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    yield figure.subplots()
    with atomic(path, force=True) as draft:
        figure.savefig(draft, format="png")


def history(tries: Sequence[Mapping[str, Any]], path: Path, what: str) -> Path:
    """Reward of each trial or update, and the best of a search so far, or a learning's running mean."""
    number = np.array([row["try"] for row in tries])
    reward = np.array([row["reward"] for row in tries])
    pruned = np.array([bool(row.get("pruned")) for row in tries])
    with _axes(path, 8, 4) as axes:
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.plot(number[~pruned], reward[~pruned], "o", markersize=4, label=f"a {what}")
        if pruned.any():
            axes.plot(number[pruned], reward[pruned], "x", markersize=4, color="grey", label="given up at half")
        if all("best" in row for row in tries):
            axes.step(number, [row["best"] for row in tries], where="post", label="best so far")
        else:
            span = min(10, len(reward))
            axes.plot(number[span - 1 :], np.convolve(reward, np.ones(span) / span, "valid"), label=f"mean of {span}")
        low, high = np.quantile(reward, [0.05, 1]) if len(reward) > 20 else (reward.min(), reward.max())
        axes.set(xlabel=what, ylabel="reward (0: the plain model)", ylim=(min(low, 0) - 0.05, max(high, 0) + 0.05))
        axes.legend(frameon=False)
    return path


def strengths(policy: Any, path: Path) -> Path:
    """The gain of a policy by depth and progress, at a mass of 0.7 and 9 latent frames."""
    places = np.linspace(0, 1, 41)
    mass = torch.full((1,), _MASS)
    gain = [
        [policy(mass, GainContext(_FRAMES, float(d), torch.tensor(float(p)))).item() for p in places] for d in places
    ]
    reach = max(0.05, float(np.abs(np.array(gain) - 1).max()))
    with _axes(path, 6, 4.5) as axes:
        image = axes.imshow(
            gain, origin="lower", aspect="auto", extent=(0, 1, 0, 1), cmap="RdBu_r", vmin=1 - reach, vmax=1 + reach
        )
        axes.figure.colorbar(image, ax=axes, label=f"gain at a mass of {_MASS}")
        axes.set(xlabel="progress: 0 noise, 1 clean", ylabel="depth: 0 first layer, 1 last")
    return path


def importance(shares: Mapping[tuple[int, int], float], groups: int, times: int, path: Path) -> Path:
    """Optuna's importances on the grid: the share of each strength in whether a trial is among the best quarter."""
    table = np.zeros((groups, times))
    for place, share in shares.items():
        table[place] = share
    with _axes(path, 1.2 * times + 3, 0.5 * groups + 2) as axes:
        image = axes.imshow(table, origin="lower", aspect="auto", cmap="viridis", vmin=0)
        for (row, column), share in shares.items():
            light = share < 0.6 * table.max()
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", color="white" if light else "black")
        axes.figure.colorbar(image, ax=axes, label="importance (sums to 1)")
        axes.set(xlabel="time: left noise, right clean", ylabel="depth: bottom first layer")
        axes.set(xticks=range(times), yticks=range(groups))
    return path
