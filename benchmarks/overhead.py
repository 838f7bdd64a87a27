"""Measures the method's cost in one attention layer, beside the authors' formula and the layer's own attention.

    python benchmarks/overhead.py [--device cuda] [--quick] [--threads 1] [--layout head] [--out table.md]
    python benchmarks/overhead.py --families          # the layer shapes of the published models, bf16

Wan-1.3B shape: 12 heads of 128, 21 latent frames, 390 and 1560 sites a frame (240p and 480p), fp32 and bf16. The
contenders take turns (A B C, A B C, ...) in one process and the median is printed. Extra memory is the peak that the
allocator really hands out beyond the inputs. Attention is F.scaled_dot_product_attention on the same q, k and v; with
--families on one head's, times the heads, which are independent of each other.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from enhance_a_video.intensity import DEFAULT_SITES, cross_frame_mass

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """One attention layer: `frames` latent frames of `sites` tokens."""

    name: str
    heads: int
    head_dim: int
    frames: int
    sites: int
    temporal: bool = False  # attention over time only: one sequence of `frames` for each site


WAN = (Shape("Wan 1.3B, 240p", 12, 128, 21, 390), Shape("Wan 1.3B, 480p", 12, 128, 21, 1560))
FAMILIES = (  # from the models' published configurations and default sizes
    Shape("Wan 2.1/2.2 1.3B, 81 x 480 x 832", 12, 128, 21, 1560),
    Shape("Wan 2.1/2.2 14B, 81 x 480 x 832", 40, 128, 21, 1560),
    Shape("HunyuanVideo, 61 x 544 x 960", 24, 128, 16, 2040),
    Shape("CogVideoX 2B, 49 x 480 x 720", 30, 64, 13, 1350),
    Shape("CogVideoX 5B, 49 x 480 x 720", 48, 64, 13, 1350),
    Shape("LTX-Video 2B, 161 x 480 x 704", 32, 64, 21, 330),
    Shape("Mochi, 85 x 480 x 848", 24, 128, 15, 1590),
    Shape("Allegro, 88 x 720 x 1280", 24, 96, 22, 3600),
    Shape("Latte, 16 x 512 x 512", 16, 72, 16, 1024, temporal=True),
)


def authors_formula(query: Tensor, key: Tensor, num_frames: int) -> Tensor:
    """Eq. 3-5 as the authors compute them, in our own words: copies, a full matrix per site, a mask, a sum."""
    B, H, L, D = query.shape
    T, S = num_frames, L // num_frames

    def by_site(x: Tensor) -> Tensor:  # (B, H, T·S, D) -> (B·S, H, T, D)
        return x.reshape(B, H, T, S, D).permute(0, 3, 1, 2, 4).reshape(B * S, H, T, D)

    q, k = by_site(query), by_site(key)
    attention = ((q * D**-0.5) @ k.transpose(-2, -1)).float().softmax(-1)  # (B·S, H, T, T)
    attention = attention.reshape(-1, T, T)
    itself = torch.eye(T, dtype=torch.bool, device=query.device).expand(attention.shape)
    return (attention.masked_fill(itself, 0).sum((1, 2)) / (T * (T - 1))).mean()


CONTENDERS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "authors' formula": authors_formula,
    "ours, exact": lambda q, k, frames: cross_frame_mass(q, k, frames, sites=None),
    f"ours, {DEFAULT_SITES} sites": cross_frame_mass,
}


def seconds(run: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def extra_bytes(run: Callable[[], object], device: str) -> int:
    """Peak of what the allocator hands out during ``run``, above what was there before."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(shape: Shape, dtype: torch.dtype, args: argparse.Namespace) -> list[dict]:
    """One row for each contender on the same random q and k."""
    make = torch.Generator(args.device).manual_seed(0)
    size = (1, shape.frames * shape.sites, shape.heads, shape.head_dim)
    q, k, v = (torch.randn(size, generator=make, device=args.device).to(dtype).transpose(1, 2) for _ in "qkv")
    if args.layout == "head":
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for run in CONTENDERS.values():  # warm up
        run(q, k, shape.frames)
    for _ in range(args.repeats):
        for name, run in CONTENDERS.items():
            times[name].append(seconds(lambda run=run: run(q, k, shape.frames), args.device))
    memory = {n: extra_bytes(lambda run=run: run(q, k, shape.frames), args.device) for n, run in CONTENDERS.items()}
    attention, authors = attention_seconds(q, k, v, shape, args), "authors' formula"
    return [
        {
            "contender": name,
            "seconds": statistics.median(times[name]),
            "to_authors": statistics.median(times[name]) / statistics.median(times[authors]),
            "to_attention": statistics.median(times[name]) / attention,
            "bytes": memory[name],
            "bytes_to_authors": memory[name] / memory[authors],
            "attention": attention,
        }
        for name in CONTENDERS
    ]


def attention_seconds(q: Tensor, k: Tensor, v: Tensor, shape: Shape, args: argparse.Namespace) -> float:
    """The layer's own attention; with --families that of one head, times the heads."""
    times = 1
    if shape.temporal:  # (1, H, T·S, D) -> (S, H, T, D)
        q, k, v = (x.unflatten(2, (shape.frames, -1))[0].permute(2, 0, 1, 3).contiguous() for x in (q, k, v))
    elif args.families:
        (q, k, v), times = (x[:, :1] for x in (q, k, v)), shape.heads
    runs = [seconds(lambda: F.scaled_dot_product_attention(q, k, v), args.device) for _ in range(args.attention_runs)]
    return times * statistics.median(runs)


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if (info.exists())
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def report(args: argparse.Namespace) -> str:
    lines = [
        f"{machine(args.device)}, {args.device}, torch {torch.__version__}, {torch.get_num_threads()} thread(s); "
        f"{args.layout}-major storage; "
        f"median of {args.repeats} interleaved repeats, attention: median of {args.attention_runs}",
        "",
        "| layer | dtype | attention | | time | of authors' | of attention | extra memory | of authors' |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shapes = FAMILIES if args.families else WAN[:1] if args.quick else WAN
    for shape in shapes:
        for name in ("bf16",) if args.families else DTYPES:
            for row in measure(shape, DTYPES[name], args):
                lines.append(
                    f"| {shape.name} | {name} | {row['attention']:.3f} s | {row['contender']} "
                    f"| {row['seconds'] * 1e3:.2f} ms | {row['to_authors']:.3f} | {row['to_attention']:.2%} "
                    f"| {row['bytes'] / 2**20:.1f} MiB | {row['bytes_to_authors']:.3f} |"
                )
                print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="390 sites only, attention run once")
    parser.add_argument("--families", action="store_true", help="the layer shapes of the published models, bf16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--layout", default="token", choices=["token", "head"], help="how q and k lie in memory")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    args.attention_runs = 20 if args.device == "cuda" else 1 if args.quick or args.families else 2
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        table = report(args)
    print("\n" + table)
    if args.out:
        args.out.write_text(table + "\n")


if __name__ == "__main__":
    main()
