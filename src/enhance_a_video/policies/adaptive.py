"""Odds: a gain that follows from the measured mass, so that no attention is created."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import CROSS_FRAME, GainContext, number, policy


def gain_of_odds(factor: float | Tensor, mass: Tensor) -> Tensor:
    """What the mass (B,) has to be multiplied by, (B,), so that the odds m/(1 - m) are multiplied by `factor`."""
    return factor / (1 + (factor - 1) * mass).clamp(min=1e-6)


@policy("odds")
@dataclass(frozen=True)
class Odds:
    """The odds that attention leaves its frame, m/(1 - m), multiplied by `factor`: more where frames attend little to
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
