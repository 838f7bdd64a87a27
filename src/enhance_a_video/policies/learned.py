"""Policies with many numbers, which a search or reinforcement learning sets (`enhance-a-video tune`).

A grid and a network, each in two kinds: for the whole output ``gain = 1 + g · m``, where the mass weighs a strength
g that may be negative; for what comes from other frames `Odds` of the factor exp(g). In both g = 0 is the plain model.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import SettingsError
from .adaptive import gain_of_odds
from .base import CROSS_FRAME, GainContext, number, numbers, policy
from .shapes import as_tensor, interpolated


@dataclass(frozen=True)
class _OnGrid:
    """g on a grid: a row for each depth, first layer to last; in it the times, noise to clean. Linear in between."""

    strengths: Any  # tuple of rows (depths, times), or a tensor
    uses_progress: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.strengths, Tensor):
            return
        rows, name = self.strengths, type(self).__name__
        if not isinstance(rows, tuple) or not rows or not all(isinstance(row, tuple) for row in rows):
            raise SettingsError(f"{name}: strengths={rows!r}; give rows of numbers, a row for each depth.")
        for row in rows:
            numbers(f"{name}: a row of strengths", row, exactly=len(rows[0]) or 1)

    def strength(self, mass: Tensor, moment: GainContext) -> Tensor:
        """g of this layer at this moment, ()."""
        table = as_tensor(self.strengths, mass)  # (depths, times)
        row = interpolated(table, as_tensor(moment.layer, mass))  # (times,)
        return interpolated(row, moment.progress.to(mass.device))


@policy("grid")
@dataclass(frozen=True)
class Grid(_OnGrid):
    """gain = max(least, 1 + g(depth, progress) · mass), g linear between the places of a grid of depths × times."""

    least: float | Tensor = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        number("Grid: least", self.least, 0.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return (1 + self.strength(mass, moment) * mass).clamp(min=self.least)  # (B,)


@policy("odds-grid")
@dataclass(frozen=True)
class OddsGrid(_OnGrid):
    """Odds of a factor that changes with depth and progress: strengths are its logarithms, 0.69 doubles the odds."""

    scales: ClassVar[str] = CROSS_FRAME
    MOST: ClassVar[float] = 20.0  # odds of 485 million; from 89 on a float32 cannot hold them

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = () if isinstance(self.strengths, Tensor) else self.strengths
        if worst := max((abs(value) for row in rows for value in row if abs(value) > self.MOST), default=None):
            raise SettingsError(
                f"OddsGrid: a strength of {worst:g} in strengths: they are logarithms of the odds (0.69 doubles them) "
                f"and lie between {-self.MOST:g} and {self.MOST:g}."
            )

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return gain_of_odds(torch.exp(self.strength(mass, moment)), mass)  # (B,)


@dataclass(frozen=True)
class _Learned:
    """g by a small network of what is known at a layer: most · tanh(w2 · tanh(w1 · x + b1) + b2).

    x, FEATURES numbers: mass, depth, depth², progress, progress², depth · progress, 1/T, all about -1 to 1.
    first (hidden, FEATURES + 1) and second (hidden + 1,) hold the weights, biases last.
    """

    first: Any
    second: Any
    most: float | Tensor
    uses_progress: ClassVar[bool] = True
    FEATURES: ClassVar[int] = 7

    def __post_init__(self) -> None:
        name = type(self).__name__
        number(f"{name}: most", self.most, 0.0)
        if isinstance(self.first, Tensor) or isinstance(self.second, Tensor):
            return
        numbers(f"{name}: second", self.second, least=2)
        rows = self.first
        if not isinstance(rows, tuple) or len(rows) != len(self.second) - 1:
            raise SettingsError(f"{name}: first={rows!r}; give a row for each number of second but its last.")
        for row in rows:
            numbers(f"{name}: a row of first", row, exactly=self.FEATURES + 1)

    def strength(self, mass: Tensor, moment: GainContext) -> Tensor:
        """g of each mass, (B,)."""
        first, second = as_tensor(self.first, mass), as_tensor(self.second, mass)
        depth, place = as_tensor(moment.layer, mass) * 2 - 1, moment.progress.to(mass.device) * 2 - 1
        here = torch.stack([depth, depth**2, place, place**2, depth * place])  # the same for all: (5,)
        same = first[:, 1:6] @ here + first[:, 6] / moment.num_frames + first[:, 7]  # (hidden,)
        hidden = torch.tanh((2 * mass - 1)[:, None] * first[:, 0] + same)  # (B, hidden)
        return self.most * torch.tanh(hidden @ second[:-1] + second[-1])


@policy("network")
@dataclass(frozen=True)
class Network(_Learned):
    """gain = 1 + g · mass, g between -most and most by a small network of mass, depth, progress and T."""

    most: float | Tensor = 0.6

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return 1 + self.strength(mass, moment) * mass  # (B,)


@policy("odds-network")
@dataclass(frozen=True)
class OddsNetwork(_Learned):
    """Odds of the factor exp(g), g between -most and most by a small network of mass, depth, progress and T."""

    most: float | Tensor = 1.4  # a factor between a quarter and four
    scales: ClassVar[str] = CROSS_FRAME

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return gain_of_odds(torch.exp(self.strength(mass, moment)), mass)  # (B,)
