"""One attention layer: see its query and key, scale what it returns, undo.

How: a diffusers attention processor calls its kernel through a name of its own module (`dispatch_attention_fn`,
or `F.scaled_dot_product_attention`). The processor's class is swapped for a subclass whose `__call__` runs the very
same code object, but with the globals of a synthetic module in which that one name is observed. So nothing is copied
that could go stale, nothing outside the enhanced processors changes, torch.compile sees plain Python, and undo is
giving the class back. docs/architecture.md compares this with the other ways, measured.
"""

import copy
import dis
import functools
import re
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from .errors import TokenLayoutError, UnsupportedModelError

Placement = Literal["video only", "text first", "video first"]

_WATCH = "_enhance_a_video"  # the only attribute an enhanced processor carries besides its own


class Watch(Protocol):
    """What an enhanced processor asks while it runs."""

    name: str
    placement: Placement

    def gain(self, query: Tensor, key: Tensor, scale: float | None) -> Tensor | None:
        """Video-only query, key (B, H, T*S, D) and the kernel's own softmax scale -> gain (B,) or (1,), or None."""

    def scale(self, output: Any, gain: Tensor) -> Any:
        """What the processor returned -> the same with the video scaled; scaled() below does it."""


class _Call:
    """What the processor that is running, and the kernel it calls, have to tell each other."""

    watch: Watch | None = None
    tokens: int = 0  # video tokens
    seen: bool = False
    gain: Tensor | None = None


class _CallInThread(_Call, threading.local):
    pass


_eager, _traced = _CallInThread(), _Call()


def _running() -> _Call:
    """This thread's call. A graph holds one call after the other, and dynamo is not at home in a threading.local."""
    return _traced if torch.compiler.is_compiling() else _eager


# ---------------------------------------------------------------------------------------- the observed kernel
def _look(query: Tensor, key: Tensor, scale: float | None) -> None:
    """Called by the observed kernel with query and key as (B, H, L, D), text included where it is joined."""
    call = _running()
    watch = call.watch
    if watch is None:
        return
    length, video = query.shape[2], call.tokens
    if key.shape != query.shape or video > length or (watch.placement == "video only" and video != length):
        raise TokenLayoutError(
            f"{watch.name}: expected self-attention over {video} video tokens ({watch.placement}), but the kernel "
            f"got query {tuple(query.shape)} and key {tuple(key.shape)} (B, H, L, D). Leave it out with layers=..."
        )
    if video != length:
        rows = slice(length - video, length) if watch.placement == "text first" else slice(0, video)
        query, key = query[:, :, rows], key[:, :, rows]  # (B, H, T*S, D)
    call.seen, call.gain = True, watch.gain(query, key, scale)


def _observed_dispatch(home: types.ModuleType) -> Callable[..., Any]:
    def dispatch_attention_fn(query, key, value, *args, **kwargs):
        # diffusers' dispatcher takes (B, L, H, D)
        _look(query.transpose(1, 2), key.transpose(1, 2), _scale(args, kwargs))
        return home.dispatch_attention_fn(query, key, value, *args, **kwargs)

    return dispatch_attention_fn


def _observed_functional(home: types.ModuleType) -> types.ModuleType:
    def scaled_dot_product_attention(query, key, value, *args, **kwargs):
        _look(query, key, _scale(args, kwargs))  # (B, H, L, D)
        return home.F.scaled_dot_product_attention(query, key, value, *args, **kwargs)

    functional = types.ModuleType(_module_name("functional", home))
    functional.__dict__.update({k: v for k, v in home.F.__dict__.items() if not k.startswith("__")})
    functional.__dict__["scaled_dot_product_attention"] = scaled_dot_product_attention
    sys.modules[functional.__name__] = functional
    return functional


