"""Gains that set themselves by what they see."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import CROSS_FRAME, GainContext, number, policy


@policy("target")
@dataclass(frozen=True)
class Target:
    """Closed loop: as much gain as would lift the layer's mass to `mass`, at most 1 + most.

    gain = clamp(mass* / mass, 1, 1 + most), more where frames look little at each other: the opposite of `Strength`.
    """

    mass: float | Tensor
    most: float | Tensor = 1.0

    def __post_init__(self) -> None:
        number("Target: mass", self.mass, 0.0, 1.0)
        number("Target: most", self.most, 0.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        wanted = self.mass / mass.clamp(min=1e-6)  # (B,)
        return torch.minimum(wanted.clamp(min=1.0), torch.ones_like(wanted) * (1 + self.most))


def gain_of_odds(factor: float | Tensor, mass: Tensor) -> Tensor:
    """What the mass (B,) has to be multiplied by, (B,), so that the odds m/(1 - m) are multiplied by `factor`."""
    return factor / (1 + (factor - 1) * mass).clamp(min=1e-6)


@policy("odds")
@dataclass(frozen=True)
class Odds:
    """The odds that attention leaves its frame, m/(1 - m), multiplied by `factor`: more where frames look little at
    each other.

    With m' the mass of those odds, gain = m'/m = factor / (1 + (factor - 1) · m), between 1 and factor, and gain · m
    never above 1: on the cross-frame part of the output (Settings: odds) it is the softmax with log(factor) added to
    the logits of other frames, as far as the mean mass stands for that of each token.
    """

    factor: float | Tensor
    scales: ClassVar[str] = CROSS_FRAME

    def __post_init__(self) -> None:
        number("Odds: factor", self.factor, 0.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return gain_of_odds(self.factor, mass)


@policy("even")
@dataclass(frozen=True)
class Even:
    """Length-free: `g` at 9 latent frames, and at any other length what keeps the excess over uniform attention.

    Uniform attention over T frames has mass 1 - 1/T: it grows with T by itself. gain = max(1, (1 + g) · m / (1 - 1/T)),
    so that a layer which looks at all frames alike gets 1 + g at any length.
    """

    g: float | Tensor

    def __post_init__(self) -> None:
        number("Even: g", self.g, 0.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        uniform = 1 - 1 / max(moment.num_frames, 2)
        return ((1 + self.g) * mass / uniform).clamp(min=1)  # (B,)
