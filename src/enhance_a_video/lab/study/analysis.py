"""Computes paired effects, confidence intervals, corrected p-values and the pooled score from stored clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SettingsError
from ...generation.measures import Measure
from ..stats import Paired, adjusted, interval, p_value, paired
from .definition import Study, Trial
from .run import WORLD, targets, weights_are_here, weights_of
from .store import FILE, Clip, Store

ALPHA = 0.05
MANY_PROMPTS = 10  # from so many on, prompts are what is resampled; with fewer, pairs are
BOOTSTRAP_FROM = 30  # with fewer units Student's interval stands in: a bootstrap of few is too narrow

POOLED = Measure("pooled", "pooled score", "higher", "sd of the baseline's clips")


@dataclass(frozen=True)
class Effect:
    """The change of one measure by a setting, against the baseline.

    wins, ties, losses count pairs; for a measure without a direction they are more, equal, less.
    scaled is the change and its interval in standard deviations of the baseline's clips, positive = better
    (without a direction: more). p is uncorrected; adjusted is corrected over all measures and settings.
    """

    row: Measure
    change: Paired
    p: float
    adjusted: float
    wins: int
    ties: int
    losses: int
    scaled: tuple[float, float, float]

    @property
    def verdict(self) -> str:
        """better, worse, more or less where significant after correction; 'maybe ...' where only the interval excludes
        zero; else 'unclear', or 'same' where no clip changed."""
        if self.change.difference == 0 and not self.wins and not self.losses:
            return "same"
        up = self.change.difference > 0
        word = ("more" if up else "less") if self.row.better == "neither" else None
        word = word or ("better" if up == (self.row.better == "higher") else "worse")
        if self.adjusted < ALPHA:
            return word
        return f"maybe {word}" if self.change.clear else "unclear"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        numbers = {
            "p": self.p, "adjusted_p": self.adjusted, "wins": self.wins, "ties": self.ties, "losses": self.losses,
            "scaled": self.scaled[0], "scaled_low": self.scaled[1], "scaled_high": self.scaled[2],
        }  # fmt: skip
        finite = {k: None if v != v else v for k, v in numbers.items()}
        return {"measure": self.row.name, "better": self.row.better, **self.change.to_dict(), **finite} | {
            "verdict": self.verdict
        }


@dataclass(frozen=True)
class Part:
    """The effects in a part of the study, one value of one factor; not corrected: for exploring, not for claims."""

    factor: str
    value: str
    pairs: int
    pooled: dict[str, Effect]  # by setting
    effects: dict[str, dict[str, Effect]]  # by setting and measure


@dataclass(frozen=True)
class Case:
    """One pair of clips: the baseline's and a setting's."""

    trial: Trial  # of the setting
    clip: tuple[str, str]  # (key, weights)
    baseline: tuple[str, str]
    score: float  # pooled, of this pair
    reasons: tuple[tuple[str, float, float, float], ...]  # (measure's label, without, with, change in sd, + better)


@dataclass(frozen=True)
class Results:
    """The results of a study, as its pages show them."""

    study: Study
    weights: dict[str, str]  # model -> weights
    planned: int
    done: int
    failures: dict[str, str]
    elsewhere: int  # stored clips that are not of this study, or of other weights
    pairs: int
    unit: str  # what is resampled: "prompt", or "prompt and seed" when prompts are few
    units: int
    method: str  # "bootstrap" or "t"
    baseline: dict[str, tuple[float, float, float]]  # measure -> mean, low, high
    ceiling: dict[str, float]  # measure -> mean of the world's own clips of these scenes; empty for other prompts
    pooled_from: tuple[str, ...]  # measures whose baseline varies at all
    effects: dict[str, dict[str, Effect]]  # setting -> measure -> effect
    pooled: dict[str, Effect]
    rivals: dict[tuple[str, str], Paired]  # (a, b) -> pooled score of a minus that of b
    parts: tuple[Part, ...]
    cases: dict[str, dict[str, list[Case]]]  # setting -> worst, random, best
    seconds: dict[str, float]  # setting -> median of a clip
    gains: dict[str, float]  # setting -> mean gain where it acted
    runs: tuple[dict[str, Any], ...]  # that made the clips

    @property
    def complete(self) -> bool:
        return self.done == self.planned

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the numbers of the tables."""
        return {
            "study": self.study.name, "digest": self.study.digest, "planned": self.planned, "done": self.done,
            "failed": len(self.failures), "pairs": self.pairs, "unit": self.unit, "units": self.units,
            "interval": self.method, "correction": self.study.correction, "baseline": self.study.baseline,
            "settings": {
                label: {
                    "pooled": self.pooled[label].to_dict(),
                    "measures": [effect.to_dict() for effect in self.effects[label].values()],
                }
                for label in self.study.others
            },
        }  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Stored values, aligned: one row per pair, one column per measure, NaN where nothing was measured."""

    rows: tuple[Measure, ...]
    pairs: tuple[tuple[Any, ...], ...]  # Trial.pair
    trials: dict[str, list[Trial | None]]  # setting -> one for each pair
    values: dict[str, np.ndarray]  # setting -> (pairs, measures)
    groups: np.ndarray  # (pairs,) which unit each belongs to
    unit: str

    def column(self, measure: str) -> int:
        return next(n for n, row in enumerate(self.rows) if row.name == measure)


# ---------------------------------------------------------------------------------------------------- reading


def analyse(study: Study, folder: str | Path) -> Results:
    """The results of what is stored so far.

    Raises:
        SettingsError: nothing to compare yet.
    """
    if not (Path(folder) / FILE).exists():
        raise SettingsError(f"Nothing to compare: there is no {FILE} in {folder}. Run the study first.")
    with Store(Path(folder), read_only=True) as store:
        clips, failures, runs = store.clips(), store.failures(), store.runs()
    weights = known_weights(study, clips)
    wanted = targets(study, weights)
    have, names = {where: clips[where] for where in wanted if where in clips}, {row.name for row in study.measures}
    table = table_of(study, wanted, have)
    complete = [np.isfinite(table.values[label]).any(1) for label in study.settings]
    both = complete[0] & np.any(complete[1:], axis=0)
    if not both.any():
        raise SettingsError(
            f"Nothing to compare in {folder} yet: {len(have)} of {len(wanted)} clips are stored, and no setting has a "
            f"clip that {study.baseline!r} has as well. Run the study first."
        )
    spreads = spreads_of(table, study.baseline)
    pooled_from = tuple(name for name in study.pooled if spreads[table.column(name)] > 0)
    scores = {label: scores_of(table, study, label, spreads, pooled_from) for label in study.others}
    effects, pooled = _effects(table, study, spreads, scores)
    made = {clip.run for clip in have.values()}
    return Results(
        study=study,
        weights=weights,
        planned=len(wanted),
        done=sum(names <= set(clip.measures) for clip in have.values()),
        failures={where[0]: text for where, text in failures.items() if where in wanted and where not in have},
        elsewhere=sum(weights != WORLD for _, weights in clips) - len(have),
        pairs=int(both.sum()),
        unit=table.unit,
        units=len(np.unique(table.groups[both])),
        method=_method(len(np.unique(table.groups[both]))),
        baseline=_baseline(table, study.baseline),
        ceiling=_ceiling(study, clips),
        pooled_from=pooled_from,
        effects=effects,
        pooled=pooled,
        rivals=_rivals(table, scores),
        parts=tuple(_parts(table, study, spreads, scores, have, weights)),
        cases={label: _cases(table, study, label, scores[label], spreads, weights) for label in study.others},
        seconds=_median(wanted, have, lambda clip: clip.seconds),
        gains=_median(wanted, have, lambda clip: clip.mean_gain),
        runs=tuple(run for run in runs if run["id"] in made),
    )


def known_weights(study: Study, clips: Mapping[tuple[str, str], Clip]) -> dict[str, str]:
    """model -> weights: those that are here; of a model that is not here (results were moved), those stored last."""
    found = {}
    for model in study.models:
        keys = {trial.item.key for trial in study.trials() if trial.model == model}
        stored = [clip for clip in clips.values() if clip.key in keys]
        absent = not weights_are_here(model)
        found[model] = (
            max(stored, key=lambda clip: clip.run).weights if stored and absent else weights_of(model, study.load)
        )
    return found


def table_of(study: Study, wanted: Mapping[tuple[str, str], Trial], have: Mapping[tuple[str, str], Clip]) -> Table:
    """The stored values of a study, aligned by pair."""
    pairs = tuple(dict.fromkeys(trial.pair for trial in wanted.values()))
    place = {pair: n for n, pair in enumerate(pairs)}
    values = {label: np.full((len(pairs), len(study.measures)), np.nan) for label in study.settings}
    trials: dict[str, list[Trial | None]] = {label: [None] * len(pairs) for label in study.settings}
    for where, trial in wanted.items():
        trials[trial.item.label][place[trial.pair]] = trial
        if where in have:
            stored = have[where].measures
            values[trial.item.label][place[trial.pair]] = [stored.get(row.name, math.nan) for row in study.measures]
    prompts = np.array([pair[2] for pair in pairs])
    if len(study.prompts) >= MANY_PROMPTS:
        return Table(study.measures, pairs, trials, values, prompts, "prompt")
    noises = {noise: n for n, noise in enumerate(dict.fromkeys(pair[2:] for pair in pairs))}  # (prompt, seed)
    groups = np.array([noises[pair[2:]] for pair in pairs])
    return Table(study.measures, pairs, trials, values, groups, "prompt and seed")


# ------------------------------------------------------------------------------------------------------ numbers


def unit_means(groups: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means without and with of each unit, over its pairs (n,) in which both are finite; units that have none are
    left out. Pairs of one prompt are not independent: their mean is one observation."""
    kept = np.isfinite(before) & np.isfinite(after)
    _, unit = np.unique(groups[kept], return_inverse=True)
    count = np.bincount(unit)
    return np.bincount(unit, before[kept]) / count, np.bincount(unit, after[kept]) / count


