"""Worker processes that make what they are given, a task at a time each. One that dies costs its task and is replaced.

with Team(work, 2) as team:
    for task, result, lost in team.run(tasks): ...          # in the order in which they are ready
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from .errors import EnhanceAVideoError
from .terminal import accept_any_character

_HOPELESS = 3  # so many worker processes that died end the work
T = TypeVar("T")
R = TypeVar("R")


class Team(Generic[T, R]):
    """Processes with one CPU thread each that call `work(task, number of the process)`.

    work: a function at the top of a module (the processes import it); tasks and results travel by pickle. An
    error that it raises ends the whole run, with any number of processes: an EnhanceAVideoError as it is.
    """

    def __init__(self, work: Callable[[T, int], R], size: int):
        self.context = multiprocessing.get_context("spawn")
        self.work = work
        self.members: dict[Connection, Any] = {}
        self.died = 0
        for number in range(size):
            self._hire(number)

    def __enter__(self) -> Team[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _hire(self, number: int) -> Connection:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, number, self.work), daemon=True)
        process.start()
        theirs.close()  # so that our end hears when the process is gone
        self.members[ours] = (process, number)
        return ours

    def run(self, tasks: Iterable[T]) -> Iterator[tuple[T, R | None, str]]:
        """(task, its result, "") as they are ready; (task, None, why) for one whose process died.

        Raises:
            EnhanceAVideoError: what `work` raised; too many processes died.
        """
        left = iter(tasks)
        busy: dict[Connection, T] = {}
        for member in list(self.members):
            self._give(member, left, busy)
        while busy:
            for member in (found for found in wait(list(busy)) if isinstance(found, Connection)):
                task, lost = busy.pop(member), ""
                try:
                    answer = member.recv()
                except (EOFError, ConnectionError):
                    answer, (lost, member) = None, self._replaced(member)
                if isinstance(answer, BaseException):
                    raise answer
                self._give(member, left, busy)
                yield task, answer, lost

    def _give(self, member: Connection, left: Iterator[T], busy: dict[Connection, T]) -> None:
        task = next(left, None)
        if task is not None:
            member.send(task)
            busy[member] = task

    def _replaced(self, member: Connection) -> tuple[str, Connection]:
        """Why a member is gone, and its successor."""
        process, number = self.members.pop(member)
        process.join()
        self.died += 1
        if self.died == _HOPELESS:
            raise EnhanceAVideoError(
                f"{_HOPELESS} worker processes died, the last with exit code {process.exitcode} (-9 is often a lack of "
                "memory). What was made is stored: run the same command with fewer workers."
            )
        text = f"a worker process died (exit code {process.exitcode}; -9 is often a lack of memory)"
        return text, self._hire(number)

    def stop(self) -> None:
        for process, _ in self.members.values():
            process.terminate()
        for process, _ in self.members.values():
            process.join()


def _serve(tasks: Connection, number: int, work: Callable[[Any, int], Any]) -> None:
    """A worker process: makes what it is given, until nothing comes or the parent is gone, however it went."""
    become_worker()
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    while True:
        try:
            task = tasks.recv()
        except (EOFError, ConnectionError):
            return
        try:
            tasks.send(work(task, number))
        except EnhanceAVideoError as error:  # such as a model that cannot be loaded: no task of it can be done
            tasks.send(error)
        except Exception as error:
            tasks.send(EnhanceAVideoError(f"A worker process failed: {type(error).__name__}: {error}"))


def become_worker() -> None:
    """The first steps of a worker process, whoever it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.dup2(2, 1)  # what a library prints must not get between the parent's JSON
    accept_any_character()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with suppress(ImportError):  # its own lock is a semaphore of the system, which a killed process leaves behind
        import tqdm

        tqdm.tqdm.set_lock(threading.RLock())


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would go on with its task for nobody, holding its device."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def device_for(worker: int, wanted: str, gpus: int) -> str:
    """Workers take turns with several GPUs; everything else is as asked."""
    return f"cuda:{worker % gpus}" if gpus > 1 and wanted in ("auto", "cuda") else wanted
