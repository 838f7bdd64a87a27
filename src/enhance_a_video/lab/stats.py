"""Paired comparison of two settings on the same prompts and seeds, and how many it takes. Pure NumPy.

Pairing removes what the prompt and the seed do to a measure; what is left is the difference that the setting
makes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from ..errors import SettingsError


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


def paired(
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    method: str = "t",
) -> Paired:
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


def p_value(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p-value of the paired t-test: how often chance alone gives a mean as far from 0.

    Args:
        differences: after - before, (n,); what is not finite is left out.

    Returns:
        1.0 where all differences are 0, 0.0 where all are one other number, NaN for fewer than two.
    """
    x = np.asarray(differences, np.float64).ravel()
    x = x[np.isfinite(x)]
    if x.size < 2:
        return float("nan")
    if np.ptp(x) == 0:
        return float(x[0] == 0)
    return student_tails(float(x.mean() / (x.std(ddof=1) / np.sqrt(x.size))), x.size - 1)


def student_tails(t: float, freedom: int) -> float:
    """P(|X| >= |t|) for Student's t, with the angle of `student_quantile`; good to 1e-9 far into the tail as well."""
    low = math.atan(abs(t) / math.sqrt(freedom))
    # Most of what lies beyond `low` lies near it: Gauss-Legendre over the angle's logarithmic distance from there.
    nodes, weights = _quadrature()
    reach = math.pi / 2 - low
    far = reach * np.exp(15 * (nodes - 1))  # from reach·1e-13 to reach
    beyond = float((np.cos(low + far) ** (freedom - 1) * far * 15 * weights).sum())
    log_all = 0.5 * math.log(math.pi) + math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2) - math.log(2)
    return min(1.0, beyond / math.exp(log_all))


@lru_cache(maxsize=1)
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(400)


def adjusted(p_values: Sequence[float] | np.ndarray, method: str = "holm") -> np.ndarray:
    """p-values (n,) corrected for there being n of them, in the same order; NaN stays NaN and does not count.

    Args:
        method: "holm" (Holm 1979: below a, the chance of *any* false finding is at most a, however the tests
            depend on each other) or "benjamini-hochberg" (1995: at most a share a of the findings is false, for
            independent or positively dependent tests).

    Raises:
        SettingsError: an unknown method, or a p-value outside 0..1.
    """
    p = np.asarray(p_values, np.float64).ravel()
    if method not in CORRECTIONS:
        raise SettingsError(f"Unknown correction {method!r}. There are: {', '.join(CORRECTIONS)}.")
    if ((p < 0) | (p > 1)).any():
        raise SettingsError(f"p-values lie between 0 and 1; found {p.min()} to {p.max()}.")
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN sorts last
    n, rank = order.size, np.arange(order.size)
    if method == "holm":
        sorted_p = np.maximum.accumulate(p[order] * (n - rank))
    else:
        sorted_p = np.minimum.accumulate((p[order] * n / (rank + 1))[::-1])[::-1]
    result = np.full(p.shape, np.nan)
    result[order] = np.minimum(sorted_p, 1)
    return result


CORRECTIONS = ("holm", "benjamini-hochberg")


def sample_size(effect: float, spread: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many pairs a paired, two-sided t-test needs to find a mean difference of `effect`.

    Args:
        effect: the difference that matters, in the measure's unit.
        spread: standard deviation of the paired differences, from a pilot.
        power: chance of finding it when it is there.
        alpha: chance of finding it when it is not.

    Returns:
        At least 2. Guenther 1981: the normal approximation plus z²/2, within a pair of the exact number.

    Raises:
        SettingsError: an effect of 0 or too small to count the pairs, a negative spread, power or alpha outside 0..1.
    """
    _check_shares(power=power, alpha=alpha)
    if not (math.isfinite(effect) and effect != 0 and math.isfinite(spread) and spread >= 0):
        raise SettingsError(f"A sample size needs an effect that is not 0 and a spread; got {effect} and {spread}.")
    tail = NormalDist().inv_cdf(1 - alpha / 2)
    ratio = (tail + NormalDist().inv_cdf(power)) * spread / effect
    if abs(ratio) > 1e150:  # its square is no number
        raise SettingsError(f"An effect of {effect:g} beside a spread of {spread:g} needs more pairs than can be made.")
    return max(2, math.ceil(ratio**2 + tail**2 / 2))


def detectable(pairs: int, spread: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest mean difference that `pairs` pairs find: `sample_size` solved for the effect; inf for too few."""
    _check_shares(power=power, alpha=alpha)
    tail = NormalDist().inv_cdf(1 - alpha / 2)
    room = pairs - tail**2 / 2
    return (tail + NormalDist().inv_cdf(power)) * spread / math.sqrt(room) if room > 0 else math.inf


def _check_shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < 1:
            raise SettingsError(f"{name} lies between 0 and 1; got {value}.")


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


def _bootstrap(x: np.ndarray, level: float) -> tuple[float, float]:
    means = _resamples(x.size) @ x / x.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@lru_cache(maxsize=4)  # a study needs the same few sizes hundreds of times
def _resamples(size: int, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """(draws, n): how often each value is drawn. The seed is fixed: the same data give the same interval."""
    random = np.random.default_rng(seed)
    return random.multinomial(size, np.full(size, 1 / size), size=draws).astype(np.float64)


_INTERVALS = {"t": _student, "bootstrap": _bootstrap}
