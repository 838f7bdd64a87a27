"""Workers as processes of this machine, one for each CUDA device or as many as wanted; or a single one in this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import connection
from typing import Any

from ..terminal import accept_any_character
from .worker import Message, Task, Worker


class LocalCrew:
    """Places ("slots") for workers, numbered from 0. size: how many; None = one for each device.

    Processes are spawned, not forked: CUDA and threads do not survive a fork.
    """

    def __init__(self, model: str, load: dict[str, Any], size: int | None = None):
        found = devices(load.get("device", "auto"))
        self.size = size or len(found)
        self.devices = [found[slot % len(found)] for slot in range(self.size)]
        self.model, self.arguments = model, load
        self.threads = _threads(self.size)
        self.context = multiprocessing.get_context("spawn")
        self.members: dict[int, tuple[Any, Any]] = {}  # slot -> (process, connection)

    def start(self, slot: int) -> None:
        """A new worker into this slot; one that is still there is ended."""
        self.stop(slot)
        ours, theirs = self.context.Pipe()
        load = {**self.arguments, "device": self.devices[slot]}
        process = self.context.Process(target=_work, args=(theirs, self.model, load, self.threads), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.members[slot] = (process, ours)

    def stop(self, slot: int) -> None:
        """Ends this slot's worker, if there is one."""
        process, pipe = self.members.pop(slot, (None, None))
        if process is None:
            return
        pipe.close()
        process.terminate()
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()

    def give(self, slot: int, task: Task, calls: list[dict[str, Any]]) -> None:
        """Hands a task to a ready worker. One that has died meanwhile is reported by events()."""
        with suppress(OSError):
            self.members[slot][1].send((task, calls))

    def events(self) -> Iterator[tuple[int, Message]]:
        """Waits until something has happened: (slot, message)."""
        members = dict(self.members)
        awaited = {thing: slot for slot, (process, pipe) in members.items() for thing in (process.sentinel, pipe)}
        for slot in dict.fromkeys(awaited[thing] for thing in connection.wait(list(awaited))):  # type: ignore[index]
            process, pipe = members[slot]
            try:
                message = pipe.recv() if pipe.poll() else None
            except (EOFError, OSError):
                message = None
            if message is None:
                process.join(5)
                self.stop(slot)
                message = ("lost", f"its process ended with {_cause(process.exitcode)}")
            yield slot, message

    def close(self) -> None:
        for slot in list(self.members):
            self.stop(slot)


def devices(name: str) -> list[str]:
    """The devices to use: "auto" and "cuda" mean every CUDA device there is."""
    import torch

    count = torch.cuda.device_count() if name in ("auto", "cuda") else 0
    return [f"cuda:{n}" for n in range(count)] or [name]


def _threads(workers: int) -> int | None:
    """CPU threads for each of several workers; None leaves them alone."""
    if workers == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    hint = ", often a lack of memory: try fewer workers" if code == -signal.SIGKILL else ""
    return f"signal {-code} ({signal.Signals(-code).name}{hint})"


class HereCrew:
    """One worker in this process, as LocalCrew. Its pipeline stays loaded for the next crew of the same model."""

    size = 1
    _kept: tuple[Any, Worker] | None = None

    def __init__(self, model: str, load: dict[str, Any]):
        self.model, self.arguments = model, load
        self.worker = Worker(model, load)
        self.messages: deque[tuple[int, Message]] = deque()

    def start(self, slot: int) -> None:
        key = (self.model, sorted(self.arguments.items()))
        if HereCrew._kept and HereCrew._kept[0] == key:
            self.worker = HereCrew._kept[1]
            self.messages.append((slot, ("ready", {"pid": os.getpid()})))
            return
        HereCrew._kept = None  # before another is loaded: there may be room for one only
        message = self.worker.load()
        HereCrew._kept = (key, self.worker) if message[0] == "ready" else None
        self.messages.append((slot, message))

    def stop(self, slot: int) -> None:
        HereCrew._kept = None

    def give(self, slot: int, task: Task, calls: list[dict[str, Any]]) -> None:
        self.messages.append((slot, self.worker.make(task, calls)))

    def events(self) -> Iterator[tuple[int, Message]]:
        yield self.messages.popleft()

    def close(self) -> None:
        self.messages.clear()


# ----------------------------------------------------------------------------------------------- in the worker


def _work(pipe: Any, model: str, load: dict[str, Any], threads: int | None) -> None:
    become_worker()
    if load["device"].startswith("cuda:"):
        import torch

        torch.cuda.set_device(load["device"])
    if threads:  # one of several: OpenCV's flow depends on the number of threads, and must not on that of workers
        import cv2

        cv2.setNumThreads(1)
    worker = Worker(model, load, threads)
    message = worker.load()
    pipe.send(message)
    while message[0] != "unable":
        try:
            task, calls = pipe.recv()
        except EOFError:
            return
        message = worker.make(task, calls, lambda step: pipe.send(("step", (step.done, step.total))))
        pipe.send(message)


def become_worker() -> None:
    """The first steps of a worker process."""
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
        connection.wait([parent.sentinel])
        os._exit(1)
