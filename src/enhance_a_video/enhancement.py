"""enhance(model or pipeline) -> Enhancement: attach, act, report, remove."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import threading
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import cross_frame
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
from .intensity import DEFAULT_SITES, site_mass, temporal_attention_map, token_mass
from .parallel import Shards, gathered
from .policy import CROSS_FRAME, DEFAULT_STRENGTH, Moment, Strength, needs_progress, needs_share, to_dict
from .record import Recorder, Summary
from .schedule import progress_of
from .seam import Entrance, KernelCall, Residual, Rows, Seam
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


def _timed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Add the host time of a method to the record of self.denoiser; inside torch.compile there is none to measure."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any) -> Any:
        recorder = self.denoiser.recorder
        if torch.compiler.is_compiling():
            recorder.compiled = True
            return method(self, *args)
        begin = time.perf_counter()
        try:
            return method(self, *args)
        finally:
            recorder.seconds += time.perf_counter() - begin

    return wrapper


@dataclasses.dataclass
class _Now:
    """What one forward call is about."""

    num_frames: int
    batch: int  # samples
    rows: Rows  # which tokens of a layer's stream are the video
    progress: Tensor  # () fp32
    active: Tensor  # () bool
    row: Tensor  # (1,) of the record


class _InThread(threading.local):
    now: _Now | None = None


class _Denoiser:
    """One transformer: its watched layers, its record, and the hook that looks at each forward call."""

    def __init__(self, name: str, model: Any, family: Family, enhancement: Enhancement, pipeline: Any):
        self.name, self.model, self.family, self.enhancement = name, model, family, enhancement
        self.settings = enhancement.settings
        self.pipeline = weakref.ref(pipeline) if pipeline is not None else None
        self.latest: _Now | None = None
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
        self.layers = [_Layer(n, i, depths[n], self) for i, n in enumerate(names)]
        self.seams = [Seam(modules[w.name], w, scaled_module(model, self.family, w.name)) for w in self.layers]
        blocks = [block_around(model, self.family, n) for n in names] if self.asks_share else []
        self.entrances = [Entrance(b, self.family.tokens.argument or 0) for b in {id(b): b for b in blocks}.values()]
        self.recorder = Recorder(len(self.layers), self.device, self.settings.attention_maps)
        self.policy = _with_tensors(self.settings.gain_policy, self.device)
        self.policy_of_whole = _with_tensors(Strength(DEFAULT_STRENGTH), self.device)
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
        self.latest = _Now(num_frames, batch, rows, progress, active, row)
        if not torch.compiler.is_compiling():
            self.in_thread.now = self.latest

    @property
    def now(self) -> _Now | None:
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
        self.policy = _with_tensors(self.settings.gain_policy, device)
        self.policy_of_whole = _with_tensors(Strength(DEFAULT_STRENGTH), device)
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

    @_timed
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


# ---------------------------------------------------------------------------------------------- one layer
class _Layer:
    """The watch on one attention layer (see seam.Watch). What differs between layers is tensors: one compiled graph."""

    def __init__(self, name: str, index: int, depth: float, denoiser: _Denoiser):
        self.name, self.denoiser = name, denoiser
        self.tokens, self.query_key = denoiser.family.tokens, denoiser.family.query_key
        self.scaled_later = denoiser.family.scale_at is not None
        self.asks_share = denoiser.asks_share
        settings, self.attend = denoiser.settings, None
        self.whole = ""  # why the whole output is scaled although odds were asked for
        self.attends_compiled = denoiser.enhancement.alternative is None
        if denoiser.enhancement.alternative is not None:
            self.attend = self._attend
        elif settings.scale == CROSS_FRAME and not settings.observe_only:
            self.attend = self._scale_cross_frame
        self.index = torch.tensor(index, device=denoiser.device)
        self.depth = torch.tensor(depth, device=denoiser.device)

    def fall_back(self, reason: str) -> bool:
        """Scale the whole output instead of its cross-frame part; not where that part was asked for by name."""
        if self.denoiser.settings.odds is None or self.denoiser.enhancement.alternative is not None:
            return False
        self.attend, self.whole = None, reason
        return True

    def to(self, device: torch.device) -> None:
        self.index, self.depth = self.index.to(device), self.depth.to(device)

    def rows(self) -> Rows:
        now = self.denoiser.now
        return None if now is None else now.rows

    @_timed
    def look(
        self, query: Tensor, key: Tensor, scale: float | None, shards: Shards | None
    ) -> tuple[Tensor, Tensor | None] | None:
        """query, key (B, H, T*S, D) -> mass of the sites (B, n), or of all heads and tokens (B, H, T, S) where the gain
        acts on each, and perhaps maps (B, T, T); None: leave it alone."""
        settings, now = self.denoiser.settings, self.denoiser.now
        if now is None or now.num_frames == 1:
            return None
        T = now.num_frames
        query, key = query.detach(), key.detach()
        if self.tokens.place == "temporal":  # (B*S, H, T, D) -> (B, H, T, S, D)
            query, key = (x.unflatten(0, (now.batch, -1)).permute(0, 2, 3, 1, 4) for x in (query, key))
        sites = settings.sites
        if shards is not None:
            (query, key), sites = gathered(query, key, T, sites, shards), None  # (B, H, T, n, D): all that is left
        if query.ndim == 4 and query.shape[2] % T:
            raise TokenLayoutError(
                f"{self.name}: {query.shape[2]} video tokens do not divide into {T} frames. Extra tokens (reference, "
                "history) are not supported here: remove the enhancement, or leave the layer out with layers=..."
            )
        if settings.scale == CROSS_FRAME and not self.whole and shards is None:
            masses = token_mass(query, key, T, scale=scale)  # (B, H, T, S)
        else:
            masses = site_mass(query, key, T, sites=sites, scale=scale)  # (B, n)
        if not settings.attention_maps:
            return masses, None
        return masses, temporal_attention_map(query, key, T, sites=sites, scale=scale)  # (B, T, T)

    def _attend(self, call: KernelCall, seen: tuple[Tensor, Tensor | None] | None) -> Tensor | None:
        """An alternative's attention in the kernel's place; None outside its window: the kernel's own, to the bit."""
        denoiser, now = self.denoiser, self.denoiser.now
        alternative = denoiser.enhancement.alternative
        if alternative is None or seen is None or now is None or not bool(now.active):
            return None
        amount = denoiser.policy(*self._asked(seen[0], now))
        return alternative.attend(call, amount, now.num_frames)

    def _scale_cross_frame(self, call: KernelCall, seen: tuple[Tensor, Tensor | None] | None) -> Tensor | None:
        """The attention with what comes from other frames multiplied by the gain: a gain of 1 outside the window."""
        now = self.denoiser.now
        return None if seen is None or now is None else self._cross_frame_scaled(call.whole(), call, seen[0], now)

    @_timed  # the kernel's own work is not the method's
    def _cross_frame_scaled(self, output: Tensor, call: KernelCall, masses: Tensor, now: _Now) -> Tensor:
        """masses (B, H, T, S) -> the output (B, H, L, D) scaled by each token's gain."""
        gain = torch.where(now.active, self.denoiser.policy(masses.flatten(), self._moment(now)), 1.0).view_as(masses)
        if self.tokens.place == "temporal":
            gain = gain.permute(0, 3, 1, 2).flatten(0, 1)  # (B*S, H, T)
        return cross_frame.scaled(output, call, gain.flatten(2), now.num_frames)

    def _asked(self, masses: Tensor, now: _Now) -> tuple[Tensor, Moment]:
        """What a policy is asked with: the mass (B,) or (1,) of the masses (B, ...) that were seen, and the moment."""
        mass = masses.flatten(1).mean(1)  # (B,)
        if not self.denoiser.settings.per_sample:
            mass = mass.mean(0, keepdim=True)  # (1,), as in the authors' code
        return mass, self._moment(now)

    def _moment(self, now: _Now) -> Moment:
        return Moment(num_frames=now.num_frames, layer=self.depth, progress=now.progress)

    @_timed
    def gain(self, seen: list[tuple[Tensor, Tensor | None] | None], residual: Residual | None = None) -> Tensor | None:
        """What look() saw, call by call -> gain (B,) or (1,); None = leave the output alone."""
        denoiser = self.denoiser
        settings, now = denoiser.settings, denoiser.now
        policy = denoiser.policy_of_whole if self.whole else denoiser.policy
        acted = settings.scale == CROSS_FRAME and not self.whole  # in the kernel's place
        looks = [look for look in seen if look is not None]
        if now is None or not looks:
            return None
        masses = looks[0][0] if len(looks) == 1 else torch.cat([look[0] for look in looks])  # (B, n)
        mass, moment = self._asked(masses, now)
        if residual is not None:
            moment = dataclasses.replace(moment, share=residual.share(len(mass)))  # (B,) or (1,)
        gain = torch.where(now.active, policy(mass, moment), 1.0)
        if moment.share is not None:  # each site has that of its sample
            moment = dataclasses.replace(moment, share=moment.share.repeat_interleave(masses.numel() // len(mass)))
        each = policy(masses.flatten(), moment)  # (B*n,) or (B*H*T*S,)
        clipped = each <= 1.0
        if acted:
            gain = torch.where(now.active, each.mean(0, keepdim=True), 1.0)  # (1,), for the record
        denoiser.recorder.layer(now.row, self.index, mass, gain, clipped)
        maps = [look[1] for look in looks if look[1] is not None]
        if maps:
            denoiser.recorder.layer_map(now.row, self.index, torch.cat(maps))
        return None if settings.observe_only or acted else gain


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


def _with_tensors(policy: Any, device: torch.device) -> Any:
    """A dataclass policy with its numbers as tensors: changing them does not recompile. In those of this package tables
    of numbers and policies inside them too."""
    if not dataclasses.is_dataclass(policy):
        return policy
    twin, ours = copy.copy(policy), to_dict(policy) is not None
    for field in dataclasses.fields(policy):
        value = getattr(policy, field.name)
        if isinstance(value, float) or (ours and isinstance(value, tuple)):
            value = torch.tensor(value, dtype=torch.float32, device=device)
        elif ours and dataclasses.is_dataclass(value):
            value = _with_tensors(value, device)
        object.__setattr__(twin, field.name, value)
    return twin
