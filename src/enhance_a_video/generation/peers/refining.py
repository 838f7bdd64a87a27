"""Self-refining sampling: predict, noise the prediction again, predict again, and keep it where the two disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ... import limits
from .base import Act, Peer
from .denoising import Step


@dataclass(frozen=True, kw_only=True)
class SelfRefining(Peer):
    """At a noise level: a clean prediction, noised again with fresh noise to the same level, is predicted from again.

    repeats     how often, in each step between start and end
    share       the part of the places that takes the new prediction, those where the clean predictions differ most
    threshold   in place of share, as published: where they differ by more than this; the norm over the C channels
                divided by C. With it a step ends when at most 0.1 % of the places are left
    """

    start: float = 0.1
    end: float = 0.5
    repeats: int = 1
    share: float | None = None
    threshold: float | None = None

    name: ClassVar[str] = "self_refining"
    source: ClassVar[str] = "self-refining video sampling, arXiv 2601.18577"

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.whole("repeats", self.repeats, 1, 100)
        if self.share is None and self.threshold is None:
            object.__setattr__(self, "share", 0.5)
        if self.share is not None:
            limits.number("share", self.share, 0.001, 1)
        if self.threshold is not None:
            limits.number("threshold", self.threshold, 0, 1000)

    def begin(self) -> Act:
        return lambda step: self._refined(step) if self.covers(step) else (step.prediction, step.latents)

    def _refined(self, step: Step) -> tuple[Tensor, Tensor]:
        level, prediction, latents = step.level(), step.prediction, step.latents
        clean, _ = level.split(latents, prediction)
        certain = torch.zeros_like(clean[:, :1], dtype=torch.bool)
        for _ in range(self.repeats):
            other = level.join(clean, step.noise()).to(latents.dtype)
            again = step.guided(other)
            clean_again, _ = level.split(other, again)
            certain = certain | self._certain((clean_again - clean).norm(dim=1, keepdim=True), clean.shape[1])
            prediction = torch.where(certain, prediction, again)
            latents = torch.where(certain, latents, other)
            clean = torch.where(certain, clean, clean_again)
            if self.threshold is not None and bool(certain.float().mean() > 0.999):
                break
        return prediction, latents

    def _certain(self, difference: Tensor, channels: int) -> Tensor:
        """Where the first prediction stays, (B, 1, T, H, W)."""
        if self.threshold is not None:
            return difference / channels < self.threshold
        flat = difference.flatten(1)
        kept = int(flat.shape[1] * (1 - float(self.share or 0)))
        if not kept:
            return torch.zeros_like(difference, dtype=torch.bool)
        limit = flat.kthvalue(kept, dim=1).values
        return difference <= limit.view(-1, 1, 1, 1, 1)
