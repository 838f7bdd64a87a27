"""Computes win rates with intervals, and agreement between voters, from votes. Pure NumPy.

A vote is -1 (for the reference), 0 (about equal) or +1 (for the other one).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from ...errors import SettingsError
from ..stats import student_quantile

_quantile = lru_cache(maxsize=256)(student_quantile)


@dataclass(frozen=True)
class WinRate:
    """Wins as a share of the votes, a tie counted as half a win, with its interval (NaN from a single clip)."""

    votes: int
    wins: int
    ties: int
    losses: int
    clips: int  # different pairs of clips that were voted on
    rate: float  # (wins + ties / 2) / votes
    low: float
    high: float
    effective: float  # about how many independent votes would be as much evidence
    level: float = 0.95

    @property
    def clear(self) -> bool:
        """Whether the interval excludes one half."""
        return self.low > 0.5 or self.high < 0.5


@dataclass(frozen=True)
class Agreement:
    """How far voters agree on the clips that two or more of them saw; NaN where undefined, with the reason in `why`."""

    alpha: float  # Krippendorff's, of the answers as -1, 0, +1
    same: float  # share of the pairs of voters on one clip that gave the same answer
    clips: int  # seen by two voters or more
    why: str = ""


def win_rate(votes: Sequence[float], clips: Sequence[Hashable], *, level: float = 0.95) -> WinRate:
    """How often the second of two labels wins, and the interval for other clips judged by these voters.

    Args:
        votes: -1, 0 or +1, (n,).
        clips: which pair of clips each vote is about, (n,).
        level: coverage of the interval.

    With one vote for each clip it is Wilson's interval. Several votes on a clip are no independent evidence. At worst
    they are copies of each other: then the votes are worth n² / Σ n_clip² independent ones (Kish), which is n where
    each clip has one. Where the clips vary less than that, Wilson's formula with the number of independent votes that
    would have the variance found between clips, never more than n, and Student's t with one degree of freedom less
    than clips (Franco et al., Journal of Survey Statistics and Methodology 7, 2019). The narrower of the two holds.

    Raises:
        SettingsError: no votes, votes that are none of -1, 0, +1, different lengths, a level outside 0..1.
    """
    values, keys = _checked(votes, clips)
    if not 0 < level < 1:
        raise SettingsError(f"The level of an interval lies between 0 and 1; got {level}.")
    scores, (found, place) = (values + 1) / 2, np.unique(keys, return_inverse=True)
    count, groups, rate = len(scores), len(found), float(scores.mean())
    worst = count**2 / float((np.bincount(place) ** 2).sum())
    effective, low, high = worst, float("nan"), float("nan")
    if groups > 1:
        low, high = _wilson(rate, worst, NormalDist().inv_cdf((1 + level) / 2))
        variance = groups / (groups - 1) * float((np.bincount(place, scores - rate) ** 2).sum()) / count**2
        if variance > 1e-12:
            found_in = min(count, rate * (1 - rate) / variance)
            other = _wilson(rate, found_in, _quantile((1 + level) / 2, groups - 1))
            effective, low, high = max(worst, found_in), max(low, other[0]), min(high, other[1])
    wins, ties, losses = (int((values == value).sum()) for value in (1, 0, -1))
    return WinRate(count, wins, ties, losses, groups, rate, low, high, effective, level)


def agreement(votes: Sequence[float], clips: Sequence[Hashable]) -> Agreement:
    """Krippendorff's alpha: 1 = voters always agree, 0 = no more than chance, below 0 = less.

    alpha = 1 - (observed disagreement) / (disagreement if answers were dealt out at random), with the squared
    difference of -1, 0, +1 as disagreement, so that left against right counts four times left against equal.
    Voters need not have seen the same clips: a clip with one vote counts for nothing. (K. Krippendorff, Content
    Analysis, interval data.) Arguments as in `win_rate`; a voter votes once on a clip.

    Undefined where no clip has two votes, and where all answers are the same, as chance would agree as well.
    """
    values, keys = _checked(votes, clips)
    units = [unit for unit in (values[keys == key] for key in np.unique(keys)) if len(unit) > 1]
    nan = float("nan")
    if not units:
        return Agreement(nan, nan, 0, "no clip was judged by two voters")
    same = float(sum(_equal_pairs(unit) for unit in units) / sum(len(unit) * (len(unit) - 1) for unit in units))
    alpha = krippendorff_alpha(units)
    return Agreement(alpha, same, len(units), "" if alpha == alpha else "all answers are the same")


def krippendorff_alpha(units: Sequence[np.ndarray]) -> float:
    """Alpha for interval data: the values (m,) that each unit got, m >= 2. NaN where all values are equal."""
    pooled = np.concatenate(units)
    expected = _disagreement(pooled) / (len(pooled) - 1)
    observed = sum(_disagreement(unit) / (len(unit) - 1) for unit in units)
    return 1 - float(observed / expected) if expected > 0 else float("nan")


def _checked(votes: Sequence[float], clips: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(votes, np.float64)
    if values.ndim != 1 or len(values) != len(clips) or not len(values):
        raise SettingsError(f"One clip for each vote, and at least one, are needed; found {values.size}, {len(clips)}.")
    if not np.isin(values, (-1, 0, 1)).all():
        raise SettingsError(f"A vote is -1, 0 or 1; found {sorted(set(values.tolist()))}.")
    number: dict[Hashable, int] = {}
    return values, np.array([number.setdefault(clip, len(number)) for clip in clips])


def _wilson(rate: float, count: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval: the p from which the observed rate is `quantile` standard errors of p away."""
    squared = quantile**2 / count
    centre = (rate + squared / 2) / (1 + squared)
    half = np.sqrt(squared * (rate * (1 - rate) + squared / 4)) / (1 + squared)
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return min(low, rate), max(high, rate)  # at 0 and 1 rounding may put the rate a hair outside


def _disagreement(values: np.ndarray) -> float:
    """Sum of squared differences over all ordered pairs: 2 (n Σx² - (Σx)²)."""
    return float(2 * (len(values) * (values**2).sum() - values.sum() ** 2))


def _equal_pairs(values: np.ndarray) -> int:
    _, counts = np.unique(values, return_counts=True)
    return int((counts * (counts - 1)).sum())
