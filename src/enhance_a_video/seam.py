"""One attention layer: see its query and key, scale what it returns, undo.

How: a diffusers attention processor calls its kernel through a name of its own module (`dispatch_attention_fn`,
or `F.scaled_dot_product_attention`). The processor's class is swapped for a subclass whose `__call__` runs the very
same code object, but with the globals of a synthetic module in which that one name is observed. So nothing is copied
that could go stale, nothing outside the enhanced processors changes, torch.compile sees plain Python, and undo is
giving the class back. An attention module without a processor is treated the same, its `forward` being the function;
query_key.py says at which names, or where else, query and key are seen.
docs/architecture.md compares this with the other ways, measured.
"""

import copy
import dis
import functools
import inspect
import re
import sys
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from .errors import NoLayersError, TokenLayoutError, UnsupportedModelError
from .parallel import Shards
from .query_key import KNOWN_KERNELS, Kernel, Outputs, QueryKey, reading

Rows = slice | Tensor | None
"""Which tokens of a layer's stream are the video: a slice, int64 indices (T*S,), or None for all of them."""


@dataclass(frozen=True)
class Tokens:
    """How the tokens of one attention layer lie. Its stream is the sequence of video tokens (and perhaps history,
    reference or sound tokens) that it gets as `hidden_states` and returns.

    place      where the stream stands in the query that the kernel gets: "video only" (it is all of it), "text first",
               "video first", or "temporal": the kernel gets one sequence of T tokens for each site, (B*S, H, T, D)
    keys       where the keys of the query's own tokens stand when there are more keys than queries (cached or text
               keys): "none" = that does not happen, "last", "first"
    skips      whether the layer may leave its kernel out (perturbed guidance); then there is nothing to scale
    call       which of the layer's kernel calls is the one, counted from 0; None = one for each sample of the batch
    argument   which positional argument of the processor is the stream, and which part of a tuple it returns; None =
               the layer gets no stream (..., N, C) but a picture or other shape, which is scaled as a whole
    """

    place: Literal["video only", "text first", "video first", "temporal"]
    keys: Literal["none", "last", "first"] = "none"
    call: int | None = 0
    argument: int | None = 0
    skips: bool = False


_WATCH = "_enhance_a_video"  # the only attribute an enhanced processor or module carries besides its own


class Watch(Protocol):
    """What an enhanced layer asks while it runs."""

    name: str
    tokens: Tokens
    query_key: QueryKey  # where query and key are seen
    scaled_later: bool  # whether another module's output is scaled instead

    def rows(self) -> Rows:
        """Which tokens of the stream are the video in the present forward call."""

    def look(self, query: Tensor, key: Tensor, scale: float | None, shards: Shards | None) -> Any:
        """Video-only query, key (B, H, T*S, D) and the kernel's own softmax scale -> anything; see gain().

        For temporal layers (B*S, H, T, D). With shards, this rank's part of the T*S tokens.
        """

    def gain(self, seen: list[Any]) -> Tensor | None:
        """What look() returned, once for each kernel call -> gain (B,) or (1,), or None = leave the output alone."""

    # A watch may have one thing more, to compute what the kernel would: attend(call, seen) with a KernelCall and what
    # look() returned -> (B, H, L, D), or None = the kernel's own.


@dataclass(frozen=True)
class KernelCall:
    """One call of an attention kernel, for a watch that computes it in another way.

    query, key, value (B, H, L, D): text and all that is joined included. rows: which of the L tokens are the video,
    int64. mask: as scaled_dot_product_attention takes it, or None.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    rows: Tensor  # (T*S,)
    kernel: Callable[..., Tensor]  # the layer's own, its other arguments filled in

    def at(self, rows: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        """What the layer's own kernel says for these query tokens, (B, H, len(rows), D), perhaps of other keys, values.

        Softmax works row by row, so rows alone are what they are in the whole.
        """
        mask = self.mask
        if mask is not None and mask.ndim > 1 and mask.shape[-2] > 1:
            mask = mask[..., rows, :]
        every = len(rows) == self.query.shape[2]
        query = self.query if every else self.query[:, :, rows]
        return self.kernel(query, self.key if key is None else key, self.value if value is None else value, mask)


class _Call:
    """What the layer that is running, the kernel it calls and the place where it is scaled have to tell each other."""

    watch: Watch | None = None
    length: int = 0  # tokens of the stream
    shards: Shards | None = None  # where the tokens lie on several devices
    kernel_calls: int = 0
    query: Tensor | None = None  # what the modules put out at which query and key are seen
    key: Tensor | None = None
    seen: list[Any]
    late: Tensor | None = None  # the gain, until the module that is to be scaled by it has run
    done: bool = False  # whether that was one inside the layer


class _CallInThread(_Call, threading.local):
    pass


_eager, _traced = _CallInThread(), _Call()


def _running() -> _Call:
    """This thread's call. A graph holds one call after the other, and dynamo is not at home in a threading.local."""
    return _traced if torch.compiler.is_compiling() else _eager


