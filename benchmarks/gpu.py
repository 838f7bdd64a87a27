"""Times the ways to compute odds on one CUDA card, beside the layer's own attention, kernel by kernel.

    python benchmarks/gpu.py --out gpu.json [--seconds 80] [--backends flash cudnn] [--only "Wan 1.3B"]
    python benchmarks/gpu.py --device cpu --out cpu.json          # tiny shapes, to try the script itself

Random q, k and v in bf16 at the layer shapes of published models; torch is all it needs. With l the log-sum-exp of a
query's logits, log(kappa) added to the logits of all other frames is

    odds = lerp(own, others, sigmoid(l_others - l_own + log kappa))       (docs/reference/method.md)

where "own" are the keys of the query's frame and of the text. The ways:

    whole + own       the layer's own call and T short ones; others follow from both log-sum-exps. 1/T more products
    own + others      two calls with as many products as the plain one: keys and values are written twice in a row, and
                      the others of frame f are the (T-1)*S tokens behind it, an overlapping view of that
    own + others, by heads    the same in four groups of heads, for a quarter of the copies' memory
    site mass         the mass of a token from its own place in all frames; what the package does without log-sum-exps
    flex              log(kappa) added inside the kernel: flex_attention with a score modification, compiled
    compiled          whole + own and own + others, traced by torch.compile: the pointwise work in one kernel

All ways of one kernel take turns; times are medians of CUDA events, memory is the peak beyond the inputs, the output
included, and the error is that of 96 queries against a softmax with raised logits in fp32, as a share of its rms. What
cannot run is a line with the reason. Where --seconds are over the rest is left out and counted.
"""

import argparse
import importlib.util
import itertools
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

KAPPA = 2.0
ROWS = 96  # queries whose error is measured
ROUNDS, ROUND_SECONDS = 12, 0.8  # of each kernel's ways in turn: so many, or so long
OWN_OTHERS = "own + others"


@dataclass(frozen=True)
class Shape:
    """One attention layer: `frames` latent frames of `sites` tokens, and text tokens behind them."""

    name: str
    heads: int
    head_dim: int
    frames: int
    sites: int
    text: int = 0

    @property
    def length(self) -> int:
        return self.frames * self.sites + self.text


SHAPES = (  # the most important ones first, as the time may not last for all
    Shape("Wan 1.3B, 480p", 12, 128, 21, 1560),
    Shape("CogVideoX 5B", 48, 64, 13, 1350, 226),
    Shape("Wan 1.3B, 240p", 12, 128, 21, 390),
    Shape("Wan 1.3B, 240p, 33 frames", 12, 128, 9, 390),
    Shape("HunyuanVideo, 544p, 61 frames", 24, 128, 16, 2040, 256),
    Shape("LTX-Video 2B", 32, 64, 21, 330),
    Shape("Wan 14B, 480p", 40, 128, 21, 1560),
)
TINY = (
    Shape("tiny", 4, 64, 5, 48),
    Shape("tiny with text", 4, 32, 3, 40, 13),
)

Pair = tuple[Tensor, Tensor]  # output (B, H, L, D), log-sum-exp (B, H, L) fp32
Kernel = Callable[[Tensor, Tensor, Tensor], Pair]


# ------------------------------------------------------------------------------------ kernels with a log-sum-exp
def flash(q: Tensor, k: Tensor, v: Tensor) -> Pair:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False)
    return out, lse


def efficient(q: Tensor, k: Tensor, v: Tensor) -> Pair:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, False)
    return out, lse[..., : q.shape[2]]  # its rows are padded to a multiple of 32


def cudnn(q: Tensor, k: Tensor, v: Tensor) -> Pair:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, False, False)
    return out, lse.squeeze(-1) if lse.ndim == 4 else lse


def cpu_flash(q: Tensor, k: Tensor, v: Tensor) -> Pair:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)


