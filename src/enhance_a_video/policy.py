"""From cross-frame mass to gain: tiny pure functions that never know the model.

A policy is any callable ``policy(mass, moment) -> gain``: mass (B,) in, gain (B,) out, tensor operations only, no
host synchronisation. Clipping at 1 is part of it, as it is part of the method (the paper's ablation of the clip).

The two of the method say the same thing in two units:

    Temperature  gain = max(1, (τ + T) · m/(T-1))    the paper's eq. 7, m/(T-1) being its CFI
    Strength     gain = max(1, (1 + g) · m)          with g = (τ + 1)/(T - 1)

As m is at most 1, g is the largest amplification a layer can get, whatever the frame count; the same τ is not
(table in docs/method.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .errors import SettingsError

# Chosen by the paired measurements of docs/results.md, on the embedded model.
DEFAULT_STRENGTH = 0.7
DEFAULT_START = 0.0
DEFAULT_END = 0.7


@dataclass(frozen=True)
class Moment:
    """Where and when a policy is asked.

    num_frames: T, latent frames of this forward pass.
    layer: depth of the layer, index/(layers - 1): 0 the first, 1 the last.
    progress: 0-d tensor, how far the denoising is: 0 pure noise, 1 clean; NaN where it is unknown.
    """

    num_frames: int
    layer: float | Tensor
    progress: Tensor


Policy = Callable[[Tensor, Moment], Tensor]


@dataclass(frozen=True)
class Strength:
    """Frame-count-free gain, ``max(1, (1 + g) · mass)``, never above 1 + g; g is a number or 0-d tensor, at least 0."""

    g: float | Tensor

    def __call__(self, mass: Tensor, moment: Moment) -> Tensor:
        return ((1 + self.g) * mass).clamp(min=1)  # (B,)


@dataclass(frozen=True)
class Temperature:
    """The paper's gain, eq. 7: ``max(1, (tau + T) · CFI)``. tau is a number or a 0-d tensor; a single frame gives 1."""

    tau: float | Tensor

    def __call__(self, mass: Tensor, moment: Moment) -> Tensor:
        T = moment.num_frames
        return ((self.tau + T) * mass / max(T - 1, 1)).clamp(min=1)  # (B,); mass is 0 when T = 1


def strength_of(temperature: float, num_frames: int) -> float:
    """The strength that equals this temperature at T = ``num_frames`` (at least 2, else SettingsError)."""
    return (temperature + 1) / (_several(num_frames) - 1)


def temperature_of(strength: float, num_frames: int) -> float:
    """The temperature that equals this strength at T = ``num_frames`` (at least 2, else SettingsError)."""
    return strength * (_several(num_frames) - 1) - 1


def _several(num_frames: int) -> int:
    if num_frames < 2:
        raise SettingsError(
            f"num_frames={num_frames}: strength and temperature correspond only from 2 latent frames on; "
            "a single frame is never enhanced."
        )
    return num_frames
