"""Confirms a policy on prompts that it was not found on, against the plain model, in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...errors import EnhanceAVideoError
from ...generation.events import Report, silent
from ...generation.measures import Measure
from ...generation.requests import Prompt
from ...settings import Settings
from ...wording import count
from ..stats import Paired, paired
from ..study import Results, Study, analyse, run, write_pages
from ..study.analysis import BOOTSTRAP_FROM
from ..study.definition import Videos, measures_of
from ..study.run import targets, weights_of
from ..study.store import Store
from .reward import Reward

PLAIN, DEFAULT, TUNED = "plain", "default", "tuned"
REWARD_ROW = Measure("reward", "reward", "higher", "see docs/guide/tune.md")


@dataclass(frozen=True)
class Confirmation:
    """rewards: setting -> its reward over the prompts, the plain model's being 0; and tuned against default. results:
    the study's."""

    rewards: Mapping[str, Paired]
    against_default: Paired
    results: Results
    pages: tuple[Path, ...]

    def verdict(self) -> str:
        """The conclusion, in a sentence or two."""
        found, prompts = self.rewards[TUNED], self.results.units
        where = f"On {prompts} other prompts the reward is {_interval(found)}"
        if not found.clear:
            return (
                f"{where}: the interval does not exclude zero. This profile is not shown to be better than the plain "
                "model."
            )
        if found.difference < 0:
            return f"{where}: worse than the plain model. Do not use this profile."
        text = f"{where}: better than the plain model"
        if self.against_default.clear and self.against_default.difference > 0:
            return f"{text}, and than the default by {_interval(self.against_default)}."
        return f"{text}. Against the default it is {_interval(self.against_default)}, not shown to be better."

    def rows(self) -> tuple[dict[str, Any], ...]:
        """For the profile: the reward first, then every measure, of the default and of what was found."""
        found: list[dict[str, Any]] = []
        for label, reward in self.rewards.items():
            found.append({"setting": label, "measure": "reward", "better": "higher", **reward.to_dict()})
            found += [{"setting": label, **one.to_dict()} for one in self.results.effects[label].values()]
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "rewards": {label: one.to_dict() for label, one in self.rewards.items()},
            "tuned_against_default": self.against_default.to_dict(),
            "verdict": self.verdict(),
            "study": self.results.to_dict(),
        }


def _interval(one: Paired) -> str:
    return f"{one.difference:+.3f} (95 % interval {one.low:+.3f} to {one.high:+.3f})"


def confirm(
    model: str, load: Mapping[str, Any], prompts: tuple[Prompt, ...], options: Mapping[str, Any], policy: Any,
    reward: Reward, folder: Path, *, workers: int | None = None, ray: str | None = None, command: str = "",
    embedded: bool = False, progress: Report = silent,
) -> Confirmation:  # fmt: skip
    """A study of the plain model, the default and `policy`, in `folder`, resumable; and the rewards in it.

    reward: with the scales of the tuning, so that its numbers are comparable. The rest as in `tuning.Tuning`.

    Raises:
        EnhanceAVideoError: clips that cannot be made.
    """
    rows = tuple(measures_of(prompts, embedded))
    study = Study(
        name="confirmation", models=(model,), load=load, prompts=prompts,
        settings={PLAIN: None, DEFAULT: Settings(), TUNED: Settings(policy=policy)},
        options=options, varied={}, measures=rows, pooled=tuple(row.name for row in rows if row.better != "neither"),
        videos=Videos(True, (TUNED,), 3), text=yaml.safe_dump({"confirmation of": command, "prompts": len(prompts)}),
    )  # fmt: skip
    outcome = run(study, folder, workers=workers, ray=ray, command=command, progress=progress)
    if outcome.failures:
        raise EnhanceAVideoError(
            f"{count(len(outcome.failures), 'clip')} of the confirmation could not be made, the first: "
            f"{next(iter(outcome.failures.values()))}. The same command tries them again."
        )
    found = rewards_of(study, folder, reward)
    pages = write_pages(results := analyse(study, folder), folder)
    compared = {label: _paired(np.zeros_like(values), values) for label, values in found.items()}
    return Confirmation(compared, _paired(found[DEFAULT], found[TUNED]), results, tuple(pages))


def rewards_of(study: Study, folder: Path, reward: Reward) -> dict[str, np.ndarray]:
    """setting -> `Reward.values` of the stored pairs, (prompts,)."""
    with Store(folder, read_only=True) as store:
        stored = store.clips()
    wanted = targets(study, {model: weights_of(model, study.load) for model in study.models})
    measures = {(trial.item.label, trial.pair): stored[where].measures for where, trial in wanted.items()}
    pairs = list(dict.fromkeys(trial.pair for trial in wanted.values()))
    return {
        label: reward.values([(measures[study.baseline, pair], measures[label, pair]) for pair in pairs])
        for label in study.others
    }


def _paired(before: np.ndarray, after: np.ndarray) -> Paired:
    return paired(before, after, method="bootstrap" if len(after) >= BOOTSTRAP_FROM else "t")
