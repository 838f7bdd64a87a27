"""Measures the method's cost in a whole denoising loop: without and with take turns (A B A B ...), a ratio each pair.

    python benchmarks/end_to_end.py [--subject embedded|wan] [--pairs 10] [--threads 2] [--out table.md]

Two subjects: the embedded model's pipeline (20 steps, guidance, decoding), and the denoising loop of a Wan transformer
of the 1.3B's shape with 2 of its 30 layers and random weights at 480p, 21 latent frames (32,760 tokens; on a CPU about
a minute and a half a step). Memory is the peak that the allocator hands out beyond what was there before the run.

A loop's time varies by a percent or more from run to run, more than the method costs at full size. So its own work is
also timed directly, inside the enhanced runs: measuring query and key, the gain, the scaling ("its own work").
On an accelerator that column is host time only.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from overhead import extra_bytes, machine

from enhance_a_video import enhance
from enhance_a_video.attention import subclasses
from enhance_a_video.generation import pipelines
from enhance_a_video.lab.stats import interval

PROMPT = "A red ball bounces up and down while a striped blue star moves to the left over a green meadow."


def embedded(device: str) -> tuple[object, Callable[[], object]]:
    """The whole pipeline, as `generate` runs it."""
    pipe = pipelines.load("embedded", device=device, dtype="float32")
    return pipe, lambda: pipelines.generate(pipe, PROMPT, seed=0)


def wan(device: str, layers: int = 2, steps: int = 1) -> tuple[object, Callable[[], object]]:
    """Denoising steps of a Wan-1.3B-shaped transformer at 832 x 480, 81 frames; no text encoder, no decoding."""
    torch.manual_seed(0)
    model = WanTransformer3DModel(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=layers)
    model = model.eval().requires_grad_(False).to(device, torch.bfloat16)
    text = torch.randn(1, 512, 4096, device=device).bfloat16()
    start = torch.randn(1, 16, 21, 60, 104, device=device).bfloat16()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)

    @torch.no_grad()
    def denoise() -> torch.Tensor:
        scheduler.set_timesteps(steps, device=device)
        latents = start
        for t in scheduler.timesteps:
            velocity = model(latents, t.expand(1), text, return_dict=False)[0]
            latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
        return latents

    return model, denoise


SUBJECTS = {
    "embedded": ("the embedded model: 20 steps with guidance, decoding", embedded, 12),
    "wan": ("Wan-1.3B's shape, 2 of 30 layers, 480p, 21 latent frames, bf16: a step", wan, 4),
}


def seconds(run: Callable[[], object], device: str) -> float:
    begin = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


class Timed:
    """A function whose calls are added up."""

    def __init__(self, function: Callable[..., object]):
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: object, **kwargs: object) -> object:
        begin = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - begin


def measure(name: str, args: argparse.Namespace) -> str:
    """One line of the table."""
    label, make, pairs = SUBJECTS[name]
    target, run = make(args.device)
    times: list[tuple[float, float]] = []
    own: list[float] = []  # share of the enhanced run
    scaled = subclasses.scaled = Timed(subclasses.scaled)
    for number in range(1 + (args.pairs or pairs)):  # the first pair warms up
        plain = seconds(run, args.device)
        scaled.seconds = 0.0
        with enhance(target) as handle:
            enhanced = seconds(run, args.device)
        own.append((handle.summary().seconds + scaled.seconds) / plain)
        times.append((plain, enhanced))
        print(f"{name}: pair {number}: {plain:.3f} s, {enhanced:.3f} s, its own work {own[-1]:.3%}", flush=True)
    ratios = [enhanced / plain for plain, enhanced in times[1:]]
    low, high = interval(ratios)
    subclasses.scaled = scaled.function
    memory = extra_bytes(run, args.device)
    with enhance(target):
        more = extra_bytes(run, args.device)
    plain = sorted(t for t, _ in times[1:])[len(ratios) // 2]
    return (
        f"| {label} | {plain:.2f} s | {sum(ratios) / len(ratios):.4f} ({low:.4f} … {high:.4f}) "
        f"| {sum(own[1:]) / len(ratios):.3%} | {len(ratios)} "
        f"| {memory / 2**20:.0f} MiB | {more / memory - 1:+.2%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", choices=SUBJECTS, action="append", help="default: both")
    parser.add_argument("--pairs", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    lines = [
        f"{machine(args.device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.device}",
        "",
        "| loop | without | with / without (95 %) | its own work | pairs | peak memory | more with |",
        "|---|---|---|---|---|---|---|",
        *(measure(name, args) for name in args.subject or SUBJECTS),
    ]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