# ---------------------------------------------------------------------------------------- the observed kernel
def _look(query: Tensor, key: Tensor, scale: float | None) -> Watch | None:
    """Called by the observed kernel with query and key as (B, H, L, D), text and all that is joined included.

    Returns the watch if this is the call that it wants to compute itself.
    """
    call = _running()
    watch = call.watch
    if watch is None:
        return None
    number, call.kernel_calls = call.kernel_calls, call.kernel_calls + 1
    if watch.tokens.call not in (None, number):
        return None
    rows = watch.rows()
    query, key = _video(query, key, call.length, rows, watch)
    call.seen.append(watch.look(query, key, scale, call.shards))
    return None if getattr(watch, "attend", None) is None else watch


def _video(query: Tensor, key: Tensor, length: int, rows: Rows, watch: Watch) -> tuple[Tensor, Tensor]:
    """The video's part of query and key (B, H, L, D): the stream's `length` tokens, of which `rows` are the video."""
    tokens, queries, keys = watch.tokens, query.shape[2], key.shape[2]
    if tokens.keys != "none" and keys > queries:
        key = key[:, :, keys - queries :] if tokens.keys == "last" else key[:, :, :queries]
    if key.shape[1] < query.shape[1] and query.shape[1] % key.shape[1] == 0:  # grouped queries share a key head
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    whole = tokens.place in ("video only", "temporal")
    if tokens.argument is None:
        length = queries
    if key.shape != query.shape or length > queries or (whole and length != queries):
        raise TokenLayoutError(
            f"{watch.name}: expected self-attention over {length} video tokens ({tokens.place}), but the kernel "
            f"got query {tuple(query.shape)} and key {tuple(key.shape)} (B, H, L, D). Leave it out with layers=..."
        )
    if whole and rows is None:
        return query, key
    first = queries - length if tokens.place == "text first" else 0
    if isinstance(rows, Tensor):
        return query[:, :, rows + first], key[:, :, rows + first]  # (B, H, T*S, D)
    start, stop, _ = (rows or slice(None)).indices(length)
    return query[:, :, first + start : first + stop], key[:, :, first + start : first + stop]  # (B, H, T*S, D)


def _places(queries: int, length: int, rows: Rows, watch: Watch, device: torch.device) -> Tensor:
    """Where the video is among the kernel's queries, (T*S,) int64: as _video() takes it."""
    if watch.tokens.argument is None:
        length = queries
    first = queries - length if watch.tokens.place == "text first" else 0
    stream = torch.arange(first, first + length, device=device)
    return stream if rows is None else stream[rows]


def _observed(kernel: Kernel, home: types.ModuleType) -> Any:
    """What stands in for the global that leads to the kernel: the kernel observed, or a copy of the module it is in."""
    path = tuple(kernel.name.split("."))
    read = reading(_resolved(home, path))

    def observed(*args, **kwargs):
        query, key, scale = read(args, kwargs)
        watch = _look(kernel.arrange(query), kernel.arrange(key), scale)
        if watch is None:
            return _resolved(home, path)(*args, **kwargs)
        return _attended(watch, kernel, _resolved(home, path), args, kwargs)

    return _leading_to(observed, getattr(home, path[0]), path[1:], f"{kernel.name}_{home.__name__}")


_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")  # of KNOWN_KERNELS


