"""Computes the progress of the denoising at a forward call, in [0, 1]: 0 = pure noise, 1 = clean.

Progress is 1 - u, with u the model's own unshifted training time, a function of the noise level alone. So a window
means the same for any scheduler and step count; with N uniform steps of a model's usual scheduler it is the fraction
of steps done. `top` is what the model's timestep argument is at pure noise, where it is not the scheduler's own count.
"""

import copy
import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from .errors import SettingsError


class _Checked:
    """Raises SettingsError for a field that is no positive number; `top` may be None."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is None and field.name == "top":
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise SettingsError(f"{type(self).__name__}({field.name}={value!r}): give a positive number")


@dataclass(frozen=True)
class Flow(_Checked):
    """Flow matching: sigma = timestep / 1000 = s*u / (1 + (s-1)*u) with the published shift s (SD3 paper, eq. 23)."""

    shift: float
    top: float | None = None

    def progress(self, timestep: Tensor, top: float = 1000.0) -> Tensor:
        sigma = timestep / (self.top or top)
        return 1.0 - sigma / (self.shift - (self.shift - 1.0) * sigma)


@dataclass(frozen=True)
class VariancePreserving(_Checked):
    """DDPM-like: u is the timestep itself, as a share of the training timesteps."""

    top: float | None = None

    def progress(self, timestep: Tensor, top: float = 1000.0) -> Tensor:
        return 1.0 - timestep / (self.top or top)


@dataclass(frozen=True)
class LinearQuadratic(_Checked):
    """Mochi's flow: half of the steps raise v = 1 - sigma evenly to the threshold q, half on to 1 by a parabola.

    With y from 0 to 1 through the second half, v = q + q*y + (1 - 2q)*y^2. The timestep is v itself: it counts up.
    """

    threshold: float
    top: float | None = None

    def progress(self, timestep: Tensor, top: float = 1000.0) -> Tensor:
        v, q = timestep / (self.top or top), self.threshold
        root = (q * q + 4 * (1 - 2 * q) * (v - q).clamp(min=0)).sqrt()
        return torch.where(v < q, v / (2 * q), 0.5 + (root - q) / (4 * (1 - 2 * q)))


@dataclass(frozen=True)
class Karras(_Checked):
    """EDM (Karras et al. 2022, eq. 5, rho = 7): u is even steps of sigma^(1/7); the timestep is ln(sigma) / 4."""

    highest: float  # sigma of pure noise
    lowest: float
    top: float | None = None

    def progress(self, timestep: Tensor, top: float = 1000.0) -> Tensor:
        low, high = self.lowest ** (1 / 7), self.highest ** (1 / 7)
        return (high - (timestep * (4 / 7)).exp()) / (high - low)


Noise = Flow | VariancePreserving | LinearQuadratic | Karras


def progress_of(timestep: Any, noise: Noise | None, scheduler: Any = None) -> tuple[Tensor | None, str]:
    """The progress of a forward call, a 0-d fp32 tensor on the timestep's device, and the source it was read from.

    timestep: the model's own argument, a number or a tensor of any shape; the largest entry counts (clean image
    frames and Wan 2.2 TI2V's per-token timesteps carry smaller ones).
    Sources, in this order: "scheduler" (its static shift), "scheduler steps" (its shift is dynamic or unknown: the
    position in its timesteps; no timestep: its own count of the steps done), "timestep" (no scheduler: the
    family's published shift), "unknown" (progress None).
    """
    if timestep is None:
        if getattr(scheduler, "timesteps", None) is None or not hasattr(scheduler, "step_index"):
            return None, "unknown"
        done = (scheduler.step_index or 0) / len(scheduler.timesteps)
        return torch.tensor(min(done, 1.0)), "scheduler steps"
    t = torch.as_tensor(timestep).detach().to(torch.float32).amax()  # ()
    if scheduler is not None:
        total = float(scheduler.config.get("num_train_timesteps", 1000))
        scale = total / (noise.top or total) if noise is not None else 1.0
        static = _static_noise(scheduler, noise)
        if static is not None:
            return static.progress(t * scale, total).clamp(0.0, 1.0), "scheduler"
        if getattr(scheduler, "timesteps", None) is not None:
            return _position(t * scale, scheduler.timesteps).clamp(0.0, 1.0), "scheduler steps"
    if noise is None:
        return None, "unknown"
    return noise.progress(t).clamp(0.0, 1.0), "timestep"


def progress_at_steps(scheduler: Any, noise: Noise | None, steps: int) -> Tensor:
    """Progress of each of `steps` steps of a scheduler, (steps,), before they are run: by its own timesteps, or steps
    done / steps where its shift is known only in a call."""
    static, own = _static_noise(scheduler, noise), copy.deepcopy(scheduler)
    try:
        own.set_timesteps(steps)
    except (TypeError, ValueError):  # it needs more, such as the size of the video
        static = None
    if static is None:
        return torch.arange(steps) / steps
    total = float(own.config.get("num_train_timesteps", 1000))
    return static.progress(own.timesteps.to("cpu", torch.float32), total).clamp(0.0, 1.0)


def _static_noise(scheduler: Any, noise: Noise | None) -> Noise | None:
    """Progress from the scheduler's own timesteps; None when its shift changes from call to call."""
    if isinstance(noise, (VariancePreserving, LinearQuadratic)):
        return replace(noise, top=None)
    config = scheduler.config
    if config.get("use_dynamic_shifting", False):
        return None
    if config.get("use_flow_sigmas", False):
        shift = config.get("flow_shift")
    else:
        shift = getattr(scheduler, "shift", None) or config.get("shift")
    return Flow(float(shift)) if shift else None


def _position(t: Tensor, timesteps: Tensor) -> Tensor:
    """Where t lies among N descending timesteps, in steps done / N, linear in between. No host sync."""
    steps = timesteps.to(device=t.device, dtype=torch.float32)
    edges = torch.cat([steps, steps.new_zeros(1)])  # (N+1,)
    k = ((steps >= t).sum() - 1).clamp(min=0)[None]  # the last step that is not below t
    here, after = edges.take(k)[0], edges.take(k + 1)[0]
    part = torch.where(here > after, (here - t) / (here - after).clamp(min=1e-6), 0.0)
    return (k[0] + part.clamp(0.0, 1.0)) / steps.shape[0]
