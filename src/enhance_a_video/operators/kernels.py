"""Attention with its log-sum-exp: torch's own fused kernels, which compute it anyway. Needed by exact odds.

The log-sum-exp of a query over its keys, l = log sum_j exp(scale * q k_j + mask_j), natural logarithm, (B, H, L) fp32.
torch's public scaled_dot_product_attention does not return it, but the private operators behind it do. Each of them is
checked against its schema once; where it is missing or differs, there is no such kernel here and a fallback acts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_MATH, _FLASH, _EFFICIENT, _CUDNN = range(4)  # torch.nn.attention.SDPBackend

# The arguments that are used here, in their order, and keywords; what else an operator takes has defaults.
_SCHEMAS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "_scaled_dot_product_flash_attention_for_cpu": (
        ("query", "key", "value", "dropout_p", "is_causal"), ("attn_mask", "scale"),
    ),
    "_scaled_dot_product_flash_attention": (
        ("query", "key", "value", "dropout_p", "is_causal", "return_debug_mask"), ("scale",),
    ),
    "_scaled_dot_product_efficient_attention": (
        ("query", "key", "value", "attn_bias", "compute_log_sumexp", "dropout_p", "is_causal"), ("scale",),
    ),
    "_scaled_dot_product_cudnn_attention": (
        ("query", "key", "value", "attn_bias", "compute_log_sumexp", "dropout_p", "is_causal", "return_debug_mask"),
        ("scale",),
    ),
}  # fmt: skip


def _checked(name: str) -> Any:
    """torch.ops.aten's operator of this name if it is there and takes what is given here, else None."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None or "default" not in packet.overloads():
        return None
    schema, (positional, keywords) = packet.default._schema, _SCHEMAS[name]
    names = [argument.name for argument in schema.arguments if not argument.kwarg_only]
    others = [argument for argument in schema.arguments if argument.kwarg_only or argument.name not in positional]
    fits = tuple(names[: len(positional)]) == positional and all(
        argument.name in keywords or argument.has_default_value() for argument in others
    )
    fits = fits and set(keywords) <= {argument.name for argument in schema.arguments} and len(schema.returns) >= 2
    return packet.default if fits else None


# At import: torch.compile traces through caches, and cannot trace the reading of a schema.
_OPERATORS: dict[str, Any] = {name: _checked(name) for name in _SCHEMAS}


