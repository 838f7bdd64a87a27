"""Paired comparison of two settings on the same prompts and seeds. Pure NumPy.

Pairing removes what the prompt and the seed do to a measure; what is left is the difference that the setting
makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .errors import SettingsError


@dataclass(frozen=True)
class Paired:
    """A paired difference, `after - before`, with the interval of its mean (NaN from a single pair)."""

    before: float  # mean without
    after: float  # mean with
    difference: float  # mean of the differences
    low: float
    high: float
    pairs: int  # pairs in which both values are finite
    level: float = 0.95

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def relative(self) -> float:
        """The difference as a share of the mean without; NaN where that is zero."""
        return self.difference / abs(self.before) if self.before else float("nan")

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """JSON-able: NaN becomes None."""
        data = {**asdict(self), "relative": self.relative, "clear": self.clear}
        return {key: None if value != value else value for key, value in data.items()}


def paired(before: Sequence[float], after: Sequence[float], *, level: float = 0.95, method: str = "t") -> Paired:
    """The mean difference of paired values and its interval.

    Args:
        before: values without, one per prompt and seed, (n,).
        after: values with, in the same order, (n,).
        level: coverage of the interval.
        method: "t" (Student; right for the few seeds of a comparison) or "bootstrap" (percentile; for a
            hundred and more).

    Pairs with a value that is not finite (nothing to measure in that clip) are left out: see `pairs`.

    Raises:
        SettingsError: different lengths, no pair left, an unknown method or a level outside 0..1.
    """
    first, second = np.asarray(before, np.float64).ravel(), np.asarray(after, np.float64).ravel()
    if first.shape != second.shape:
        raise SettingsError(
            f"A paired comparison needs as many values with as without; found {second.size} and {first.size}."
        )
    kept = np.isfinite(first) & np.isfinite(second)
    if not kept.any():
        raise SettingsError(f"None of the {first.size} pairs has two finite values, so there is nothing to compare.")
    first, second = first[kept], second[kept]
    low, high = interval(second - first, level=level, method=method)
    return Paired(
        float(first.mean()),
        float(second.mean()),
        float((second - first).mean()),
        low,
        high,
        first.size,
        level,
    )


def interval(values: Sequence[float] | np.ndarray, *, level: float = 0.95, method: str = "t") -> tuple[float, float]:
    """The interval of the mean of `values` (n,); (nan, nan) for n = 1. Arguments, errors as in `paired`."""
    x = np.asarray(values, np.float64).ravel()
    if not 0 < level < 1:
        raise SettingsError(f"The level of an interval lies between 0 and 1; got {level}.")
    if method not in _INTERVALS:
        raise SettingsError(f"Unknown interval method {method!r}. There are: {', '.join(_INTERVALS)}.")
    if x.size < 2:
        return float("nan"), float("nan")
    return _INTERVALS[method](x, level)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t: with x = sqrt(v)·tan(a), the density of the angle a goes as cos(a)^(v-1)."""
    # A grid that is fine near 0, where the density gathers for large v, and near pi/2, the tail of small v.
    angle = np.pi / 2 * (1 - np.cos(np.linspace(0, np.pi, 200_001))) / 2
    density = np.cos(angle) ** (freedom - 1)
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(angle))])
    half = np.interp(abs(2 * probability - 1), cumulative / cumulative[-1], angle)
    return float(np.sign(probability - 0.5) * np.sqrt(freedom) * np.tan(half))


def _student(x: np.ndarray, level: float) -> tuple[float, float]:
    half = student_quantile((1 + level) / 2, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size)
    return float(x.mean() - half), float(x.mean() + half)


def _bootstrap(x: np.ndarray, level: float, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    random = np.random.default_rng(seed)  # fixed: the same data give the same interval
    counts = random.multinomial(
        x.size, np.full(x.size, 1 / x.size), size=draws
    )  # (draws, n): how often each value is drawn
    means = counts @ x / x.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


_INTERVALS = {"t": _student, "bootstrap": _bootstrap}
