"""The paper's analyses on a model: attention maps, mass and gain, and the attention's share of the stream, by layer and
step, without and with the method.

    python benchmarks/anatomy.py --out anatomy                                       # the embedded model
    python benchmarks/anatomy.py --model FOLDER --clips 32 --out anatomy
    python benchmarks/anatomy.py --setting '{"temperature": 4, "start": 0, "end": 1}' --out anatomy

Into --out go maps.png (temporal attention maps, as the paper's figures 3, 5 and 13), layers.png (mass, gain and share
by layer and step, as its figure 14) and anatomy.md (every number). Each clip is generated twice from the same noise;
all numbers are means over prompts, samples of the batch (guidance) and heads.

The maps and masses of layer n are those of the video that runs there: with the method on, layer n's input has been
changed by the layers and steps before it. The gain without is what the setting would apply, all the way. Of an
alternative (docs/guide/study.md) the maps are those before its change, its "gain" is the number it works with, and
the gain without is that of the default setting.

The share is rms(what the self-attention adds to the stream) / rms(the stream before), gate and gain included, video
tokens only (the paper's eq. 11 and 12; it does not state whether its O has the gate in it). It is measured in the real
blocks, see SHARES; for a block class that is not there, the share is left out, which the report mentions.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from enhance_a_video.alternatives import Change, alternative_from_dict
from enhance_a_video.enhancement import Enhancement
from enhance_a_video.generation import pipelines
from enhance_a_video.generation.requests import read_prompts
from enhance_a_video.lab.study.definition import held_out_prompt
from enhance_a_video.models import attention_modules, denoisers, row_of
from enhance_a_video.record import Summary
from enhance_a_video.settings import Settings

MAP_LAYERS, MAP_STEPS = 8, 4  # at most so many are drawn, spread evenly
QUANTITIES = {
    "mass": "cross-frame mass",
    "gain": "gain (1: unchanged)",
    "share": "attention's share of the stream",
}

# ----------------------------------------------------------------------------------- the share of the residual stream
Share = Callable[[nn.Module, nn.Module, ExitStack, Callable[[Tensor, Tensor], None]], None]
"""(block, its attention, where hooks are undone, a function of (added, stream before)): hangs hooks into the block."""


def _by_difference(after: str) -> Share:
    """The stream behind the attention is what the module `after` gets: no gate has to be found."""

    def hang(
        block: nn.Module, attention: nn.Module, hooks: ExitStack, record: Callable[[Tensor, Tensor], None]
    ) -> None:
        before: list[Tensor] = []

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            before.append(_stream(args, kwargs))

        def behind(module: nn.Module, args: Any, kwargs: Any) -> None:
            stream = before.pop()
            record(_stream(args, kwargs).float() - stream.float(), stream)

        for module, hook in ((block, enter), (block.get_submodule(after), behind)):
            hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    return hang


def _by_gate(norm: str, gate: int, projection: str = "") -> Share:
    """What the attention puts out times the gate, the norm's output number `gate`. projection: a linear layer behind
    the attention, of which the first inputs are the attention's; its bias belongs to nobody and is left out."""

    def hang(
        block: nn.Module, attention: nn.Module, hooks: ExitStack, record: Callable[[Tensor, Tensor], None]
    ) -> None:
        found: dict[str, Tensor] = {}

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            found["stream"] = _stream(args, kwargs)

        def normed(module: nn.Module, args: Any, output: Any) -> None:
            found["gate"] = output[gate] if output[gate].ndim == 3 else output[gate][:, None]  # (B, 1, C)

        def attended(module: nn.Module, args: Any, output: Any) -> None:
            added = output[0] if isinstance(output, tuple) else output  # (B, L, C)
            if projection:
                linear: Any = block.get_submodule(projection)
                added = F.linear(added, linear.weight[:, : added.shape[-1]])
            record(found["gate"] * added, found["stream"])

        hooks.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        hooks.callback(block.get_submodule(norm).register_forward_hook(normed).remove)
        hooks.callback(attention.register_forward_hook(attended).remove)

    return hang


SHARES: dict[str, Share] = {
    "WanTransformerBlock": _by_difference("norm2"),
    "BasicTransformerBlock": _by_difference("norm2"),  # Latte's temporal one, which has no cross-attention
    "CogVideoXBlock": _by_gate("norm1", 2),
    "HunyuanVideoTransformerBlock": _by_gate("norm1", 1),
    "HunyuanVideoSingleTransformerBlock": _by_gate("norm", 1, "proj_out"),
    "MotifVideoTransformerBlock": _by_gate("norm1", 1),
    "MotifVideoSingleTransformerBlock": _by_gate("norm", 1, "proj_out"),
}