def effect(
    row: Measure, groups: np.ndarray, before: np.ndarray, after: np.ndarray, spread: float, corrected: float = math.nan
) -> Effect | None:
    """One measure's effect from values (pairs,); None where no pair has both."""
    first, second = unit_means(groups, before, after)
    if not first.size:
        return None
    change = paired(first, second, method=_method(first.size))
    difference = after - before
    difference = difference[np.isfinite(difference)]
    sign = -1.0 if row.better == "lower" else 1.0
    scale = sign / spread if spread > 0 else math.nan
    low, high = sorted((change.low * scale, change.high * scale))
    return Effect(
        row,
        change,
        p_value(second - first),
        corrected,
        int((sign * difference > 0).sum()),
        int((difference == 0).sum()),
        int((sign * difference < 0).sum()),
        (change.difference * scale, low, high),
    )


def _method(units: int) -> str:
    return "bootstrap" if units >= BOOTSTRAP_FROM else "t"


def spreads_of(table: Table, baseline: str) -> np.ndarray:
    """Standard deviation of the baseline's clips in each measure, (measures,); 0 where there are no two."""
    columns = table.values[baseline].T
    finite = [column[np.isfinite(column)] for column in columns]
    return np.array([column.std(ddof=1) if column.size > 1 else 0.0 for column in finite])


