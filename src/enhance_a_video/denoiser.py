"""One enhanced transformer: its patched layers, its record, and what is read from each of its forward calls."""

import contextlib
import inspect
import operator
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from .attention import AttentionPatch, ModelPatch, Rows, calls_of, not_a_frame_of_its_own
from .enhanced_layer import EnhancedLayer, ForwardContext, timed
from .errors import (
    AlreadyEnhancedError,
    EnhancementLostWarning,
    NoEffectWarning,
    SettingsError,
    TokenLayoutError,
    UnknownPassWarning,
    UnsupportedModelError,
    WholeOutputWarning,
)
from .models import Axis, FrameCount, Model, Time, attention_modules, chosen, scaled_module
from .policies import DEFAULT_STRENGTH, Strength, needs_progress, with_tensors
from .probe import Probe, first_tensor
from .progress import progress_of
from .record import Recorder

_EDGE = 2e-3  # so near to an edge of the window counts as on it: UniPC's tenth of ten steps is 0.0999 wide
_CLEAN = 0.99  # a first forward call beyond this progress means that the timestep is not what `noise` takes it for


class _InThread(threading.local):
    now: ForwardContext | None = None
    pass_name: str | None = None


class Denoiser:
    """One transformer: its watched layers, its record, and the calls that are open."""

    def __init__(self, name: str, model: Any, row: Model, enhancement: Any, pipeline: Any, described: bool):
        """described: the row is its user's own words in enhance_attention(), which are checked while it runs."""
        self.name, self.model, self.row, self.enhancement = name, model, row, enhancement
        self.settings, self.described = enhancement.settings, described
        self.operator = enhancement.change.operator
        self.pipeline = weakref.ref(pipeline) if pipeline is not None else None
        self.latest: ForwardContext | None = None
        self.latest_pass: str | None = None  # for dynamo, which cannot read a threading.local
        self.in_thread = _InThread()
        if calls_of(model) is not None:
            raise AlreadyEnhancedError(
                f"{name} is enhanced already. Call remove() on its handle first; a handle that was not kept is found "
                "by enhance_a_video.enhancement.enhancement_of(target)."
            )
        self.axes = row.axes_named("time")
        modules = attention_modules(model, self.axes)
        names = chosen(list(modules), self.settings.layers, name)
        depths = {n: i / max(1, len(modules) - 1) for i, n in enumerate(modules)}
        self.device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
        self.layers = [
            EnhancedLayer(n, i, depths[n], self, self.axes.index(modules[n][1])) for i, n in enumerate(names)
        ]
        self.attention_patches = [
            AttentionPatch(modules[w.name][0], w, scaled_module(model, w.axis, w.name)) for w in self.layers
        ]
        self.recorder = Recorder(len(self.layers), self.device, self.settings.attention_maps)
        self.policy = with_tensors(self.settings.gain_policy, self.device)
        self.policy_of_whole = with_tensors(Strength(DEFAULT_STRENGTH), self.device)
        self.reported: set[str] = set()  # what was warned about: kinds, and layers that are scaled as a whole
        self.window = torch.tensor([self.settings.start, self.settings.end], device=self.device)
        self.parameters = parameters_of(model)
        self.gone: set[str] = set()  # layers of which nothing is left in the model, which was reported
        self.single = 0  # forward calls of one frame, until there is one of several
        self.probe = Probe(self) if described else None
        self.model_patch = ModelPatch(model, Calls(self))

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
        done = f"{len(lost) - len(refused)} of them were enhanced again"
        if gone:
            done += f"; {', '.join(gone)} cannot be: nothing is left there"
        if len(gone) < len(refused):
            others = ", ".join(name for name in refused if name not in gone)
            done += f"; {others} cannot be: what is there now calls no known attention kernel"
        warnings.warn(
            f"{self.name}: {len(lost)} attention processors or layers were replaced after enhance(); {done}.",
            EnhancementLostWarning,
            stacklevel=2,
        )
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
        axis = next(layer.axis for layer in self.layers if layer.name == patch.observer.name)
        patch.move(module, scaled_module(self.model, axis, patch.observer.name))
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

    def open(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take T and the place in the denoising from the forward arguments; open a row in the record."""
        arguments = by_name(self.parameters, args, kwargs)
        self.notice_replaced()
        self.warn_about_fallbacks()
        if getattr(getattr(self.model, "_parallel_config", None), "tensor_parallel_config", None) is not None:
            raise UnsupportedModelError(
                f"{self.name}: tensor parallelism gives each device some of the heads, which would then scale "
                "differently. That is not supported: use context parallelism, or remove the enhancement."
            )
        config, latents = getattr(self.model, "config", {}), first_tensor([*arguments.values()])
        if latents is not None and latents.device != self.device:
            self.to(latents.device)
        num_frames = self._num_frames(config, arguments)
        rows = tuple(self._rows(axis, config, arguments) if num_frames > 1 else None for axis in self.axes)
        batch = None if latents is None else latents.shape[0]
        if self.row.batch is not None:
            batch = self._count("batch", self.row.batch(config, arguments))
        progress, active = self._place(self._timestep(config, arguments))
        row = self.recorder.begin(progress, active, num_frames)
        plain, conditional = self._passes(batch)
        self.latest = ForwardContext(num_frames, batch, rows, progress, active, row, plain, conditional)
        if not torch.compiler.is_compiling():
            self.in_thread.now = self.latest
            self._warn_about_frames(num_frames)

    @contextlib.contextmanager
    def in_pass(self, name: str) -> Iterator[None]:
        """While it lasts, forward calls of this thread belong to that pass of guidance."""
        around, self.in_thread.pass_name = self.in_thread.pass_name, name
        self.latest_pass = name
        try:
            yield
        finally:
            self.in_thread.pass_name = self.latest_pass = around

    def _passes(self, batch: int | None) -> tuple[bool, Tensor | None]:
        """Of the forward call that begins: whether it is left alone, and which samples are changed, (B,) or all.

        By the name that diffusers' pipelines and guiders give a pass (cache_context). Without guidance every call is
        conditional. Where it cannot be known, both passes are changed, with a warning.
        """
        if self.settings.passes is None:
            return False, None
        name = self.latest_pass if torch.compiler.is_compiling() else self.in_thread.pass_name
        pipeline = self.pipeline() if self.pipeline is not None else None
        if name in ("cond", "pred_cond") or is_guided(pipeline) is False:
            return False, None
        if name == "cond_uncond" and is_guided(pipeline) and batch is not None and batch % 2 == 0:
            return False, torch.arange(batch, device=self.device) >= batch // 2  # diffusers: the negative prompt first
        if name is not None and name.startswith(("uncond", "pred_")):
            return True, None
        self._warn_about_passes()
        return False, None

    @torch.compiler.assume_constant_result
    def _warn_about_passes(self) -> bool:
        if "passes" not in self.reported:
            self.reported.add("passes")
            warnings.warn(
                f"{self.name}: which pass of guidance a forward call belongs to is not known here, so both are changed "
                "(passes='conditional' needs a diffusers pipeline that names its passes with cache_context).",
                UnknownPassWarning,
                stacklevel=2,
            )
        return True

    def close(self, returned: bool) -> None:
        """The open call has ended. returned: it did not raise."""
        now, self.latest = self.latest, None
        if torch.compiler.is_compiling():
            return
        self.in_thread.now = None
        if returned and now is not None and now.num_frames > 1:
            self._warn_about_layers()

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
        found = [self._count("frames", axis.groups(config, arguments)) for axis in self.axes]
        if len(set(found)) > 1:
            counts = ", ".join(f"{count} ({axis.attention})" for axis, count in zip(self.axes, found, strict=True))
            raise TokenLayoutError(f"{self.name}: its kinds of attention have different numbers of frames: {counts}")
        return found[0]

    def _rows(self, axis: Axis, config: Any, arguments: Mapping[str, Any]) -> Rows:
        rows: Any = None if axis.video is None else axis.video(config, arguments)
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
                    "timestep says it. start=0.0, end=1.0 with a strength or a temperature act in every call."
                )
            progress = torch.full((), float("nan"), device=self.device)
        progress = progress.to(self.device)
        self._check_first(progress)
        if self.settings.always:
            return progress, torch.ones((), dtype=torch.bool, device=self.device)
        start, end = self.window.unbind()
        place = progress + _EDGE
        return progress, (place >= start) & ((place < end) | (end >= 1.0))

    def _what_needs(self) -> str:
        if needs_progress(self.settings.gain_policy):
            return f"the policy {type(self.settings.gain_policy).__name__} needs"
        return f"start={self.settings.start}, end={self.settings.end} need"

    # --------------------------------------------------------------------------------------------------- warnings
    @property
    def reported_no_effect(self) -> bool:
        """Whether a NoEffectWarning was given already."""
        return bool(self.reported & {"outside", "one frame", "never ran", "clean", "undone"})

    def warn_once(self, kind: str, message: str) -> None:
        """A NoEffectWarning, once for each kind."""
        if kind not in self.reported:
            self.reported.add(kind)
            warnings.warn(f"{self.name}: {message}", NoEffectWarning, stacklevel=2)

    @torch.compiler.assume_constant_result
    def warn_about_fallbacks(self) -> int:
        """Warn, once for each layer, where odds cannot act. Returns how many layers that are."""
        new = [layer for layer in self.layers if layer.whole and layer.name not in self.reported]
        if new:
            self.reported.update(layer.name for layer in new)
            warnings.warn(
                f"{self.name}: in {len(new)} of {len(self.layers)} layers what comes from other frames cannot be told "
                f"apart ({new[0].whole}), so their whole output is scaled, by strength {DEFAULT_STRENGTH}. To choose "
                "that yourself, give a strength.",
                WholeOutputWarning,
                stacklevel=2,
            )
        return len(self.reported)

    @torch.compiler.assume_constant_result
    def warn_about_outside(self, layer: str) -> bool:
        """A layer runs while no forward call of the model is open, so T is not known and it stays plain."""
        self.warn_once(
            "outside",
            f"{layer} ran outside a forward call of {type(self.model).__name__}, so the number of frames is unknown "
            "and nothing was changed. Enhance the module that is called once for each prediction (for code that runs "
            "the blocks itself, a module around it: docs/add-a-model.md, step 3).",
        )
        return True

    def _warn_about_frames(self, num_frames: int) -> None:
        """One frame: there are no others. A row with a function may answer 1 for a call that fills a cache."""
        if num_frames > 1:
            self.single = -1
        if num_frames > 1 or self.single < 0 or self.settings.observe_only:
            return
        self.single += 1
        counted = all(isinstance(axis, Time) and isinstance(axis.frames, FrameCount) for axis in self.axes)
        if self.described or counted or self.single > 1:
            self.warn_once(
                "one frame",
                "the video has one latent frame, so there are no other frames to attend to and nothing is changed. "
                "Generate more frames, or check `frames` if this is a video.",
            )

    def _warn_about_layers(self) -> None:
        """Layers that never ran. Inside torch.compile that is not known until the record is read."""
        if self.recorder.compiled:
            return
        missed = [layer.name for layer in self.layers if not layer.ran and layer.name not in self.gone]
        if missed:
            self.warn_once(
                "never ran",
                f"{len(missed)} of {len(self.layers)} enhanced layers did not run in a forward call ({missed[0]}"
                f"{', ...' if len(missed) > 1 else ''}): nothing is changed there. Something may have been put in the "
                "place of their forward: enhance after that, or leave them out with layers=...",
            )

    def _check_first(self, progress: Tensor) -> None:
        """Wait once, for the first call of a described model, to see whether its timestep is what it is taken for."""
        if not self.described or self.settings.always or torch.compiler.is_compiling() or "first" in self.reported:
            return
        self.reported.add("first")
        if float(progress) >= _CLEAN:
            self.warn_once(
                "clean",
                f"the first forward call is at progress {float(progress):.4f} (0 is pure noise, 1 is clean) by "
                f"noise={self.row.noise!r}, so the window start={self.settings.start}, end={self.settings.end} may "
                "never act. If the model's timestep runs from 1 to 0, give top=1.0; if it counts up, timestep= may be "
                "a function that turns it round.",
            )


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
        return self.denoiser.in_pass(name)

    def _open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if self.denoiser.now is not None:
            return False
        self._begin(args, kwargs)
        return True

    @timed
    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.denoiser.open(args, kwargs)


def is_guided(pipeline: Any) -> bool | None:
    """Whether a pipeline runs with classifier-free guidance now; None where it cannot be known."""
    guided = getattr(pipeline, "do_classifier_free_guidance", None)
    if isinstance(guided, bool):
        return guided
    scale = getattr(pipeline, "_guidance_scale", None)
    return scale > 1 if isinstance(scale, (int, float)) else None


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
