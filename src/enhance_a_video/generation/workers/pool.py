"""The queue of the clips to be made: gives them to workers, and goes on when a clip fails or a worker dies."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ... import errors, limits
from ...wording import count
from ..events import Progress, Report, silent
from ..requests import ClipRequest
from .worker import Answer, Message, Task

MAX_DEATHS = 3  # of workers on one clip, or of a slot while loading, before that is given up


class Crew(Protocol):
    """Where workers come from: places ("slots") for them, numbered from 0. LocalCrew, HereCrew and RayCrew."""

    size: int

    def start(self, slot: int) -> None: ...
    def stop(self, slot: int) -> None: ...
    def give(self, slot: int, task: Task, calls: list[dict[str, Any]]) -> None: ...
    def events(self) -> Iterator[tuple[int, Message]]: ...
    def close(self) -> None: ...


Changed = Callable[[str, bool], None]  # (a line for people or "", whether it is about something that went wrong)


def open_pool(
    model: str,
    load: dict[str, Any],
    *,
    workers: int | None = None,
    ray: str | None = None,
    here: bool = False,
    changed: Changed = lambda news, wrong: None,
) -> Pool:
    """A pool of workers that load `model`.

    Args:
        model, load: as `pipelines.load` takes them.
        workers: how many; None = one for each CUDA device here (on a Ray cluster: for each of its GPUs), else one.
        ray: None works on this machine; else the address of a Ray cluster ("": the one that Ray finds, or a new one).
        here: a single worker works in this process: it starts at once, and what kills it ends the run.
        changed: called at every change.

    Raises:
        SettingsError: a number of workers that cannot be. MissingExtraError: ray without Ray installed.
    """
    if workers is not None:
        limits.whole("workers", workers, 1, limits.MAX_WORKERS)
    if ray is not None:
        from .cluster import RayCrew

        return Pool(RayCrew(model, load, ray, workers), changed)
    from .local import HereCrew, LocalCrew

    crew = LocalCrew(model, load, workers)
    return Pool(HereCrew(model, load) if here and crew.size == 1 else crew, changed)


class Count:
    """How many clips of a run are done, reported at every change, with what its pool is doing.

    done: those that earlier runs made. doing: text for the bar, in place of how many workers there are.
    """

    def __init__(self, total: int, report: Report = silent, *, done: int = 0, doing: str = ""):
        self.total, self.report, self.before, self.doing = total, report, done, doing
        self.made = self.failed = 0
        self.pool: Pool | None = None

    def open(self, model: str, load: dict[str, Any], **options: Any) -> Pool:
        """`open_pool`, watched."""
        self.pool = open_pool(model, load, changed=self.changed, **options)
        return self.pool

    def changed(self, news: str = "", wrong: bool = False) -> None:
        workers, begun = (self.pool.workers, self.pool.begun) if self.pool else ({}, {})
        running = count(len(workers), "worker") if workers else "loading the model"
        self.report(
            Progress(
                self.before + self.made + self.failed, self.total, doing=self.doing or running,
                parts=sum(begun.values()), failed=self.failed, news=news, wrong=wrong, workers=dict(workers),
            )
        )  # fmt: skip


class Pool:
    """Workers and their queue; a context. A slot is starting, idle, busy with a task, or closed.

    workers: slot -> what its worker reported of itself. begun: slot -> the part of its task that is done. lost: how
    many workers died.
    """

    def __init__(self, crew: Crew, changed: Changed = lambda news, wrong: None):
        self.crew, self.changed = crew, changed
        self.queue: deque[Task] = deque()
        self.answers: deque[tuple[ClipRequest, Answer]] = deque()
        self.starting: set[int] = set()
        self.idle: set[int] = set()
        self.busy: dict[int, Task] = {}
        self.closed: set[int] = set()
        self.deaths: Counter[str] = Counter()  # on a clip
        self.false_starts: Counter[int] = Counter()  # of a slot
        self.trouble: errors.EnhanceAVideoError | None = None
        self.workers: dict[int, dict[str, Any]] = {}
        self.begun: dict[int, float] = {}
        self.lost = 0

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.crew.close()

    def make(self, tasks: Iterable[Task]) -> Iterator[tuple[ClipRequest, Answer]]:
        """Each clip of the tasks with its answer, as they are ready.

        Raises:
            EnhanceAVideoError: no worker can go on: what they reported.
        """
        self.queue.extend(tasks)
        for slot in range(min(self.crew.size, len(self.queue))):
            if slot not in self.starting | self.idle | self.busy.keys() | self.closed:
                self._start(slot)
        self._hand_out()
        yield from self._answered()
        while self.queue or self.busy:
            if self.queue and not (self.starting or self.idle or self.busy):
                raise self.trouble or errors.EnhanceAVideoError("No worker is left.")
            for slot, (kind, payload) in self.crew.events():
                getattr(self, f"_{kind}")(slot, payload)
                self._hand_out()
                yield from self._answered()

    def _answered(self) -> Iterator[tuple[ClipRequest, Answer]]:
        while self.answers:
            yield self.answers.popleft()

    def _start(self, slot: int) -> None:
        self.idle.discard(slot)
        self.workers.pop(slot, None)
        self.starting.add(slot)
        self.crew.start(slot)

    def _stop(self, slot: int) -> None:
        self.idle.discard(slot)
        self.workers.pop(slot, None)
        self.crew.stop(slot)

    def _hand_out(self) -> None:
        while self.queue and self.idle:
            task = self.queue.popleft()
            try:
                calls = [item.call() for item in task.items]
            except errors.SettingsError as error:  # its picture is gone
                self._give_up(task, f"{type(error).__name__}: {error}")
                continue
            slot = self.idle.pop()
            self.busy[slot] = task
            self.crew.give(slot, task, calls)

    def _give_up(self, task: Task, error: str) -> None:
        self.answers.extend((item, Answer(error=error)) for item in task.items)

    # --------------------------------------------------------------------------------------- messages of workers

    def _ready(self, slot: int, about: dict[str, Any]) -> None:
        self.starting.discard(slot)
        self.idle.add(slot)
        self.false_starts[slot] = 0
        self.workers[slot] = about
        self.changed("", False)

    def _unable(self, slot: int, error: tuple[str, str]) -> None:
        name, text = error
        self.starting.discard(slot)
        self.begun.pop(slot, None)
        self._stop(slot)
        self.closed.add(slot)
        if slot in self.busy:
            self.queue.appendleft(self.busy.pop(slot))
        kind = getattr(errors, name, None)
        if kind is None:
            kind, text = errors.EnhanceAVideoError, f"The model could not be loaded: {name}: {text}"
        self.trouble = self.trouble or kind(text)
        self.changed(f"worker {slot} cannot go on: {text}", True)

    def _step(self, slot: int, steps: tuple[int, int]) -> None:
        self.begun[slot] = len(self.busy[slot].items) * steps[0] / max(steps[1], 1)
        self.changed("", False)

    def _made(self, slot: int, answers: list[Answer]) -> None:
        task = self.busy.pop(slot)
        self.begun.pop(slot, None)
        self.answers.extend(zip(task.items, answers, strict=True))
        if not any(answer.spoilt for answer in answers):
            self.idle.add(slot)
            return
        self._stop(slot)
        if self.queue:
            self._start(slot)

    def _lost(self, slot: int, how: str) -> None:
        self.begun.pop(slot, None)
        self.workers.pop(slot, None)
        self.idle.discard(slot)
        self.lost += 1
        self.changed(f"worker {slot} died: {how}", True)
        if slot in self.busy:
            self._try_again(self.busy.pop(slot), how)
        if slot in self.starting:
            self.starting.discard(slot)
            self.false_starts[slot] += 1
            self.trouble = errors.EnhanceAVideoError(f"Workers die while they load the model: {how}.")
        if self.false_starts[slot] >= MAX_DEATHS:
            self.closed.add(slot)
        elif self.queue:
            self._start(slot)

    def _try_again(self, task: Task, how: str) -> None:
        """A task whose worker died: its clips one by one, so that one that kills workers takes no others along."""
        for one in reversed(task.singly()):
            key = one.items[0].key
            self.deaths[key] += 1
            if self.deaths[key] < MAX_DEATHS:
                self.queue.appendleft(one)
            else:
                self._give_up(one, f"WorkerDied: {MAX_DEATHS} workers died on this clip; the last one: {how}")