def plain(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """scaled_dot_product_attention, held to one kernel."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    chosen = {
        "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION, "cpu": SDPBackend.FLASH_ATTENTION,
    }[name]  # fmt: skip

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(chosen):
            return F.scaled_dot_product_attention(q, k, v)

    return run


KERNELS: dict[str, Kernel] = {"flash": flash, "efficient": efficient, "cudnn": cudnn, "cpu": cpu_flash}


# -------------------------------------------------------------------------------------------------------- ways
def frames_of(x: Tensor, shape: Shape) -> Tensor:
    """The video of (1, H, L, D) as T sequences of S tokens, (T, H, S, D): a view."""
    video = x[:, :, : shape.frames * shape.sites]
    return video.unflatten(2, (shape.frames, shape.sites)).transpose(1, 2).flatten(0, 1)


def in_line(x: Tensor) -> Tensor:
    """(T, H, S, D) -> (1, H, T*S, D)."""
    return x.unflatten(0, (1, -1)).transpose(1, 2).flatten(2, 3)


def own_call(q: Tensor, k: Tensor, v: Tensor, shape: Shape, kernel: Kernel) -> Pair:
    """Each frame's queries with the keys of their frame and of the text: output (T, H, S, D), log-sum-exp (T, H, S)."""
    query, key, value = (frames_of(x, shape) for x in (q, k, v))
    if shape.text:
        key, value = (
            torch.cat([x, y[:, :, -shape.text :].expand(shape.frames, -1, -1, -1)], 2)
            for x, y in ((key, k), (value, v))
        )
    return kernel(query, key, value)


def behind(x: Tensor, shape: Shape) -> Tensor:
    """The (T-1)*S tokens behind each frame, round and round, (T, H, (T-1)*S, D): an overlapping view of x written twice
    in a row without its last frame."""
    T, S, L = shape.frames, shape.sites, shape.frames * shape.sites
    line = x[:, :, :L].transpose(1, 2)  # (1, L, H, D), as layers store it
    twice = torch.cat([line, line[:, : L - S]], 1)  # (1, (2T-1)*S, H, D)
    _, token, head, one = twice.stride()
    size, stride = (T, x.shape[1], L - S, x.shape[3]), (S * token, head, token, one)
    return twice.as_strided(size, stride, S * token)


def merged(own: Pair, others: Pair) -> Tensor:
    """The odds from both parts, in the layout of own."""
    weight = torch.sigmoid(others[1] - own[1] + math.log(KAPPA))[..., None]
    return torch.lerp(own[0], others[0], weight.to(own[0].dtype))


def whole_and_own(q: Tensor, k: Tensor, v: Tensor, shape: Shape, kernel: Kernel) -> Tensor:
    whole, lse = kernel(q, k, v)
    own, own_lse = own_call(q, k, v, shape, kernel)  # (T, H, S, D), (T, H, S)
    video = frames_of(whole, shape)
    stay = torch.exp(own_lse - frames_of(lse[..., None], shape)[..., 0]).clamp(max=1)  # 1 - m
    excess = (KAPPA - 1) * stay / (KAPPA - (KAPPA - 1) * stay)  # kappa / (1 + (kappa - 1) m), less 1
    weight = -excess[..., None].to(own.dtype)
    if not torch.compiler.is_compiling():
        torch.lerp(video, own, weight, out=video)
        return whole
    video = in_line(torch.lerp(video, own, weight))
    return torch.cat([video, whole[:, :, -shape.text :]], 2) if shape.text else video


def own_and_others(q: Tensor, k: Tensor, v: Tensor, shape: Shape, kernel: Kernel) -> Tensor:
    own = own_call(q, k, v, shape, kernel)
    others = kernel(frames_of(q, shape), behind(k, shape), behind(v, shape))
    video = in_line(merged(own, others))
    if not shape.text:
        return video
    return torch.cat([video, kernel(q[:, :, -shape.text :], k, v)[0]], 2)


def by_heads(q: Tensor, k: Tensor, v: Tensor, shape: Shape, kernel: Kernel) -> Tensor:
    found = q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]).transpose(1, 2)
    for heads in torch.arange(q.shape[1]).chunk(4):
        part = slice(int(heads[0]), int(heads[-1]) + 1)
        found[:, part] = own_and_others(q[:, part], k[:, part], v[:, part], shape, kernel)
    return found


def site_mass(q: Tensor, k: Tensor, v: Tensor, shape: Shape, sdpa: Callable[..., Tensor]) -> Tensor:
    from enhance_a_video.intensity import token_mass

    whole = sdpa(q, k, v)
    video = slice(0, shape.frames * shape.sites)
    mass = token_mass(q[:, :, video], k[:, :, video], shape.frames)  # (1, H, T, S)
    excess = KAPPA / (1 + (KAPPA - 1) * mass) - 1
    own = in_line(own_call(q, k, v, shape, lambda *x: (sdpa(*x), q))[0])
    scaled = torch.addcmul(whole[:, :, video], whole[:, :, video] - own, excess.flatten(2)[..., None].to(own.dtype))
    return torch.cat([scaled, whole[:, :, video.stop :]], 2) if shape.text else scaled


