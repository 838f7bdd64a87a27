"""FreeInit-like re-initialisation: denoise to the end, go back to a noise level, keep the low frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ... import limits
from .base import Act, Peer
from .denoising import Step


@dataclass(frozen=True, kw_only=True)
class FreeInit(Peer):
    """Once, at the step `at` (0 to 1 of all): the clean video that the rest of the steps lead to is noised to this
    step's level again, its low frequencies with the noise that it came from, the high ones with fresh noise.

    Published for `at` 0. There the latents of a scheduler that begins at pure noise (flow matching, zero terminal SNR)
    hold nothing of the video, and all that it does is to draw other noise.

    stride      only every so many of the steps lead to that clean video: 2 = half the cost of a whole run
    cutoff      of the Gaussian low-pass in space and in time, 1 the highest frequency
    """

    at: float = 0.2
    stride: int = 2
    cutoff: float = 0.25

    name: ClassVar[str] = "free_init"
    source: ClassVar[str] = "after FreeInit, arXiv 2312.07537"

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.number("at", self.at, 0, 0.99)
        limits.whole("stride", self.stride, 1, 1000)
        limits.number("cutoff", self.cutoff, 0.001, 2)

    def begin(self) -> Act:
        def act(step: Step) -> tuple[Tensor, Tensor]:
            if step.index != int(self.at * step.total + 1e-9):
                return step.prediction, step.latents
            latents = self._again(step).to(step.latents.dtype)
            return step.guided(latents), latents

        return act

    def _again(self, step: Step) -> Tensor:
        """Latents of this step's noise level, (B, C, T, H, W)."""
        here, now, prediction = step.level(), step.latents.float(), step.prediction
        _, own = here.split(now, prediction)
        indices = [*range(step.index, step.total, self.stride), step.total]
        for index, following in pairwise(indices):
            if index != step.index:
                prediction = step.guided(now, index)
            clean, noise = step.level(index).split(now, prediction)
            now = step.level(following).join(clean, noise)
        low = _low_pass(tuple(now.shape[2:]), self.cutoff).to(now.device)
        spectra = [torch.fft.fftn(here.join(now, noise), dim=(2, 3, 4)) for noise in (own, step.noise())]
        return torch.fft.ifftn(spectra[0] * low + spectra[1] * (1 - low), dim=(2, 3, 4)).real


def _low_pass(size: tuple[int, ...], cutoff: float) -> Tensor:
    """A Gaussian over the frequencies of (T, H, W), 1 at zero."""
    axes = torch.meshgrid(*(torch.fft.fftfreq(n) * 2 for n in size), indexing="ij")
    return torch.exp(-torch.stack(axes).square().sum(0) / (2 * cutoff**2))
