"""ComfyUI's attention arguments as plain tensors (B, H, L, D), and back.

An attention function of ComfyUI takes q, k, v as (B, L, H*D), or as (B, H, L, D) with `skip_reshape`, and returns
(B, L, H*D), or (B, H, L, D) with `skip_output_reshape`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

COMFYUIS = "comfy.ldm.modules.attention"  # the module of ComfyUI's own attention functions


@dataclass(frozen=True)
class Attention:
    """One call of an attention function: how it was called, and the function behind it."""

    function: Callable[..., Tensor]  # takes all that follows; the next override in the chain, or ComfyUI's own
    query: Tensor
    key: Tensor
    value: Tensor
    heads: int
    mask: Tensor | None
    options: dict[str, Any]  # the other keyword arguments, as received

    def __call__(self) -> Tensor:
        """The result, as the model expects it."""
        return self.function(self.query, self.key, self.value, self.heads, mask=self.mask, **self.options)

    @property
    def is_torchs(self) -> bool:
        """Whether it is ComfyUI's function around torch's own kernels."""
        return _origin(self.function) == (COMFYUIS, "attention_pytorch")

    @property
    def made_by(self) -> str:
        """The function behind it, in words."""
        if isinstance(self.function, partial):  # an override that was there, which gets ComfyUI's function
            return f"the override {_origin(self.function.func)[1]} of another node"
        module, name = _origin(self.function)
        return f"ComfyUI's {name}" if module == COMFYUIS else f"{name} of {module}"

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return self.query.shape[0]

    def of(self, samples: tuple[int, ...]) -> "Attention":
        """The same call for these samples of its batch alone. A mask has a batch where it has three axes or four."""
        mask, chosen = self.mask, list(samples)
        if mask is not None and mask.ndim > 2 and mask.shape[0] == self.batch:
            mask = mask[chosen]
        return replace(self, query=self.query[chosen], key=self.key[chosen], value=self.value[chosen], mask=mask)

    @property
    def length(self) -> int:
        """L, the number of queries."""
        return self.query.shape[-2]

    @property
    def keys(self) -> int:
        return self.key.shape[-2]

    @property
    def width(self) -> int:
        """H * D."""
        return self.query.shape[1] * self.query.shape[3] if self._by_heads else self.query.shape[2]

    @property
    def model_options(self) -> dict[str, Any]:
        """The transformer_options it was called with: the model's own copy of the call's."""
        return self.options.get("transformer_options") or {}

    @property
    def scale(self) -> float | None:
        return self.options.get("scale")

    @property
    def _by_heads(self) -> bool:
        return bool(self.options.get("skip_reshape"))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """query, key and value as (B, H, L, D); keys and values may have fewer heads."""
        if self._by_heads:
            return self.query, self.key, self.value
        size = self.query.shape[-1] // self.heads
        q, k, v = (x.unflatten(2, (-1, size)).transpose(1, 2) for x in (self.query, self.key, self.value))
        return q, k, v

    def mask_by_heads(self) -> Tensor | None:
        """The mask as (B or 1, H or 1, L or 1, keys): ComfyUI adds a batch to two axes, and heads to three."""
        mask = self.mask
        if mask is not None and mask.ndim == 2:
            mask = mask[None]
        return mask[:, None] if mask is not None and mask.ndim == 3 else mask

    def kernel(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """The same function of other tensors, (B, H, L, D) in and out."""
        options = {**self.options, "skip_reshape": True}
        options.pop("skip_output_reshape", None)  # not all functions of node packs know it
        output = self.function(query, key, value, query.shape[1], mask=mask, **options)  # (B, L, H*D)
        return output.unflatten(2, (query.shape[1], -1)).transpose(1, 2)

    def output_by_heads(self, output: Tensor) -> Tensor:
        """What the function returned, as (B, H, L, D)."""
        if self.options.get("skip_output_reshape"):
            return output
        return output.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def as_returned(self, output: Tensor) -> Tensor:
        """(B, H, L, D) as the function would have returned it."""
        return output if self.options.get("skip_output_reshape") else output.transpose(1, 2).flatten(2)


def _origin(function: Callable[..., Tensor]) -> tuple[str, str]:
    """The module and the name that a function's own code was written under.

    `functools.wraps` gives a wrapper the name of what it wraps; its code and its globals stay its own.
    """
    code = getattr(function, "__code__", None)
    if code is None:  # an object that can be called
        return type(function).__module__, type(function).__name__
    return function.__globals__["__name__"], code.co_name
