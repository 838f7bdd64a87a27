"""The policies that a tuning chooses among: gains on what comes from other frames, or on a layer's whole output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...policies import CROSS_FRAME, DEFAULT_ODDS, OUTPUT, Grid, Network, OddsGrid, OddsNetwork


@dataclass(frozen=True)
class Space:
    """grid, network: the policies that are searched and learned. low, high: of a strength on the grid.

    usual: the strength that a search tries in all places, in the middle layers, and early only. start: the network's
    strength where learning begins.
    """

    grid: Callable[[tuple[tuple[float, ...], ...]], Any]
    network: Any  # a class with FEATURES and most
    low: float
    high: float
    usual: float
    start: float


# Odds between a half and four times what they are, from the default on. On the whole output gains of 1 + g · mass, from
# the plain model on: no strength has been shown to be better.
SPACES: Mapping[str, Space] = {
    CROSS_FRAME: Space(
        OddsGrid, OddsNetwork, -math.log(2), math.log(4), usual=math.log(DEFAULT_ODDS), start=math.log(DEFAULT_ODDS)
    ),
    OUTPUT: Space(Grid, Network, -0.4, 0.8, usual=0.2, start=0.0),
}
