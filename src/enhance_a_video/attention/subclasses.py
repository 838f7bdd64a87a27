"""The enhanced layer: subclasses of processors and modules that are observed, and the scaling of what they return."""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TokenLayoutError, UnsupportedModelError
from ..operators import scaled
from ..sharding import Shards
from .forward import ForwardPatch, carried, function_of, places_of, replacing, stood_for
from .kernel import kernels_called, observe, observed_copy_of
from .observer import ENTRY, OBSERVER, AttentionObserver, running
from .query_key import KNOWN_KERNELS, Kernel, Outputs


def kernels_of(carrier: Any, observer: AttentionObserver, function: Any = None) -> tuple[Kernel, ...]:
    """Which kernels are observed in a layer: none where its query and key are observed elsewhere.

    function: what the layer runs, where that is not its class's. Raises UnsupportedModelError when query and key are to
    be observed at a kernel that it does not call.
    """
    how, original = observer.query_key, type(carrier)
    if observer.acts_at_kernel and not _computes_in_one_call(observer):
        known = ", ".join(kernel.name for kernel in KNOWN_KERNELS[:2])
        observer.fall_back(
            f"{original.__name__} does not compute its attention in one call of a known kernel ({known})"
        )
    if how is not None and not isinstance(how, Kernel):
        return ()
    called: tuple[Kernel, ...] = ()
    method = "__call__"
    if callable(carrier):
        function = function or function_of(original)
        method = getattr(how, "method", None) or function.__name__
        runs = getattr(original, method, None) if getattr(how, "method", None) else function
        called = kernels_called(runs, KNOWN_KERNELS if how is None else (how,))
    if not called and how is not None:
        raise UnsupportedModelError(
            f"{observer.name}: {original.__name__} has no plain function {method} that loads {how.name} from its "
            "globals. Name the method that does, or see query and key elsewhere (docs/guide/add-a-model.md)."
        )
    if not called:
        raise UnsupportedModelError(
            f"{observer.name}: {original.__name__} calls neither dispatch_attention_fn nor "
            f"F.scaled_dot_product_attention in its own {method}, so its query and key cannot be observed. Use a "
            "diffusers processor for this layer, leave it out with layers=..., or give query_key "
            "(docs/guide/add-a-model.md)."
        )
    return called


def _computes_in_one_call(observer: AttentionObserver) -> bool:
    """Whether a layer's attention is one call of a known kernel, in the layout that is known of it."""
    how = observer.query_key
    known = how is None or (isinstance(how, Kernel) and any(how.same_call(kernel) for kernel in KNOWN_KERNELS))
    return known and observer.tokens.call is not None


def patch_of(carrier: Any, observer: AttentionObserver) -> ForwardPatch:
    """What replaces a layer's function, in its class and in its instance. Nothing is changed yet.

    Raises UnsupportedModelError as kernels_of(), and for a forward of the instance that does not lead to its own.
    """
    original: Any = type(carrier)
    own = [stood_for(place.get().__func__) for place in places_of(carrier)]
    kernels = {function: kernels_of(carrier, observer, function) for function in own or [None]}
    if not own and carried(carrier) is not None and any(kernels.values()):
        raise UnsupportedModelError(
            f"{observer.name}: its forward was replaced by {carried(carrier)!r}, which does not lead to a method of "
            f"{original.__name__}, so the attention kernel in it cannot be observed. Enhance the model before that is "
            "put on, or give query_key a function (docs/guide/add-a-model.md)."
        )
    classes = kernels.get(function_of(original), kernels.get(None, ()))
    enhanced: Any = enhanced_class(original, next((k for k in kernels.values() if k and k[0].method), classes))
    return ForwardPatch(carrier, enhanced, lambda function: opening(function, kernels.get(function, ())))


@functools.cache  # one subclass for one class: blocks stay alike, and torch.compile makes one graph for all
def enhanced_class(original: type, kernels: tuple[Kernel, ...]) -> type:
    """The subclass whose function is observed, and in which the kernels are observed."""
    function = function_of(original)
    functions = dict[str, Any]()
    method = kernels[0].method if kernels else None
    if method and method != function.__name__:
        observed = observed_copy_of(getattr(original, method), kernels)
        static = isinstance(inspect.getattr_static(original, method), staticmethod)
        functions[method] = staticmethod(observed) if static else observed
    functions[function.__name__] = replacing(function, lambda f: opening(f, kernels))
    return subclass_of(original, functions)


@functools.cache
def opening(function: Any, kernels: tuple[Kernel, ...]) -> Any:
    """What runs in place of a layer's function: it opens the layer, in which the kernels are observed, and scales."""
    method = kernels[0].method if kernels else None
    inner = observed_copy_of(function, kernels) if kernels and method in (None, function.__name__) else function
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)  # diffusers filters keyword arguments by this signature
    def running_layer(self, *args, **kwargs):
        observer = getattr(self, OBSERVER, None)
        if observer is None:  # a hook that was put on while enhanced keeps this function after remove()
            return function(self, *args, **kwargs)
        call = running()
        call.observer, call.length, call.kernel_calls = observer, _length(self, observer, names, args, kwargs), 0
        call.observations, call.late, call.done, call.shards = [], None, False, _shards(self, observer)
        try:
            _observe_before(self, observer, args, kwargs)
            output = inner(self, *args, **kwargs)
            observations = call.observations
        finally:
            call.observer, call.observations, call.query, call.key = None, [], None, None
        if call.done:
            return output
        if not observations and not observer.tokens.skips:
            raise UnsupportedModelError(_missed(observer, type(self).__name__))
        if observer.scaled_later:
            call.late = observations
            return output
        return _scaled_by_gain(output, observer, observations)

    return running_layer