def _attended(watch: Any, kernel: Kernel, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the watch computes in the place of one of KNOWN_KERNELS.

    Raises UnsupportedModelError where the call cannot be taken apart.
    """
    call = _running()
    given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
    rest = {name: value for name, value in given.items() if name not in ("query", "key", "value", "attn_mask")}
    query, key, value = (kernel.arrange(given[name]) for name in ("query", "key", "value"))
    mask = given.get("attn_mask")
    refused = {
        "its attention is causal": bool(given.get("is_causal")),
        f"its mask is a {type(mask).__name__}": mask is not None and not isinstance(mask, Tensor),
        f"its keys {tuple(key.shape)} are not those of its queries {tuple(query.shape)}": query.shape != key.shape,
        "its tokens lie on several devices": given.get("parallel_config") is not None,
        "the model is compiled": torch.compiler.is_compiling(),
    }
    for reason in (reason for reason, holds in refused.items() if holds):
        raise UnsupportedModelError(
            f"{watch.name}: the attention itself cannot be replaced here, because {reason}. Leave the layer out with "
            "layers=..., or use enhance(), which can."
        )

    def own(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        # the layouts of KNOWN_KERNELS exchange two axes or none: the same function leads there and back
        q, k, v = map(kernel.arrange, (query, key, value))
        return kernel.arrange(original(query=q, key=k, value=v, attn_mask=mask, **rest))

    rows = _places(query.shape[2], call.length, watch.rows(), watch, query.device)
    output = watch.attend(KernelCall(query, key, value, mask, rows, own), call.seen[-1])
    return original(*args, **kwargs) if output is None else kernel.arrange(output)


def _resolved(home: Any, path: Sequence[str]) -> Any:
    """What the name means now (a later patch of the kernel by somebody else still acts), or None."""
    for part in path:
        home = getattr(home, part, None)
    return home


def _through_modules(home: Any, path: Sequence[str]) -> bool:
    """Whether the way to the kernel leads through modules alone, of which copies can stand in."""
    return all(isinstance(_resolved(home, path[:i]), types.ModuleType) for i in range(1, len(path)))


def _leading_to(observed: Any, original: Any, path: Sequence[str], name: str) -> Any:
    """A copy of a module, and of those inside it along the path, at whose end the observed function is."""
    if not path:
        return observed
    inside = _leading_to(observed, getattr(original, path[0]), path[1:], f"{name}_{path[0]}")
    twin = _new_module(name)
    twin.__dict__.update({k: v for k, v in vars(original).items() if not k.startswith("__")})
    twin.__dict__[path[0]] = inside
    return twin


# ------------------------------------------------------------------------------------------ the enhanced layer
def _kernels_called(function: Any, known: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    """Which of the kernels the function loads from its globals; none for anything but a plain function."""
    if not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        return ()
    loaded = {i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
    names, home = {*function.__code__.co_names}, sys.modules.get(function.__module__)
    paths = {kernel: kernel.name.split(".") for kernel in known}
    called = {k: path for k, path in paths.items() if path[0] in loaded and names.issuperset(path)}
    return tuple(k for k, path in called.items() if _resolved(home, path) and _through_modules(home, path))


def _observed_copy_of(function: Any, kernels: tuple[Kernel, ...]) -> types.FunctionType:
    """The same code object in a namespace of its own, where the kernels are observed."""
    home = sys.modules[function.__module__]
    namespace = _new_module("namespace", home.__name__, function.__qualname__)
    namespace.__dict__.update({k: v for k, v in function.__globals__.items() if k != "__name__"})
    namespace.__dict__.update({kernel.name.split(".")[0]: _observed(kernel, home) for kernel in kernels})
    observed = types.FunctionType(
        function.__code__, namespace.__dict__, function.__name__, function.__defaults__, function.__closure__
    )
    observed.__kwdefaults__ = function.__kwdefaults__
    return observed


def _new_module(*words: str) -> types.ModuleType:
    """An empty module under a name of its own in sys.modules: dynamo resolves globals by it."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", "_".join([__name__, *words]))
    while name in sys.modules:
        name += "_"
    module = sys.modules[name] = types.ModuleType(name)
    return module


