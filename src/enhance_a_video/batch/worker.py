"""One loaded pipeline that makes clips: what a process on this machine and an actor on a Ray cluster both run.

A worker answers with messages, never with exceptions, and writes to no folder: a clip travels as the bytes of its mp4,
so that a worker may die anywhere, or sit on a machine that does not see the folder.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..alternatives import Change
from ..plan import Item

# (kind, payload):
#   ready   {"host", "pid", "device"}
#   unable  (name of the error's class, text)     the pipeline cannot be loaded, or no clip be written on this machine
#   step    (steps done, steps in all)
#   done    (bytes of the mp4, record)
#   failed  (name of the error's class, text, whether the worker is to be replaced)
#   lost    text                                  said by the crew: the worker is gone
Message = tuple[str, Any]


@dataclass(frozen=True)
class Task:
    """One clip: call has the keyword arguments of `pipelines.generate`, facts the known half of the record."""

    prompt: str
    settings: Change | None
    call: dict[str, Any]
    facts: dict[str, Any]


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

    def make(self, task: Task, progress: Callable[[int, int], None] | None = None) -> Message:
        """Makes a clip: done or failed; unable where the fault is not the clip's."""
        from ..errors import EnhanceAVideoError, VideoFileError

        try:
            return "done", self._make(task, progress)
        except VideoFileError as error:  # a full disk: every further clip would fail here as well
            return "unable", (type(error).__name__, str(error))
        except EnhanceAVideoError as error:
            return "failed", (type(error).__name__, str(error), False)
        except Exception as error:  # an error on a CUDA device may have spoilt the process for every later clip
            return "failed", (type(error).__name__, str(error), True)

    def _make(self, task: Task, progress: Callable[[int, int], None] | None) -> tuple[bytes, dict[str, Any]]:
        from .. import files, pipelines, preflight, video
        from ..making import brief, generate_with

        started = time.perf_counter()
        options = {name: value for name, value in task.call.items() if name != "seed"}
        notes = preflight.notices(self.pipe, [Item(task.prompt, task.call["seed"], "", task.settings, options)])
        frames, summary = generate_with(
            self.pipe, task.prompt, task.settings, progress=progress, notice=notes.append, **task.call
        )
        fps = task.call.get("fps") or pipelines.defaults(self.pipe)["fps"]
        record = {
            **task.facts,
            "status": "done",
            "fps": fps,
            "frames": len(frames),
            "height": frames.shape[1],
            "width": frames.shape[2],
            "seconds": round(time.perf_counter() - started, 3),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "enhancement": brief(summary),
            "warnings": list(dict.fromkeys(notes)),
            "about": {**pipelines.describe(self.pipe), "host": platform.node()},
        }
        with (
            files.explained("a temporary file", "make"),
            tempfile.TemporaryDirectory(prefix="enhance-a-video-", ignore_cleanup_errors=True) as folder,
        ):
            path = video.write_video(Path(folder, "clip.mp4"), frames, fps, comment=json.dumps(record))
            return path.read_bytes(), record
