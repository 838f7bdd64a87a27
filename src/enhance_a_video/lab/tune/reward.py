"""The reward of clips against the plain model's of the same prompts and noises: 0 where nothing changed.

reward = mean over clips and measures with a direction of clamp(± change / sd, -1, 1)  -  sum of the guards' penalties

sd is the measure's standard deviation over the plain clips. A guard is a measure without a direction (motion,
sharpness, contrast, saturation) that should stay what it was: the clips' mean change beyond a tolerance costs. The mean
is guarded and not each clip, for two clips of a model differ by chance, which is no loss. Steadiness alone would be had
by freezing or blurring; the guards weigh enough that neither can pay (tests/test_tune.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import SettingsError
from ...generation.measures import Measure

Measures = Mapping[str, float]


@dataclass(frozen=True)
class Guard:
    """What has to stay as it was: `weight` times the mean change beyond `tolerance`, in parts of the plain mean.

    The distance that objects travel is noisy, because the checker may lose one: it has more room.
    """

    measure: str
    weight: float
    tolerance: float


GUARDS = (
    Guard("motion", 2.0, 0.10),
    Guard("path_length", 1.0, 0.25),
    Guard("sharpness", 2.0, 0.10),
    Guard("contrast", 2.0, 0.05),
    Guard("saturation", 2.0, 0.05),
)
REWARDS = {
    "quality": "every measure with a direction, the embedded world's truth included where it is known",
    "truth": "only the measures of the embedded world's checker",
    "no-reference": "only what needs no truth",
}


def rows_of(name: str, known: Sequence[Measure]) -> tuple[Measure, ...]:
    """The measures of a reward of this name, guards included, out of those that there are.

    Raises:
        SettingsError: an unknown reward; "truth" where nothing is known of it.
    """
    if name not in REWARDS:
        choices = "; ".join(f"{key}: {text}" for key, text in REWARDS.items())
        raise SettingsError(f"--reward {name!r} is unknown. There are {choices}.")
    if name == "truth" and not any(row.truth for row in known):
        raise SettingsError("--reward truth: only prompts of the embedded world have a truth that is known.")
    guards = {guard.measure for guard in GUARDS}
    wanted = {"quality": (True, False), "truth": (True,), "no-reference": (False,)}[name]
    return tuple(row for row in known if row.name in guards or (row.better != "neither" and row.truth in wanted))


@dataclass(frozen=True)
class Reward:
    """The reward, with its scales: `spread` (sd) and `mean` of each measure over the plain clips."""

    rows: tuple[Measure, ...]
    spread: Mapping[str, float]
    mean: Mapping[str, float]

    @classmethod
    def of(cls, rows: Sequence[Measure], plain: Sequence[Measures]) -> Reward:
        """The scales from the plain model's clips.

        Raises:
            SettingsError: fewer than two clips, which have no spread.
        """
        if len(plain) < 2:
            raise SettingsError(f"--clips {len(plain)}: a reward is scaled by how clips differ; give at least 2.")
        values = {row.name: np.array([clip[row.name] for clip in plain], np.float64) for row in rows}
        finite = {name: column[np.isfinite(column)] for name, column in values.items()}
        spread = {name: float(column.std(ddof=1)) if column.size > 1 else 0.0 for name, column in finite.items()}
        return cls(tuple(rows), spread, {n: float(c.mean()) if c.size else math.nan for n, c in finite.items()})

    def __call__(self, plain: Measures, changed: Measures) -> float:
        """The reward of one clip, at most 1."""
        return float(self.values([(plain, changed)])[0])

    def values(self, pairs: Sequence[tuple[Measures, Measures]]) -> np.ndarray:
        """Of pairs (plain, changed) (n,), what each adds to the reward of them together, which is their mean.

        Where a guard's mean is beyond its tolerance, a clip adds what it moves that mean by: the slope that a policy
        gradient needs.
        """
        found = np.array([self._mean_term(self.terms(*pair)) for pair in pairs])
        names = {row.name for row in self.rows}
        for guard in (guard for guard in GUARDS if guard.measure in names):
            shifts = self._shifts(guard.measure, pairs)
            if abs(shifts.mean()) > guard.tolerance:
                found -= guard.weight * (np.sign(shifts.mean()) * shifts - guard.tolerance)
        return found

    def terms(self, plain: Measures, changed: Measures) -> dict[str, float]:
        """Each measure's part, -1 to 1. One that neither clip has is left out."""
        parts = {row.name: self._term(row, plain[row.name], changed[row.name]) for row in self.rows}
        return {name: part for name, part in parts.items() if part is not None}

    def _mean_term(self, terms: Mapping[str, float]) -> float:
        """Of all measures. The truth weighs half, or its share of the measures where that is more."""
        truth = [terms[row.name] for row in self.rows if row.truth and row.name in terms]
        rest = [terms[row.name] for row in self.rows if not row.truth and row.name in terms]
        weight = max(0.5, len(truth) / (len(truth) + len(rest))) if truth and rest else float(bool(truth))
        return weight * float(np.mean(truth or [0.0])) + (1 - weight) * float(np.mean(rest or [0.0]))

    def _term(self, row: Measure, before: float, after: float) -> float | None:
        had, has = math.isfinite(before), math.isfinite(after)
        if row.better == "neither" or not (had or has):
            return None
        if had != has:  # an object that can no longer be followed is lost
            return 1.0 if has else -1.0
        change = (after - before) if row.better == "higher" else (before - after)
        scale = self.spread[row.name]
        return float(np.clip(change / scale, -1, 1)) if scale > 0 else float(np.sign(change))

    def _shifts(self, measure: str, pairs: Sequence[tuple[Measures, Measures]]) -> np.ndarray:
        """Each clip's change in parts of these plain clips' mean, -1 to 1, (n,); 0 where it is not known."""
        before, after = (np.array([clip[measure] for clip in clips]) for clips in zip(*pairs, strict=True))
        known = before[np.isfinite(before)]
        least = 0.5 * self.mean[measure]  # clips with next to no motion have no relative change to speak of
        scale = max(known.mean() if known.size else 0.0, least, 1e-12)
        return np.nan_to_num(np.clip((after - before) / scale, -1, 1))
