"""Makes the clips of a tuning, by one process or several; measured and stored, none is made twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EnhanceAVideoError
from ...generation.measures import Measure
from ...generation.requests import ClipRequest
from ...generation.workers import Answer, Pool, Task, grouped, open_pool
from ...generation.workers.pool import Changed
from ...settings import Settings
from ..study.run import Into, measured
from ..study.store import Store, only_one
from .reward import Measures, Reward

Job = tuple[Any, int]  # (policy, or None for the plain model; which prompt)
Rewards = Callable[[Sequence[Job]], np.ndarray]  # -> Reward.values of the jobs
Made = Callable[[int], None]  # so many clips more were made


class Clips:
    """A fixed block of prompts and noises, under any policy. A context manager: it holds the folder and the processes.

    items: the plain model's clips, one for each prompt. weights: `study.run.weights_of` the model.
    Killed at any moment, what was made is stored in `folder` and counts the next time.
    """

    def __init__(
        self, folder: Path, model: str, weights: str, load: Mapping[str, Any], items: Sequence[ClipRequest],
        rows: Sequence[Measure], *, workers: int | None = None, ray: str | None = None, command: str = "",
        about: Mapping[str, Any] | None = None,
        made: Made = lambda n: None, changed: Changed = lambda news, wrong: None,
    ):  # fmt: skip
        self.folder, self.model, self.weights, self.load, self.items = folder, model, weights, load, items
        self.rows, self.names = tuple(rows), tuple(row.name for row in rows)
        self.workers, self.ray, self.command, self.about, self.made = workers, ray, command, about or {}, made
        self.changed = changed
        self._pool: Pool | None = None

    def __enter__(self) -> Clips:
        with ExitStack() as stack:
            self.store = stack.enter_context(Store(self.folder))
            stack.enter_context(only_one(self.folder))
            stored = self.store.clips()
            self._run = self.store.begin_run(self.weights, "tune", self.command, self.workers or 1, self.about)
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
        """The function to maximise: jobs -> what each adds to their reward, against its prompt's plain clip."""

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
        into = Into(self.store, self._run, self.model, self.weights)
        keep = partial(measured, names=self.names)
        for item, answer in self._made(grouped(missing.values(), keep, self.load.get("batch", 1))):
            if answer.error:
                raise EnhanceAVideoError(
                    f"A clip of {item.prompt!r} could not be made: {answer.error}. The others are stored: the "
                    "same command goes on from there."
                )
            into.add(answer.value)
            self._known[item.key] = answer.value.measures
            self.made(1)
        return [self._known[item.key] for item in items]

    def _item(self, policy: Any, which: int) -> ClipRequest:
        plain = self.items[which]
        return plain if policy is None else replace(plain, label="tuned", settings=Settings(policy=policy))

    def _made(self, tasks: Sequence[Task]) -> Iterator[tuple[ClipRequest, Answer]]:
        if tasks and self._pool is None:  # once, for all calls
            load = {name: value for name, value in self.load.items() if name != "batch"}
            pool = open_pool(self.model, load, workers=self.workers, ray=self.ray, here=True, changed=self.changed)
            self._pool = self._stack.enter_context(pool)
        return self._pool.make(tasks) if self._pool else iter(())
