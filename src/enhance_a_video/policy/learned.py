"""Policies with many numbers, which a search or reinforcement learning sets (`enhance-a-video tune`).

Both act on ``gain = 1 + g · m``: the mass weighs a strength g that may be negative, and g = 0 is the plain model.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import SettingsError
from .base import Moment, number, numbers, policy
from .shapes import as_tensor, interpolated


@policy("grid")
@dataclass(frozen=True)
class Grid:
    """g on a grid: a row for each depth, first layer to last; in it the times, pure noise to clean. Linear in between.

    gain = max(least, 1 + g(depth, progress) · mass)
    """

    strengths: Any  # tuple of rows (depths, times), or a tensor
    least: float | Tensor = 0.5
    asks_progress: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number("Grid: least", self.least, 0.0)
        if isinstance(self.strengths, Tensor):
            return
        rows = self.strengths
        if not isinstance(rows, tuple) or not rows or not all(isinstance(row, tuple) for row in rows):
            raise SettingsError(f"Grid: strengths={rows!r}; give rows of numbers, a row for each depth.")
        for row in rows:
            numbers("Grid: a row of strengths", row, exactly=len(rows[0]) or 1)

    def __call__(self, mass: Tensor, moment: Moment) -> Tensor:
        table = as_tensor(self.strengths, mass)  # (depths, times)
        row = interpolated(table, as_tensor(moment.layer, mass))  # (times,)
        g = interpolated(row, moment.progress.to(mass.device))  # ()
        return (1 + g * mass).clamp(min=self.least)  # (B,)


@policy("network")
@dataclass(frozen=True)
class Network:
    """g by a small network of what is known at a layer: gain = 1 + most · tanh(w2 · tanh(w1 · x + b1) + b2) · mass.

    x, FEATURES numbers: mass, depth, depth², progress, progress², depth · progress, 1/T, all about -1 to 1.
    first (hidden, FEATURES + 1) and second (hidden + 1,) hold the weights, biases last.
    """

    first: Any
    second: Any
    most: float | Tensor = 0.6
    asks_progress: ClassVar[bool] = True
    FEATURES: ClassVar[int] = 7

    def __post_init__(self) -> None:
        number("Network: most", self.most, 0.0)
        if isinstance(self.first, Tensor) or isinstance(self.second, Tensor):
            return
        numbers("Network: second", self.second, least=2)
        rows = self.first
        if not isinstance(rows, tuple) or len(rows) != len(self.second) - 1:
            raise SettingsError(f"Network: first={rows!r}; give a row for each number of second but its last.")
        for row in rows:
            numbers("Network: a row of first", row, exactly=self.FEATURES + 1)

    def strength(self, mass: Tensor, moment: Moment) -> Tensor:
        """What goes through the last tanh, (B,): the mean of the learned policy before it is bounded."""
        first, second = as_tensor(self.first, mass), as_tensor(self.second, mass)
        depth, place = as_tensor(moment.layer, mass) * 2 - 1, moment.progress.to(mass.device) * 2 - 1
        known = torch.stack([depth, depth**2, place, place**2, depth * place]).expand(mass.shape[0], 5)
        length = torch.full_like(mass, 1 / moment.num_frames)
        x = torch.cat([(2 * mass - 1)[:, None], known, length[:, None], torch.ones_like(mass)[:, None]], 1)  # (B, 8)
        hidden = torch.tanh(x @ first.T)  # (B, hidden)
        return hidden @ second[:-1] + second[-1]

    def __call__(self, mass: Tensor, moment: Moment) -> Tensor:
        return 1 + self.most * torch.tanh(self.strength(mass, moment)) * mass  # (B,)
