"""The table of docs/guide/comfyui.md, and what a sampling run costs, on real ComfyUI code on a CPU.

python -m comfyui.tests.measure table                # in integrations/; needs what real.py needs
python -m comfyui.tests.measure cost [--frames 9]    # one layer wide as Wan 2.1 1.3B at 480 x 272, a few minutes
"""

import argparse
import statistics
import time
from typing import Any

import torch

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


def cost(frames: int, rounds: int) -> str:
    """Seconds of one model call with each setting, in turn: two blocks of Wan 2.1 1.3B's width, one sample."""
    from ..choice import STRENGTH, TEMPERATURE, Choice
    from . import test_real as tests

    wide = {"dim": 1536, "ffn_dim": 8960, "freq_dim": 256, "text_dim": 4096, "num_heads": 12, "num_layers": 2}
    family = real.Family(
        "Wan 1.3B", "WAN21_T2V", {**wide, "in_dim": 16, "out_dim": 16}, (16, frames, 34, 60), (frames, 510), (512, 4096)
    )
    base = real.model(family)
    settings: dict[str, Choice | None] = {"plain": None, "odds 2": Choice()}
    settings |= {"temperature 4": Choice(TEMPERATURE, 4.0), "strength 0.3": Choice(STRENGTH, 0.3)}
    models = {name: base if c is None else tests.enhanced(family, c, base)[0] for name, c in settings.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):  # the first round warms up
        for name, model in models.items():
            begin = time.perf_counter()
            real.sample(model, family, real.noise(family), steps=1, cfg=1.0)
            times[name].append(time.perf_counter() - begin)
    plain = statistics.median(times["plain"][1:])
    lines = [f"{frames} latent frames of 510 tokens, {torch.get_num_threads()} threads, {rounds} rounds, medians"]
    for name, seconds in times.items():
        median = statistics.median(seconds[1:])
        lines.append(f"{name}: {median:.2f} s ({median / plain - 1:+.1%})")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["table", "cost"])
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=5)
    given: Any = parser.parse_args(arguments)
    print(table() if given.what == "table" else cost(given.frames, given.rounds))


if __name__ == "__main__":
    real.start_or_exit()
    main()
