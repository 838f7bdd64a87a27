"""Odds on any axes at once: one softmax with a bias on the logits, log(odds) where a key is not the query's own.

    o = softmax(scale * q k^T + sum over axes of log(odds) * [k is among the others]) v

By the layer's own kernel, which takes the bias as its mask: no product more than without it. Several axes are one bias,
their sum. exact.py reaches the same for one axis and any policy, by log-sum-exps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..axes import Axis
from .base import Operator
from .call import AttentionCall

MASK_BYTES = 2**26
"""A bias larger than this is made piece by piece, for some of the queries at a time."""

_MEASURED = 32  # queries whose true shares are measured for the record


@dataclass(frozen=True)
class Biased(Operator):
    """Odds on these axes. Its gains are odds: a number for each axis and sample, from the shares of mass()."""

    axes: tuple[Axis, ...]

    name: ClassVar[str] = "biased"
    mass_needed = "shares"
    acts = "kernel"
    works_sharded = False

    def why_not(self, call: AttentionCall) -> str:
        if call.value is None:
            return "the values of its attention are not known"
        if reason := super().why_not(call):
            return reason
        if call.kernel is not None and not call.kernel_is_torchs:
            return "its kernel is not torch's scaled_dot_product_attention, so it is not known to take a bias"
        return ""

    def cannot_divide(self, call: AttentionCall) -> str:
        return call.takes_no_mask

    def mass(self, call: AttentionCall) -> Tensor:
        """The share of attention that goes to the others of each axis, (axes, B): the mean of some queries, fp32."""
        return shares(call, self.axes)

    def finish(self, call: AttentionCall, begun: None, gains: Callable[[Tensor], Tensor]) -> Tensor:
        return with_bias(call, self.axes, gains(self.mass(call)))


def with_bias(call: AttentionCall, axes: Sequence[Axis], odds: Tensor) -> Tensor:
    """The attention whose odds for the others are multiplied, (B, H, L, D). odds: (axes, B or 1)."""
    found = []
    samples = odds.shape[1] if call.prompt is None else call.query.shape[0]
    for rows in pieces(call.query.shape[2], samples * call.key.shape[2] * call.query.element_size()):
        bias = _shared(call, ("bias", axes, rows.start, rows.stop), functools.partial(_bias, call, axes, odds, rows))
        if call.mask is not None:
            bias = bias + added(of_rows(call.mask, rows), bias.dtype)
        found.append(call.compute(call.query[:, :, rows], call.key, call.value, bias))
    return found[0] if len(found) == 1 else torch.cat(found, 2)


def shares(call: AttentionCall, axes: Sequence[Axis]) -> Tensor:
    """(axes, B): how much of the attention of some video queries, evenly spread, goes to the others of each axis."""
    rows = call.rows[:: max(call.num_video // _MEASURED, 1)]  # (n,)
    query, key = call.query.detach()[:, :, rows].float(), call.key.detach().float()
    if key.shape[1] != query.shape[1]:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    logits = query @ key.mT * (query.shape[-1] ** -0.5 if call.scale is None else call.scale)  # (B, H, n, K)
    if call.mask is not None:
        logits = logits + added(of_rows(call.mask, rows), logits.dtype)
    weights = logits.softmax(-1).nan_to_num()  # NaN where a query has no key
    others = _shared(call, ("others", axes), lambda: [each_head(axis.others(call.places.of(rows))) for axis in axes])
    masses = torch.stack([(weights * each).sum(-1).mean((1, 2)) for each in others])  # (axes, B)
    return masses if call.samples is None else masses.unflatten(1, (call.samples, -1)).mean(2)


def _bias(call: AttentionCall, axes: Sequence[Axis], odds: Tensor, rows: slice) -> Tensor:
    """The bias of some queries, (B or 1, 1, queries, K), in the dtype of the query."""
    logs, batch = odds.log(), call.query.shape[0]  # (axes, B or 1)
    if logs.shape[1] not in (1, batch):  # temporal layers have B*S sequences
        logs = logs.repeat_interleave(batch // logs.shape[1], 1)
    places = call.places.of(rows)
    parts = [
        torch.where(each_head(axis.others(places)), log[:, None, None, None], 0.0)
        for axis, log in zip(axes, logs, strict=True)
    ]
    return functools.reduce(torch.add, parts).to(call.query.dtype)


def pieces(queries: int, row_bytes: int) -> list[slice]:
    """The queries in pieces whose bias, row_bytes for one of them, is at most MASK_BYTES."""
    size = max(MASK_BYTES // row_bytes, 1)
    return [slice(start, min(start + size, queries)) for start in range(0, queries, size)]


def _shared(call: AttentionCall, name: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """What make() returns, or returned for a call of the same layout in the same forward call of the model.

    One entry for each name, so that a bias in pieces is never kept whole.
    """
    places = (call.video, call.video_keys, call.stream)
    if call.shared is None or torch.compiler.is_compiling() or any(isinstance(x, Tensor) for x in places):
        return make()
    kept = (*name[2:], str(places), call.query.shape, call.key.shape, call.query.dtype, call.samples, id(call.prompt))
    if call.shared.get(name[:2], (None,))[0] != kept:
        call.shared[name[:2]] = kept, make()
    return call.shared[name[:2]][1]


def each_head(others: Tensor) -> Tensor:
    """(L, K) or (B, L, K) -> (1 or B, 1, L, K)."""
    return others[:, None] if others.ndim == 3 else others[None, None]


def of_rows(mask: Tensor, rows: slice | Tensor) -> Tensor:
    """The part of a mask, (..., queries or 1, K), for some queries."""
    return mask if mask.ndim < 2 or mask.shape[-2] == 1 else mask[..., rows, :]


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as it is added to logits, (b, h, queries or 1, K)."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, float("-inf"))
    return mask[(None,) * (4 - mask.ndim)].to(dtype)