def flex_odds(q: Tensor, k: Tensor, v: Tensor, shape: Shape) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    sites, video, bias = shape.sites, shape.frames * shape.sites, math.log(KAPPA)

    def raised(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = query // sites == key // sites
        if shape.text:
            own = own | (query >= video) | (key >= video)
        return torch.where(own, score, score + bias)

    return flex_attention(q, k, v, score_mod=raised)


# ------------------------------------------------------------------------------------------------- measurements
def written_out(q: Tensor, k: Tensor, v: Tensor, shape: Shape, rows: Tensor, raised: bool) -> Tensor:
    """Attention of some queries in fp32, (1, H, rows, D), with log(kappa) on the logits of other frames."""
    place = torch.arange(shape.length, device=q.device)
    frame = torch.where(place < shape.frames * shape.sites, place // shape.sites, -1)
    foreign = (frame[rows, None] != frame) & (frame >= 0) & (frame[rows, None] >= 0)
    found = []
    for h in range(0, q.shape[1], 8):
        logits = q[:, h : h + 8, rows].float() @ k[:, h : h + 8].float().transpose(-1, -2) * shape.head_dim**-0.5
        if raised:
            logits = logits + foreign * math.log(KAPPA)
        found.append(logits.softmax(-1) @ v[:, h : h + 8].float())
    return torch.cat(found, 1)


class Clock:
    """The time that is left, and how long a function takes on the device."""

    def __init__(self, device: str, seconds: float):
        self.device, self.end = device, time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end

    def round(self, runs: list[Callable[[], object]]) -> list[float]:
        """The milliseconds of each; one wait for all, so that the host is ahead of the device."""
        if self.device == "cpu":
            moments = [time.perf_counter()]
            for run in runs:
                run()
                moments.append(time.perf_counter())
            return [1000 * (after - before) for before, after in itertools.pairwise(moments)]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(runs) + 1)]
        events[0].record()
        for run, event in zip(runs, events[1:], strict=True):
            run()
            event.record()
        torch.cuda.synchronize()
        return [before.elapsed_time(after) for before, after in itertools.pairwise(events)]

    def extra_mib(self, run: Callable[[], object]) -> float | None:
        """Peak memory beyond what is there, the output included."""
        if self.device == "cpu":
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        output = run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        del output
        return (peak - before) / 2**20


@dataclass
class Row:
    """One line of the table; ratio: of the time of the same kernel's plain attention."""

    shape: str
    size: str
    backend: str
    way: str
    ms: float | None = None
    ratio: float | None = None
    extra_mib: float | None = None
    error: float | None = None
    failed: str = ""

    def line(self) -> str:
        if self.failed:
            return f"| {self.shape} | {self.size} | {self.backend} | {self.way} | failed: {self.failed} | | | |"
        memory = "" if self.extra_mib is None else f"{self.extra_mib:.0f}"
        error = "" if self.error is None else f"{self.error:.1e}"
        ratio = "" if self.ratio is None else f"{self.ratio:.3f}"
        return (
            f"| {self.shape} | {self.size} | {self.backend} | {self.way} | {self.ms:.3f} | {ratio} | {memory} "
            f"| {error} |"
        )


@dataclass(frozen=True)
class Contender:
    """A way to compute attention; raised: whether that is with odds, None = only a part of it."""

    way: str
    run: Callable[[], Tensor]
    raised: bool | None


def contenders(shape: Shape, backend: str, q: Tensor, k: Tensor, v: Tensor) -> list[Contender]:
    if backend == "flex":
        odds = torch.compile(flex_odds, dynamic=False)
        return [Contender("flex", lambda: odds(q, k, v, shape), True)]
    kernel, sdpa = KERNELS[backend.removesuffix(", compiled")], plain(backend.removesuffix(", compiled"))
    inputs = (q, k, v, shape, kernel)
    if backend.endswith(", compiled"):
        whole, parts = (torch.compile(f, dynamic=False, fullgraph=True) for f in (whole_and_own, own_and_others))
        return [
            Contender("plain", lambda: sdpa(q, k, v), False),
            Contender("whole + own", lambda: whole(*inputs), True),
            Contender(OWN_OTHERS, lambda: parts(*inputs), True),
        ]
    return [
        Contender("plain", lambda: sdpa(q, k, v), False),
        Contender("plain, with log-sum-exp", lambda: kernel(q, k, v)[0], False),
        Contender("the own call alone", lambda: own_call(*inputs)[0], None),
        Contender(
            "the others' call alone",
            lambda: kernel(frames_of(q, shape), behind(k, shape), behind(v, shape))[0],
            None,
        ),
        Contender("whole + own", lambda: whole_and_own(*inputs), True),
        Contender(OWN_OTHERS, lambda: own_and_others(*inputs), True),
        Contender(f"{OWN_OTHERS}, by heads", lambda: by_heads(*inputs), True),
        Contender("site mass", lambda: site_mass(q, k, v, shape, sdpa), True),
    ]


