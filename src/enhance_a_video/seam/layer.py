"""The enhanced layer: subclasses of processors and modules that are watched, and the scaling of what they return."""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TokenLayoutError, UnsupportedModelError
from ..parallel import Shards
from ..query_key import KNOWN_KERNELS, Kernel, Outputs
from .kernel import kernels_called, look, observed_copy_of
from .residual import Residual, video_of
from .watch import WATCH, Rows, Watch, fell_back, running


def _function_of(original: Any) -> Any:
    """What runs: a module's forward, a processor's __call__."""
    return original.forward if issubclass(original, nn.Module) else original.__call__


def kernels_of(carrier: Any, watch: Watch) -> tuple[Kernel, ...]:
    """Which kernels are observed in a layer: none where its query and key are seen elsewhere.

    Raises UnsupportedModelError when they are to be seen at a kernel that the layer does not call.
    """
    how, original = watch.query_key, type(carrier)
    if getattr(watch, "attend", None) is not None and (how is not None or watch.tokens.call is None):
        kernels = ", ".join(kernel.name for kernel in KNOWN_KERNELS[:2])
        reason = f"{original.__name__} does not compute its attention in one call of a known kernel ({kernels})"
        if not fell_back(watch, reason):
            raise UnsupportedModelError(
                f"{watch.name}: {reason}, so it cannot be replaced by another attention. Scale the layer's whole "
                "output instead: enhance() with a strength can."
            )
    if how is not None and not isinstance(how, Kernel):
        return ()
    called: tuple[Kernel, ...] = ()
    method = "__call__"
    if callable(carrier):
        method = getattr(how, "method", None) or _function_of(original).__name__
        called = kernels_called(getattr(original, method, None), KNOWN_KERNELS if how is None else (how,))
    if not called and how is not None:
        raise UnsupportedModelError(
            f"{watch.name}: {original.__name__} has no plain function {method} that loads {how.name} from its globals. "
            "Name the method that does, or see query and key elsewhere (docs/add-a-model.md)."
        )
    if not called:
        raise UnsupportedModelError(
            f"{watch.name}: {original.__name__} calls neither dispatch_attention_fn nor "
            f"F.scaled_dot_product_attention in its own {method}, so its query and key cannot be seen. Use a diffusers "
            "processor for this layer, leave it out with layers=..., or say where to see them (docs/add-a-model.md)."
        )
    return called


@functools.cache  # one subclass for one class: blocks stay alike, and torch.compile makes one graph for all
def enhanced_class(original: type, kernels: tuple[Kernel, ...]) -> type:
    """The subclass whose function is watched, and in which the kernels are observed."""
    function = _function_of(original)
    inner, functions = function, dict[str, Any]()
    if kernels:
        method = kernels[0].method or function.__name__
        observed = observed_copy_of(getattr(original, method), kernels)
        static = isinstance(inspect.getattr_static(original, method), staticmethod)
        functions[method] = staticmethod(observed) if static else observed
        inner = observed if method == function.__name__ else function
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)  # diffusers filters keyword arguments by this signature
    def watched(self, *args, **kwargs):
        watch = getattr(self, WATCH)
        call = running()
        call.watch, call.length, call.kernel_calls = watch, _length(self, watch, names, args, kwargs), 0
        call.seen, call.late, call.done, call.shards = [], None, False, _shards(self, watch)
        try:
            _look_before(self, watch, args, kwargs)
            output = inner(self, *args, **kwargs)
            seen = call.seen
        finally:
            call.watch, call.seen, call.query, call.key = None, [], None, None
        if call.done:
            return output
        if not seen and not watch.tokens.skips:
            how, missed = watch.query_key, "calling its attention kernel"
            if isinstance(how, Outputs):
                missed = f"running {how.query} and {how.key}"
            raise UnsupportedModelError(
                f"{watch.name}: {original.__name__} returned without {missed}, so there was nothing to see. Leave this "
                "layer out with layers=..."
            )
        if watch.scaled_later:
            call.late = seen
            return output
        return _scaled_by_gain(output, watch, seen)

    return _subclass(original, {**functions, function.__name__: watched})


