"""The queue of a batch: which worker makes what, and what happens when a clip fails or a worker dies."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .. import errors, limits, pipelines
from ..plan import Item
from .folder import Folder
from .worker import Message, Task

MAX_DEATHS = 3  # of workers on one clip, or of a slot while loading, before that is given up


class Crew(Protocol):
    """Where workers come from; LocalCrew and RayCrew."""

    size: int

    def start(self, slot: int) -> None: ...
    def stop(self, slot: int) -> None: ...
    def give(self, slot: int, task: Task) -> None: ...
    def events(self) -> Iterator[tuple[int, Message]]: ...
    def close(self) -> None: ...


@dataclass
class Progress:
    """How far a run is. workers: slot -> what its worker said of itself; begun: slot -> the part of its clip done."""

    total: int
    made: int = 0
    failed: int = 0
    lost: int = 0
    workers: dict[int, dict[str, Any]] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)

    @property
    def clips(self) -> float:
        """Clips done, the parts of begun ones counted."""
        return self.made + self.failed + sum(self.begun.values())


@dataclass(frozen=True)
class Tally:
    """What a run did: items = there + adopted + made + failed + failed_before."""

    items: int
    there: int  # were done before
    adopted: int  # had been written just before a kill, and only got their line now
    made: int
    failed: int
    failed_before: int  # in an earlier run, and not tried again
    lost_workers: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# Called at every change with a line for people (or ""), and whether the line is about something that went wrong.
Tell = Callable[[Progress, str, bool], None]


def run(
    out: str | Path,
    items: Sequence[Item],
    *,
    model: str = "embedded",
    load: dict[str, Any] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    retry_failed: bool = False,
    tell: Tell | None = None,
) -> Tally:
    """Makes every item that the folder lacks.

    Args:
        items: from `plan.expand`.
        model, load: as `pipelines.load` takes them; a folder is named by its whole path in the manifest.
        workers: how many; None = one for each CUDA device here (on a Ray cluster: for each of its GPUs), else one.
        ray: None works on this machine; else the address of a Ray cluster ("": the one that Ray finds, or a new one).
        retry_failed: try clips again that failed in an earlier run.

    Raises:
        SettingsError, VideoFileError: as Folder; also what `pipelines.load` raised in the workers.
        MissingExtraError: ray without Ray installed.
        A clip that fails raises nothing: it is counted, and its line in the manifest says why.
    """
    if workers is not None:
        limits.whole("workers", workers, 1, limits.MAX_WORKERS)
    load = dict(load or {})
    folder_of_model = Path(model).expanduser()
    model = str(folder_of_model.resolve()) if folder_of_model.is_dir() else model
    if ray is None:  # a cluster's machines may have a model that this one has not
        pipelines.check(model, **load)
    started = time.perf_counter()
    with Folder(out, model, load.get("dtype", "auto")) as folder:
        adopted = folder.adopt(items)
        status = {item.key: folder.status(item) for item in items}
        counts = Counter(status.values())
        open_ones = ("open", "failed") if retry_failed else ("open",)
        todo = [item for item in items if status[item.key] in open_ones]
        progress = Progress(len(todo))
        if todo:
            Run(folder, todo, _crew(model, load, workers, ray), progress, tell or _silent).all()
    return Tally(
        items=len(items),
        there=counts["done"] - adopted,
        adopted=adopted,
        made=progress.made,
        failed=progress.failed,
        failed_before=0 if retry_failed else counts["failed"],
        lost_workers=progress.lost,
        seconds=round(time.perf_counter() - started, 3),
    )


def _crew(model: str, load: dict[str, Any], workers: int | None, ray: str | None) -> Crew:
    if ray is not None:
        from .cluster import RayCrew

        return RayCrew(model, load, ray, workers)
    from .local import LocalCrew

    return LocalCrew(model, load, workers)


def _silent(progress: Progress, line: str, wrong: bool) -> None:
    pass


class Run:
    """One pass over the queue. A slot is starting, idle, busy with an item, or closed."""

    def __init__(self, folder: Folder, todo: Sequence[Item], crew: Crew, progress: Progress, tell: Tell):
        self.folder, self.crew, self.progress, self.tell = folder, crew, progress, tell
        self.queue = deque(todo)
        self.starting: set[int] = set()
        self.idle: set[int] = set()
        self.busy: dict[int, Item] = {}
        self.deaths: Counter[str] = Counter()  # on an item
        self.false_starts: Counter[int] = Counter()  # of a slot
        self.trouble: errors.EnhanceAVideoError | None = None

    def all(self) -> None:
        try:
            for slot in range(min(self.crew.size, len(self.queue))):
                self._start(slot)
            while self.queue or self.busy:
                for slot, (kind, payload) in self.crew.events():
                    getattr(self, f"_{kind}")(slot, payload)
                    self._hand_out()
                if self.trouble and self.queue and not (self.starting or self.idle or self.busy):
                    raise self.trouble
        finally:
            self.crew.close()

    def _start(self, slot: int) -> None:
        self.idle.discard(slot)
        self.progress.workers.pop(slot, None)
        self.starting.add(slot)
        self.crew.start(slot)

    def _hand_out(self) -> None:
        while self.queue and self.idle:
            item = self.queue.popleft()
            try:
                task = Task(item.prompt, item.settings, item.call(), self.folder.facts(item))
            except errors.SettingsError as error:  # its picture is gone
                self._give_up(item, f"{type(error).__name__}: {error}")
                continue
            slot = self.idle.pop()
            self.busy[slot] = item
            self.crew.give(slot, task)

    def _give_up(self, item: Item, error: str) -> None:
        self.folder.fail(item, error)
        self.progress.failed += 1
        self.tell(self.progress, f"failed: {item.prompt!r}, seed {item.seed}, {item.label}: {error}", True)

    # ---------------------------------------------------------------------------------------- what workers say

    def _ready(self, slot: int, about: dict[str, Any]) -> None:
        self.starting.discard(slot)
        self.idle.add(slot)
        self.false_starts[slot] = 0
        self.progress.workers[slot] = about
        self.tell(self.progress, "", False)

    def _unable(self, slot: int, error: tuple[str, str]) -> None:
        name, text = error
        self.starting.discard(slot)
        self.progress.begun.pop(slot, None)
        self.progress.workers.pop(slot, None)
        self.crew.stop(slot)
        if slot in self.busy:
            self.queue.appendleft(self.busy.pop(slot))
        kind = getattr(errors, name, None)
        if kind is None:
            kind, text = errors.EnhanceAVideoError, f"The model could not be loaded: {name}: {text}"
        self.trouble = self.trouble or kind(text)
        self.tell(self.progress, f"worker {slot} cannot go on: {text}", True)

    def _step(self, slot: int, steps: tuple[int, int]) -> None:
        self.progress.begun[slot] = steps[0] / max(steps[1], 1)
        self.tell(self.progress, "", False)

    def _done(self, slot: int, result: tuple[bytes, dict[str, Any]]) -> None:
        clip, record = result
        del self.busy[slot]
        self.folder.keep(clip, record)
        self._finished(slot)
        self.progress.made += 1
        self.tell(self.progress, f"{record['file']} ({record['seconds']:.1f} s)", False)

    def _failed(self, slot: int, error: tuple[str, str, bool]) -> None:
        name, text, replace = error
        item = self.busy.pop(slot)
        self._finished(slot)
        self._give_up(item, f"{name}: {text}")
        if replace:
            self.idle.discard(slot)
            self.crew.stop(slot)
            if self.queue:
                self._start(slot)

    def _finished(self, slot: int) -> None:
        self.progress.begun.pop(slot, None)
        self.idle.add(slot)

    def _lost(self, slot: int, how: str) -> None:
        self.progress.begun.pop(slot, None)
        self.progress.workers.pop(slot, None)
        self.progress.lost += 1
        self.idle.discard(slot)
        item = self.busy.pop(slot, None)
        self.tell(self.progress, f"worker {slot} died: {how}", True)
        if item is not None:
            self.deaths[item.key] += 1
            if self.deaths[item.key] < MAX_DEATHS:
                self.queue.appendleft(item)
            else:
                self._give_up(item, f"WorkerDied: {MAX_DEATHS} workers died on this clip; the last one: {how}")
        if slot in self.starting:
            self.starting.discard(slot)
            self.false_starts[slot] += 1
            self.trouble = errors.EnhanceAVideoError(f"Workers die while they load the model: {how}.")
        if self.queue and self.false_starts[slot] < MAX_DEATHS:
            self._start(slot)
