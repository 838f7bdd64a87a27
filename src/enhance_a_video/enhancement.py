"""enhance(model or pipeline) -> Enhancement: attach, act, report, remove."""

import contextlib
import inspect
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .alternatives import Alternative
from .errors import (
    AlreadyEnhancedError,
    EnhancementLostWarning,
    SettingsError,
    TokenLayoutError,
    UnsupportedModelError,
    WholeOutputWarning,
)
from .families import Family, attention_modules, block_around, chosen, denoisers, family_of, scaled_module, unwrapped
from .intensity import DEFAULT_SITES
from .layer import Layer, Now, timed
from .policy import DEFAULT_STRENGTH, Strength, needs_progress, needs_share, with_tensors
from .record import Recorder, Summary
from .schedule import progress_of
from .seam import Entrance, Seam
from .settings import Layers, Settings


def enhance(
    target: Any,
    *,
    strength: float | None = None,
    temperature: float | None = None,
    odds: float | None = None,
    policy: Callable[..., Any] | Mapping[str, Any] | str | Path | None = None,
    start: float | None = None,
    end: float | None = None,
    scale: str | None = None,
    layers: Layers = None,
    sites: int | None = DEFAULT_SITES,
    per_sample: bool = True,
    observe_only: bool = False,
    attention_maps: bool = False,
) -> "Enhancement":
    """Enhance-A-Video (arXiv 2502.07508) on a diffusers pipeline, every denoiser in it, or a transformer.

        handle = enhance(pipe)                    # until handle.remove()
        with enhance(pipe, strength=0.5): ...     # or as a scope

    The arguments are explained at Settings. Raises SettingsError for arguments that conflict or are out of range,
    UnsupportedModelError for a class no family row describes, NoLayersError when no layer matches and
    AlreadyEnhancedError when an enhancement is present; then nothing was changed.
    """
    settings = Settings(
        strength=strength, temperature=temperature, odds=odds, policy=policy, start=start, end=end, scale=scale,
        layers=layers, sites=sites, per_sample=per_sample, observe_only=observe_only, attention_maps=attention_maps,
    )  # fmt: skip
    return Enhancement(target, settings)


def enhancement_of(target: Any) -> "Enhancement | None":
    """The enhancement present on a pipeline or model, for when the handle was not kept."""
    models = [unwrapped(target)] if isinstance(target, nn.Module) else denoisers(target).values()
    hooks = [_hook_on(model) for model in models]
    return next((hook.denoiser.enhancement for hook in hooks if hook is not None), None)


class Enhancement:
    """The handle of enhance(): a context manager with summary(), remove() and settings."""

    def __init__(self, target: Any, settings: Settings | Alternative, family: Family | None = None):
        """settings: or an alternative to the method, to compare it with. family: a row for this model alone."""
        self.alternative = settings if isinstance(settings, Alternative) else None
        self.settings = settings.watching if isinstance(settings, Alternative) else settings
        pipeline = None if isinstance(target, nn.Module) else target
        models = denoisers(target) if family is None else {family.name: unwrapped(target)}
        self._denoisers = [_Denoiser(n, m, family or family_of(m), self, pipeline) for n, m in models.items()]
        try:
            for denoiser in self._denoisers:
                denoiser.attach()
                denoiser.say_what_is_scaled_whole()
        except BaseException:
            self.remove()
            raise

    def summary(self) -> Summary:
        """What has been done since enhance(), also after remove(). Waits for the device."""
        recorded = {d.name: ([layer.name for layer in d.layers], d.recorder) for d in self._denoisers}
        whole = [{layer.name: layer.whole for layer in d.layers if layer.whole} for d in self._denoisers]
        return Summary.of((self.alternative or self.settings).to_dict(), recorded, whole)

    def remove(self) -> None:
        """Give every processor its own class back and take the hooks off. Safe to call twice."""
        for denoiser in self._denoisers:
            denoiser.detach()

    def __enter__(self) -> "Enhancement":
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        where = ", ".join(f"{len(d.layers)} layers of {d.name}" for d in self._denoisers)
        return f"<Enhancement of {where}>"


# --------------------------------------------------------------------------------------- one transformer
_EDGE = 2e-3  # so near to an edge of the window counts as on it: UniPC's tenth of ten steps is 0.0999 wide


class _InThread(threading.local):
    now: Now | None = None


