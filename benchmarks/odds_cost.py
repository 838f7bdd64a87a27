"""Measures the cost of odds in one attention layer, beside the layer's own attention.

    python benchmarks/odds_cost.py [--device cuda] [--threads 1] [--repeats 5] [--out table.md]

The kernel alone, with odds by the estimated mass of every token (the default), with exact odds (log-sum-exps) and
with odds on two axes at once (one bias, which the layers of a model share) take turns in one process; the ratio is of
the medians. Attention is F.scaled_dot_product_attention on random q, k, v in the layout of diffusers. Extra memory is
the peak of what the allocator hands out, the output included, of each. A layer's projections and the rest of the block
come on top and dilute the ratio.
"""

import argparse
import statistics
from pathlib import Path

import torch
from overhead import DTYPES, Shape, extra_bytes, machine, seconds
from torch import Tensor

from enhance_a_video.axes import Reference, Time
from enhance_a_video.operators import AttentionCall, Biased, CrossFrame, Exact, Operator
from enhance_a_video.policies import DEFAULT_ODDS, GainContext, Odds

SHAPES = (
    Shape("embedded model", 4, 64, 9, 16),
    Shape("Wan 1.3B, 33 frames, 240p", 12, 128, 9, 390),
    Shape("CogVideoX 2B's heads, 49 frames, a quarter of the picture", 30, 64, 13, 337),
    Shape("Wan 1.3B, 81 frames, 240p", 12, 128, 21, 390),
)


def with_odds(call: AttentionCall, operator: Operator) -> Tensor:
    moment = GainContext(call.num_frames, 0.0, torch.tensor(0.5))
    return operator.attend(call, lambda mass: Odds(DEFAULT_ODDS)(mass, moment))


def on_two_axes(call: AttentionCall) -> Tensor:
    odds = torch.full((2, 1), DEFAULT_ODDS, device=call.query.device)
    return Biased((Time(), Reference())).attend(call, lambda shares: odds)


def row(shape: Shape, dtype: str, args: argparse.Namespace) -> str:
    """One line of the table."""
    size = (1, shape.frames * shape.sites, shape.heads, shape.head_dim)
    q, k, v = (torch.randn(size, device=args.device).to(DTYPES[dtype]).transpose(1, 2) for _ in "qkv")
    call = AttentionCall(q, k, v, shape.frames, shared={})
    contenders = {
        "alone": call.run, "odds": lambda: with_odds(call, CrossFrame()), "exact": lambda: with_odds(call, Exact()),
        "axes": lambda: on_two_axes(call),
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(args.repeats + 1):
        for name, run in contenders.items():
            spent = seconds(run, args.device)
            if turn:  # the first warms up
                times[name].append(spent)
    alone, odds, exact, axes = (statistics.median(times[name]) for name in contenders)
    memory = [extra_bytes(run, args.device) / 2**20 for run in contenders.values()]
    return (
        f"| {shape.name} | {shape.frames} × {shape.sites} | {dtype} | {1000 * alone:.1f} ms | "
        f"{odds / alone:.3f} | {exact / alone:.3f} | {axes / alone:.3f} | "
        f"{memory[0]:.1f} MiB | {memory[1]:.1f} MiB | {memory[2]:.1f} MiB | {memory[3]:.1f} MiB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = [
        f"{machine(args.device)}, {args.threads} threads, torch {torch.__version__}",
        "",
        "| layer | frames × sites | | attention | odds / it | exact odds / it | two axes / it | memory | odds "
        "| exact odds | two axes |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    with torch.inference_mode():
        for shape in SHAPES:
            for dtype in DTYPES:
                lines.append(row(shape, dtype, args))
                print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