def _stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    stream = args[0] if args else kwargs["hidden_states"]
    assert isinstance(stream, Tensor)
    return stream.detach()


@contextmanager
def shares_of(model: nn.Module) -> Iterator[dict[str, list[float]]]:
    """While it lasts: attention's name -> its share of the stream in each run of it. Layers in no block of SHARES lack.

    Waits for the device at every layer.
    """
    found: dict[str, list[float]] = {}
    with ExitStack() as hooks:
        for name, (attention, _) in attention_modules(model, row_of(model).self_attention).items():
            block = model.get_submodule(name.rpartition(".")[0])
            hang = SHARES.get(type(block).__name__)
            if hang is not None:
                hang(block, attention, hooks, _teller(found.setdefault(name, [])))
        yield found


def _teller(shares: list[float]) -> Callable[[Tensor, Tensor], None]:
    def record(added: Tensor, stream: Tensor) -> None:
        shares.append(float(added.float().pow(2).mean().sqrt() / stream.float().pow(2).mean().sqrt()))

    return record


# ---------------------------------------------------------------------------------------------------- one model


@dataclass(frozen=True)
class Anatomy:
    """Means over prompts; the first axis is steps. NaN where a layer did not run or a share is not measured."""

    layers: list[str]
    progress: np.ndarray  # (steps,) 0 = pure noise
    values: dict[str, np.ndarray]  # quantity of QUANTITIES -> (steps, layers)
    maps: np.ndarray  # (steps, layers, T, T)


def anatomy(pipe: Any, clips: Sequence[tuple[str, int]], change: Change, **options: Any) -> Anatomy:
    """The maps and masses while these (prompt, seed) are generated; options of `pipelines.generate`.

    Raises SystemExit when not all clips have the same frames and steps.
    """
    models = denoisers(pipe)
    found = defaultdict(list)
    for prompt, seed in track(clips, type(change).__name__, console=Console(stderr=True)):
        with ExitStack() as stack:
            shares = {name: stack.enter_context(shares_of(model)) for name, model in models.items()}
            handle = stack.enter_context(Enhancement(pipe, change))
            pipelines.generate(pipe, prompt, seed=seed, **options)
        one = _steps(handle.summary(), shares)
        for name, value in vars(one).items():
            found[name].append(value)
    if len({maps.shape for maps in found["maps"]}) > 1:
        raise SystemExit("The clips differ in frames or steps: give --frames and --steps.")
    values = {name: _mean([value[name] for value in found["values"]]) for name in QUANTITIES}
    return Anatomy(found["layers"][0], found["progress"][0], values, _mean(found["maps"]))


def _steps(summary: Summary, shares: dict[str, dict[str, list[float]]]) -> Anatomy:
    """One clip's record, its forward calls gathered to steps: those at the same progress are one."""
    share = np.full_like(summary.mass, np.nan)
    for model, found in shares.items():
        prefix = f"{model}." if len(shares) > 1 else ""
        for name, values in found.items():
            column = summary.layers.index(prefix + name)
            ran = np.flatnonzero(~np.isnan(summary.mass[:, column]))
            share[ran, column] = values
    assert summary.attention_maps is not None
    per_call = {"mass": summary.mass, "gain": summary.gain, "share": share}
    progress, step = np.unique(summary.progress.round(5), return_inverse=True)
    gathered = {
        name: np.stack([_mean(list(value[step == n])) for n in range(len(progress))])
        for name, value in {**per_call, "maps": summary.attention_maps}.items()
    }
    return Anatomy(summary.layers, progress, {name: gathered[name] for name in QUANTITIES}, gathered["maps"])


def _mean(arrays: list[np.ndarray]) -> np.ndarray:
    """Mean over the list, of what is not NaN."""
    stacked = np.stack(arrays).astype(np.float64)
    count = (~np.isnan(stacked)).sum(0)
    return np.where(count > 0, np.nansum(stacked, 0) / np.maximum(count, 1), np.nan)


