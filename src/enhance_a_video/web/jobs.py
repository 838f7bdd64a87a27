"""`Jobs`, the queue of the page: forms that wait, in a file that survives a restart."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import limits
from ..errors import SettingsError
from ..generation import files
from .form import Form

WAITING, RUNNING, FAILED = "waiting", "running", "failed"


@dataclass(frozen=True)
class Job:
    """A form in the queue. trouble: why it failed."""

    id: str
    form: Form
    state: str = WAITING
    trouble: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "form": self.form.to_dict(), "state": self.state, "trouble": self.trouble}


class Jobs:
    """The queue. Every change is in the file before the method returns; several threads may use it.

    Raises SettingsError where the file is damaged, VideoFileError where it cannot be read or written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.RLock()
        self._jobs = self._read()

    def all(self) -> list[Job]:
        with self._lock:
            return list(self._jobs)

    def add(self, forms: Sequence[Form]) -> list[Job]:
        """Puts forms at the end."""
        added = [Job(secrets.token_hex(4), form) for form in forms]
        with self._lock:
            self._keep([*self._jobs, *added])
        return added

    def take(self) -> Job | None:
        """The first that waits, now running; None where none waits."""
        with self._lock:
            job = next((one for one in self._jobs if one.state == WAITING), None)
            return job and self._set(replace(job, state=RUNNING))

    def edit(self, id: str, form: Form) -> None:
        """Another form in a job's place, which waits then. SettingsError: it is running or gone."""
        with self._lock:
            job = self._idle(id)
            if job.form.restores:
                raise SettingsError("This one restores a clip and has no fields here: remove it, and restore anew.")
            self._set(replace(job, form=form, state=WAITING, trouble=""))

    def again(self, id: str) -> None:
        """A job that ran or failed waits again."""
        with self._lock:
            self._set(replace(self._find(id), state=WAITING, trouble=""))

    def failed(self, id: str, trouble: str) -> None:
        with self._lock:
            self._set(replace(self._find(id), state=FAILED, trouble=trouble))

    def move(self, id: str, by: int) -> None:
        """A job earlier (by=-1) or later (1)."""
        with self._lock:
            jobs, place = list(self._jobs), self._jobs.index(self._find(id))
            job = jobs.pop(place)
            jobs.insert(min(max(place + by, 0), len(jobs)), job)
            self._keep(jobs)

    def remove(self, id: str) -> None:
        """Takes a job out; SettingsError: it is running, or gone."""
        with self._lock:
            job = self._idle(id)
            self._keep([one for one in self._jobs if one is not job])

    def done(self, id: str) -> None:
        """Takes a job out that was made."""
        with self._lock:
            self._keep([one for one in self._jobs if one.id != id])

    def _idle(self, id: str) -> Job:
        job = self._find(id)
        if job.state == RUNNING:
            raise SettingsError("This clip is being made: stop it first.")
        return job

    def _find(self, id: str) -> Job:
        job = next((one for one in self._jobs if one.id == id), None)
        if job is None:
            raise SettingsError("This clip is no longer in the queue.")
        return job

    def _set(self, job: Job) -> Job:
        self._keep([job if one.id == job.id else one for one in self._jobs])
        return job

    def _keep(self, jobs: list[Job]) -> None:
        files.write_text(self.file, json.dumps([job.to_dict() for job in jobs], indent=1), force=True)
        self._jobs = jobs

    def _read(self) -> list[Job]:
        if not self.file.exists():
            return []
        with files.explained(self.file, "read"):
            text = self.file.read_text(encoding="utf-8")
        try:
            found = [
                Job(str(one["id"]), Form.from_dict(one["form"]), str(one["state"]), str(one["trouble"]))
                for one in limits.parse_json(text)
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"The queue in {self.file} is damaged ({error}): delete the file.") from None
        return [
            replace(job, state=WAITING) if job.state == RUNNING else job for job in found
        ]  # of a run that was killed