def _length(self: Any, watch: Watch, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Tokens of the layer's stream, 0 if it gets none; a processor's first argument is its attention module."""
    if watch.tokens.argument is None:
        return 0
    at = watch.tokens.argument + (0 if isinstance(self, nn.Module) else 1)
    if at < len(args):
        return args[at].shape[-2]
    name = names[at + 1] if at + 1 < len(names) else ""  # after self
    return kwargs[name if name in kwargs else "hidden_states"].shape[-2]


def _look_before(self: Any, watch: Watch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Where a function finds query and key."""
    how = watch.query_key
    if how is None or isinstance(how, (Kernel, Outputs)):
        return
    with torch.no_grad():
        query, key = how(self, args, kwargs)
    look(query, key, None)


NOTES = "_notes_for_enhance_a_video"


@functools.cache
def noting_class(original: Any, name: str) -> type:
    """The subclass of a module whose output is the running layer's query or key."""
    function = original.forward

    @functools.wraps(function)
    def forward(self, *args, **kwargs):
        output = function(self, *args, **kwargs)
        call, watch = running(), getattr(self, WATCH)
        how: Any = watch.query_key
        if call.watch is watch:
            setattr(call, name, output)
            if call.query is not None and call.key is not None:
                look(how.arrange(call.query), how.arrange(call.key), how.scale)
        return output

    return _subclass(original, {"forward": forward, NOTES: name})


def _shards(self: Any, watch: Watch) -> Shards | None:
    """Where the tokens lie on several devices; only sequences of nothing but video can be told apart there."""
    shards = Shards.of(getattr(self, "_parallel_config", None))
    if shards is not None and (watch.tokens.place != "video only" or watch.rows() is not None):
        raise TokenLayoutError(
            f"{watch.name}: context parallelism cuts a sequence that holds more than video ({watch.tokens.place}), "
            "which is not supported. Remove the enhancement or run without enable_parallelism()."
        )
    return shards


@functools.cache
def scaling_class(original: Any) -> type:
    """The subclass of a module whose output is scaled in place of the attention's."""
    function = original.forward

    @functools.wraps(function)
    def forward(self, *args, **kwargs):
        output = function(self, *args, **kwargs)
        watch = getattr(self, WATCH)
        return _scaled_by_gain(output, watch, _seen_by_now(watch))

    return _subclass(original, {"forward": forward})


def _seen_by_now(watch: Watch) -> list[Any]:
    """What was seen in the layer in whose place a module is scaled, which runs after it or inside it."""
    call = running()
    if call.watch is not watch:  # after it
        seen, call.late = call.late, None
        return seen or []
    if not call.seen and not watch.tokens.skips:
        raise UnsupportedModelError(
            f"{watch.name}: the module that is to be scaled ran before query and key were seen, so it is not what "
            "follows the attention. Name another one."
        )
    call.done = True
    return call.seen


def _scaled_by_gain(output: Any, watch: Any, seen: list[Any]) -> Any:
    """The output, its video scaled by what the watch says to what was seen; as it is where that is nothing."""
    if not seen:
        return output
    rows, part = watch.rows(), watch.tokens.argument or 0
    if getattr(watch, "asks_share", False):
        gain = watch.gain(seen, _residual(output, watch, rows, part))
    else:
        gain = watch.gain(seen)
    return output if gain is None else scaled(output, gain, rows, part)


def _residual(output: Any, watch: Watch, rows: Rows, part: int) -> Residual:
    """What the layer puts out and the stream of the block that is running."""
    call = running()
    if call.stream is None:
        raise UnsupportedModelError(
            f"{watch.name} ran outside of its block, so its share of the residual stream cannot be measured. Use a "
            "policy that does not ask for it, or leave this layer out with layers=..."
        )
    return Residual(video_of(output, rows, part), call.stream, call.shards)


@functools.cache
def entering_class(original: Any, argument: int) -> type:
    """The subclass of a block that keeps the stream that enters it, while it runs: its tensor number `argument`.

    Both ways in are watched: a compiled block is entered by its forward, and one whose forward was replaced (step
    caches and offloading do that, at the instance) by its __call__.
    """
    names = tuple(inspect.signature(original.forward).parameters)[1:]  # without self

    def keeping(function: Any) -> Any:
        @functools.wraps(function)
        def entered(self, *args, **kwargs):
            call = running()
            around, call.stream = call.stream, _tensor(argument, names, args, kwargs)
            try:
                return function(self, *args, **kwargs)
            finally:
                call.stream = around

        return entered

    return _subclass(original, {"forward": keeping(original.forward), "__call__": keeping(original.__call__)})


def _tensor(argument: int, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """That of the tensors among a forward's arguments, in the order of its definition."""
    given = [*args, *(kwargs[name] for name in names[len(args) :] if name in kwargs)]
    tensors = [value for value in given if isinstance(value, Tensor)]
    return tensors[argument] if argument < len(tensors) else None


def _subclass(original: type, functions: dict[str, Any]) -> type:
    """`original` with functions replaced, under its own name; copies and pickles of its instances are plain."""

    def __reduce_ex__(self, protocol):  # an enhancement belongs to its handle
        return _plain, (original,), {k: v for k, v in self.__dict__.items() if k != WATCH}

    same = {k: getattr(original, k) for k in ("__module__", "__qualname__", "__doc__")}
    return type(original.__name__, (original,), {**same, **functions, "__reduce_ex__": __reduce_ex__})


def _plain(original: type) -> Any:
    return object.__new__(original)


def scaled(output: Any, gain: Tensor, rows: Rows = None, part: int = 0) -> Any:
    """Scale the video: in the tensor (…, N, C), or in one part of a tuple. Computed in fp32, kept in its own dtype.

    gain is (B,) or (1,); for temporal layers the output is (B*S, T, C). rows: the video's among the N tokens.
    """
    if isinstance(output, tuple):
        return (*output[:part], scaled(output[part], gain, rows), *output[part + 1 :])
    gain = gain.to(output.device)
    if output.ndim > 2 and gain.shape[0] not in (1, output.shape[0]):
        gain = gain.repeat_interleave(output.shape[0] // gain.shape[0])  # (B*S,)
    factor = gain.view(-1, *[1] * (output.ndim - 1))  # (B or 1, 1, 1) fp32
    if rows is not None:
        every = torch.ones(*factor.shape[:-2], output.shape[-2], 1, device=output.device)  # (B or 1, N, 1)
        every[..., rows, :] = factor
        factor = every
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or output.dtype == factor.dtype:
        return (output * factor).to(output.dtype)  # (B, N, C)
    return torch.mul(output, factor, out=torch.empty_like(output))  # the same numbers, no fp32 copy in memory
