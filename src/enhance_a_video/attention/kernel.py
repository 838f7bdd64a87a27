"""Runs a processor's own code with a copy of its globals in which the attention kernel is replaced by ours."""

import dis
import re
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import TokenLayoutError
from ..operators import AttentionCall
from .observer import AttentionObserver, running
from .query_key import Kernel, reading


def observe(query: Tensor, key: Tensor, scale: float | None, **rest: Any) -> Tensor | None:
    """Called where query and key are observed, (B, H, L, D), text and all that is joined included.

    rest: more of the AttentionCall. Returns what takes the place of the kernel's output, or None.
    """
    call = running()
    observer = call.observer
    if observer is None:
        return None
    wanted = _is_wanted(call, key)
    call.kernel_calls += 1
    if not wanted:
        return None
    video, video_keys, stream = _places(query, key, call.length, observer)
    observations, output = observer.observe(AttentionCall(
        query, key, num_frames=observer.num_frames, video=video, video_keys=video_keys, scale=scale,
        samples=observer.samples, shards=call.shards,
        **{"stream": stream, "value": None, **observer.facts(), **rest},
    ))  # fmt: skip
    call.observations.append(observations)
    return output


def _is_wanted(call: Any, key: Tensor) -> bool:
    """Whether this kernel call of the running layer is the one to observe: by its number, or by the prompt's length
    where cross-attention calls one for the prompt and one for an image."""
    prompt = call.observer.facts().get("prompt")
    if call.observer.tokens.place == "cross" and prompt is not None:
        return key.shape[2] == prompt.shape[1]
    return call.observer.tokens.call in (None, call.kernel_calls)


def _places(
    query: Tensor, key: Tensor, length: int, observer: AttentionObserver
) -> tuple[slice | Tensor, slice | Tensor | None, slice | None]:
    """Where the video is among the kernel's queries and keys, of which `length` are the layer's stream; and where that
    stream is among the keys, None = it is all of them."""
    tokens, rows, queries, keys = observer.tokens, observer.rows(), query.shape[2], key.shape[2]
    cached = keys - queries if tokens.keys != "none" and keys > queries else 0
    if tokens.place == "cross":
        return slice(None) if rows is None else rows, None, None
    whole = tokens.place in ("video only", "temporal")
    if tokens.argument is None:
        length = queries
    same = query.shape[0] == key.shape[0] and query.shape[3] == key.shape[3] and query.shape[1] % key.shape[1] == 0
    if not same or keys - cached != queries or length > queries or (whole and length != queries):
        raise TokenLayoutError(
            f"{observer.name}: expected self-attention over {length} video tokens ({tokens.place}), but the kernel "
            f"got query {tuple(query.shape)} and key {tuple(key.shape)} (B, H, L, D). Leave it out with layers=..."
        )
    first = queries - length if tokens.place == "text first" else 0
    behind = cached if tokens.keys == "last" else 0  # the keys in front of those of the queries
    stream = None if whole or cached else slice(first, first + length)
    if isinstance(rows, Tensor):
        return rows + first, rows + first + behind, stream
    start, stop, _ = (rows or slice(None)).indices(length)
    start, stop = start + first, stop + first
    return slice(start, stop), slice(start + behind, stop + behind), stream


def _observed(kernel: Kernel, home: types.ModuleType) -> Any:
    """What stands in for the global that leads to the kernel: the kernel observed, or a copy of the module it is in."""
    path = tuple(kernel.name.split("."))
    read = reading(_resolved(home, path))

    def observed(*args, **kwargs):
        original = _resolved(home, path)
        query, key, scale = read(args, kwargs)
        observer, rest = running().observer, {}
        if observer is not None and observer.acts_at_kernel:  # then this is one of KNOWN_KERNELS
            rest = _rest_of_call(kernel, original, args, kwargs)
        output = observe(kernel.arrange(query), kernel.arrange(key), scale, **rest)
        # the layouts of KNOWN_KERNELS exchange two axes or none: the same function leads there and back
        return original(*args, **kwargs) if output is None else kernel.arrange(output)

    return _leading_to(observed, getattr(home, path[0]), path[1:], f"{kernel.name}_{home.__name__}")


_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")  # of KNOWN_KERNELS


def _rest_of_call(kernel: Kernel, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What an operator in the place of one of KNOWN_KERNELS needs of its call, as an AttentionCall has it."""
    given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
    mask, sharded = given.get("attn_mask"), given.get("parallel_config") is not None
    rest = {name: value for name, value in given.items() if name not in ("query", "key", "value", "attn_mask")}

    def own(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = map(kernel.arrange, (query, key, value))
        return kernel.arrange(original(query=q, key=k, value=v, attn_mask=mask, **rest))

    def run_all_ranks() -> Tensor:
        return kernel.arrange(original(*args, **kwargs))

    if isinstance(mask, Tensor) and original is not F.scaled_dot_product_attention:
        query, key = given["query"], given["key"]  # (B, L, H, D)
        if mask.shape == (query.shape[0], key.shape[1]):  # (B, K): the dispatcher makes it one of keys, and so do we
            mask = mask[:, None, None]
    found = {
        "value": kernel.arrange(given["value"]), "mask": mask, "causal": bool(given.get("is_causal")),
        "kernel_is_torchs": not given.get("dropout_p") and _is_torchs(original, given.get("backend")),
    }  # fmt: skip
    if sharded:
        rest["parallel_config"] = None
        return {**found, "kernel": own, "run_all_ranks": run_all_ranks}
    return {**found, "kernel": own}


def _is_torchs(original: Any, backend: Any) -> bool:
    """Whether a kernel is torch's scaled_dot_product_attention, or diffusers' dispatcher with its native backend.

    backend: as the dispatcher is given it; None = the one that is active.
    """
    if original is F.scaled_dot_product_attention:
        return True
    registry = getattr(sys.modules.get(getattr(original, "__module__", "")), "_AttentionBackendRegistry", None)
    if registry is None or original.__name__ != "dispatch_attention_fn":
        return False
    chosen = registry.get_active_backend()[0] if backend is None else backend
    return str(getattr(chosen, "value", chosen)) == "native"


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


def kernels_called(function: Any, known: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    """Which of the kernels the function loads from its globals; none for anything but a plain function."""
    if not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        return ()
    loaded = {i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
    names, home = {*function.__code__.co_names}, sys.modules.get(function.__module__)
    paths = {kernel: kernel.name.split(".") for kernel in known}
    called = {k: path for k, path in paths.items() if path[0] in loaded and names.issuperset(path)}
    return tuple(k for k, path in called.items() if _resolved(home, path) and _through_modules(home, path))


def observed_copy_of(function: Any, kernels: tuple[Kernel, ...]) -> types.FunctionType:
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
