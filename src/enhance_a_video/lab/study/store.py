"""Stores the results of a study in one SQLite file: a row for each clip and measure, with the run that made it.

Each clip is one transaction, written after its video: a process killed at any moment leaves whole clips only.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...errors import EnhanceAVideoError, OutputExistsError
from ...generation import files
from ...limits import or_none, signed
from .. import database

FILE = "study.sqlite"
_FORMAT = 1  # PRAGMA user_version
_APPLICATION = 0x45415653  # PRAGMA application_id, "EAVS"

_SCHEMA = """
CREATE TABLE runs (          -- one start of the command
  id INTEGER PRIMARY KEY, digest TEXT NOT NULL, study TEXT NOT NULL, command TEXT NOT NULL,
  started TEXT NOT NULL, ended TEXT, workers INTEGER NOT NULL, about TEXT NOT NULL);
CREATE TABLE clips (         -- one generated video; a seed from 2^63 on is stored less 2^64: integers here are signed
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, model TEXT NOT NULL, weights TEXT NOT NULL,
  prompt TEXT NOT NULL, seed INTEGER NOT NULL, setting TEXT NOT NULL, settings TEXT, options TEXT NOT NULL,
  frames INTEGER NOT NULL, height INTEGER NOT NULL, width INTEGER NOT NULL, latent_frames INTEGER,
  seconds REAL NOT NULL, mean_gain REAL, made TEXT NOT NULL, run INTEGER NOT NULL REFERENCES runs,
  UNIQUE (key, weights));
CREATE TABLE measures (      -- one number: NULL where there was nothing to measure in the clip
  clip INTEGER NOT NULL REFERENCES clips ON DELETE CASCADE, measure TEXT NOT NULL, value REAL,
  PRIMARY KEY (clip, measure)) WITHOUT ROWID;
CREATE TABLE failures (      -- a clip that could not be made; the next run tries again
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, weights TEXT NOT NULL, error TEXT NOT NULL, at TEXT NOT NULL,
  run INTEGER NOT NULL REFERENCES runs);
CREATE VIEW results AS
  SELECT c.model, c.prompt, c.seed, c.setting, c.options, m.measure, m.value, c.seconds, c.key
  FROM measures m JOIN clips c ON c.id = m.clip;
