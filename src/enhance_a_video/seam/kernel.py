"""The observed kernel: the same code object in a namespace in which the kernel's name leads to us first."""

import dis
import re
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import TokenLayoutError, UnsupportedModelError
from ..query_key import Kernel, reading
from .watch import KernelCall, Rows, Watch, fell_back, running


def look(query: Tensor, key: Tensor, scale: float | None) -> Watch | None:
    """Called by the observed kernel with query and key as (B, H, L, D), text and all that is joined included.

    Returns the watch if this is the call that it wants to compute itself.
    """
    call = running()
    watch = call.watch
    if watch is None:
        return None
    wanted = _is_wanted(call)
    call.kernel_calls += 1
    if not wanted:
        return None
    rows = watch.rows()
    query, key = _video(query, key, call.length, rows, watch)
    call.seen.append(watch.look(query, key, scale, call.shards))
    return None if getattr(watch, "attend", None) is None else watch


def _is_wanted(call: Any) -> bool:
    """Whether the kernel call that comes now is the one that the running layer's watch wants."""
    return call.watch is not None and call.watch.tokens.call in (None, call.kernel_calls)


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


def _places(queries: int, length: int, rows: Rows, watch: Watch) -> slice | Tensor:
    """Where the video is among the kernel's queries: as _video() takes it."""
    if watch.tokens.argument is None:
        length = queries
    first = queries - length if watch.tokens.place == "text first" else 0
    if isinstance(rows, Tensor):
        return rows + first
    start, stop, _ = (rows or slice(None)).indices(length)
    return slice(first + start, first + stop)


def _observed(kernel: Kernel, home: types.ModuleType) -> Any:
    """What stands in for the global that leads to the kernel: the kernel observed, or a copy of the module it is in."""
    path = tuple(kernel.name.split("."))
    read = reading(_resolved(home, path))

    def observed(*args, **kwargs):
        query, key, scale = read(args, kwargs)
        _check(kernel, args, kwargs)
        watch = look(kernel.arrange(query), kernel.arrange(key), scale)
        if watch is None:
            return _resolved(home, path)(*args, **kwargs)
        return _attended(watch, kernel, _resolved(home, path), args, kwargs)

    return _leading_to(observed, getattr(home, path[0]), path[1:], f"{kernel.name}_{home.__name__}")


_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")  # of KNOWN_KERNELS


def _check(kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Let the watch fall back where it would compute what the kernel does and this call cannot be taken apart.

    Before anything is measured, as what has to be measured depends on it. Raises UnsupportedModelError where the watch
    does not fall back.
    """
    call: Any = running()
    watch = call.watch
    if not _is_wanted(call) or getattr(watch, "attend", None) is None:
        return
    given = _by_name(args, kwargs)
    query, key = kernel.arrange(given["query"]), kernel.arrange(given["key"])
    mask, sharded = given.get("attn_mask"), given.get("parallel_config") is not None
    refused = {
        "its attention is causal": bool(given.get("is_causal")),
        f"its mask is a {type(mask).__name__}": mask is not None and not isinstance(mask, Tensor),
        f"its keys {tuple(key.shape)} are not those of its queries {tuple(query.shape)}": (
            query.shape[0] != key.shape[0] or query.shape[2:] != key.shape[2:]
        ),
        "its tokens lie on several devices": sharded and not getattr(watch, "attends_sharded", False),
        "the model is compiled": torch.compiler.is_compiling() and not watch.attends_compiled,
    }
    reason = next((reason for reason, holds in refused.items() if holds), "")
    if reason and not fell_back(watch, reason):
        raise UnsupportedModelError(
            f"{watch.name}: the attention itself cannot be changed here, because {reason}. Leave the layer out with "
            "layers=..., or scale its whole output: enhance() with a strength can."
        )


def _by_name(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}


def _attended(watch: Any, kernel: Kernel, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the watch computes in the place of one of KNOWN_KERNELS, in a call that passed _check()."""
    call = running()
    given = _by_name(args, kwargs)
    rest = {name: value for name, value in given.items() if name not in ("query", "key", "value", "attn_mask")}
    query, key, value = (kernel.arrange(given[name]) for name in ("query", "key", "value"))
    mask, sharded = given.get("attn_mask"), given.get("parallel_config") is not None

    def own(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        # the layouts of KNOWN_KERNELS exchange two axes or none: the same function leads there and back
        q, k, v = map(kernel.arrange, (query, key, value))
        return kernel.arrange(original(query=q, key=k, value=v, attn_mask=mask, **rest))

    def together() -> Tensor:
        return kernel.arrange(original(*args, **kwargs))

    video = _places(query.shape[2], call.length, watch.rows(), watch)
    every = KernelCall(query, key, value, mask, video, own)
    if sharded:
        rest["parallel_config"] = None
        every = replace(every, shards=call.shards, together=together)
    output = watch.attend(every, call.seen[-1])
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
