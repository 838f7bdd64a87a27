"""Exact odds: the part that comes from other frames, by each token's true share, read off the kernels' log-sum-exps.

With l the log-sum-exp of a query over all its keys and l_own that over the keys of its own frame (and over what is not
video: text, references), the share of its attention that goes to other frames is

    m = 1 - exp(l_own - l)

and o = (1 - m) o_own + m o_others. A gain s on what comes from the others, o' = o + (s - 1)(o - o_own), is then again a
mean, with the share s m. For policies.Odds, s = k / (1 + (k - 1) m), that is the softmax with log k added to the logits
of all other frames, exactly (docs/reference/method.md); cross_frame.py has a measured stand-in for m in its place.

It costs the attention of T frames to themselves, 1/T of the products of full 3D attention, one more output in memory,
and nothing for the measurement: attention kernels compute l anyway (kernels.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..axes import Axis, Time
from .base import Gains, Operator
from .biased import added, each_head, of_rows, pieces
from .call import AttentionCall
from .cross_frame import CrossFrame, in_line, own_sequences, with_more_of_others, with_video
from .kernels import attention_with_lse, pair_kernel, prepared


@dataclass(frozen=True)
class Exact(Operator):
    """What comes from other frames, or the others of another axis, by each token's true share of attention for them.

    estimate: what stands in where the log-sum-exp is not known (another kernel than torch's, several devices).
    axis: for any but time the share costs one more attention.
    """

    estimate: CrossFrame | None = field(default_factory=CrossFrame)
    axis: Axis = field(default_factory=Time)

    name: ClassVar[str] = "exact"
    mass_needed = "log-sum-exp"
    acts = "kernel"
    works_sharded = False

    @property
    def fallback(self) -> Operator | None:
        return self.estimate

    def why_not(self, call: AttentionCall) -> str:
        if reason := super().why_not(call):
            return reason
        if call.kernel is not None and not call.kernel_is_torchs:
            return "its kernel is not torch's scaled_dot_product_attention, so its log-sum-exp is not known"
        if call.value is None:
            return "the values of its attention are not known"
        heads = (call.query.shape[1],) if call.key.shape[1] != call.query.shape[1] else ()
        key, value = (x[:, :1].expand(-1, *heads, -1, -1) if heads else x for x in (call.key, call.value))  # no copies
        if pair_kernel(*prepared(call.query, key, value, call.mask)) is None:
            return "torch has no kernel here that returns a log-sum-exp"
        return ""

    def cannot_divide(self, call: AttentionCall) -> str:
        return call.inseparable if self.axis == Time() else call.takes_no_mask

    def mass(self, call: AttentionCall) -> Tensor:
        """The true share of other frames, (B, H, T*S) fp32."""
        _, whole = self.begin(call)
        return share_of_others(whole[:, :, call.video], self._own(call)[1])

    def begin(self, call: AttentionCall) -> tuple[Tensor, Tensor]:
        """The layer's own attention, (B, H, L, D), and its log-sum-exp, (B, H, L)."""
        return attention_with_lse(call.query, call.key, call.value, call.mask, call.scale)

    def finish(self, call: AttentionCall, begun: Any, gains: Gains) -> Tensor:
        output, whole = begun
        own, own_lse = self._own(call)
        gain = gains(share_of_others(whole[:, :, call.video], own_lse))  # (B, H, T*S)
        video = output[:, :, call.video]  # (B, H, T*S, D)
        excess = (gain - 1)[..., None].to(output.dtype)
        return with_video(output, call, with_more_of_others(video, own, excess, call))

    def _own(self, call: AttentionCall) -> tuple[Tensor, Tensor]:
        return _own_frame(call) if self.axis == Time() else _without_others(call, self.axis)


def share_of_others(whole: Tensor, own: Tensor) -> Tensor:
    """1 - exp(own - whole), of log-sum-exps over all keys and over a query's own; 0 where a query has no key at all."""
    no_key = whole == float("-inf")
    share = (1 - torch.exp(own - whole.masked_fill(no_key, 0.0))).clamp(0.0, 1.0)  # its gradient is finite there too
    return share.masked_fill(no_key, 0.0)


def _own_frame(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """The video's attention to its own frame and what is not video, (B, H, T*S, D), and its log-sum-exp (B, H, T*S)."""
    query, key, value, mask = own_sequences(call)
    if key.shape[2] > 1 or mask is not None:
        own, lse = attention_with_lse(query, key, value, mask, call.scale)
    else:  # temporal layers: the only key is the token's own
        key, own = (
            x if x.shape[1] == query.shape[1] else x.repeat_interleave(query.shape[1] // x.shape[1], 1)
            for x in (key, value)
        )
        lse = (query.float() * key.float()).sum(-1) * (query.shape[-1] ** -0.5 if call.scale is None else call.scale)
    return in_line(own, call.num_frames), in_line(lse, call.num_frames)


def _without_others(call: AttentionCall, axis: Axis) -> tuple[Tensor, Tensor]:
    """The video's attention to all keys but the others of an axis, (B, H, T*S, D), and its log-sum-exp (B, H, T*S)."""
    video, places, found = call.rows, call.places, []
    for piece in pieces(len(video), call.query.shape[0] * call.key.shape[2] * call.query.element_size()):
        rows = video[piece]
        left_out = each_head(axis.others(places.of(rows)))  # (B or 1, 1, n, K)
        mask = added(~left_out, call.query.dtype)
        if call.mask is not None:
            mask = mask + added(of_rows(call.mask, rows), mask.dtype)
        found.append(attention_with_lse(call.query[:, :, rows], call.key, call.value, mask, call.scale))
    return torch.cat([own for own, _ in found], 2), torch.cat([lse for _, lse in found], 2)