def measured(shape: Shape, backend: str, device: str, clock: Clock) -> list[Row]:
    """The lines of one shape and kernel."""
    torch.manual_seed(0)
    dtype = torch.bfloat16
    q, k, v = (
        torch.randn(1, shape.length, shape.heads, shape.head_dim, device=device, dtype=dtype).transpose(1, 2)
        for _ in "qkv"
    )
    size = f"{shape.frames} × {shape.sites}{f' + {shape.text}' if shape.text else ''}, {shape.heads} × {shape.head_dim}"
    rows = torch.linspace(0, shape.length - 1, ROWS, device=device).long()
    wanted = {raised: written_out(q, k, v, shape, rows, raised) for raised in (False, True)}
    lines, running = [], list[tuple[Row, Callable[[], Tensor], list[float]]]()
    for contender in contenders(shape, backend, q, k, v):
        row = Row(shape.name, size, backend, contender.way)
        lines.append(row)
        try:  # the first run warms up
            found = contender.run()
            if contender.raised is not None:
                expected = wanted[contender.raised]
                error = (found[:, :, rows].float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
                row.error = error.item()
            del found
            row.extra_mib = clock.extra_mib(contender.run)
            running.append((row, contender.run, []))
        except Exception as error:
            row.failed = f"{type(error).__name__}: {error}".split("\n")[0].replace("|", "/")[:160]
    begin = time.monotonic()
    for _ in range(ROUNDS):
        spent = clock.round([run for _, run, _ in running])
        for (_, _, times), ms in zip(running, spent, strict=True):
            times.append(ms)
        if time.monotonic() - begin > ROUND_SECONDS:
            break
    for row, _, times in running:
        row.ms = statistics.median(times)
        alone = next((other.ms for other in lines if other.way == "plain" and other.ms), None)
        row.ratio = row.ms / alone if alone else None
    return lines


def machine(device: str) -> str:
    if device == "cpu":
        return platform.processor() or platform.machine()
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, sm_{properties.major}{properties.minor}"


def fastest(rows: list[Row]) -> list[str]:
    """A table of each way at its fastest kernel, beside the fastest plain attention of the same layer."""
    lines = ["| layer | way | kernel | ms | of the fastest plain |", "|---|---|---|---|---|"]
    done = [row for row in rows if row.ms is not None and row.error is not None]
    best: dict[tuple[str, str], Row] = {}
    for row in sorted(done, key=lambda row: row.ms or 0.0):
        best.setdefault((row.shape, row.way), row)
    for (shape, way), row in sorted(best.items()):
        alone = best.get((shape, "plain"))
        ratio = f"{row.ms / alone.ms:.3f}" if row.ms and alone and alone.ms else ""
        lines.append(f"| {shape} | {way} | {row.backend} | {row.ms:.3f} | {ratio} |")
    return lines


HEADER = [
    "| layer | frames × sites, heads × size | kernel | way | ms | of plain | extra MiB | error |",
    "|---|---|---|---|---|---|---|---|",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=80.0, help="no new measurement begins after these")
    parser.add_argument("--backends", nargs="+", default=None, help="flash, efficient, cudnn, flex, 'flash, compiled'")
    parser.add_argument("--only", default="", help="shapes whose name has this in it")
    parser.add_argument("--out", type=Path, required=True, help="the rows as JSON")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("No CUDA device: give --device cpu to try the script at tiny shapes.", file=sys.stderr)
        sys.exit(2)
    if importlib.util.find_spec("enhance_a_video") is None:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
    clock = Clock(args.device, args.seconds)
    groups = [["cpu"], ["flex"], ["cpu, compiled"]]
    if args.device == "cuda":  # the most important first, as the time may not last for all
        groups = [["flash", "cudnn"], ["flex"], ["efficient"], ["flash, compiled"]]
    shapes = [s for s in (TINY if args.device == "cpu" else SHAPES) if args.only in s.name]
    work = [(s, b) for group in groups for s in shapes for b in group]
    work = [(s, b) for s, b in work if args.backends is None or b in args.backends]
    print(f"{machine(args.device)}, torch {torch.__version__}\n")
    print("\n".join(HEADER), flush=True)
    rows, left = list[Row](), 0
    with torch.inference_mode():
        for shape, backend in work:
            if clock.over:
                left += 1
                continue
            try:
                found = measured(shape, backend, args.device, clock)
            except Exception as error:  # such as too little memory for the inputs
                found = [Row(shape.name, "", backend, "all", failed=f"{type(error).__name__}: {error}"[:160])]
            for row in found:
                print(row.line(), flush=True)
            rows += found
            data = {"machine": machine(args.device), "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
            args.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")  # after each: nothing is lost
    print("\n" + "\n".join(fastest(rows)))
    if left:
        print(f"\n{left} of {len(work)} measurements were left out: {args.seconds:g} seconds were over.")


if __name__ == "__main__":
    main()
