"""Window: another policy, faded in and out over the denoising. A gain of 1 stays 1: ``1 + weight · (gain - 1)``."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..errors import SettingsError
from .base import GainContext, inner, number, policy


def interpolated(values: Tensor, place: Tensor) -> Tensor:
    """Piecewise linear: values (n, ...) at n even places from 0 to 1, at `place`, a 0-d tensor in [0, 1]."""
    n = values.shape[0]
    at = place.clamp(0.0, 1.0) * (n - 1)  # ()
    weights = (1 - (torch.arange(n, device=values.device) - at).abs()).clamp(min=0.0)  # (n,), two of them not 0
    return torch.tensordot(weights.to(values.dtype), values, 1)  # (...)


def as_tensor(values: Any, like: Tensor) -> Tensor:
    """Numbers, or already a tensor, beside `like`."""
    return torch.as_tensor(values, dtype=torch.float32, device=like.device)


@policy("window")
@dataclass(frozen=True)
class Window:
    """Another policy's gain from `start` to `end` of the denoising (0: pure noise, 1: clean).

    shape   "step": all of it inside, none outside;
            "cosine": all of it at `start`, falling by half a cosine to none at `end`;
            "rise": none at `start`, rising to all of it at `end`
    """

    of: Any
    start: float | Tensor = 0.0
    end: float | Tensor = 1.0
    shape: Literal["step", "cosine", "rise"] = "step"
    uses_progress: ClassVar[bool] = True

    def __post_init__(self) -> None:
        inner("Window: of", self.of)
        number("Window: start", self.start, 0.0, 1.0)
        number("Window: end", self.end, 0.0, 1.0)
        if self.shape not in ("step", "cosine", "rise"):
            raise SettingsError(f"Window: shape={self.shape!r}; give step, cosine or rise.")
        if not isinstance(self.start, Tensor) and not isinstance(self.end, Tensor) and self.start >= self.end:
            raise SettingsError(f"Window: start={self.start} must be smaller than end={self.end}.")

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        place = (moment.progress - self.start) / (self.end - self.start)  # ()
        inside = (place >= -2e-3) & ((place < 1 - 2e-3) | torch.as_tensor(self.end >= 1.0))
        fade = 0.5 + 0.5 * torch.cos(torch.pi * place.clamp(0.0, 1.0))  # 1 at the start, 0 at the end
        weight = {"step": torch.ones_like(fade), "cosine": fade, "rise": 1 - fade}[self.shape]
        return 1 + torch.where(inside, weight, 0.0) * (self.of(mass, moment) - 1)  # (B,)
