"""The ways to read the query and key of an attention layer, and the order of their axes.

    Kernel("flash_attention")                          at a function the layer calls by a global name
    Outputs("q_norm", "k_norm")                        at two modules of the layer, whose outputs they are
    (module, args, kwargs) -> (query, key)             wherever a function of yours finds them

Letters of a layout: B batch, H heads, L tokens, D head dimension, as words in the order of the axes: "B L H D". Two
that share an axis stand in brackets, "B L (H D)", the slower one first; without B there is one sequence.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..errors import SettingsError, TokenLayoutError


@dataclass(frozen=True)
class Kernel:
    """A function that computes attention, called with query and key by the layer's own code.

    name    as the code writes it, a global name or one reached from it: "flash_attention",
            "F.scaled_dot_product_attention". Its arguments are called q or query, k or key and perhaps scale,
            softmax_scale or sm_scale; where they are not, its first two are query and key
    layout  the axes of query and key
    method  which method of the layer calls it; None = its forward, or a processor's __call__
    heads   their number, for a layout in which they share an axis

    Raises SettingsError for a layout that cannot be read, and for fields that are no names or numbers.
    """

    name: str
    layout: str = "B L H D"
    method: str | None = None
    heads: int | None = None
    arrange: Callable[[Tensor], Tensor] = field(init=False, repr=False, compare=False)  # -> (B, H, L, D)

    def __post_init__(self) -> None:
        _check_names(self, "name", *(["method"] if self.method is not None else []))
        object.__setattr__(self, "arrange", arranging(self.layout, self.heads))

    def same_call(self, other: Kernel) -> bool:
        """Whether both are the same function with the same layout of its arguments."""
        return (self.name, self.layout.split()) == (other.name, other.layout.split())


@dataclass(frozen=True)
class Outputs:
    """Two modules inside the layer, such as its q and k norms, whose outputs are query and key.

    What happens to them after that (a rotary embedding) is not seen. scale: the layer's softmax scale, D ** -0.5
    unless given. Raises SettingsError for a layout that cannot be read, and for fields that are no names or numbers.
    """

    query: str
    key: str
    layout: str = "B H L D"
    heads: int | None = None
    scale: float | None = None
    arrange: Callable[[Tensor], Tensor] = field(init=False, repr=False, compare=False)  # -> (B, H, L, D)

    def __post_init__(self) -> None:
        _check_names(self, "query", "key")
        scale = self.scale
        if scale is not None and (type(scale) not in (int, float) or not math.isfinite(scale) or scale <= 0):
            raise SettingsError(f"Outputs(scale={scale!r}): give a positive number, or None for D ** -0.5")
        object.__setattr__(self, "arrange", arranging(self.layout, self.heads))


Function = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Tensor, Tensor]]
"""(module, args, kwargs) of the layer's call -> query, key (B, H, L, D). module: the layer, or its processor if it has
one (args[0] is then the layer). Called before the layer, without gradients."""

QueryKey = Kernel | Outputs | Function | None
"""None: at torch's scaled_dot_product_attention or diffusers' dispatch_attention_fn, whichever the layer calls."""


def _check_names(how: Any, *names: str) -> None:
    for name in names:
        value = getattr(how, name)
        if not isinstance(value, str) or not value:
            raise SettingsError(f"{type(how).__name__}({name}={value!r}): give a name, as the model's code writes it")


def arranging(layout: str, heads: int | None = None) -> Callable[[Tensor], Tensor]:
    """A function that views a tensor of this layout as (B, H, L, D). Raises SettingsError when it cannot be read."""
    if heads is not None and (type(heads) is not int or heads < 1):
        raise SettingsError(f"heads={heads!r}: give the number of attention heads, or None")
    if not isinstance(layout, str):
        raise SettingsError(f"layout={layout!r}: give the axes as the letters B, H, L, D: 'B L H D', 'B L (H D)'")
    axes = [word.strip("()").replace(" ", "") for word in re.findall(r"\([^()]*\)|[^()\s]+", layout)]
    letters = "".join(axes)
    if sorted(letters) not in (sorted("BHLD"), sorted("HLD")) or any(len(a) > 2 for a in axes):
        raise SettingsError(f"layout={layout!r}: give the axes as the letters B, H, L, D: 'B L H D', 'B L (H D)'")
    shared = [(i, axis) for i, axis in enumerate(axes) if len(axis) == 2]
    if any("H" not in axis for _, axis in shared):
        raise SettingsError(f"layout={layout!r}: only H can share an axis with another")
    if shared and heads is None:
        raise SettingsError(f"layout={layout!r}: heads={heads!r}, but their number is needed to part the shared axis")
    splits = tuple((i, (heads, -1) if axis[0] == "H" else (-1, heads)) for i, axis in reversed(shared))
    ndim, batched = len(axes), "B" in letters
    order = tuple((letters if batched else "B" + letters).index(letter) for letter in "BHLD")

    def arranged(x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim != ndim:
            found = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise TokenLayoutError(f"query or key is {found}, which is not the layout {layout!r}")
        for axis, sizes in splits:
            x = x.unflatten(axis, sizes)
        return (x if batched else x[None]).permute(order)  # (B, H, L, D)

    return arranged


def reading(kernel: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], tuple[Tensor, Tensor, Any]]:
    """A function that finds query, key and softmax scale (or None) among the arguments of a call of the kernel."""
    positional, named = _parameters(kernel)
    query, key, scale = (
        next(((positional.index(n) if n in positional else _NEVER, n) for n in named if n in wanted), unnamed)
        for wanted, unnamed in (
            (("query", "q"), (0, "query")),
            (("key", "k"), (1, "key")),
            (("scale", "softmax_scale", "sm_scale"), (_NEVER, "scale")),
        )
    )

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Any]:
        return _argument(args, kwargs, *query), _argument(args, kwargs, *key), _argument(args, kwargs, *scale)

    return read


_SDPA = ["query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale"]  # a builtin: no signature to read
_NEVER = 10**6  # the place of an argument that only comes by name


def _parameters(kernel: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """The names of those that can be given by position, and of all."""
    try:
        parameters = inspect.signature(kernel).parameters.values()
    except (TypeError, ValueError):
        return _SDPA, _SDPA
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return positional, [p.name for p in parameters]


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], index: int, name: str) -> Any:
    return args[index] if index < len(args) else kwargs.get(name)


KNOWN_KERNELS = (
    Kernel("dispatch_attention_fn", "B L H D"),
    Kernel("F.scaled_dot_product_attention", "B H L D"),
    Kernel("scaled_dot_product_attention", "B H L D"),
    Kernel("nn.functional.scaled_dot_product_attention", "B H L D"),
    Kernel("torch.nn.functional.scaled_dot_product_attention", "B H L D"),
)