def _scale(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """Both kernels are (query, key, value, attn_mask, dropout_p, is_causal, scale, ...)."""
    return kwargs["scale"] if "scale" in kwargs else (args[3] if len(args) > 3 else None)


# The names a processor may call its kernel by, and what stands in for each.
_KERNELS: dict[str, Callable[[types.ModuleType], Any]] = {
    "dispatch_attention_fn": _observed_dispatch,
    "F": _observed_functional,
}


# ------------------------------------------------------------------------------------- the enhanced processor
def _kernels_called(function: Any) -> list[str]:
    """Which of the kernel names the function loads from its globals; none for anything but a plain function."""
    if not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        return []
    loaded = {i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
    if "scaled_dot_product_attention" not in function.__code__.co_names:
        loaded.discard("F")
    return [name for name in _KERNELS if name in loaded]


def _observed_copy_of(function: Any) -> types.FunctionType:
    """The same code object in a namespace of its own, where the kernel is observed."""
    home = sys.modules[function.__module__]
    namespace = types.ModuleType(_module_name("namespace", home, function.__qualname__))
    namespace.__dict__.update({k: v for k, v in function.__globals__.items() if k != "__name__"})
    namespace.__dict__.update({name: _KERNELS[name](home) for name in _kernels_called(function)})
    sys.modules[namespace.__name__] = namespace  # dynamo resolves globals by this name
    observed = types.FunctionType(
        function.__code__, namespace.__dict__, function.__name__, function.__defaults__, function.__closure__
    )
    observed.__kwdefaults__ = function.__kwdefaults__
    return observed


def _module_name(*parts: Any) -> str:
    words = [p.__name__ if isinstance(p, types.ModuleType) else p for p in parts]
    return re.sub(r"[^a-zA-Z0-9_]", "_", "_".join([__name__, *words]))


@functools.cache  # one subclass for one processor class: blocks stay alike, and torch.compile makes one graph for all
def _enhanced(original: type) -> type:
    function = original.__call__
    inner = _observed_copy_of(function)

    @functools.wraps(function)  # diffusers filters keyword arguments by this signature
    def __call__(self, attn, hidden_states, *args, **kwargs):
        watch = getattr(self, _WATCH)
        if getattr(self, "_parallel_config", None) is not None:
            raise TokenLayoutError(
                f"{watch.name}: context parallelism cuts the frames across devices, which is not supported yet. "
                "Remove the enhancement or run without enable_parallelism()."
            )
        call = _running()
        call.watch, call.tokens, call.seen, call.gain = watch, hidden_states.shape[1], False, None
        try:
            output = inner(self, attn, hidden_states, *args, **kwargs)
            seen, gain = call.seen, call.gain
        finally:
            call.watch = call.gain = None
        if not seen:
            raise UnsupportedModelError(
                f"{watch.name}: {original.__name__} returned without calling its attention kernel, so there was "
                "nothing to see. Leave this layer out with layers=..."
            )
        return output if gain is None else watch.scale(output, gain)

    def __reduce_ex__(self, protocol):  # copies and pickles are plain: an enhancement belongs to its handle
        return _plain, (original, {k: v for k, v in self.__dict__.items() if k != _WATCH})

    same = {k: getattr(original, k) for k in ("__module__", "__qualname__", "__doc__")}
    return type(original.__name__, (original,), {**same, "__call__": __call__, "__reduce_ex__": __reduce_ex__})


def _plain(original: type, attributes: dict[str, Any]) -> Any:
    processor: Any = object.__new__(original)
    processor.__dict__.update(attributes)
    return processor


def scaled(output: Any, gain: Tensor) -> Any:
    """Scale the video stream: the tensor, or the first of (video, text). Computed in fp32, kept in its own dtype."""
    if isinstance(output, tuple):
        return (scaled(output[0], gain), *output[1:])
    gain = gain.to(output.device)[:, None, None]  # (B or 1, 1, 1) fp32
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or output.dtype == gain.dtype:
        return (output * gain).to(output.dtype)  # (B, T*S, C)
    return torch.mul(output, gain, out=torch.empty_like(output))  # the same numbers, no fp32 copy in memory


class Seam:
    """One attention module and the watch on it: attach(), intact, detach()."""

    def __init__(self, module: nn.Module, watch: Watch):
        self.module, self.watch = module, watch
        self.processor: Any = None
        self.original: Any = None  # the processor's own class
        self.shared: Any = None  # the processor we stand in for, where it serves several modules
        self.refused: Any = None  # a later processor that could not be followed

    @property
    def intact(self) -> bool:
        """Whether the module still runs the processor that is watched."""
        return self.module.processor is self.processor or self.module.processor is self.refused

    def attach(self, shared: bool = False) -> None:
        """Watch the module's present processor. One that serves several modules is left alone: a copy stands in.

        Raises UnsupportedModelError when the processor calls no kernel that is known here.
        """
        processor = self.module.processor
        original = type(processor)
        if not callable(processor) or not _kernels_called(original.__call__):
            raise UnsupportedModelError(
                f"{self.watch.name}: the processor {original.__name__} calls neither dispatch_attention_fn nor "
                "F.scaled_dot_product_attention in its own __call__, so its query and key cannot be seen. "
                "Use a diffusers processor for this layer, or leave it out with layers=..."
            )
        enhanced, self.original = _enhanced(original), original
        if shared:
            self.shared, processor = processor, copy.copy(processor)
            self.module.processor = processor
        self.processor = processor
        setattr(processor, _WATCH, self.watch)
        processor.__class__ = enhanced

    def follow(self, shared: bool = False) -> bool:
        """After a replacement: let the old processor go and watch the new one. False when it cannot be watched."""
        self.detach()
        try:
            self.attach(shared)
        except UnsupportedModelError:
            self.refused = self.module.processor
        return self.processor is not None

    def detach(self) -> None:
        """Give the processor its own class back, and a shared one its place. Safe to call twice."""
        processor, self.processor = self.processor, None
        if processor is None:
            return
        processor.__class__ = self.original
        processor.__dict__.pop(_WATCH, None)
        if self.shared is not None:
            self.shared.__dict__.update(processor.__dict__)
            if self.module.processor is processor:
                self.module.processor = self.shared
            self.shared = None
