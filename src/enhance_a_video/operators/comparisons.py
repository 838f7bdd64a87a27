"""What the method is compared with: the logits divided, the attention map scaled (alternatives.py has their settings).

They need the layer's own kernel and change what it gets, or its values, so that nothing of the kernel is written again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..intensity import DEFAULT_SITES
from .base import Gains, Operator
from .call import AttentionCall
from .output import mass_of_sites


@dataclass(frozen=True)
class _BySample(Operator):
    """Those that act by one number for each sample. Eager mode, one device."""

    sites: int | None = DEFAULT_SITES

    mass_needed = "sites"
    acts = "kernel"
    compiles = False
    works_sharded = False

    def mass(self, call: AttentionCall) -> Tensor:
        query, key = call.video_query_key()
        return mass_of_sites(call, query, key, self.sites)


@dataclass(frozen=True)
class Logits(_BySample):
    """The logits of video queries with video keys divided by the gain: a temperature."""

    name: ClassVar[str] = "logits"

    def finish(self, call: AttentionCall, begun: None, gains: Gains) -> Tensor:
        return with_divided_logits(call, gains(self.mass(call)))


@dataclass(frozen=True)
class AttentionMap(_BySample):
    """The entries of the attention map between frames multiplied by the gain; not renormalised."""

    name: ClassVar[str] = "attention map"

    def finish(self, call: AttentionCall, begun: None, gains: Gains) -> Tensor:
        return with_scaled_map(call, gains(self.mass(call)))


def with_divided_logits(call: AttentionCall, amount: Tensor) -> Tensor:
    """Attention in which the logits of video queries with video keys are divided: (B, H, L, D).

    amount: (B,) or (1,), by how much. Dividing those keys is dividing those logits; text keys stay.
    """
    video, others = call.rows, call.other_rows
    divided = call.key.clone()
    divided[:, :, video] = (call.key[:, :, video] / call.for_each(amount)).to(call.key.dtype)
    output = call.run_rows(video, key=divided)
    return output if not len(others) else _together(call, {video: output, others: call.run_rows(others)})


def with_scaled_map(call: AttentionCall, amount: Tensor) -> Tensor:
    """Attention whose map is multiplied, after softmax, where a video query meets a video key of another frame.

    amount: (B,) or (1,), by how much; returns (B, H, L, D). The weight of an entry depends on its key and on the frame
    of its query only, so for one frame's queries it is the same as weighting the values.
    """
    video, others = call.rows, call.other_rows
    weight = torch.ones_like(call.value[:, :1, :, :1], dtype=torch.float32)  # (B, 1, L, 1)
    weight[:, :, video] = call.for_each(amount)
    found = {others: call.run_rows(others)} if len(others) else {}
    for frame in video.view(call.num_frames, -1):  # (S,)
        own = weight.clone()
        own[:, :, frame] = 1.0
        found[frame] = call.run_rows(frame, value=(call.value * own).to(call.value.dtype))
    return _together(call, found)


def _together(call: AttentionCall, found: dict[Tensor, Tensor]) -> Tensor:
    """One output (B, H, L, D) from its parts: rows -> (B, H, len(rows), D)."""
    first = next(iter(found.values()))
    output = first.new_empty(*first.shape[:2], call.query.shape[2], first.shape[3])
    for rows, part in found.items():
        output[:, :, rows] = part
    return output
