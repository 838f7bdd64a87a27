"""The record of an enhancement, by layer and forward call: tensors while it runs, `Summary` afterwards.

While the model runs nothing leaves the device: every number goes into preallocated tensors by index, which also
traces under torch.compile. summary() is what moves them to the host.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .wording import count

CAPACITY = 4096  # forward calls kept; older ones are overwritten, and the summary counts them
MAPS_CAPACITY = 256  # the same for attention maps, which are T*T each

_PROGRESS, _ACTIVE, _FRAMES = range(3)
_MASS, _GAIN, _CLIPPED = range(3)


class Recorder:
    """The record of one transformer. Rows are forward calls in a ring, columns are layers."""

    def __init__(self, layers: int, device: torch.device, maps: bool):
        self.layers, self.keeps_maps = layers, maps
        self.maps: Tensor | None = None
        self.source = "not run"
        self.compiled = False
        self.seconds = 0.0
        with torch.inference_mode(False):
            self.count = torch.zeros((), dtype=torch.int64, device=device)
            self.calls = torch.full((CAPACITY, 3), math.nan, device=device)
            self.values = torch.full((CAPACITY, layers, 3), math.nan, device=device)

    def to(self, device: torch.device) -> None:
        """Move to the device the model runs on now."""
        self.count, self.calls, self.values = (x.to(device) for x in (self.count, self.calls, self.values))
        self.maps = None if self.maps is None else self.maps.to(device)

    def begin(self, progress: Tensor, active: Tensor, num_frames: int) -> Tensor:
        """Open the row of one forward call; returns its number, (1,)."""
        row = (self.count % CAPACITY).reshape(1)
        frames = torch.full_like(progress, float(num_frames))
        self.calls.index_copy_(0, row, torch.stack([progress, active.float(), frames])[None])
        self.values.index_fill_(0, row, math.nan)
        if self.keeps_maps:
            self._map_rows(num_frames).index_fill_(0, row % MAPS_CAPACITY, math.nan)
        self.count.add_(1)
        return row

    def layer(self, row: Tensor, index: Tensor, mass: Tensor, gain: Tensor, clipped: Tensor) -> None:
        """One layer's numbers in that row: means over the batch of mass (B,), gain (B,), clipped sites (B, n)."""
        values = torch.stack([mass.mean(), gain.mean(), clipped.float().mean()])
        self.values.index_put_((row, index.reshape(1)), values[None].to(self.values.device))

    def layer_map(self, row: Tensor, index: Tensor, attention_map: Tensor) -> None:
        """One layer's temporal attention map (B, T, T), averaged over the batch."""
        assert self.maps is not None
        mean = attention_map.mean(0, keepdim=True).to(self.maps.device)  # (1, T, T)
        self.maps.index_put_((row % MAPS_CAPACITY, index.reshape(1)), mean)

    def _map_rows(self, num_frames: int) -> Tensor:
        """(MAPS_CAPACITY, layers, T, T); a new frame count starts anew."""
        if self.maps is None or self.maps.shape[-1] != num_frames:
            self.maps = self.values.new_full((MAPS_CAPACITY, self.layers, num_frames, num_frames), math.nan)
        return self.maps

    def read(self) -> dict[str, Any]:
        """Host copies, oldest call first. This is the one place that waits for the device."""
        total = int(self.count)
        rows = np.arange(max(0, total - CAPACITY), total)
        calls, values = self.calls.cpu().numpy()[rows % CAPACITY], self.values.cpu().numpy()[rows % CAPACITY]
        maps = None
        if self.maps is not None:
            kept = self.maps.cpu().numpy()
            maps = np.full((len(rows), *kept.shape[1:]), math.nan, dtype=np.float32)
            recent = rows[-MAPS_CAPACITY:]
            maps[len(rows) - len(recent) :] = kept[recent % MAPS_CAPACITY]
        return {"total": total, "calls": calls, "values": values, "maps": maps}


