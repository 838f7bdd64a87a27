"""The table of docs/guide/comfyui.md, and what a sampling run costs, on real ComfyUI code on a CPU.

python -m comfyui.tests.measure table                # in integrations/; needs what real.py needs
python -m comfyui.tests.measure cost                 # blocks as wide as Wan 2.1 1.3B's; --help has the sizes
"""

import argparse
import math
import statistics
import time
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
    """One row of the cost table: what is done, to how many samples a call, and by which shares."""

    name: str
    choice: Choice | None = None
    estimated: bool = False  # as if the attention function were not torch's
    guided: bool = False  # prompt and negative prompt in one call; else the prompt alone


WAYS = (
    Way("plain"), Way("odds 2, exact shares", Choice()), Way("odds 2, estimated shares", Choice(), estimated=True),
    Way("temperature 4", Choice(TEMPERATURE, 4.0)), Way("strength 0.3", Choice(STRENGTH, 0.3)),
    Way("guided, plain", guided=True), Way("guided, odds 2 in both", Choice(), guided=True),
    Way("guided, odds 2 in the prompt's", Choice(conditional=True), guided=True),
)  # fmt: skip


def cost(shape: tuple[int, int, int], blocks: int, steps: int, rounds: int, guided: bool = True) -> str:
    """The processor's seconds of a sampling run each way, in turn: blocks of Wan 2.1 1.3B's width, Euler, one thread.

    shape: latent frames, rows and columns; a token is 2 x 2 of a frame. The processor's time and not the clock's, so
    that what else runs on the machine counts for little. guided: those with guidance too, which take twice as long.
    """
    from . import test_real as tests

    torch.set_num_threads(1)
    frames, height, width = shape
    wide = {"dim": 1536, "ffn_dim": 8960, "freq_dim": 256, "text_dim": 4096, "num_heads": 12, "num_layers": blocks}
    sites = height // 2 * (width // 2)
    family = real.Family(
        "Wan 1.3B", "WAN21_T2V", {**wide, "in_dim": 16, "out_dim": 16}, (16, *shape), (frames, sites), (512, 4096)
    )
    base = real.model(family)
    ways = [way for way in WAYS if guided or not way.guided]
    times: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            model = tests.enhanced(family, way.choice, base)[0] if way.choice else base
            with tests.pytest.MonkeyPatch.context() as patched:
                if way.estimated:
                    patched.setattr(tests.Attention, "is_torchs", False)
                begin = time.process_time()
                real.sample(model, family, real.noise(family), steps=steps, cfg=6.0 if way.guided else 1.0)
                times[way].append(time.process_time() - begin)
    head = f"{frames} latent frames of {sites} tokens, {blocks} blocks, {steps} steps, {rounds} rounds, medians"
    lines = [head, "", "| | seconds | against plain |", "|---|---|---|"]
    for way, seconds in times.items():
        plain = next((s for other, s in times.items() if not other.choice and other.guided == way.guided), [math.nan])
        median, against = statistics.median(seconds), statistics.median(plain)
        share = f"{100 * (median / against - 1):+.1f} %" if way.choice else ""
        lines.append(f"| {way.name} | {median:.2f} | {share} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["table", "cost"])
    parser.add_argument("--shape", type=int, nargs=3, default=(9, 34, 60), metavar=("FRAMES", "ROWS", "COLUMNS"))
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unguided", action="store_true", help="leave out the ways with guidance")
    given: Any = parser.parse_args(arguments)
    if given.what == "table":
        print(table())
    else:
        print(cost(tuple(given.shape), given.blocks, given.steps, given.rounds, not given.unguided))


if __name__ == "__main__":
    real.start_or_exit()
    main()