class _Denoiser:
    """One transformer: its watched layers, its record, and the hook that looks at each forward call."""

    def __init__(self, name: str, model: Any, family: Family, enhancement: Enhancement, pipeline: Any):
        self.name, self.model, self.family, self.enhancement = name, model, family, enhancement
        self.settings = enhancement.settings
        self.pipeline = weakref.ref(pipeline) if pipeline is not None else None
        self.latest: Now | None = None
        self.in_thread = _InThread()
        if _hook_on(model) is not None:
            raise AlreadyEnhancedError(
                f"{name} is enhanced already. Call remove() on its handle first; a handle that was not kept is found "
                "by enhance_a_video.enhancement.enhancement_of(target)."
            )
        modules = attention_modules(model, self.family)
        names = chosen(list(modules), self.settings.layers, name)
        depths = {n: i / max(1, len(modules) - 1) for i, n in enumerate(modules)}
        self.device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
        self.asks_share = needs_share(self.settings.gain_policy)
        self.layers = [Layer(n, i, depths[n], self) for i, n in enumerate(names)]
        self.seams = [Seam(modules[w.name], w, scaled_module(model, self.family, w.name)) for w in self.layers]
        blocks = [block_around(model, self.family, n) for n in names] if self.asks_share else []
        self.entrances = [Entrance(b, self.family.tokens.argument or 0) for b in {id(b): b for b in blocks}.values()]
        self.recorder = Recorder(len(self.layers), self.device, self.settings.attention_maps)
        self.policy = with_tensors(self.settings.gain_policy, self.device)
        self.policy_of_whole = with_tensors(Strength(DEFAULT_STRENGTH), self.device)
        self.said: set[str] = set()  # which layers are scaled as a whole, of those that were said
        self.window = torch.tensor([self.settings.start, self.settings.end], device=self.device)
        self.parameters = _parameters(model)
        self.hook: Any = None

    def attach(self) -> None:
        _strip(self.model)
        for seam in self.seams:
            seam.attach(shared=self._shared(seam.module))
        for entrance in self.entrances:  # after the seams: a block may itself be one
            entrance.attach()
        self.hook = self.model.register_forward_pre_hook(_Hook(self), with_kwargs=True)

    def detach(self) -> None:
        for entrance in self.entrances:
            entrance.detach()
        for seam in self.seams:
            seam.detach()
        if self.hook is not None:
            self.hook.remove()
            self.hook = None

    def before_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take T and the place in the denoising from the forward arguments; open a row in the record."""
        arguments = _by_name(self.parameters, args, kwargs)
        self.notice_replaced()
        self.say_what_is_scaled_whole()
        if getattr(getattr(self.model, "_parallel_config", None), "tensor_parallel_config", None) is not None:
            raise UnsupportedModelError(
                f"{self.name}: tensor parallelism gives each device some of the heads, which would then scale "
                "differently. That is not supported: use context parallelism, or remove the enhancement."
            )
        family, config, latents = self.family, getattr(self.model, "config", {}), _latents(arguments)
        if latents.device != self.device:
            self.to(latents.device)
        num_frames = family.frames(config, arguments)
        rows = family.video(config, arguments) if family.video is not None and num_frames > 1 else None
        batch = latents.shape[0] if family.batch is None else family.batch(config, arguments)
        progress, active = self._place(arguments.get(family.timestep))
        row = self.recorder.begin(progress, active, num_frames)
        self.latest = Now(num_frames, batch, rows, progress, active, row)
        if not torch.compiler.is_compiling():
            self.in_thread.now = self.latest

    @property
    def now(self) -> Now | None:
        """The forward call running in this thread. Dynamo cannot read a threading.local, so there it is the latest."""
        return self.latest if torch.compiler.is_compiling() else self.in_thread.now

    def _place(self, timestep: Any) -> tuple[Tensor, Tensor]:
        """Progress (0-d, NaN if unknown) and whether the gain acts (0-d bool), without waiting for the device."""
        pipeline = self.pipeline() if self.pipeline is not None else None
        progress, source = progress_of(timestep, self.family.noise, getattr(pipeline, "scheduler", None))
        self.recorder.source = source
        if progress is None:
            if not self.settings.always or needs_progress(self.settings.gain_policy):
                raise SettingsError(
                    f"{self.name}: {self._what_asks()} the place in the denoising, but neither a scheduler nor a "
                    "timestep says it. start=0.0, end=1.0 with a strength or a temperature act in every call."
                )
            progress = torch.full((), float("nan"), device=self.device)
        progress = progress.to(self.device)
        if self.settings.always:
            return progress, torch.ones((), dtype=torch.bool, device=self.device)
        start, end = self.window.unbind()
        place = progress + _EDGE
        return progress, (place >= start) & ((place < end) | (end >= 1.0))

    def _what_asks(self) -> str:
        if needs_progress(self.settings.gain_policy):
            return f"the policy {type(self.settings.gain_policy).__name__} needs"
        return f"start={self.settings.start}, end={self.settings.end} need"

    @torch.compiler.assume_constant_result  # in a graph: looked at when tracing, and a new processor makes it trace
    def notice_replaced(self) -> int:
        """Follow processors that were replaced since enhance(), and say so. Returns how many."""
        lost = [seam for seam in self.seams if not seam.intact]
        if not lost:
            return 0
        refused = [seam.watch.name for seam in lost if not seam.follow(self._shared(seam.module))]
        done = f"{len(lost) - len(refused)} of them were enhanced again"
        if refused:
            done += f"; {', '.join(refused)} cannot be: the new processor calls no known attention kernel"
        warnings.warn(
            f"{self.name}: {len(lost)} attention processors were replaced after enhance(); {done}.",
            EnhancementLostWarning,
            stacklevel=2,
        )
        return len(lost)

    @torch.compiler.assume_constant_result
    def say_what_is_scaled_whole(self) -> int:
        """Warn, once for each layer, where odds cannot act. Returns how many layers that are."""
        new = [layer for layer in self.layers if layer.whole and layer.name not in self.said]
        if new:
            self.said.update(layer.name for layer in new)
            warnings.warn(
                f"{self.name}: in {len(new)} of {len(self.layers)} layers what comes from other frames cannot be told "
                f"apart ({new[0].whole}), so their whole output is scaled, by strength {DEFAULT_STRENGTH}. To choose "
                "that yourself, give a strength.",
                WholeOutputWarning,
                stacklevel=2,
            )
        return len(self.said)

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


class _Hook:
    """The forward pre-hook. Copies and pickles of it do nothing: an enhancement belongs to its handle."""

    def __init__(self, denoiser: _Denoiser):
        self.denoiser = denoiser
        self.eagerly = torch.compiler.disable(self.before)
        _not_a_frame_of_its_own(_Hook.__call__)

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():  # the model is part of a larger graph: trace along
            self.before(args, kwargs)
        else:
            self.eagerly(args, kwargs)

    @timed
    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.denoiser.before_forward(args, kwargs)

    def __reduce__(self) -> Any:
        return _Inert, ()


class _Inert:
    """What is left of the hook in a copy of an enhanced model; it takes itself off at the first forward call."""

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.compiler.is_compiling():
            _strip(model)


def _not_a_frame_of_its_own(function: Any) -> None:
    """Keep dynamo from compiling a hook beside the compiled model; inlined in a larger graph it is traced still."""
    with contextlib.suppress(ImportError, AttributeError):  # private; without it there is one small graph more
        from torch._dynamo.eval_frame import skip_code

        skip_code(function.__code__)


def _hook_on(model: nn.Module) -> _Hook | None:
    return next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, _Hook)), None)


def _strip(model: nn.Module) -> None:
    for key, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, _Inert):
            del model._forward_pre_hooks[key]
            model._forward_pre_hooks_with_kwargs.pop(key, None)


def _latents(arguments: Mapping[str, Any]) -> Tensor:
    """The first tensor with dimensions among the arguments, inside lists too: its device and its batch count."""
    for value in arguments.values():
        while isinstance(value, (list, tuple)) and value:
            value = value[0]
        if isinstance(value, Tensor) and value.ndim > 0:
            return value
    raise TokenLayoutError("the forward call got no tensor, so there is no video to enhance")


def _parameters(model: nn.Module) -> dict[str, Any]:
    """Names and defaults of the arguments of the class's forward, in its order, decorators looked through."""
    parameters = inspect.signature(type(model).forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][1:]
    return {p.name: None if p.default is p.empty else p.default for p in named}


def _by_name(parameters: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a forward call by name, in the order of its definition; those without a name by their place."""
    names = [*parameters, *map(str, range(len(parameters), len(args)))]
    return {**parameters, **dict(zip(names, args, strict=False)), **kwargs}
