"""One enhanced transformer: its patched layers, its record, and what is read from each of its forward calls.

Its warnings are in notices.py, the passes of guidance in passes.py.
"""

import inspect
import operator
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from .attention import AttentionPatch, ModelPatch, Rows, calls_of, not_a_frame_of_its_own
from .axes import Axis
from .enhanced_layer import EnhancedLayer, ForwardContext, timed
from .errors import (
    AlreadyEnhancedError,
    SettingsError,
    TokenLayoutError,
    UnsupportedModelError,
)
from .models import Attention, CrossAttention, Model, SelfAttention, attention_modules, chosen, scaled_module
from .notices import Notices
from .operators import Operator
from .passes import Passes
from .policies import DEFAULT_STRENGTH, Strength, needs_progress, with_tensors
from .probe import Probe, first_tensor
from .progress import progress_of
from .record import Recorder

_EDGE = 2e-3  # so near to an edge of the window counts as on it: UniPC's tenth of ten steps is 0.0999 wide


class _InThread(threading.local):
    now: ForwardContext | None = None


class Denoiser:
    """One transformer: its watched layers, its record, and the calls that are open."""

    def __init__(self, name: str, model: Any, row: Model, enhancement: Any, pipeline: Any, described: bool):
        """described: the row is its user's own words in enhance_attention(), which are checked while it runs."""
        self.name, self.model, self.row, self.enhancement = name, model, row, enhancement
        self.settings, self.described = enhancement.settings, described
        self.pipeline = weakref.ref(pipeline) if pipeline is not None else None
        self.latest: ForwardContext | None = None
        self.in_thread = _InThread()
        if calls_of(model) is not None:
            raise AlreadyEnhancedError(
                f"{name} is enhanced already. Call remove() on its handle first; a handle that was not kept is found "
                "by enhance_a_video.enhancement.enhancement_of(target)."
            )
        self.axes = self.settings.axes
        self.kinds = row.attention_with(self.axes)
        modules = attention_modules(model, self.kinds)
        names = chosen(list(modules), self.settings.layers, name)
        depths = {n: i / max(1, len(modules) - 1) for i, n in enumerate(modules)}
        self.device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
        self.columns = [(n, axis) for n in names for axis in self.axes_of(modules[n][1])]  # of the record
        self.layers = [self._layer(n, modules[n][1], depths[n]) for n in names]
        self.attention_patches = [
            AttentionPatch(modules[w.name][0], w, scaled_module(model, w.kind, w.name)) for w in self.layers
        ]
        self.recorder = Recorder(len(self.columns), self.device, self.settings.attention_maps)
        self.policy = with_tensors(self.settings.gain_policy, self.device)
        self.policy_of_whole = with_tensors(Strength(DEFAULT_STRENGTH), self.device)
        self.passes = Passes(self.settings.passes, self.pipeline)
        self.notices = Notices(self)
        self.window = torch.tensor([self.settings.start, self.settings.end], device=self.device)
        self.parameters = parameters_of(model)
        self.gone: set[str] = set()  # layers of which nothing is left in the model, which was reported
        self.probe = Probe(self) if described else None
        self.model_patch = ModelPatch(model, Calls(self))

    def _layer(self, name: str, kind: Attention, depth: float) -> EnhancedLayer:
        columns, axes = [i for i, (layer, _) in enumerate(self.columns) if layer == name], self.axes_of(kind)
        place = self.kinds.index(kind)
        return EnhancedLayer(name, columns, depth, kind, place, axes, self.operator_on(axes), self)

    def axes_of(self, kind: Attention) -> tuple[Axis, ...]:
        """Those of the requested axes that a kind of attention has."""
        return tuple(axis for axis in self.axes if axis.needs in kind.has)

    def operator_on(self, axes: tuple[Axis, ...]) -> Operator:
        """What a gain does in a layer with these axes."""
        return self.enhancement.change.operator_on(axes)

    @property
    def column_names(self) -> list[str]:
        """The layers, with their axes where there are several."""
        return [f"{name} ({axis})" if len(self.axes) > 1 else name for name, axis in self.columns]

    # ------------------------------------------------------------------------------------------ attach and detach
    def attach(self) -> None:
        for patch in self.attention_patches:
            patch.attach(shared=self._shared(patch.module))
        self.model_patch.attach()
        if self.probe is not None:
            self.probe.attach()

    def detach(self) -> None:
        if self.probe is not None:
            self.probe.detach()
        self.model_patch.detach()
        for patch in self.attention_patches:
            patch.detach()

    @property
    def attached(self) -> bool:
        return self.model_patch.patch is not None

    @torch.compiler.assume_constant_result  # in a graph: looked at when tracing, and a new processor makes it trace
    def notice_replaced(self) -> int:
        """Follow layers whose processor or forward was replaced since enhance(), and warn. Returns how many."""
        lost = [
            patch for patch in self.attention_patches if not patch.intact or self._module(patch) is not patch.module
        ]
        if not lost:
            return 0
        refused = [patch.observer.name for patch in lost if not self._follow(patch)]
        gone = [name for name in refused if name in self.gone]
        self.notices.replaced([patch.observer.name for patch in lost], refused, gone)
        return len(lost)

    def _module(self, patch: AttentionPatch) -> Any:
        """The module that stands where a layer was found, or None; the layer itself where that was reported."""
        if patch.observer.name in self.gone:
            return patch.module
        try:
            return self.model.get_submodule(patch.observer.name)
        except AttributeError:
            return None

    def _follow(self, patch: AttentionPatch) -> bool:
        module = self._module(patch)
        if module is None:
            patch.detach()
            self.gone.add(patch.observer.name)
            return False
        kind = next(layer.kind for layer in self.layers if layer.name == patch.observer.name)
        patch.move(module, scaled_module(self.model, kind, patch.observer.name))
        return patch.follow(self._shared(module))

    def _shared(self, module: nn.Module) -> bool:
        if not hasattr(module, "processor"):
            return False
        users = Counter(id(m.processor) for m in self.model.modules() if hasattr(m, "processor"))
        return users[id(module.processor)] > 1

    def to(self, device: torch.device) -> None:
        self.device = device
        self.recorder.to(device)
        self.window = self.window.to(device)
        self.policy = with_tensors(self.settings.gain_policy, device)
        self.policy_of_whole = with_tensors(Strength(DEFAULT_STRENGTH), device)
        for layer in self.layers:
            layer.to(device)

    # ----------------------------------------------------------------------------------------------- forward calls
    @property
    def now(self) -> ForwardContext | None:
        """The forward call running in this thread. Dynamo cannot read a threading.local, so there it is the latest."""
        return self.latest if torch.compiler.is_compiling() else self.in_thread.now

    @property
    def tried_gain(self) -> float | None:
        """The gain of a trial (probe.py), while there is one."""
        return None if self.probe is None else self.probe.gain

    def ran_outside(self, layer: str) -> None:
        """A layer of this name runs outside of a forward call."""
        self.notices.outside(layer)

    def open(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take T and the place in the denoising from the forward arguments; open a row in the record."""
        arguments = by_name(self.parameters, args, kwargs)
        self.notice_replaced()
        self.notices.fallbacks()
        if getattr(getattr(self.model, "_parallel_config", None), "tensor_parallel_config", None) is not None:
            raise UnsupportedModelError(
                f"{self.name}: tensor parallelism gives each device some of the heads, which would then scale "
                "differently. That is not supported: use context parallelism, or remove the enhancement."
            )
        config, latents = getattr(self.model, "config", {}), first_tensor([*arguments.values()])
        if latents is not None and latents.device != self.device:
            self.to(latents.device)
        num_frames = self._num_frames(config, arguments)
        idle = num_frames == 1 and all(axis.needs == "frames" for axis in self.axes)
        rows = tuple(None if idle else self._rows(kind, config, arguments) for kind in self.kinds)
        shared: dict[Any, Any] = {}
        facts = tuple({} if idle else self._facts(kind, config, arguments, shared) for kind in self.kinds)
        batch = None if latents is None else latents.shape[0]
        if self.row.batch is not None:
            batch = self._count("batch", self.row.batch(config, arguments))
        progress, active = self._place(self._timestep(config, arguments))
        row = self.recorder.begin(progress, active, num_frames)
        plain, conditional, known = self.passes.of_call(batch, self.device)
        if not known:
            self.notices.unknown_pass()
        self.latest = ForwardContext(num_frames, batch, rows, facts, progress, active, row, plain, conditional)
        if not torch.compiler.is_compiling():
            self.in_thread.now = self.latest
            self.notices.frames(num_frames)

    def close(self, returned: bool) -> None:
        """The open call has ended. returned: it did not raise."""
        now, self.latest = self.latest, None
        if torch.compiler.is_compiling():
            return
        self.in_thread.now = None
        if returned and now is not None and now.num_frames > 1:
            self.notices.layers_not_run()

    def _count(self, name: str, value: Any) -> int:
        """A number of frames or videos that a row read from the call. Raises TokenLayoutError for what is none."""
        if type(value) is not int and not isinstance(value, (bool, Tensor)) and hasattr(value, "__index__"):
            value = operator.index(value)
        if type(value) is not int or value < 1:
            shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise TokenLayoutError(f"{self.name}: {name} is {shown}; it has to be a whole number, at least 1")
        return value

    def _num_frames(self, config: Any, arguments: Mapping[str, Any]) -> int:
        """T of the call, the same for all kinds of attention. Raises TokenLayoutError where they differ."""
        kinds = [kind for kind in self.kinds if isinstance(kind, SelfAttention) and kind.frames is not None]
        found = {kind.names: self._count("frames", kind.frames(config, arguments)) for kind in kinds if kind.frames}
        if len(set(found.values())) > 1:
            counts = ", ".join(f"{count} ({names})" for names, count in found.items())
            raise TokenLayoutError(f"{self.name}: its kinds of attention have different numbers of frames: {counts}")
        return next(iter(found.values()), 1)

    def _facts(self, kind: Attention, config: Any, arguments: Mapping[str, Any], shared: Any) -> dict[str, Any]:
        """What an AttentionCall has of the forward call, besides its frames."""
        if isinstance(kind, CrossAttention):
            return {"prompt": kind.prompt(config, arguments), "shared": shared}
        columns = getattr(kind, "columns", None) if any(axis.needs == "grid" for axis in self.axes) else None
        found = {"columns": columns and columns(config, arguments), "shared": shared}
        given = {name: getattr(kind, name, None) for name in ("stream", "sound")}
        return {**found, **{name: read(config, arguments) for name, read in given.items() if read is not None}}

    def _rows(self, kind: Attention, config: Any, arguments: Mapping[str, Any]) -> Rows:
        rows: Any = None if kind.video is None else kind.video(config, arguments)
        if rows is None or isinstance(rows, (slice, Tensor)):
            return rows
        raise TokenLayoutError(
            f"{self.name}: video is {rows!r}; it has to be a slice of the layer's tokens, their indices (T*S,) as a "
            "tensor, or None for all of them"
        )

    def _timestep(self, config: Any, arguments: Mapping[str, Any]) -> Any:
        timestep = self.row.timestep
        return timestep(config, arguments) if callable(timestep) else arguments.get(timestep)

    def _place(self, timestep: Any) -> tuple[Tensor, Tensor]:
        """Progress (0-d, NaN if unknown) and whether the gain acts (0-d bool), without waiting for the device."""
        pipeline = self.pipeline() if self.pipeline is not None else None
        try:
            progress, source = progress_of(timestep, self.row.noise, getattr(pipeline, "scheduler", None))
        except (TypeError, ValueError, RuntimeError) as error:
            raise TokenLayoutError(
                f"{self.name}: the timestep is {type(timestep).__name__}, which cannot be read as a number: {error}"
            ) from error
        self.recorder.source = source
        if progress is None:
            if not self.settings.always or needs_progress(self.settings.gain_policy):
                raise SettingsError(
                    f"{self.name}: {self._what_needs()} the place in the denoising, but neither a scheduler nor a "
                    "timestep gives it. start=0.0, end=1.0 with a strength or a temperature act in every call."
                )
            progress = torch.full((), float("nan"), device=self.device)
        progress = progress.to(self.device)
        self.notices.first_progress(progress)
        if self.settings.always:
            return progress, torch.ones((), dtype=torch.bool, device=self.device)
        start, end = self.window.unbind()
        place = progress + _EDGE
        return progress, (place >= start) & ((place < end) | (end >= 1.0))

    def _what_needs(self) -> str:
        if needs_progress(self.settings.gain_policy):
            return f"the policy {type(self.settings.gain_policy).__name__} needs"
        return f"start={self.settings.start}, end={self.settings.end} need"


class Calls:
    """The forward calls of one model, as patch.ModelPatch reports them.

    In eager mode all that they lead to is kept from dynamo: of a function that it compiles by itself, beside the model,
    is_compiling() is true. In a larger graph they are traced along.
    """

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser
        self.open_eagerly = torch.compiler.disable(self._open)
        self.close_eagerly = torch.compiler.disable(denoiser.close)
        for function in (Calls.open, Calls.close):
            not_a_frame_of_its_own(function)

    @property
    def recorder(self) -> Recorder:
        return self.denoiser.recorder

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if torch.compiler.is_compiling():
            return self._open(args, kwargs)
        return self.open_eagerly(args, kwargs)

    def close(self, returned: bool) -> None:
        if torch.compiler.is_compiling():
            self.denoiser.close(returned)
        else:
            self.close_eagerly(returned)

    def in_pass(self, name: str) -> AbstractContextManager[None]:
        return self.denoiser.passes.named(name)

    def _open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if self.denoiser.now is not None:
            return False
        self._begin(args, kwargs)
        return True

    @timed
    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.denoiser.open(args, kwargs)


def parameters_of(model: nn.Module) -> dict[str, Any]:
    """Names and defaults of the arguments of a model's forward, in its order, decorators looked through.

    Those of the forward that the model carries itself, where it has one, unless that hides them (*args, **kwargs).
    """
    named: list[inspect.Parameter] = []
    for function in (model.forward, type(model).forward.__get__(model)):
        parameters = inspect.signature(function).parameters.values()
        named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if named:
            break
    return {p.name: None if p.default is p.empty else p.default for p in named}


def by_name(parameters: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a forward call by name, in the order of its definition; those without a name by their place."""
    names = [*parameters, *map(str, range(len(parameters), len(args)))]
    return {**parameters, **dict(zip(names, args, strict=False)), **kwargs}
