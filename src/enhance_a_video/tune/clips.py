"""The clips of a tuning: made by one process or several, measured, stored, and never made twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison import Row
from ..errors import EnhanceAVideoError
from ..plan import Item
from ..settings import Settings
from ..study.run import Made, Task, grouped, made_by, make_in
from ..study.store import Store, only_one
from ..team import Team
from .reward import Measures, Reward

Job = tuple[Any, int]  # (policy, or None for the plain model; which prompt)
Rewards = Callable[[Sequence[Job]], np.ndarray]  # -> Reward.values of the jobs
Told = Callable[[int], None]  # so many clips more were made


class Clips:
    """A fixed block of prompts and noises, under any policy. A context manager: it holds the folder and the processes.

    items: the plain model's clips, one for each prompt. weights: `study.run.weights_of` the model.
    Killed at any moment, what was made is stored in `folder` and counts the next time.
    """

    def __init__(
        self, folder: Path, model: str, weights: str, load: Mapping[str, Any], items: Sequence[Item],
        rows: Sequence[Row], *, workers: int = 1, command: str = "", about: Mapping[str, Any] | None = None,
        told: Told = lambda n: None,
    ):  # fmt: skip
        self.folder, self.model, self.weights, self.load, self.items = folder, model, weights, load, items
        self.rows, self.names = tuple(rows), tuple(row.name for row in rows)
        self.workers, self.command, self.about, self.told = workers, command, about or {}, told
        self._team: Team[Sequence[Task], list[Made]] | None = None

    def __enter__(self) -> Clips:
        with ExitStack() as stack:
            self.store = stack.enter_context(Store(self.folder))
            stack.enter_context(only_one(self.folder))
            stored = self.store.clips()
            self._run = self.store.begin_run(self.weights, "tune", self.command, self.workers, self.about)
            self._stack = stack.pop_all()
        names = set(self.names)
        self._known = {
            key: clip.measures
            for (key, weights), clip in stored.items()
            if weights == self.weights and names <= set(clip.measures)
        }
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.store.end_run(self._run)
        finally:
            self._stack.close()

    def reward(self) -> Reward:
        """The reward scaled by the plain clips, which are made if they are not there."""
        return Reward.of(self.rows, self.measures([(None, n) for n in range(len(self.items))]))

    def rewards(self, reward: Reward) -> Rewards:
        """The function that a search asks: jobs -> what each adds to their reward, against its prompt's plain clip."""

        def found(jobs: Sequence[Job]) -> np.ndarray:
            plain = [self._known[self.items[which].key] for _, which in jobs]
            return reward.values(list(zip(plain, self.measures(jobs), strict=True)))

        return found

    def measures(self, jobs: Sequence[Job]) -> list[Measures]:
        """The measures of these clips; what is not stored is made.

        Raises:
            EnhanceAVideoError: one of them cannot be made.
        """
        items = [self._item(*job) for job in jobs]
        missing = {item.key: item for item in items if item.key not in self._known}
        for made in self._made([self._task(item) for item in missing.values()]):
            if made.clip is None or made.measures is None:
                raise EnhanceAVideoError(
                    f"A clip of {made.task.item.prompt!r} could not be made: {made.error}. The others are stored: the "
                    "same command goes on from there."
                )
            self.store.add(made.clip, made.measures, self._run)
            self._known[made.task.key] = made.measures
            self.told(1)
        return [self._known[item.key] for item in items]

    def _item(self, policy: Any, which: int) -> Item:
        plain = self.items[which]
        return plain if policy is None else replace(plain, label="tuned", settings=Settings(policy=policy))

    def _task(self, item: Item) -> Task:
        return Task(item.key, self.weights, self.model, self.load, item, self.names, None)

    def _made(self, tasks: Sequence[Task]) -> Iterable[Made]:
        if self._team is None and self.workers > 1 and tasks:  # once, for all calls
            self._team = self._stack.enter_context(Team(make_in, self.workers))
        return made_by(self._team, grouped(tasks, self.load.get("batch", 1)))
