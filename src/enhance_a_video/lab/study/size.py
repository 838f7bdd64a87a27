"""Plans a study before it runs: how many clips it makes, how long that takes, which effects so many clips find."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...generation.measures import Measure
from ...limits import or_none
from ..stats import detectable, sample_size
from .analysis import ALPHA, POOLED, Table, known_weights, scores_of, spreads_of, table_of, unit_means
from .definition import Study
from .run import missing, targets
from .store import FILE, Store

PILOT_FROM = 4  # units with both clips: fewer give no spread


@dataclass(frozen=True)
class Need:
    """How many units (prompts, or clip pairs) one measure needs.

    spread: standard deviation of the units' paired differences, of the setting in which it is largest.
    effect: the difference to be found, in the measure's unit. alone: units needed for one test; all: when it is one
    of all tests of the study and none of them is to be a false finding (Bonferroni's bound, the worst case of Holm).
    finds: the smallest difference (in the measure's unit) that the study as planned finds, corrected the same way.
    """

    row: Measure
    setting: str
    units: int  # of the pilot
    mean: float  # of the baseline
    spread: float
    effect: float
    alone: int | None  # None where the effect is relative to a mean of 0, or no pair of the pilot differed
    all: int | None
    finds: float


@dataclass(frozen=True)
class StudySize:
    """What a study will take. seconds: median of a stored clip; hours: of what is left, None without a stored clip."""

    study: Study
    clips: int
    done: int
    left: int
    other_weights: int  # stored clips of this study that other weights made: they do not count
    unit: str
    units: int  # planned
    per_unit: int  # clips for each
    seconds: float | None
    hours: float | None
    workers: int
    needs: tuple[Need, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        needs = []
        for need in self.needs:
            data = {**asdict(need), "row": None, "measure": need.row.name, "finds": or_none(need.finds)}
            del data["row"]
            needs.append(data)
        same = ("clips", "done", "left", "other_weights", "unit", "units", "per_unit", "seconds", "hours", "workers")
        return {
            "study": self.study.name,
            "digest": self.study.digest,
            **{name: getattr(self, name) for name in same},
            "power": asdict(self.study.power),
            "needs": needs,
        }


def make_plan(study: Study, folder: str | Path, *, workers: int = 1) -> StudySize:
    """The plan, with time and spread from the clips that are stored (a pilot). Generates nothing."""
    folder = Path(folder)
    if (folder / FILE).exists():
        with Store(folder, read_only=True) as store:
            clips = store.clips()
            weights = known_weights(study, clips)
            wanted = targets(study, weights)
            left = len(missing(study, store, wanted))
    else:
        clips, weights = {}, known_weights(study, {})
        wanted = targets(study, weights)
        left = len(wanted)
    have = {where: clips[where] for where in wanted if where in clips}
    keys = {key for key, _ in wanted}
    table = table_of(study, wanted, have)
    seconds = float(np.median([clip.seconds for clip in have.values()])) if have else None
    units = len(np.unique(table.groups))
    return StudySize(
        study=study,
        clips=len(wanted),
        done=len(wanted) - left,
        left=left,
        other_weights=sum(key in keys and (key, w) not in wanted for key, w in clips),
        unit=table.unit,
        units=units,
        per_unit=round(len(wanted) / units),
        seconds=seconds,
        hours=None if seconds is None else left * seconds / workers / 3600,
        workers=workers,
        needs=tuple(_needs(study, table, units)) if have else (),
    )


def _needs(study: Study, table: Table, planned: int) -> list[Need]:
    spreads = spreads_of(table, study.baseline)
    pooled_from = [name for name in study.pooled if spreads[table.column(name)] > 0]
    scores = {label: scores_of(table, study, label, spreads, pooled_from) for label in study.others}
    zeros = {label: np.where(np.isfinite(score), 0.0, np.nan) for label, score in scores.items()}
    family = len(study.measures) * len(study.others)
    found = [_need(study, POOLED, table.groups, zeros, scores, planned, len(study.others))]
    for n, row in enumerate(table.rows):
        before = dict.fromkeys(study.others, table.values[study.baseline][:, n])
        after = {label: table.values[label][:, n] for label in study.others}
        found.append(_need(study, row, table.groups, before, after, planned, family))
    return [need for need in found if need is not None]


def _need(
    study: Study,
    row: Measure,
    groups: np.ndarray,
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    planned: int,
    family: int,
) -> Need | None:
    """The need of one measure, from the setting whose differences spread most; None without a pilot of it."""
    spread, label, mean, count = -math.inf, "", math.nan, 0
    for one in study.others:
        first, second = unit_means(groups, before[one], after[one])
        if first.size >= PILOT_FROM and (sd := float((second - first).std(ddof=1))) > spread:
            spread, label, mean, count = sd, one, float(first.mean()), first.size
    if not label:
        return None
    share, power = study.power.effect_on(row.name), study.power.power
    effect = share if row is POOLED else share * abs(mean)  # of the pooled score: in its own unit
    known, several = effect > 0 and spread > 0, ALPHA / family
    return Need(
        row,
        label,
        count,
        mean,
        spread,
        effect,
        sample_size(effect, spread, power=power) if known else None,
        sample_size(effect, spread, power=power, alpha=several) if known else None,
        detectable(planned, spread, power=power, alpha=several),
    )