def _missed(observer: AttentionObserver, name: str) -> str:
    how, missed = observer.query_key, "calling its attention kernel"
    if isinstance(how, Outputs):
        missed = f"running {how.query} and {how.key}"
    return (
        f"{observer.name}: {name} returned without {missed}, so there was nothing to see. Leave this layer out with "
        "layers=..."
    )


def _length(
    self: Any, observer: AttentionObserver, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """Tokens of the layer's stream, 0 if it gets none; a processor's first argument is its attention module."""
    if observer.tokens.argument is None:
        return 0
    at = observer.tokens.argument + (0 if isinstance(self, nn.Module) else 1)
    name = names[at + 1] if at + 1 < len(names) else ""  # after self
    stream = args[at] if at < len(args) else kwargs.get(name if name in kwargs else "hidden_states")
    if not isinstance(stream, Tensor) or stream.ndim < 2:
        found = f"of shape {tuple(stream.shape)}" if isinstance(stream, Tensor) else type(stream).__name__
        raise TokenLayoutError(
            f"{observer.name}: argument {observer.tokens.argument} of {type(self).__name__} is to be the stream "
            f"(..., N, C), but it is {found}. Give Tokens(argument=...) the place of the stream, or None without "
            "one."
        )
    return stream.shape[-2]


def _observe_before(self: Any, observer: AttentionObserver, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Where a function finds query and key."""
    how = observer.query_key
    if how is None or isinstance(how, (Kernel, Outputs)):
        return
    with torch.no_grad():
        query, key = how(self, args, kwargs)
    observe(query, key, None)


NOTES = "_notes_for_enhance_a_video"


@functools.cache
def noting_class(original: Any, name: str) -> type:
    """The subclass of a module whose output is the running layer's query or key."""
    return subclass_of(original, {"forward": replacing(original.forward, lambda f: noting(f, name)), NOTES: name})


@functools.cache
def noting(function: Any, name: str) -> Any:
    """What runs in place of such a module's forward."""

    @functools.wraps(function)
    def forward(self, *args, **kwargs):
        output = function(self, *args, **kwargs)
        call: Any = running()
        observer = getattr(self, OBSERVER, None)
        if observer is not None and call.observer is observer:
            how: Any = observer.query_key
            setattr(call, name, output)
            if call.query is not None and call.key is not None:
                observe(how.arrange(call.query), how.arrange(call.key), how.scale)
        return output

    return forward


def _shards(self: Any, observer: AttentionObserver) -> Shards | None:
    """Where the tokens lie on several devices; only sequences of nothing but video can be divided there."""
    shards = Shards.of(getattr(self, "_parallel_config", None))
    if shards is not None and (observer.tokens.place != "video only" or observer.rows() is not None):
        raise TokenLayoutError(
            f"{observer.name}: context parallelism cuts a sequence that holds more than video "
            f"({observer.tokens.place}), which is not supported. Remove the enhancement or run "
            "without enable_parallelism()."
        )
    return shards


@functools.cache
def scaling_class(original: Any) -> type:
    """The subclass of a module whose output is scaled in place of the attention's."""
    return subclass_of(original, {"forward": replacing(original.forward, scaling)})


@functools.cache
def scaling(function: Any) -> Any:
    """What runs in place of such a module's forward."""

    @functools.wraps(function)
    def forward(self, *args, **kwargs):
        output = function(self, *args, **kwargs)
        observer = getattr(self, OBSERVER, None)
        return output if observer is None else _scaled_by_gain(output, observer, _observations_so_far(observer))

    return forward


def _observations_so_far(observer: AttentionObserver) -> list[Any]:
    """The observations of the layer in whose place a module is scaled, which runs after it or inside it."""
    call = running()
    if call.observer is not observer:  # after it
        observations, call.late = call.late, None
        return observations or []
    if not call.observations and not observer.tokens.skips:
        raise UnsupportedModelError(
            f"{observer.name}: the module that is to be scaled ran before query and key were observed, so it is not "
            "what follows the attention. Name another one."
        )
    call.done = True
    return call.observations


def _scaled_by_gain(output: Any, observer: Any, observations: list[Any]) -> Any:
    """The output, its video scaled by the observer's gain; unchanged where there is none."""
    if not observations:
        return output
    rows, part = observer.rows(), observer.tokens.argument or 0
    gain = observer.gain(observations)
    return output if gain is None else scaled(output, gain, rows, part)


def subclass_of(original: type, functions: dict[str, Any]) -> type:
    """`original` with functions replaced, under its own name; copies and pickles of its instances are plain."""

    def __reduce_ex__(self, protocol):  # an enhancement belongs to its handle
        return _plain, (original,), {k: v for k, v in self.__dict__.items() if k not in (OBSERVER, ENTRY)}

    same = {k: getattr(original, k) for k in ("__module__", "__qualname__", "__doc__")}
    return type(original.__name__, (original,), {**same, **functions, "__reduce_ex__": __reduce_ex__})


def _plain(original: type) -> Any:
    return object.__new__(original)