"""


@dataclass(frozen=True)
class Clip:
    """A stored clip. Measures are NaN where there was nothing to measure."""

    key: str
    weights: str
    seconds: float
    latent_frames: int | None
    mean_gain: float | None
    measures: Mapping[str, float]
    run: int


class Store:
    """The database of one study's folder.

    Args:
        read_only: only read, in a folder that may be read-only.

    Raises:
        OutputExistsError: the file is there and is no study's database.
        EnhanceAVideoError: it cannot be opened, or a newer version wrote it. VideoFileError: the folder cannot be
            written.
        Methods: EnhanceAVideoError where the disk is full, the file is locked, damaged or gone.
    """

    def __init__(self, folder: Path, *, read_only: bool = False):
        self.path = folder / FILE
        if not read_only:
            files.refuse_existing([self.path], force=True)
        with database.explained(self.path), ExitStack() as stack:
            if read_only:
                self.db = stack.enter_context(database.reading(self.path))
            else:
                self.db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
                stack.callback(self.db.close)
                self.db.execute("PRAGMA foreign_keys = ON")
            self._prepare()
            self._open = stack.pop_all()

    def _prepare(self) -> None:
        try:
            tables = self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise OutputExistsError(f"{self.path} is no SQLite database ({error}). Choose another --out.") from error
        (application,) = self.db.execute("PRAGMA application_id").fetchone()
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        if not tables:
            self.db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_FORMAT}; COMMIT;"
            )
        elif application != _APPLICATION:
            raise OutputExistsError(f"{self.path} is the database of something else. Choose another --out.")
        elif version > _FORMAT:
            raise EnhanceAVideoError(f"{self.path} was written by a newer version of this package: upgrade.")

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with database.explained(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # SQLite itself takes it back when the disk is full
                    self.db.rollback()
                raise

    # ------------------------------------------------------------------------------------------------ writing

    def begin_run(self, digest: str, study: str, command: str, workers: int, about: Mapping[str, Any]) -> int:
        with self.transaction() as db:
            row = db.execute(
                "INSERT INTO runs (digest, study, command, started, workers, about) VALUES (?, ?, ?, ?, ?, ?)",
                (digest, study, command, now(), workers, json.dumps(about)),
            )
            return int(row.lastrowid or 0)

    def end_run(self, run: int) -> None:
        with self.transaction() as db:
            db.execute("UPDATE runs SET ended = ? WHERE id = ?", (now(), run))

    def add(
        self, record: Mapping[str, Any], measures: Mapping[str, float], *, model: str, weights: str, run: int
    ) -> None:
        """One clip, by its record (making.Made.record), with its measures; in place of one that had not all of them."""
        done, settings = record["enhancement"] or {}, record["settings"]
        row = {name: record[name] for name in ("key", "prompt", "frames", "height", "width", "seconds")} | {
            "model": model, "weights": weights, "seed": signed(record["seed"]), "setting": record["label"],
            "settings": None if settings is None else _json(settings), "options": _json(record["options"]),
            "latent_frames": done.get("latent_frames"), "mean_gain": done.get("mean_gain"), "made": now(), "run": run,
        }  # fmt: skip
        with self.transaction() as db:
            db.execute("DELETE FROM clips WHERE key = :key AND weights = :weights", row)
            columns = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            found = db.execute(f"INSERT INTO clips ({columns}) VALUES ({values})", row)
            db.executemany(
                "INSERT INTO measures VALUES (?, ?, ?)",
                [(found.lastrowid, name, or_none(value)) for name, value in measures.items()],
            )
            db.execute("DELETE FROM failures WHERE key = :key AND weights = :weights", row)

    def add_failure(self, key: str, weights: str, error: str, run: int) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM failures WHERE key = ? AND weights = ?", (key, weights))
            db.execute(
                "INSERT INTO failures (key, weights, error, at, run) VALUES (?, ?, ?, ?, ?)",
                (key, weights, error, now(), run),
            )

    # ------------------------------------------------------------------------------------------------ reading

    def clips(self) -> dict[tuple[str, str], Clip]:
        """(key, weights) -> clip, all that are stored."""
        measures: dict[int, dict[str, float]] = {}
        for clip, name, value in self._rows("SELECT clip, measure, value FROM measures"):
            measures.setdefault(clip, {})[name] = math.nan if value is None else value
        rows = self._rows("SELECT id, key, weights, seconds, latent_frames, mean_gain, run FROM clips")
        return {
            (key, weights): Clip(key, weights, seconds, latent, gain, measures.get(number, {}), run)
            for number, key, weights, seconds, latent, gain, run in rows
        }

    def failures(self) -> dict[tuple[str, str], str]:
        """(key, weights) -> what went wrong."""
        return {(key, weights): text for key, weights, text in self._rows("SELECT key, weights, error FROM failures")}

    def runs(self, ids: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """The starts of the command, oldest first: those of `ids`, or all."""
        wanted = None if ids is None else set(ids)
        names = ("id", "digest", "study", "command", "started", "ended", "workers", "about")
        rows = self._rows(f"SELECT {', '.join(names)} FROM runs ORDER BY id")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return [{**row, "about": json.loads(row["about"])} for row in found if wanted is None or row["id"] in wanted]

    def _rows(self, query: str) -> list[Any]:
        with database.explained(self.path):
            return self.db.execute(query).fetchall()


def made_clips(path: Path) -> list[dict[str, Any]]:
    """Every clip in a study's database, oldest first, by the names of the columns of `clips`; only read, never changed.

    Raises:
        OutputExistsError: the file is no study's database.
    """
    names = ("key", "weights", "model", "prompt", "seed", "setting", "settings", "options")
    try:
        with database.reading(path) as db:
            rows = db.execute(f"SELECT {', '.join(names)} FROM clips ORDER BY id").fetchall()
    except (sqlite3.Error, OSError) as error:
        raise OutputExistsError(f"{path} is not the database of a study ({error}).") from error
    return [dict(zip(names, row, strict=True)) for row in rows]


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds the folder: a second run of the same study at the same time is refused. Let go however this one ends.

    Raises:
        EnhanceAVideoError: another process holds it.
    """
    busy = EnhanceAVideoError(
        f"Another process is running this study in {folder}. Wait for it, or choose another --out."
    )
    with files.only_one(folder / ".lock", busy):
        yield


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
