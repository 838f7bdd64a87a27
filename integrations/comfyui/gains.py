"""One attention call with the gain applied: the library's policy and operator on what ComfyUI passes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from enhance_a_video.operators import AttentionCall, CrossFrame, Exact, Output, usable
from enhance_a_video.policies import GainContext

from .attention import Attention
from .choice import ODDS, Choice

# Odds by each token's true share of attention for other frames; where the log-sum-exp is not known, by its estimate.
BY_TOKEN = Exact(estimate=CrossFrame(whole=None))


@dataclass(frozen=True)
class Done:
    """What one attention call became. mass and gain: means over what is not the batch, of the samples that changed."""

    output: Tensor
    mass: Tensor
    gain: Tensor
    operator: str = Output.name  # the library's name of what did it
    why_estimated: str = ""  # why the exact share of other frames could not be taken


def enhanced(
    call: Attention, rows: slice, num_frames: int, choice: Choice, samples: tuple[int, ...] | None = None
) -> Done:
    """One attention with the gain applied to its video tokens, each sample by its own measure.

    rows: the video's T*S tokens among the call's. samples: those of the batch that are changed; None = all. With
    observe_only the output is what the function returned. Raises UnsupportedModelError where the attention cannot be
    taken apart.
    """
    query, key, value = call.tensors()
    tensors = AttentionCall(
        query, key, value, num_frames, rows, mask=call.mask_by_heads(), scale=call.scale, kernel=call.kernel,
        kernel_is_torchs=call.is_torchs,
    )  # fmt: skip
    return (_by_token if choice.kind == ODDS else _whole_output)(call, tensors, choice, samples)


def _by_token(call: Attention, tensors: AttentionCall, choice: Choice, samples: tuple[int, ...] | None) -> Done:
    """What comes from other frames multiplied, by a gain of each head and token."""
    operator, reasons = usable(BY_TOKEN, tensors)
    numbers = list[Tensor]()

    def gains(mass: Tensor) -> Tensor:  # (B, H, T*S)
        gain = choice.policy(mass.flatten(), _moment(tensors)).view_as(mass)
        numbers.extend(_of(samples, mass.mean((1, 2)), gain.mean((1, 2))))
        return gain if samples is None else torch.ones_like(gain).index_copy(0, *_placed(samples, gain))

    if choice.observe_only:
        output = call()
        gains(operator.mass(tensors))
    elif operator is BY_TOKEN:
        output = call.as_returned(operator.attend(tensors, gains))
    else:
        output = call.as_returned(operator.finish(tensors, call.output_by_heads(call()), gains))
    return Done(output, *numbers, operator.name, "; ".join(reasons))


def _whole_output(call: Attention, tensors: AttentionCall, choice: Choice, samples: tuple[int, ...] | None) -> Done:
    """The video's output multiplied, by a gain of each sample."""
    mass = Output().mass(tensors).mean(1)  # (B,)
    gain = choice.policy(mass, _moment(tensors))
    output = call()
    if not choice.observe_only:
        acting = gain if samples is None else torch.ones_like(gain).index_copy(0, *_placed(samples, gain))
        by_heads = call.output_by_heads(output).clone()
        by_heads[:, :, tensors.video] *= acting[:, None, None, None].to(output.dtype)
        output = call.as_returned(by_heads)
    return Done(output, *_of(samples, mass, gain))


def _placed(samples: tuple[int, ...], numbers: Tensor) -> tuple[Tensor, Tensor]:
    """These samples' places as a tensor, and their numbers."""
    places = torch.tensor(samples, device=numbers.device)
    return places, numbers[places]


def _of(samples: tuple[int, ...] | None, *numbers: Tensor) -> list[Tensor]:
    """Numbers (B,) of these samples alone."""
    return list(numbers) if samples is None else [_placed(samples, each)[1] for each in numbers]


def _moment(tensors: AttentionCall) -> GainContext:
    """None of the node's policies goes by depth or progress."""
    return GainContext(tensors.num_frames, 0.0, torch.tensor(float("nan")))
