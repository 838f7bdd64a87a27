"""One attention call with the gain applied: the library's policy and operator on what ComfyUI passes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from enhance_a_video.operators import AttentionCall, CrossFrame, Output
from enhance_a_video.policies import GainContext

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
    query, key, value = call.tensors()
    tensors = AttentionCall(
        query, key, value, num_frames, rows, mask=call.mask_by_heads(), scale=call.scale, kernel=call.kernel
    )
    return (_by_token if choice.kind == ODDS else _whole_output)(call, tensors, choice)


def _by_token(call: Attention, tensors: AttentionCall, choice: Choice) -> Done:
    """What comes from other frames multiplied, by a gain of each head and token."""
    operator, numbers = CrossFrame(), list[Tensor]()

    def gains(mass: Tensor) -> Tensor:  # (B, H, T*S)
        gain = choice.policy(mass.flatten(), _moment(tensors)).view_as(mass)
        numbers.extend((mass.mean((1, 2)), gain.mean((1, 2))))
        return gain

    output = call()
    if choice.observe_only:
        gains(operator.mass(tensors))
    else:
        output = call.as_returned(operator.finish(tensors, call.output_by_heads(output), gains))
    return Done(output, *numbers)


def _whole_output(call: Attention, tensors: AttentionCall, choice: Choice) -> Done:
    """The video's output multiplied, by a gain of each sample."""
    mass = Output().mass(tensors).mean(1)  # (B,)
    gain = choice.policy(mass, _moment(tensors))
    output = call()
    if not choice.observe_only:
        by_heads = call.output_by_heads(output).clone()
        by_heads[:, :, tensors.video] *= gain[:, None, None, None].to(output.dtype)
        output = call.as_returned(by_heads)
    return Done(output, mass, gain)


def _moment(tensors: AttentionCall) -> GainContext:
    """None of the node's policies goes by depth or progress."""
    return GainContext(tensors.num_frames, 0.0, torch.tensor(float("nan")))
