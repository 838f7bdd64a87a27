"""One attention call with the gain applied: the library's policy and operator on what ComfyUI passes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from enhance_a_video.cross_frame import scaled
from enhance_a_video.intensity import cross_frame_mass, token_mass
from enhance_a_video.policy import Moment
from enhance_a_video.seam import KernelCall

from .attention import Attention
from .choice import ODDS, Choice


@dataclass(frozen=True)
class Done:
    """What one attention call became. mass and gain (B,): means over what is not the batch."""

    output: Tensor
    mass: Tensor
    gain: Tensor


def enhanced(call: Attention, rows: slice, num_frames: int, choice: Choice) -> Done:
    """One attention with the gain applied to its video tokens, each sample by its own measure.

    rows: the video's T*S tokens among the call's. With observe_only the output is what the function returned.
    """
    return (_by_token if choice.kind == ODDS else _whole_output)(call, rows, num_frames, choice)


def _by_token(call: Attention, rows: slice, num_frames: int, choice: Choice) -> Done:
    """What comes from other frames multiplied, by a gain of each head and token."""
    query, key, value = call.tensors()
    mass = token_mass(query[:, :, rows], key[:, :, rows], num_frames, scale=call.scale)  # (B, H, T, S)
    gain = choice.policy(mass.flatten(), _moment(num_frames)).view_as(mass)
    output = call()
    if not choice.observe_only:
        kernel = KernelCall(query, key, value, call.mask_by_heads(), rows, call.kernel)
        output = call.as_returned(scaled(call.output_by_heads(output), kernel, gain.flatten(2), num_frames))
    return Done(output, mass.mean((1, 2, 3)), gain.mean((1, 2, 3)))


def _whole_output(call: Attention, rows: slice, num_frames: int, choice: Choice) -> Done:
    """The video's output multiplied, by a gain of each sample."""
    query, key, _ = call.tensors()
    mass = cross_frame_mass(query[:, :, rows], key[:, :, rows], num_frames, scale=call.scale)  # (B,)
    gain = choice.policy(mass, _moment(num_frames))
    output = call()
    if not choice.observe_only:
        by_heads = call.output_by_heads(output).clone()
        by_heads[:, :, rows] *= gain[:, None, None, None].to(output.dtype)
        output = call.as_returned(by_heads)
    return Done(output, mass, gain)


def _moment(num_frames: int) -> Moment:
    """None of the node's policies goes by depth or progress."""
    return Moment(num_frames, 0.0, torch.tensor(float("nan")))
