"""Only what a frame takes from the others: the part of an attention's output that a gain may scale without its rest.

    o' = o_own + gain · (o - o_own) = o + (gain - 1) · (o - o_own)

o is the layer's attention, before its output projection; o_own the same attention of each frame to itself alone (and to
what is not video: text, references). With m the share of a token's attention that leaves its frame, o - o_own is m
times the difference between what the others and what the frame itself contribute. So a gain on it moves weight from
the frame's own tokens to the others' and keeps the sum of the weights at 1: nothing grows, as it does when the whole
output is scaled. Each token of each head has a gain of its own, from its own mass, for heads are as different as can
be: some attend to their frame alone, some nearly never. policies.Odds is the gain that multiplies the odds of
leaving the frame.

It costs the attention of T frames to themselves, 1/T of the products of full 3D attention, and one more output in
memory; nothing in temporal layers, where a frame's own token is all it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..intensity import token_mass
from ..sharding import Shards, by_heads, by_tokens
from .base import Gains, Operator
from .call import AttentionCall
from .output import Output


@dataclass(frozen=True)
class CrossFrame(Operator):
    """What comes from other frames, by each token's mass at its own place in all frames (intensity.token_mass).

    whole: what stands in where the kernel's call cannot be taken apart.
    """

    whole: Output | None = field(default_factory=Output)

    name: ClassVar[str] = "cross-frame"
    mass_needed = "tokens"
    acts = "kernel"

    @property
    def fallback(self) -> Operator | None:
        return self.whole

    def why_not(self, call: AttentionCall) -> str:
        return super().why_not(call) or not_shared_evenly(call)

    def mass(self, call: AttentionCall) -> Tensor:
        """(B, H, T*S); where the tokens lie on several devices, of all tokens and this rank's heads."""
        query, key = call.video_query_key()
        if call.shards is not None:
            query, key = by_heads(query, call.shards), by_heads(key, call.shards)
        mass = token_mass(query, key, call.num_frames, scale=call.scale)  # (B, H, T, S)
        if call.samples is not None:
            mass = mass.permute(0, 3, 1, 2).flatten(0, 1)[..., None]  # (B*S, H, T, 1)
        return mass.flatten(2)

    def begin(self, call: AttentionCall) -> Tensor:
        return call.run()

    def finish(self, call: AttentionCall, begun: Tensor, gains: Gains) -> Tensor:
        return with_scaled_cross_frame(begun, call, gains(self.mass(call)))


def not_shared_evenly(call: AttentionCall) -> str:
    """Why the ranks cannot exchange tokens for heads, or ""."""
    if call.shards is None or not call.query.shape[1] % call.shards.ranks:
        return ""
    return f"{call.query.shape[1]} heads do not divide among {call.shards.ranks} devices"


def with_scaled_cross_frame(output: Tensor, call: AttentionCall, gain: Tensor) -> Tensor:
    """What the kernel gave, (B, H, L, D), with the part that comes from other frames multiplied.

    gain: (B, H, T*S) fp32, of each head and video token; 1 leaves it to the bit. Other tokens stay as they are. Where
    the tokens lie on several devices, output and call are this rank's part, gain is that of all tokens and this rank's
    heads.
    """
    video = output[:, :, call.video]  # (B, H, T*S, D)
    excess = (gain - 1)[..., None].to(output.dtype)  # (B, H, T*S, 1)
    if call.shards is None:
        own = own_frame(call)  # (B, H, T*S, D)
    else:
        own, excess = _of_this_rank(call, excess, call.shards)
    return with_video(output, call, with_more_of_others(video, own, excess, call))