def _function_of(original: Any) -> Any:
    """What runs: a module's forward, a processor's __call__."""
    return original.forward if issubclass(original, nn.Module) else original.__call__


def _kernels_of(carrier: Any, watch: Watch) -> tuple[Kernel, ...]:
    """Which kernels are observed in a layer: none where its query and key are seen elsewhere.

    Raises UnsupportedModelError when they are to be seen at a kernel that the layer does not call.
    """
    how, original = watch.query_key, type(carrier)
    if getattr(watch, "attend", None) is not None and (how is not None or watch.tokens.call is None):
        raise UnsupportedModelError(
            f"{watch.name}: {original.__name__} does not compute its attention in one call of a known kernel "
            f"({', '.join(k.name for k in KNOWN_KERNELS[:2])}), so it cannot be replaced by another attention."
        )
    if how is not None and not isinstance(how, Kernel):
        return ()
    called: tuple[Kernel, ...] = ()
    method = "__call__"
    if callable(carrier):
        method = getattr(how, "method", None) or _function_of(original).__name__
        called = _kernels_called(getattr(original, method, None), KNOWN_KERNELS if how is None else (how,))
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
def _enhanced(original: type, kernels: tuple[Kernel, ...]) -> type:
    """The subclass whose function is watched, and in which the kernels are observed."""
    function = _function_of(original)
    inner, functions = function, dict[str, Any]()
    if kernels:
        method = kernels[0].method or function.__name__
        observed = _observed_copy_of(getattr(original, method), kernels)
        static = isinstance(inspect.getattr_static(original, method), staticmethod)
        functions[method] = staticmethod(observed) if static else observed
        inner = observed if method == function.__name__ else function
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)  # diffusers filters keyword arguments by this signature
    def watched(self, *args, **kwargs):
        watch = getattr(self, _WATCH)
        call = _running()
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
        gain = watch.gain(seen) if seen else None
        if gain is None or watch.scaled_later:
            call.late = gain
            return output
        return scaled(output, gain, watch.rows(), watch.tokens.argument or 0)

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
    _look(query, key, None)


_NOTES = "_notes_for_enhance_a_video"


@functools.cache
def _noting(original: Any, name: str) -> type:
    """The subclass of a module whose output is the running layer's query or key."""
    function = original.forward

    @functools.wraps(function)
    def forward(self, *args, **kwargs):
        output = function(self, *args, **kwargs)
        call, watch = _running(), getattr(self, _WATCH)
        how: Any = watch.query_key
        if call.watch is watch:
            setattr(call, name, output)
            if call.query is not None and call.key is not None:
                _look(how.arrange(call.query), how.arrange(call.key), how.scale)
        return output

    return _subclass(original, {"forward": forward, _NOTES: name})


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
def _scaling(original: Any) -> type:
    """The subclass of a module whose output is scaled in place of the attention's."""
    function = original.forward

    @functools.wraps(function)
    def forward(self, *args, **kwargs):
        output = function(self, *args, **kwargs)
        watch = getattr(self, _WATCH)
        gain = _late_gain(watch)
        return output if gain is None else scaled(output, gain, watch.rows(), watch.tokens.argument or 0)

    return _subclass(original, {"forward": forward})


def _late_gain(watch: Watch) -> Tensor | None:
    """The gain for a module that is scaled in place of the layer, after it or inside it."""
    call = _running()
    if call.watch is not watch:  # after it
        gain, call.late = call.late, None
        return gain
    if not call.seen and not watch.tokens.skips:
        raise UnsupportedModelError(
            f"{watch.name}: the module that is to be scaled ran before query and key were seen, so it is not what "
            "follows the attention. Name another one."
        )
    call.done = True
    return watch.gain(call.seen) if call.seen else None


def _subclass(original: type, functions: dict[str, Any]) -> type:
    """`original` with functions replaced, under its own name; copies and pickles of its instances are plain."""

    def __reduce_ex__(self, protocol):  # an enhancement belongs to its handle
        return _plain, (original,), {k: v for k, v in self.__dict__.items() if k != _WATCH}

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


