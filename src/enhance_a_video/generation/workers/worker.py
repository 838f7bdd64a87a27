"""`Worker`, one loaded pipeline that makes clips: run by a process on this machine or by an actor on a Ray cluster.

A worker answers with messages, never with exceptions, and writes to no folder: what is kept of a clip travels, such as
the bytes of its mp4, so that a worker may die anywhere, or sit on a machine that does not see the folder.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import EnhanceAVideoError, VideoFileError
from ..events import Report
from ..requests import ClipRequest, settings_text

if TYPE_CHECKING:
    from ..making import Made

# (kind, payload):
#   ready   {"host", "pid", "device"}
#   unable  (name of the error's class, text)     the pipeline cannot be loaded, or nothing written on this machine
#   step    (steps done, steps in all)
#   made    list of Answer, one for each item of the task
#   lost    text                                  from the crew: the worker is gone
Message = tuple[str, Any]
Keep = Callable[[Any, "Made"], Any]  # (pipeline, made clip) -> what is kept of it; found by its name in the worker


@dataclass(frozen=True)
class Task:
    """Clips that differ in prompt and seed only: made in one call of the pipeline where it can take several."""

    items: tuple[ClipRequest, ...]
    keep: Keep

    def singly(self) -> list[Task]:
        return [replace(self, items=(item,)) for item in self.items]


@dataclass(frozen=True)
class Answer:
    """What came of one clip: what is kept of it, or why there is nothing. spoilt: by an error that is not one of ours,
    after which the worker is replaced (an error on a CUDA device may spoil every later clip)."""

    value: Any = None
    error: str = ""
    spoilt: bool = False


def grouped(items: Iterable[ClipRequest], keep: Keep, size: int = 1) -> list[Task]:
    """Tasks of up to `size` items that differ in prompt and seed only, in the order in which they fill."""
    open_groups: dict[str, list[ClipRequest]] = {}
    full = []
    for item in items:
        how = None if item.settings is None else settings_text(item.settings)
        same = json.dumps([how, sorted((k, str(v)) for k, v in item.options.items())], default=str)
        group = open_groups.setdefault(same, [])
        group.append(item)
        if len(group) == size:
            full.append(open_groups.pop(same))
    return [Task(tuple(group), keep) for group in (*full, *open_groups.values())]


class Worker:
    """model and load as `pipelines.load` takes them; threads: CPU threads for a large model, None leaves them alone."""

    def __init__(self, model: str, load: dict[str, Any], threads: int | None = None):
        self.model, self.arguments, self.threads = model, load, threads
        self.pipe: Any = None

    def load(self) -> Message:
        """Loads the pipeline: ready or unable."""
        import torch

        from .. import pipelines

        try:
            pipelines.quiet()
            self.pipe = pipelines.load(self.model, **self.arguments)
        except Exception as error:
            return "unable", (type(error).__name__, str(error))
        if self.threads and not pipelines.wants_one_thread(self.pipe):
            torch.set_num_threads(self.threads)
        device = str(getattr(self.pipe, "_execution_device", self.pipe.device))
        return "ready", {"host": platform.node(), "pid": os.getpid(), "device": device}

    def make(self, task: Task, calls: list[dict[str, Any]], step: Report | None = None) -> Message:
        """Makes the clips of a task: made, or unable where the fault is not the clips'.

        Args:
            calls: the arguments of `pipelines.generate` for each item, pictures opened (ClipRequest.call).
        """
        from .. import pipelines

        several = len(task.items) > 1 and pipelines.defaults(self.pipe).get("several", True)
        try:
            if several and (answers := self._together(task, calls, step)) is not None:
                return "made", answers
            return "made", [self._alone(*one, step) for one in zip(task.singly(), calls, strict=True)]
        except VideoFileError as error:  # a full disk: every further clip would fail here as well
            return "unable", (type(error).__name__, str(error))

    def _together(self, task: Task, calls: list[dict[str, Any]], step: Report | None) -> list[Answer] | None:
        """None where the clips cannot be made together, and each has to be tried alone."""
        from ..making import make_clips

        try:
            clips = make_clips(self.pipe, task.items, calls, step)
        except VideoFileError:
            raise
        except Exception:
            return None
        return [_answer(partial(task.keep, self.pipe, made)) for made in clips]

    def _alone(self, task: Task, call: dict[str, Any], step: Report | None) -> Answer:
        from ..making import make_clips

        return _answer(lambda: task.keep(self.pipe, make_clips(self.pipe, task.items, [call], step)[0]))


def _answer(work: Callable[[], Any]) -> Answer:
    try:
        return Answer(work())
    except VideoFileError:
        raise
    except Exception as error:
        return Answer(error=f"{type(error).__name__}: {error}", spoilt=not isinstance(error, EnhanceAVideoError))