def _cpu(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> tuple[Tensor, Tensor]:
    run = _OPERATORS["_scaled_dot_product_flash_attention_for_cpu"]
    out, lse = run(query, key, value, 0.0, False, attn_mask=mask, scale=scale)
    return out, lse


def _flash(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    run, size = _OPERATORS["_scaled_dot_product_flash_attention"], query.shape[-1]
    if size % 8:  # the operator, unlike scaled_dot_product_attention, does not fill them up itself
        scale = size**-0.5 if scale is None else scale
        query, key, value = (F.pad(x, (0, 8 - size % 8)) for x in (query, key, value))
    out, lse, *_ = run(query, key, value, 0.0, False, False, scale=scale)
    return out[..., :size], lse


def _efficient(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    run = _OPERATORS["_scaled_dot_product_efficient_attention"]
    mask = None if mask is None else _aligned(mask.expand(*query.shape[:3], key.shape[2]))
    out, lse, *_ = run(query, key, value, mask, True, 0.0, False, scale=scale)
    return out, lse[..., : query.shape[2]]  # its rows are filled up to a multiple of 32


def _aligned(mask: Tensor) -> Tensor:
    """With rows whose distance in memory is a multiple of 8, as the kernel needs it."""
    keys = mask.shape[-1]
    return F.pad(mask, (0, -keys % 8))[..., :keys]


def _cudnn(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    run = _OPERATORS["_scaled_dot_product_cudnn_attention"]
    out, lse, *_ = run(query, key, value, mask, True, 0.0, False, False, scale=scale)
    return out, lse.squeeze(-1) if lse.ndim == 4 else lse  # torch 2.9 and later have (B, H, L, 1)


Pair = Callable[..., tuple[Tensor, Tensor]]
_ON_CPU: dict[int, tuple[str, Pair]] = {_FLASH: ("_scaled_dot_product_flash_attention_for_cpu", _cpu)}
_ON_GPU: dict[int, tuple[str, Pair]] = {
    _FLASH: ("_scaled_dot_product_flash_attention", _flash),
    _EFFICIENT: ("_scaled_dot_product_efficient_attention", _efficient),
    _CUDNN: ("_scaled_dot_product_cudnn_attention", _cudnn),
}


def pair_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Pair | None:
    """The kernel that scaled_dot_product_attention takes for these tensors, with its log-sum-exp; None = it has none.

    (query, key, value, mask, scale) -> output (B, H, Lq, D), log-sum-exp (B, H, Lq) fp32. Heads are as many in all.
    """
    known = _ON_CPU if query.device.type == "cpu" else _ON_GPU if query.device.type == "cuda" else {}
    name, run = known.get(_choice(query, key, value, mask), ("", None))
    return run if run is not None and _OPERATORS[name] is not None else None


def _choice(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> int:
    """Which kernel that is. A traced graph cannot branch on it: there flash, or with a mask or in fp32 efficient."""
    if torch.compiler.is_compiling():
        if query.device.type == "cpu":
            return _FLASH
        return _FLASH if mask is None and query.dtype in (torch.float16, torch.bfloat16) else _EFFICIENT
    try:
        return int(torch._fused_sdp_choice(query, key, value, attn_mask=mask))
    except (AttributeError, TypeError, RuntimeError):  # private: not in every version, not for every kind of tensor
        return _MATH


def attention_with_lse(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """softmax(scale * query key^T + mask) value and its log-sum-exp, both with gradients.

    query (B, H, Lq, D), key and value (B, H or fewer, Lk, D); mask bool (False: left out) or added, broadcast to
    (B, H, Lq, Lk). Returns (B, H, Lq, D) and (B, H, Lq) fp32, the latter -inf for a query without keys. Where torch
    has no such kernel (pair_kernel() is None) it is written out, with all logits in memory.
    """
    query, key, value, mask = prepared(query, key, value, mask)
    run = pair_kernel(query, key, value, mask)
    if run is None:
        return _written_out(query, key, value, mask, scale)
    out, lse = run(query, key, value, mask, scale)
    if mask is not None:  # kernels give 0 or infinity for a query that has no key left
        lse = lse.masked_fill((mask == float("-inf")).all(-1), float("-inf"))
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad):
        lse = _WithGradient.apply(query, key, lse.detach(), mask, scale)
    return out, lse


def _written_out(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    """The same in plain operations, in fp32: for the small calls of single frames that no kernel takes."""
    logits = (query.float() @ key.float().mT) * (query.shape[-1] ** -0.5 if scale is None else scale)  # (B, H, Lq, Lk)
    if mask is not None:
        logits = logits + mask.float()
    lse = logits.logsumexp(-1)  # (B, H, Lq)
    weights = torch.exp(logits - lse.masked_fill(lse == float("-inf"), 0.0)[..., None])
    return (weights @ value.float()).to(query.dtype), lse


def prepared(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As the kernels take them: as many heads in all, an added mask of four dimensions."""
    if key.shape[1] != query.shape[1]:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
        mask = mask[(None,) * (4 - mask.ndim)].to(query.dtype)
    return query, key, value, mask


class _WithGradient(torch.autograd.Function):
    """The log-sum-exp, to which the kernels give no gradient.

    With P the attention map: d lse / d query = scale * P key, an attention whose values are the keys; d lse / d key =
    scale * P^T (g query), that attention's gradient of its values for the incoming gradient g query.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, lse: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
        ctx.save_for_backward(query, key, *(() if mask is None else (mask,)))
        ctx.scale = scale
        return lse.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, *masks = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5 if ctx.scale is None else ctx.scale
        weight = (grads[0] * scale)[..., None].to(query.dtype)  # (B, H, Lq, 1)
        values = key.detach().requires_grad_()
        with torch.enable_grad():
            means = F.scaled_dot_product_attention(
                query.detach(), key.detach(), values, masks[0] if masks else None, scale=ctx.scale
            )  # (B, H, Lq, D)
        (of_key,) = torch.autograd.grad(means, values, weight * query)
        return weight * means.detach(), of_key, None, None, None