def scores_of(table: Table, study: Study, label: str, spreads: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Pooled score of each pair (pairs,): mean over measures of the change in sd of the baseline, + = better."""
    columns = [table.column(name) for name in names]
    if not columns:
        return np.full(len(table.pairs), np.nan)
    signs = np.array([-1.0 if table.rows[n].better == "lower" else 1.0 for n in columns])
    change = table.values[label][:, columns] - table.values[study.baseline][:, columns]
    change = change * signs / spreads[columns]  # (pairs, measures)
    count = np.isfinite(change).sum(1)
    return np.where(count > 0, np.nansum(change, 1) / np.maximum(count, 1), np.nan)


def _effects(
    table: Table, study: Study, spreads: np.ndarray, scores: Mapping[str, np.ndarray]
) -> tuple[dict[str, dict[str, Effect]], dict[str, Effect]]:
    """All effects, with p-values corrected over measures x settings; the pooled ones over the settings."""
    found: dict[tuple[str, str], Effect] = {}
    for label in study.others:
        for n, row in enumerate(table.rows):
            one = effect(row, table.groups, table.values[study.baseline][:, n], table.values[label][:, n], spreads[n])
            if one is not None:
                found[label, row.name] = one
    corrected = adjusted([one.p for one in found.values()], study.correction)
    result: dict[str, dict[str, Effect]] = {label: {} for label in study.others}
    for (label, name), one, p in zip(found, found.values(), corrected, strict=True):
        result[label][name] = replace(one, adjusted=float(p))
    pooled = {label: _pooled_effect(table.groups, scores[label]) for label in study.others}
    corrected = adjusted([one.p for one in pooled.values()], study.correction)
    return result, {
        label: replace(one, adjusted=float(p)) for (label, one), p in zip(pooled.items(), corrected, strict=True)
    }


def _pooled_effect(groups: np.ndarray, scores: np.ndarray) -> Effect:
    one = effect(POOLED, groups, np.where(np.isfinite(scores), 0.0, np.nan), scores, 1.0)
    nothing = Paired(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    return one or Effect(POOLED, nothing, math.nan, math.nan, 0, 0, 0, (math.nan,) * 3)


def _baseline(table: Table, label: str) -> dict[str, tuple[float, float, float]]:
    """Mean and interval of the baseline's clips, by unit."""
    found = {}
    for row, column in zip(table.rows, table.values[label].T, strict=True):
        if np.isfinite(column).any():
            means, _ = unit_means(table.groups, column, column)
            found[row.name] = (float(means.mean()), *interval(means, method=_method(means.size)))
    return found


def _ceiling(study: Study, clips: Mapping[tuple[str, str], Clip]) -> dict[str, float]:
    """Means of the world's own clips of the study's scenes, as far as they are stored."""
    own = [clips.get((f"{WORLD}-{scene}", WORLD)) for scene in study.scenes or ()]
    found = {}
    for row in study.measures:
        values = np.array([clip.measures.get(row.name, math.nan) for clip in own if clip is not None])
        if np.isfinite(values).any():
            found[row.name] = float(np.nanmean(values))
    return found


def _rivals(table: Table, scores: Mapping[str, np.ndarray]) -> dict[tuple[str, str], Paired]:
    found = {}
    for a in scores:
        for b in scores:
            if a != b:
                second, first = unit_means(table.groups, scores[a], scores[b])
                if first.size:
                    found[a, b] = paired(first, second, method=_method(first.size))
    return found


# -------------------------------------------------------------------------------------------------- parts, cases


def _parts(
    table: Table,
    study: Study,
    spreads: np.ndarray,
    scores: Mapping[str, np.ndarray],
    have: Mapping[tuple[str, str], Clip],
    weights: Mapping[str, str],
) -> list[Part]:
    found = []
    trials = table.trials[study.baseline]
    for factor, values in study.factors.items():
        for value in values:
            inside = np.array([trial is not None and trial.condition[factor] == value for trial in trials])
            groups = table.groups[inside]
            effects: dict[str, dict[str, Effect]] = {}
            for label in study.others:
                columns = zip(table.rows, table.values[study.baseline].T, table.values[label].T, spreads, strict=True)
                each = {
                    row.name: effect(row, groups, before[inside], after[inside], spread)
                    for row, before, after, spread in columns
                }
                effects[label] = {name: one for name, one in each.items() if one is not None}
            pooled = {label: _pooled_effect(groups, scores[label][inside]) for label in study.others}
            named = _value_name(factor, value, table, inside, have, weights)
            found.append(Part(factor, named, int(inside.sum()), pooled, effects))
    return found


def _value_name(
    factor: str,
    value: Any,
    table: Table,
    inside: np.ndarray,
    have: Mapping[tuple[str, str], Clip],
    weights: Mapping[str, str],
) -> str:
    """The value as text; for frames with the latent ones, which is what the method counts."""
    if factor == "frames":
        for trials in table.trials.values():
            for n in np.flatnonzero(inside):
                trial = trials[n]
                clip = have.get((trial.item.key, weights[trial.model])) if trial else None
                if clip and clip.latent_frames:
                    return f"{value} ({clip.latent_frames} latent)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cases(
    table: Table, study: Study, label: str, scores: np.ndarray, spreads: np.ndarray, weights: Mapping[str, str]
) -> dict[str, list[Case]]:
    """The pairs with the lowest, the highest, and random pooled scores (drawn by the study's digest)."""
    there = np.flatnonzero(np.isfinite(scores))
    order = there[np.argsort(scores[there], kind="stable")]
    count = min(study.videos.count, len(order))
    extreme = min(count, max(1, len(order) // 2)) if count else 0  # never the same pair among the worst and the best
    random = np.random.default_rng(int(study.digest, 16)).choice(there, count, replace=False)
    chosen = {"worst": order[:extreme], "random": random, "best": order[::-1][: min(extreme, len(order) - extreme)]}

    def case(n: int, kind: str) -> Case:
        trial, plain = table.trials[label][n], table.trials[study.baseline][n]
        assert trial is not None and plain is not None
        where = (trial.item.key, weights[trial.model])
        reasons = _reasons(table, study, label, n, spreads, kind)
        return Case(trial, where, (plain.item.key, weights[plain.model]), float(scores[n]), reasons)

    return {kind: [case(int(n), kind) for n in places] for kind, places in chosen.items()}


def _reasons(
    table: Table, study: Study, label: str, n: int, spreads: np.ndarray, kind: str, most: int = 3
) -> tuple[tuple[str, float, float, float], ...]:
    """The measures that moved a pair's score most: downward for the worst, upward for the best."""
    found = []
    for name in study.pooled:
        column = table.column(name)
        before, after = table.values[study.baseline][n, column], table.values[label][n, column]
        if spreads[column] > 0 and np.isfinite(after - before) and after != before:
            sign = -1.0 if table.rows[column].better == "lower" else 1.0
            found.append(
                (table.rows[column].label, float(before), float(after), sign * (after - before) / spreads[column])
            )
    towards = {"worst": -1.0, "best": 1.0}.get(kind)
    if towards is not None:
        found = [one for one in found if one[3] * towards > 0.05]
    return tuple(sorted(found, key=lambda one: -abs(one[3]))[:most])


def _median(wanted: Mapping[tuple[str, str], Trial], have: Mapping[tuple[str, str], Clip], of: Any) -> dict[str, float]:
    """setting -> median over its clips of a number that some have."""
    found: dict[str, list[float]] = {}
    for where, clip in have.items():
        value = of(clip)
        if value is not None:
            found.setdefault(wanted[where].item.label, []).append(value)
    return {label: float(np.median(values)) for label, values in found.items()}