# ---------------------------------------------------------------------------------------------------- pictures


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def _spread(count: int, most: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def short(layers: Sequence[str]) -> list[str]:
    """Names without what is the same in all: 'blocks.3.attn1' -> '3', of a single block 'single 3'."""
    numbers = [next((part for part in name.split(".") if part.isdigit()), name) for name in layers]
    kinds = [name.split(".")[-3] if name.count(".") >= 2 else "" for name in layers]
    return [f"single {n}" if kind.startswith("single") else n for n, kind in zip(numbers, kinds, strict=True)]


def draw_maps(plain: Anatomy, changed: Anatomy, path: Path, title: str) -> None:
    """Layers x (steps without, steps with, steps' difference)."""
    layers, steps = _spread(len(plain.layers), MAP_LAYERS), _spread(len(plain.progress), MAP_STEPS)
    labels = short(plain.layers)
    high = max(np.nanmax(a.maps[np.ix_(steps, layers)]) for a in (plain, changed))
    difference = changed.maps - plain.maps
    far = max(float(np.nanmax(np.abs(difference[np.ix_(steps, layers)]))), 1e-6)
    figure = _figure(1.5 + 3 * (0.95 * len(steps) + 0.45), 1.6 + 0.98 * len(layers))
    figure.suptitle(title, fontsize=11)
    parts = figure.subfigures(1, 3, wspace=0.02)
    for part, name, maps, kind in (
        (parts[0], "without", plain.maps, {"vmin": 0, "vmax": high, "cmap": "viridis"}),
        (parts[1], "with", changed.maps, {"vmin": 0, "vmax": high, "cmap": "viridis"}),
        (parts[2], "with − without", difference, {"vmin": -far, "vmax": far, "cmap": "RdBu"}),
    ):
        part.suptitle(name, fontsize=11)
        every = part.subplots(len(layers), len(steps), squeeze=False)
        for row, layer in enumerate(layers):
            for column, step in enumerate(steps):
                axes = every[row][column]
                image = axes.imshow(maps[step, layer], interpolation="nearest", **kind)
                axes.set(xticks=[], yticks=[])
                if row == 0:
                    axes.set_title(f"step {step + 1}", fontsize=9)
                if column == 0:
                    axes.set_ylabel(labels[layer], fontsize=9)
        bar = part.colorbar(image, ax=every, orientation="horizontal", fraction=0.05, pad=0.02, aspect=30)
        bar.ax.tick_params(labelsize=8)
    parts[0].supylabel("layer; in a map, row: frame of the query, column: frame of the key", fontsize=9)
    figure.savefig(path)


def draw_layers(plain: Anatomy, changed: Anatomy, path: Path, title: str) -> None:
    """Quantities x (without, with): layers over steps. The gain without is what would have been applied."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import LogLocator, NullLocator

    shown = [name for name in QUANTITIES if np.isfinite(changed.values[name]).any()]
    count, steps = len(plain.layers), len(plain.progress)
    figure = _figure(2 + max(8.0, 0.5 * steps), 0.9 + len(shown) * (1.0 + 0.28 * min(count, 24)))
    figure.suptitle(title, fontsize=11)
    every = figure.subplots(len(shown), 2, squeeze=False, sharex=True, sharey=True)
    labels = short(plain.layers)
    ticks = _spread(count, 16)
    for row, name in enumerate(shown):
        pair = [plain.values[name], changed.values[name]]
        low, high = float(np.nanmin(pair)), float(np.nanmax(pair))
        for column, (value, how) in enumerate(zip(pair, ("without", "with"), strict=True)):
            axes = every[row][column]
            image = axes.imshow(
                value.T, aspect="auto", interpolation="nearest", cmap="magma" if name == "gain" else "viridis",
                norm=(LogNorm if name == "share" and low > 0 else Normalize)(low, high),
                extent=(0.5, steps + 0.5, count - 0.5, -0.5),
            )  # fmt: skip
            would = ", were it applied" if name == "gain" and how == "without" else ""
            axes.set_title(f"{QUANTITIES[name]}, {how}{would}", fontsize=10)
            axes.set_yticks(ticks, [labels[n] for n in ticks], fontsize=8)
            axes.set_xticks([n + 1 for n in _spread(steps, 10)])
            axes.tick_params(axis="x", labelsize=8)
            if column == 0:
                axes.set_ylabel("layer", fontsize=9)
            if row == len(shown) - 1:
                axes.set_xlabel("step (1: pure noise)", fontsize=9)
        bar = figure.colorbar(image, ax=list(every[row]), fraction=0.03, pad=0.01)
        bar.ax.tick_params(labelsize=8)
        if isinstance(image.norm, LogNorm):
            bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            bar.ax.yaxis.set_major_formatter("{x:g}")
            bar.ax.yaxis.set_minor_locator(NullLocator())
    figure.savefig(path)


# ------------------------------------------------------------------------------------------------------ numbers


def table(plain: Anatomy, changed: Anatomy, about: str) -> str:
    """All numbers as Markdown: for each quantity the steps without and with, a column for each layer."""
    lines = ["# Anatomy", "", about, ""]
    labels = short(plain.layers)
    for name, title in QUANTITIES.items():
        lines += [f"## {title[0].upper()}{title[1:]}", ""]
        if not np.isfinite(plain.values[name]).any():
            lines += ["Not measured: these blocks are not among those of the benchmark (SHARES).", ""]
            continue
        lines += [f"| step | progress | | {' | '.join(f'layer {n}' for n in labels)} | mean |"]
        lines += ["|---|---|---|" + "---|" * (len(labels) + 1)]
        for how, one in (("without", plain), ("with", changed)):
            value = one.values[name]
            for step, progress in enumerate(one.progress):
                lines.append(_row(f"| {step + 1} | {progress:.2f} | {how}", [*value[step], np.nanmean(value[step])]))
            lines.append(_row(f"| all | | {how}", [*np.nanmean(value, 0), np.nanmean(value)]))
        lines.append("")
    lines += ["## Share of attention that a frame keeps to itself, and the largest change of an entry of the map", ""]
    lines += [f"| | {' | '.join(f'layer {n}' for n in labels)} |", "|---|" + "---|" * len(labels)]
    for how, one in (("diagonal without", plain), ("diagonal with", changed)):
        lines.append(_row(f"| {how}", list(np.nanmean(one.maps.diagonal(axis1=2, axis2=3), (0, 2)))))
    lines.append(_row("| largest change", list(np.nanmax(np.abs(changed.maps - plain.maps), (0, 2, 3)))))
    return "\n".join(lines) + "\n"


def _row(start: str, values: Sequence[float]) -> str:
    return start + " | " + " | ".join("–" if np.isnan(value) else f"{value:.3f}" for value in values) + " |"


# ------------------------------------------------------------------------------------------------------- command


def setting_of(text: str) -> Change:
    data = json.loads(text)
    change = alternative_from_dict(data) if "alternative" in data else Settings.from_dict(data)
    return replace(change, attention_maps=True)


_LOOKS = ("attention_maps", "observe_only", "sites", "per_sample")  # not worth a word in a title


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=pipelines.EMBEDDED, help="folder or hub id; default: the embedded model")
    parser.add_argument("--clips", type=int, default=16, help="so many held-out scenes of the embedded world")
    parser.add_argument("--first", type=int, default=0, help="from this held-out scene on")
    parser.add_argument("--prompts", type=Path, default=None, help="a file of prompts instead")
    parser.add_argument("--setting", default="{}", help="what 'with' means, as in a study's file, as JSON")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--frames", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    args = parser.parse_args(words)
    changed_by = setting_of(args.setting)
    pipelines.quiet()
    pipe = pipelines.load(args.model, device=args.device)
    if args.prompts:
        clips = [(prompt.text, n) for n, prompt in enumerate(read_prompts(args.prompts)[: args.clips])]
    else:
        clips = [(held_out_prompt(n), n) for n in range(args.first, args.first + args.clips)]
    options = {name: getattr(args, name) for name in ("steps", "frames") if getattr(args, name)}
    watched = changed_by if isinstance(changed_by, Settings) else Settings(attention_maps=True)
    watch = replace(watched, observe_only=True, start=0.0, end=1.0)
    plain = anatomy(pipe, clips, watch, **options)
    changed = anatomy(pipe, clips, changed_by, **options)
    name = args.model if args.model == pipelines.EMBEDDED else Path(args.model).name
    setting = {k: v for k, v in changed_by.to_dict().items() if v is not None and k not in _LOOKS}
    frames = plain.maps.shape[-1]
    about = f"{name}, {len(clips)} prompts, {len(plain.progress)} steps, {frames} latent frames"
    about += f"; with: {json.dumps(setting)}"
    args.out.mkdir(parents=True, exist_ok=True)
    draw_maps(plain, changed, args.out / "maps.png", f"Temporal attention maps: {about}")
    draw_layers(plain, changed, args.out / "layers.png", about)
    (args.out / "anatomy.md").write_text(table(plain, changed, about), encoding="utf-8")
    print(f"{args.out}: maps.png, layers.png, anatomy.md")


if __name__ == "__main__":
    main()
