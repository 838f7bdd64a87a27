"""Only what a frame takes from the others: the part of an attention's output that a gain may scale without its rest.

    o' = o_own + gain · (o - o_own) = o + (gain - 1) · (o - o_own)

o is the layer's attention, before its output projection; o_own the same attention of each frame to itself alone (and to
what is not video: text, references). With m the share of a token's attention that leaves its frame, o - o_own is m
times the difference between what the others and what the frame itself have to say. So a gain on it moves weight from
the frame's own tokens to the others' and keeps the sum of the weights at 1: nothing grows, as it does when the whole
output is scaled. Each token of each head has a gain of its own, from its own mass, for heads are as different as can
be: some look at their frame alone, some nearly never. policy.Odds is the gain that multiplies the odds of leaving the
frame.

It costs the attention of T frames to themselves, 1/T of the products of full 3D attention, and one more output in
memory; nothing in temporal layers, where a frame's own token is all it has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .parallel import Shards, by_heads, by_tokens
from .seam import KernelCall


def with_scaled_cross_frame(call: KernelCall, gain: Tensor, num_frames: int) -> Tensor:
    """`scaled` of what the layer's own kernel gives."""
    return scaled(call.whole(), call, gain, num_frames)


def scaled(output: Tensor, call: KernelCall, gain: Tensor, num_frames: int) -> Tensor:
    """What the kernel gave, (B, H, L, D), with the part that comes from other frames multiplied.

    gain: (B, H, T*S) fp32, of each head and video token; 1 leaves it to the bit. Other tokens stay as they are. Where
    the tokens lie on several devices, output and call are this rank's part, gain is that of all tokens and this rank's
    heads.
    """
    video = output[:, :, call.video]  # (B, H, T*S, D)
    excess = (gain - 1)[..., None].to(output.dtype)  # (B, H, T*S, 1)
    if call.shards is None:
        own = own_frame(call, num_frames)  # (B, H, T*S, D)
    else:
        own, excess = _of_this_rank(call, excess, num_frames, call.shards)
    video = torch.addcmul(video, video - own, excess)
    if video.shape == output.shape:
        return video
    if isinstance(call.video, Tensor):
        return output.index_copy(2, call.video, video)
    start, stop, _ = call.video.indices(output.shape[2])
    return torch.cat([output[:, :, :start], video, output[:, :, stop:]], 2)


def own_frame(call: KernelCall, num_frames: int) -> Tensor:
    """What the video's tokens get when they see their own frame only, and what is not video, (B, H, T*S, D)."""
    others = call.others
    query, key, value = (
        x[:, :, call.video].unflatten(2, (num_frames, -1)).transpose(1, 2).flatten(0, 1)  # (B*T, H, S, D)
        for x in (call.query, call.key, call.value)
    )
    if query.shape[2] == 1 and not len(others):
        own = value  # the only token there is to look at
        if own.shape[1] != query.shape[1]:
            own = own.repeat_interleave(query.shape[1] // own.shape[1], 1)
    else:
        if len(others):
            key, value = (
                torch.cat([x, y[:, :, others].repeat_interleave(num_frames, 0)], 2)
                for x, y in ((key, call.key), (value, call.value))
            )
        own = call.kernel(query, key, value, _own_mask(call, num_frames))
    return own.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(2, 3)


def _of_this_rank(call: KernelCall, excess: Tensor, num_frames: int, shards: Shards) -> tuple[Tensor, Tensor]:
    """own_frame of this rank's tokens, which share frames with those of others, and their excess, from all ranks."""
    heads, length = call.query.shape[1:3]
    query, key, value = (
        by_heads(x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1), shards)
        for x in (call.query, call.key, call.value)
    )
    whole = KernelCall(query, key, value, None, slice(None), call.kernel)
    both = torch.cat([own_frame(whole, num_frames), excess], -1)  # (B, H/ranks, T*S, D + 1)
    own, excess = by_tokens(both, length, shards).split([both.shape[-1] - 1, 1], -1)
    return own, excess


def _own_mask(call: KernelCall, num_frames: int) -> Tensor | None:
    """The call's mask for each frame's queries and the keys they keep, (B*T, H or 1, S or 1, S + others)."""
    mask, T = call.mask, num_frames
    if mask is None:
        return None
    mask = mask[(None,) * (4 - mask.ndim)]  # (b, h, queries or 1, L)
    if mask.shape[2] > 1:
        mask = mask[:, :, call.video].unflatten(2, (T, -1))  # (b, h, T, S, L)
        own = mask[..., call.video].unflatten(-1, (T, -1)).diagonal(dim1=2, dim2=4).permute(0, 4, 1, 2, 3)
        rest = mask[..., call.others].transpose(1, 2)  # (b, T, h, S, others)
    else:
        own = mask[..., call.video].unflatten(-1, (T, -1)).permute(0, 3, 1, 2, 4)  # (b, T, h, 1, S)
        rest = mask[..., call.others][:, None].expand(-1, T, -1, -1, -1)
    both = torch.cat([own, rest], -1)  # (b, T, h, S or 1, S + others)
    return both.expand(call.query.shape[0], *both.shape[1:]).flatten(0, 1)