def with_more_of_others(video: Tensor, own: Tensor, excess: Tensor, call: AttentionCall) -> Tensor:
    """video + excess · (video - own), of (B, H, T*S, D), (B, H, T*S, D) and (B, H, T*S, 1); to the bit video at 0.

    Written over own where nothing else needs it: own may be a view of the call's values.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or _same_memory(own, call.value):
        return torch.addcmul(video, video - own, excess)
    return torch.addcmul(video, own.sub_(video), -excess, out=own)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def with_video(output: Tensor, call: AttentionCall, video: Tensor) -> Tensor:
    """The output (B, H, L, D) with another video in it, (B, H, T*S, D)."""
    if video.shape == output.shape:
        return video
    if isinstance(call.video, Tensor):
        return output.index_copy(2, call.video, video)
    start, stop, _ = call.video.indices(output.shape[2])
    return torch.cat([output[:, :, :start], video, output[:, :, stop:]], 2)


def own_frame(call: AttentionCall) -> Tensor:
    """What the video's tokens get when they see their own frame only, and what is not video, (B, H, T*S, D)."""
    query, key, value, mask = own_sequences(call)
    if key.shape[2] == 1:
        own = value  # the only token there is
        if own.shape[1] != query.shape[1]:
            own = own.repeat_interleave(query.shape[1] // own.shape[1], 1)
    else:
        own = call.compute(query, key, value, mask)
    return in_line(own, call.num_frames)


def in_line(x: Tensor, num_frames: int) -> Tensor:
    """(B*T, H, S, ...) -> (B, H, T*S, ...)."""
    return x.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(2, 3)


def own_sequences(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """A sequence for each frame: its queries (B*T, H, S, D), its keys and values (B*T, H, S + others, D), their mask.

    Views of the call's tensors, unless there are tokens that are not video.
    """
    others, T = call.other_rows, call.num_frames
    query, key, value = (
        x[:, :, call.video].unflatten(2, (T, -1)).transpose(1, 2).flatten(0, 1)  # (B*T, H, S, D)
        for x in (call.query, call.key, call.value)
    )
    if len(others):
        key, value = (
            torch.cat([x, y[:, :, others].repeat_interleave(T, 0)], 2)
            for x, y in ((key, call.key), (value, call.value))
        )
    return query, key, value, _own_mask(call)


def _of_this_rank(call: AttentionCall, excess: Tensor, shards: Shards) -> tuple[Tensor, Tensor]:
    """own_frame of this rank's tokens, which share frames with those of others, and their excess, from all ranks."""
    both = torch.cat([own_frame(of_all_tokens(call, shards)), excess], -1)  # (B, H/ranks, T*S, D + 1)
    own, excess = by_tokens(both, call.query.shape[2], shards).split([both.shape[-1] - 1, 1], -1)
    return own, excess


def of_all_tokens(call: AttentionCall, shards: Shards) -> AttentionCall:
    """This rank's tokens with all heads -> all tokens with this rank's heads, as a call on this device alone."""
    heads = call.query.shape[1]
    query, key, value = (
        by_heads(x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1), shards)
        for x in (call.query, call.key, call.value)
    )
    return replace(call, query=query, key=key, value=value, video=slice(None), shards=None, run_all_ranks=None)


def _own_mask(call: AttentionCall) -> Tensor | None:
    """The call's mask for each frame's queries and the keys they keep, (B*T, H or 1, S or 1, S + others)."""
    mask, T = call.mask, call.num_frames
    if mask is None:
        return None
    others = call.other_rows
    mask = mask[(None,) * (4 - mask.ndim)]
    mask = mask.expand(*mask.shape[:3], call.key.shape[2])  # (b, h, queries or 1, L)
    if mask.shape[2] > 1:
        mask = mask[:, :, call.video].unflatten(2, (T, -1))  # (b, h, T, S, L)
        own = mask[..., call.video].unflatten(-1, (T, -1)).diagonal(dim1=2, dim2=4).permute(0, 4, 1, 2, 3)
        rest = mask[..., others].transpose(1, 2)  # (b, T, h, S, others)
    else:
        own = mask[..., call.video].unflatten(-1, (T, -1)).permute(0, 3, 1, 2, 4)  # (b, T, h, 1, S)
        rest = mask[..., others][:, None].expand(-1, T, -1, -1, -1)
    both = torch.cat([own, rest], -1)  # (b, T, h, S or 1, S + others)
    return both.expand(call.query.shape[0], *both.shape[1:]).flatten(0, 1)
