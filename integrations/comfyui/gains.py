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

    rows: the video's T*S tokens of the call's. samples: those of the batch that are measured and changed; None = all.
    With observe_only the output is what the function returned. Raises UnsupportedModelError where the attention cannot
    be taken apart.
    """
    part = call if samples is None else call.of(samples)
    query, key, value = part.tensors()
    tensors = AttentionCall(
        query, key, value, num_frames, rows, mask=part.mask_by_heads(), scale=part.scale, kernel=part.kernel,
        kernel_is_torchs=part.is_torchs,
    )  # fmt: skip
    return (_by_token if choice.kind == ODDS else _whole_output)(call, tensors, choice, samples)


def _by_token(call: Attention, tensors: AttentionCall, choice: Choice, samples: tuple[int, ...] | None) -> Done:
    """What comes from other frames multiplied, by a gain of each head and token."""
    operator, reasons = usable(BY_TOKEN, tensors)
    numbers = list[Tensor]()

    def gains(mass: Tensor) -> Tensor:  # (B, H, T*S)
        gain = choice.policy(mass.flatten(), _moment(tensors)).view_as(mass)
        numbers.extend((mass.mean((1, 2)), gain.mean((1, 2))))
        return gain

    if choice.observe_only:
        output = call()
        gains(operator.mass(tensors))
    elif operator is BY_TOKEN and samples is None:
        output = call.as_returned(operator.attend(tensors, gains))
    elif operator is BY_TOKEN:
        others = tuple(i for i in range(call.batch) if i not in samples)
        whole = _merged(call.of(others)(), others, call.batch)
        output = _merged(call.as_returned(operator.attend(tensors, gains)), samples, call.batch, whole)
    else:
        whole = call()
        changed = operator.finish(tensors, call.output_by_heads(_of(whole, samples)), gains)
        output = _merged(call.as_returned(changed), samples, call.batch, whole)
    return Done(output, *numbers, operator.name, "; ".join(reasons))


def _whole_output(call: Attention, tensors: AttentionCall, choice: Choice, samples: tuple[int, ...] | None) -> Done:
    """The video's output multiplied, by a gain of each sample."""
    mass = Output().mass(tensors).mean(1)  # (B,)
    gain = choice.policy(mass, _moment(tensors))
    output = call()
    if not choice.observe_only:
        by_heads = call.output_by_heads(_of(output, samples)).clone()
        by_heads[:, :, tensors.video] *= gain[:, None, None, None].to(output.dtype)
        output = _merged(call.as_returned(by_heads), samples, call.batch, output)
    return Done(output, mass, gain)


def _of(whole: Tensor, samples: tuple[int, ...] | None) -> Tensor:
    """These samples of a batch."""
    return whole if samples is None else whole[list(samples)]


def _merged(part: Tensor, samples: tuple[int, ...] | None, batch: int, whole: Tensor | None = None) -> Tensor:
    """A batch with `part` as these samples, and the others as in `whole`, or not yet there."""
    if samples is None:
        return part
    whole = part.new_empty(batch, *part.shape[1:]) if whole is None else whole.clone()
    whole[list(samples)] = part
    return whole


def _moment(tensors: AttentionCall) -> GainContext:
    """None of the node's policies goes by depth or progress."""
    return GainContext(tensors.num_frames, 0.0, torch.tensor(float("nan")))
