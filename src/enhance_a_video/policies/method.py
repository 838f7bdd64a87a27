"""The method's own gain, in two units, and its two ablations.

    Temperature  gain = max(1, (τ + T) · m/(T-1))    the paper's eq. 7, m/(T-1) being its CFI
    Strength     gain = max(1, (1 + g) · m)          with g = (τ + 1)/(T - 1)
    Unclipped    gain = (1 + g) · m                  the ablation of the clip
    Constant     gain = c                            what the intensity is worth: the same for every layer

As m is at most 1, g is the largest amplification a layer can get, whatever the frame count; the same τ is not
(table in docs/reference/method.md).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import GainContext, number, policy


@policy("strength")
@dataclass(frozen=True)
class Strength:
    """Frame-count-free gain, ``max(1, (1 + g) · mass)``, never above 1 + g; g is a number or 0-d tensor, at least 0."""

    g: float | Tensor

    def __post_init__(self) -> None:
        number("Strength: g", self.g, low=0.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return ((1 + self.g) * mass).clamp(min=1)  # (B,)


@policy("temperature")
@dataclass(frozen=True)
class Temperature:
    """The paper's gain, eq. 7: ``max(1, (tau + T) · CFI)``. tau is a number or a 0-d tensor; a single frame gives 1."""

    tau: float | Tensor

    def __post_init__(self) -> None:
        number("Temperature: tau", self.tau, low=-1.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        T = moment.num_frames
        return ((self.tau + T) * mass / max(T - 1, 1)).clamp(min=1)  # (B,); mass is 0 when T = 1


@policy("unclipped")
@dataclass(frozen=True)
class Unclipped:
    """The method without its clip, ``(1 + g) · mass``: layers that attend little to other frames are weakened."""

    g: float | Tensor

    def __post_init__(self) -> None:
        number("Unclipped: g", self.g, low=0.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return (1 + self.g) * mass  # (B,)


@policy("constant")
@dataclass(frozen=True)
class Constant:
    """One gain for every layer, whatever its mass; below 1 it weakens."""

    gain: float | Tensor

    def __post_init__(self) -> None:
        number("Constant: gain", self.gain, low=0.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return torch.ones_like(mass) * self.gain  # (B,)
