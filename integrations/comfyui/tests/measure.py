"""The table of docs/guide/comfyui.md, and what a sampling run costs, on real ComfyUI code on a CPU.

python -m comfyui.tests.measure table                # in integrations/; needs what real.py needs
python -m comfyui.tests.measure cost                 # a block as wide as Wan 2.1 1.3B's, 81 frames of 416 x 240
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..choice import STRENGTH, TEMPERATURE, Choice
from . import real

COLUMNS = ("model", "static: mass, error", "unrelated: mass, error", "effect", "batch", "frames in windows of 4")


def table() -> str:
    from .families import FAMILIES

    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(row(family) for family in FAMILIES)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def row(family: real.Family) -> tuple[str, ...]:
    from . import test_real as tests

    base = tests.model(family.name)
    masses = [planted(family, static) for static in (True, False)]
    plain = real.sample(base, family, real.noise(family))
    together, apart = enhanced(family), enhanced(family, split=True)
    return (
        family.name,
        *(f"{mass:.3f}, {error:.0e}" for mass, error in masses),
        f"{float((together - plain).norm() / plain.norm()):.1%}",
        f"{float((together - apart).norm() / apart.norm()):.0e}",
        windows(family),
    )


def planted(family: real.Family, static: bool) -> tuple[float, float]:
    """Mean share over layers and samples, and its largest difference from the dense softmax in float64."""
    from . import test_real as tests

    with tests.pytest.MonkeyPatch.context() as patched:
        seen = tests.Seen(patched)
        model, _ = tests.enhanced(family, of=tests.tied(family.name))
        real.sample(model, family, tests.planted(family, static), steps=1)
    found, wanted = [], []
    for call, rows, num_frames, done in seen.calls:
        assert done.operator == "exact"
        wanted.append(tests.true_share(call, rows, (num_frames, (rows.stop - rows.start) // num_frames)))
        found.append(done.mass.double())
    found, wanted = torch.cat(found), torch.cat(wanted)
    return float(found.mean()), float((found - wanted).abs().max())


def enhanced(family: real.Family, split: bool = False) -> torch.Tensor:
    from . import test_real as tests

    model, _ = tests.enhanced(family)
    with tests.pytest.MonkeyPatch.context() as limited:
        if split:
            limited.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
        return real.sample(model, family, real.noise(family))


def windows(family: real.Family) -> str:
    """The frames counted in each call under context windows; a dash where ComfyUI cannot run them without us either."""
    from . import test_real as tests

    plain = tests.model(family.name).clone()
    tests.in_windows(plain)
    try:
        real.sample(plain, family, real.noise(family), steps=1, cfg=1.0)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError):
        return "-"
    model, patch = tests.enhanced(family)
    tests.in_windows(model)
    real.sample(model, family, real.noise(family), steps=1, cfg=1.0)
    return ", ".join(str(step.num_frames) for step in patch.record.steps)


@dataclass(frozen=True)
class Way:
    """One row of the cost table: what is done, and by which shares."""

    name: str
    choice: Choice
    estimated: bool = False  # as if the attention function were not torch's


ALONE = (
    Way("odds 2, exact shares", Choice()), Way("odds 2, estimated shares", Choice(), estimated=True),
    Way("temperature 4", Choice(TEMPERATURE, 4.0)), Way("strength 0.3", Choice(STRENGTH, 0.3)),
)  # fmt: skip
GUIDED = (
    Way("odds 2, exact shares, both prompts", Choice()),
    Way("odds 2, exact shares, passes: conditional", Choice(conditional=True)),
)


def cost(shape: tuple[int, int, int], rounds: int) -> str:
    """What the node adds to a sampling run of Wan 2.1 1.3B: one block of its width, Euler, one thread.

    shape: latent frames, rows and columns; a token is 2 x 2 of a frame. A model call is timed without the node, then
    the attention that the node met in one, on the same tokens, plain and enhanced in turn. All blocks are alike, so
    that the block's share is the run's, but for text encoder, VAE and the few layers outside of the blocks. Processor
    time and not the clock's, so that what else runs on the machine counts for little; medians of the pairs' ratios.
    """
    torch.set_num_threads(1)
    frames, height, width = shape
    wide = {"dim": 1536, "ffn_dim": 8960, "freq_dim": 256, "text_dim": 4096, "num_heads": 12, "num_layers": 1}
    sites = height // 2 * (width // 2)
    family = real.Family(
        "Wan 1.3B", "WAN21_T2V", {**wide, "in_dim": 16, "out_dim": 16}, (16, *shape), (frames, sites), (512, 4096)
    )
    base = real.model(family)
    lines = [
        f"{frames} latent frames of {sites} tokens, one block, {rounds} rounds",
        "",
        "| | model call, s | attention, s | enhanced / plain attention | on the whole call |",
        "|---|---|---|---|---|",
    ]
    for ways, cfg in ((ALONE, 1.0), (GUIDED, 6.0)):
        whole = statistics.median(
            seconds(lambda cfg=cfg: real.sample(base, family, real.noise(family), steps=1, cfg=cfg))
            for _ in range(rounds)
        )
        lines += in_turn(ways, attention_of(base, family, cfg), whole, rounds)
    return "\n".join(lines)


def in_turn(ways: tuple[Way, ...], met: tuple[Any, slice, int], whole: float, rounds: int) -> list[str]:
    """A row of the table for each way: its attention beside the plain one, on the same tokens, in turn."""
    from .. import gains
    from . import test_real as tests

    call, rows, num_frames = met
    times: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            samples = (0,) if way.choice.conditional else None  # which of the two is the prompt's makes no difference
            plain = seconds(call)
            with tests.pytest.MonkeyPatch.context() as patched:
                if way.estimated:
                    patched.setattr(tests.Attention, "is_torchs", False)
                times[way.name].append(
                    (plain, seconds(lambda way=way, s=samples: gains.enhanced(call, rows, num_frames, way.choice, s)))
                )
    lines = []
    for name, pairs in times.items():
        plain, ratio = statistics.median(p for p, _ in pairs), statistics.median(e / p for p, e in pairs)
        share = 100 * (ratio - 1) * plain / whole
        lines.append(f"| {name} | {whole:.1f} | {plain:.1f} | {ratio:.3f} | {share:+.1f} % |")
    return lines


def attention_of(base: Any, family: real.Family, cfg: float) -> tuple[Any, slice, int]:
    """The video's self-attention of a model call as the node meets it: the call, its video tokens, T."""
    from . import test_real as tests

    with tests.pytest.MonkeyPatch.context() as patched:
        seen = tests.Seen(patched)
        model, _ = tests.enhanced(family, Choice(TEMPERATURE, 4.0), base)
        real.sample(model, family, real.noise(family), steps=1, cfg=cfg)
    call, rows, num_frames, _ = seen.calls[0]
    return call, rows, num_frames


def seconds(do: Callable[[], Any]) -> float:
    begin = time.process_time()
    do()
    return time.process_time() - begin


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["table", "cost"])
    parser.add_argument("--shape", type=int, nargs=3, default=(21, 30, 52), metavar=("FRAMES", "ROWS", "COLUMNS"))
    parser.add_argument("--rounds", type=int, default=5)
    given: Any = parser.parse_args(arguments)
    print(table() if given.what == "table" else cost(tuple(given.shape), given.rounds))


if __name__ == "__main__":
    real.start_or_exit()
    main()
