"""Opens SQLite files on any file system, also read-only ones; their errors become one sentence with the way out."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..errors import EnhanceAVideoError
from ..generation.files import advice as advice_of_system


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to read from. A database that SQLite cannot read without writing beside it (a log of votes, the
    journal of a run that was killed) is read from a temporary copy where its folder is read-only.

    Raises:
        sqlite3.Error, OSError: it cannot be read.
    """
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        if _readable(db):
            yield db
            return
    with tempfile.TemporaryDirectory(prefix="enhance-a-video-") as folder:
        for ending in ("", "-wal", "-journal"):
            part = path.with_name(path.name + ending)
            if part.exists():
                shutil.copyfile(part, Path(folder, part.name))
        with closing(sqlite3.connect(Path(folder, path.name), isolation_level=None)) as db:
            yield db


def _readable(db: sqlite3.Connection) -> bool:
    """Whether SQLite can read a database where it is. True for a file that is none: the next reader reports that."""
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)  # in use: a copy might hold half of a change
    except sqlite3.DatabaseError:
        pass
    return True


@contextmanager
def explained(path: Path, error: Callable[[str], EnhanceAVideoError] = EnhanceAVideoError) -> Iterator[None]:
    """Turns the complaints of SQLite and of the file system about a database into one `error` with the way out."""
    try:
        yield
    except EnhanceAVideoError:
        raise
    except (sqlite3.Error, OSError) as found:
        raise error(f"Cannot use {path}: {advice(found)}") from found


def advice(error: BaseException) -> str:
    """What is wrong, and what to do about it."""
    if isinstance(error, OSError):
        return advice_of_system(error)
    text = str(error)
    known = (way_out for words, way_out in _ADVICE.items() if words in text)
    return next(known, f"SQLite reports: {text}.")


_ADVICE = {
    "full": "no space left on its disk. Free some; the same command goes on from there.",
    "readonly": "it is read-only. Copy its folder to where you may write, and give the copy.",
    "locked": "another program is using it. Wait for that; on a network drive without locks, use a local folder.",
    "locking": "its file system has no locks. Use a local folder.",
    "not a database": "it is damaged, or not a SQLite database. Move it away to begin anew, or choose another folder.",
    "malformed": "it is damaged. Move it away to begin anew, or choose another folder.",
    "disk I/O": "its disk reports an error. Is it full, or a network drive that is gone? Use a local folder.",
    "unable to open": "it cannot be opened. Is its folder there and yours to write in? If not, choose another folder.",
}