class Seam:
    """One attention module and the watch on it: attach(), intact, detach().

    scale_at: the module whose output is scaled, where that is not the attention's own.
    """

    def __init__(self, module: nn.Module, watch: Watch, scale_at: nn.Module | None = None):
        self.module, self.watch, self.scale_at = module, watch, scale_at
        self.carrier: Any = None  # what is watched: the module's processor, or the module where it has none
        self.original: Any = None  # the carrier's own class
        self.shared: Any = None  # the processor we stand in for, where it serves several modules
        self.refused: Any = None  # a later processor that could not be followed
        self.scaling: Any = None  # the own class of scale_at
        self.noting: list[tuple[Any, type]] = []  # modules whose outputs are query and key, with their own classes

    @property
    def intact(self) -> bool:
        """Whether the module still runs what is watched."""
        present = carrier_of(self.module)
        return present is self.carrier or present is self.refused

    def attach(self, shared: bool = False) -> None:
        """Watch the module's present processor. One that serves several modules is left alone: a copy stands in.

        Raises UnsupportedModelError when query and key cannot be seen, NoLayersError when a module for it is not there.
        """
        carrier = carrier_of(self.module)
        original = type(carrier)
        enhanced = _enhanced(original, _kernels_of(carrier, self.watch))  # type: ignore[arg-type]
        self.original = original
        outputs = self._outputs()
        if shared:
            self.shared, carrier = carrier, copy.copy(carrier)
            self.module.processor = carrier
        self.carrier = carrier
        setattr(carrier, _WATCH, self.watch)
        _register_like(original, enhanced)
        carrier.__class__ = enhanced
        if self.scale_at is not None:
            self.scaling = type(self.scale_at)
            setattr(self.scale_at, _WATCH, self.watch)
            self.scale_at.__class__ = _scaling(self.scaling)
        for name, module in outputs.items():
            own: Any = type(module)
            self.noting.append((module, own))
            setattr(module, _WATCH, self.watch)
            module.__class__ = _noting(own, name)

    def _outputs(self) -> dict[str, Any]:
        """The modules whose outputs are query and key. Raises NoLayersError when one is not there."""
        how = self.watch.query_key
        if not isinstance(how, Outputs):
            return {}
        try:
            found = {"query": self.module.get_submodule(how.query), "key": self.module.get_submodule(how.key)}
        except AttributeError as error:
            raise NoLayersError(f"{self.watch.name}: {error}; query and key were to be its outputs") from None
        if found["query"] is found["key"] or any(hasattr(m, _NOTES) for m in found.values()):
            raise UnsupportedModelError(
                f"{self.watch.name}: {how.query} or {how.key} serves several purposes or layers, so its outputs cannot "
                "be told apart. Give query_key a function instead (docs/add-a-model.md)."
            )
        return found

    def follow(self, shared: bool = False) -> bool:
        """After a replacement: let the old processor go and watch the new one. False when it cannot be watched."""
        self.detach()
        try:
            self.attach(shared)
        except UnsupportedModelError:
            self.refused = carrier_of(self.module)
        return self.carrier is not None

    def detach(self) -> None:
        """Give every watched object its own class back, and a shared processor its place. Safe to call twice."""
        carrier, self.carrier = self.carrier, None
        if carrier is None:
            return
        _give_back(carrier, self.original)
        if self.scale_at is not None:
            _give_back(self.scale_at, self.scaling)
        while self.noting:
            _give_back(*self.noting.pop())
        if self.shared is not None:
            self.shared.__dict__.update(carrier.__dict__)
            if self.module.processor is carrier:
                self.module.processor = self.shared
            self.shared = None


def carrier_of(module: nn.Module) -> Any:
    """What computes a module's attention: its processor, or itself."""
    return getattr(module, "processor", module)


def _register_like(original: type, enhanced: type) -> None:
    """Guidance by perturbation and layer skipping look a processor up by its class in a register of diffusers."""
    if "diffusers" not in sys.modules:
        return
    try:
        from diffusers.hooks._helpers import AttentionProcessorRegistry
    except ImportError:  # private; not every version has it
        return
    AttentionProcessorRegistry._register()
    known = AttentionProcessorRegistry._registry
    if original in known:
        known[enhanced] = known[original]


def _give_back(watched: Any, original: type) -> None:
    watched.__class__ = original
    watched.__dict__.pop(_WATCH, None)
