"""What an enhanced model did in its last sampling run: tensors while it samples, text and arrays afterwards."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from enhance_a_video.record import Summary
from enhance_a_video.wording import count


@dataclass
class Step:
    """One call of the diffusion model."""

    sigma: Tensor  # ()
    active: bool
    num_frames: int
    samples: int
    layers: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # name -> mass, gain, (B,) each
    skipped: bool = False  # no attention ran: a step cache has skipped the model
    problem: str = ""  # why nothing was done although attention ran
    operators: set[str] = field(default_factory=set)  # the library's names of what acted
    notes: set[str] = field(default_factory=set)  # what was done otherwise than requested, and why


@dataclass
class Record:
    """The calls of one sampling run."""

    model: str
    choice: str  # the gain in words
    settings: dict[str, object]
    undone: bool = False  # a norm behind the layers takes the gain back
    steps: list[Step] = field(default_factory=list)
    percent_to_sigma: Callable[[float], float] | None = None  # the model's own, 0 = pure noise, 1 = clean

    @property
    def problems(self) -> list[str]:
        """What could not be done in active calls, each reason once."""
        return list(dict.fromkeys(step.problem for step in self.steps if step.problem))

    def sentence(self) -> str:
        """What was done, or a warning of what was not and why."""
        acted = sum(bool(step.layers) for step in self.steps)
        if why := self._why_nothing():
            others = f" In the others {self._done(acted)}." if acted and self.problems else ""
            return f"Warning: nothing was done to {self.model} in {why}.{others}"
        return f"{self._done(acted)}."

    def _done(self, acted: int) -> str:
        """What was done in so many calls."""
        summary = self.summary()
        verb = "observed" if self.settings["observe_only"] else "acted in"
        where = f"{count(len(summary.layers), 'layer')}, {acted} of {len(self.steps)} calls"
        mass, gain = np.nanmean(summary.mass), np.nanmean(summary.gain)
        found = f"mean cross-frame mass {mass:.3f}, mean gain {gain:.3f}"
        return f"{self.choice} {verb} {where} of {self.model}: {found}{self._how()}"

    def _how(self) -> str:
        """By which share odds were moved, and what was done otherwise than requested."""
        names, notes = (sorted(set().union(*(getattr(s, kind) for s in self.steps))) for kind in ("operators", "notes"))
        share = {"exact": "exact shares", "cross-frame": "estimated shares"}
        how = [share[name] for name in names if name in share]
        return f" ({', '.join(how)}{': ' * bool(notes)}{'; '.join(notes)})" if how or notes else ""

    def _why_nothing(self) -> str:
        """In which calls nothing was done and why; "" where all is well."""
        if self.problems:
            left = sum(bool(step.problem) for step in self.steps)
            calls = f"{left} of {len(self.steps)} calls" if any(step.layers for step in self.steps) else "any call"
            return f"{calls}, because {'; '.join(self.problems)}"
        active = [step for step in self.steps if step.active]
        if self.steps and not active:
            low, high = (f"{at(self.summary().progress):.2f}" for at in (np.min, np.max))
            return f"any call, because the sampler went from {low} to {high} of the denoising, outside of the window"
        if active and all(step.skipped for step in active):
            return "any call, because none of the model's attentions accepts an override"
        reason = self.summary().no_effect
        return f"any call, because {reason}" if reason else ""

    def summary(self) -> Summary:
        """The library's own summary. Here for the first time numbers are read from the device."""
        names = list(dict.fromkeys(name for step in self.steps for name in step.layers))
        mass = np.full((len(self.steps), len(names)), math.nan, dtype=np.float32)
        gain = mass.copy()
        for row, step in enumerate(self.steps):
            for name, (m, g) in step.layers.items():
                numbers = torch.stack([m.float().mean(), g.float().mean()]).tolist()
                mass[row, names.index(name)], gain[row, names.index(name)] = numbers
        return Summary(
            settings=dict(self.settings),
            models=[self.model],
            layers=names,
            progress_source="the model's sigmas",
            model=np.zeros(len(self.steps), dtype=int),
            progress=np.array([self._progress(float(step.sigma)) for step in self.steps], dtype=np.float32),
            active=np.array([step.active for step in self.steps], dtype=bool),
            num_frames=np.array([step.num_frames for step in self.steps], dtype=int),
            mass=mass,
            gain=gain,
            clipped=np.where(np.isnan(gain), math.nan, gain <= 1.0),
            seconds=math.nan,
            calls_made=len(self.steps),
            undone=self.undone,
        )

    def _progress(self, sigma: float) -> float:
        """How far the denoising is at a noise level: the inverse of percent_to_sigma, by halving."""
        if self.percent_to_sigma is None:
            return math.nan
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if float(self.percent_to_sigma(middle)) > sigma else (low, middle)
        return low