@dataclass(frozen=True)
class Summary:
    """What an enhancement did. Arrays are (calls,), (calls, layers) or (calls, layers, T, T); NaN = not run there.

    mass and gain are means over the batch; gain is what was applied (with observe_only: what would have been);
    clipped is the share of sampled sites whose own gain clips at 1. With several transformers the calls of the first
    come first, and `model` is the index of each call's. seconds: host time spent in this package's code; it leaves out
    what a GPU computes later, and is NaN once torch.compile has folded that code into its graphs.
    """

    settings: dict[str, Any]
    models: list[str]
    layers: list[str]
    progress_source: str
    model: np.ndarray  # (calls,) index into models
    progress: np.ndarray  # (calls,)
    active: np.ndarray  # (calls,) bool
    num_frames: np.ndarray  # (calls,)
    mass: np.ndarray  # (calls, layers)
    gain: np.ndarray
    clipped: np.ndarray
    seconds: float
    calls_made: int  # more than len(progress) when the oldest were dropped
    attention_maps: np.ndarray | None = None  # (calls, layers, T, T)
    scaled_whole: dict[str, str] = field(default_factory=dict)  # layers in which odds could not act -> why
    operators: dict[str, str] = field(default_factory=dict)  # layer -> the operator that acted in it, by its JSON name
    fallbacks: dict[str, str] = field(default_factory=dict)  # layers in which another operator stood in -> why
    undone: bool = False  # whether a norm behind the layers takes every gain back (probe.py)
    not_finite: int = 0  # calls of a policy of your own that returned NaN or infinity

    @classmethod
    def of(
        cls, settings: dict[str, Any], recorded: dict[str, tuple[list[str], Recorder]],
        acted: Sequence[dict[str, tuple[str, str]]] = (), undone: bool = False,
    ) -> "Summary":  # fmt: skip
        """From the recorders of each model: name -> (its layer names, its recorder).

        acted: of each model, layer -> (its operator's name, why that stands in for another, or "").
        """
        reads = [recorder.read() for _, recorder in recorded.values()]
        names = [names for names, _ in recorded.values()]
        recorders = [recorder for _, recorder in recorded.values()]
        calls = np.concatenate([r["calls"] for r in reads])
        values = _block_diagonal([r["values"] for r in reads])
        maps = [r["maps"] for r in reads]
        same_frames = all(m is not None for m in maps) and len({m.shape[-1] for m in maps}) == 1
        prefix = [f"{model}." if len(recorded) > 1 else "" for model in recorded]
        layers = {p + n: both for p, each in zip(prefix, acted, strict=False) for n, both in each.items()}
        sources = sorted({r.source for r in recorders} - {"not run"}) or ["not run"]
        return cls(
            settings=settings,
            models=list(recorded),
            layers=[p + n for p, layer_names in zip(prefix, names, strict=True) for n in layer_names],
            progress_source=", ".join(sources),
            model=np.repeat(np.arange(len(reads)), [len(r["calls"]) for r in reads]),
            progress=calls[:, _PROGRESS],
            active=calls[:, _ACTIVE] > 0.5,
            num_frames=calls[:, _FRAMES].astype(int),
            mass=values[..., _MASS],
            gain=values[..., _GAIN],
            clipped=values[..., _CLIPPED],
            seconds=math.nan if any(r.compiled for r in recorders) else sum(r.seconds for r in recorders),
            calls_made=sum(r["total"] for r in reads),
            attention_maps=_block_diagonal(maps) if same_frames else None,
            scaled_whole={n: why for n, (name, why) in layers.items() if why and name == "output"},
            operators={n: name for n, (name, _) in layers.items()},
            fallbacks={n: why for n, (_, why) in layers.items() if why},
            undone=undone,
        )

    @property
    def unreached(self) -> list[str]:
        """Layers that ran in none of the forward calls that there were."""
        if not len(self.progress) or self._one_frame:
            return []
        return [name for i, name in enumerate(self.layers) if np.isnan(self.mass[:, i]).all()]

    @property
    def mass_means(self) -> str:
        """What `mass` is: of the axis of time, or of others."""
        odds = self.settings.get("odds")
        axes = list(odds) if isinstance(odds, Mapping) else [self.settings.get("axis") or "time"]
        return "cross-frame mass" if axes == ["time"] else "share of attention for the others"

    @property
    def _one_frame(self) -> bool:
        """Whether there was one frame in every call, and no axis besides those of frames."""
        return bool((self.num_frames <= 1).all()) and not np.isfinite(self.mass).any()

    @property
    def no_effect(self) -> str:
        """Why nothing was changed in any forward call; "" where something was, or only observing was requested."""
        if self.settings.get("observe_only"):
            return ""
        if not self.calls_made:
            return "no forward call of the model was made"
        if self._one_frame:
            return "every call had one frame only, so there were no other frames to attend to"
        if len(self.unreached) == len(self.layers):
            return "no enhanced layer ran in a forward call"
        if not self.active.any():
            low, high = np.nanmin(self.progress), np.nanmax(self.progress)
            return (
                f"no call was in the window start={self.settings.get('start')}, end={self.settings.get('end')}: "
                f"progress went from {low:.3f} to {high:.3f}, where 0 is pure noise and 1 is clean"
            )
        if self.undone:
            return "a norm behind the layers takes every gain back"
        mass = self.mass[self.active]
        if self.mass_means != "cross-frame mass" and not (mass[~np.isnan(mass)] > 0).any():
            return "there were no others to attend to on this axis"
        gain = self.gain[self.active]
        return "" if (gain[~np.isnan(gain)] != 1.0).any() else "every gain was 1"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: lists instead of arrays, None instead of NaN."""
        out = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: _jsonable(v.tolist() if isinstance(v, np.ndarray) else v) for k, v in out.items()}

    def __str__(self) -> str:
        """A table with one line for each layer, and what was done above it."""
        return "\n".join([*self._headline(), "", *self._table()])

    def _headline(self) -> list[str]:
        kept = len(self.progress)
        gain = ", ".join(f"{k}={v}" for k, v in self.settings.items() if v is not None and k in _KNOBS)
        nothing = [f"acted nowhere: {self.no_effect}"] if self.no_effect else []
        lines = [
            f"Enhance-A-Video on {', '.join(self.models)}: {gain}"
            + (" (observe only: nothing was changed)" if self.settings.get("observe_only") else ""),
            f"{count(self.calls_made, 'forward call')}, active in {int(self.active.sum())} of {kept}"
            + (f" kept (the oldest {self.calls_made - kept} were dropped)" if kept < self.calls_made else ""),
            f"frames {sorted({int(n) for n in self.num_frames})}, progress read from: {self.progress_source}",
        ]
        seconds = (
            "not measured under torch.compile" if math.isnan(self.seconds) else f"{self.seconds:.3f} s on the host"
        )
        for operator, layers in self._stood_in().items():
            lines.append(
                f"{operator} in place of {self.settings.get('scale')}: {count(len(layers), 'layer')} ({layers[0]})"
            )
        if self.scaled_whole:
            why = next(iter(self.scaled_whole.values()))
            lines.append(
                f"scaled as a whole, by the default strength: {count(len(self.scaled_whole), 'layer')} ({why})"
            )
        if self.unreached and not self.no_effect:
            lines.append(
                f"did not run: {len(self.unreached)} of {count(len(self.layers), 'layer')} ({self.unreached[0]}, ...)"
            )
        if self.not_finite:
            lines.append(
                f"the policy returned NaN or infinity in {count(self.not_finite, 'call')}: those gains acted as 1"
            )
        return [*lines, *nothing, f"time in the method: {seconds}"]

    def _stood_in(self) -> dict[str, list[str]]:
        """Operators other than "output" that stood in for another -> why, once for each layer."""
        found: dict[str, list[str]] = {}
        for layer, why in self.fallbacks.items():
            if layer not in self.scaled_whole:
                found.setdefault(self.operators[layer], []).append(why)
        return found

    def _table(self) -> list[str]:
        wide = max([len(n) for n in self.layers] + [5])
        rows = [f"{'layer':{wide}}  {'mass':>6}  {'gain':>6}  {'max':>6}  {'clipped':>7}"]
        for i, name in enumerate(self.layers):
            on = self.active & ~np.isnan(self.gain[:, i])
            if not on.any():
                rows.append(f"{name:{wide}}  {_mean(self.mass[:, i]):>6}  {'-':>6}  {'-':>6}  {'-':>7}")
                continue
            gain, clipped = self.gain[on, i], self.clipped[on, i].mean()
            rows.append(
                f"{name:{wide}}  {_mean(self.mass[:, i]):>6}  {gain.mean():6.3f}  {gain.max():6.3f}  {clipped:7.0%}"
            )
        return rows

    def plot(self, path: str | Path) -> Path:
        """Write mass and gain by layer and forward call as a picture (png, svg, pdf by the name); returns its path."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 6), layout="constrained")
        FigureCanvasAgg(figure)
        top, bottom = figure.subplots(2, 1, sharex=True)
        for axes, data, title, colours in (
            (top, self.gain, "gain applied", "magma"),
            (bottom, self.mass, self.mass_means, "viridis"),
        ):
            image = axes.imshow(data.T, aspect="auto", origin="lower", interpolation="nearest", cmap=colours)
            figure.colorbar(image, ax=axes)
            axes.set(title=title, ylabel="layer")
        bottom.set_xlabel("forward call")
        figure.savefig(path)
        return Path(path)


_KNOBS = ("strength", "temperature", "odds", "policy", "start", "end", "scale", "layers")


def _mean(values: np.ndarray) -> str:
    ran = values[~np.isnan(values)]
    return f"{ran.mean():.3f}" if len(ran) else "-"


def _block_diagonal(blocks: list[Any]) -> np.ndarray:
    """(calls_i, layers_i, ...) of each model -> (sum calls, sum layers, ...), NaN where a layer was not in the call."""
    calls, layers = sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)
    out = np.full((calls, layers, *blocks[0].shape[2:]), math.nan, dtype=np.float32)
    row = column = 0
    for b in blocks:
        out[row : row + b.shape[0], column : column + b.shape[1]] = b
        row, column = row + b.shape[0], column + b.shape[1]
    return out


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
