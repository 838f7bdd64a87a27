"""votes.sqlite: which voter judges which pair in which order, and the answers.

Tables: pairs, voters, ballots (a voter's pairs, in order, and what stands left), votes (a row per question). The view
`preferences` has it all in one table with labels for left and right.
"""

from __future__ import annotations

import math
import random
import secrets
import sqlite3
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import VoteError
from ...generation import files
from ...limits import signed
from .. import database
from .pairs import Pair

FILE = "votes.sqlite"
ANSWERS = ("left", "equal", "right")


@dataclass(frozen=True)
class Question:
    key: str
    name: str
    text: str
    hint: str


# The questions of the paper's user study (arXiv 2502.07508).
QUESTIONS = (
    Question(
        "consistency", "Temporal consistency", "Which is steadier over time?", "Things stay what they are; no flicker."
    ),
    Question("prompt", "Prompt match", "Which matches the text better?", "It shows what the text describes."),
    Question("quality", "Visual quality", "Which looks better?", "Sharp and clean, no artefacts."),
)


@dataclass(frozen=True)
class Seat:
    """How far a voter is: pairs done, pairs in all, the next pairs to judge (at most two)."""

    voter: str
    name: str
    done: int
    total: int
    queue: tuple[Pair, ...]


_APPLICATION = 0x45415656  # marks the file as ours
_VERSION = 1
_SCHEMA = """
CREATE TABLE pairs (
  id TEXT PRIMARY KEY, prompt TEXT, seed INTEGER, reference TEXT NOT NULL, other TEXT NOT NULL,
  reference_file TEXT NOT NULL, other_file TEXT NOT NULL);
CREATE TABLE voters (id TEXT PRIMARY KEY, name TEXT NOT NULL, key TEXT NOT NULL UNIQUE, joined TEXT NOT NULL);
CREATE TABLE ballots (
  voter TEXT NOT NULL REFERENCES voters, pair TEXT NOT NULL REFERENCES pairs, position INTEGER NOT NULL,
  reference_left INTEGER NOT NULL CHECK (reference_left IN (0, 1)),
  PRIMARY KEY (voter, pair), UNIQUE (voter, position));
CREATE TABLE votes (
  voter TEXT NOT NULL, pair TEXT NOT NULL, question TEXT NOT NULL,
  answer TEXT NOT NULL CHECK (answer IN ('left', 'equal', 'right')), seconds REAL, at TEXT NOT NULL,
  PRIMARY KEY (voter, pair, question), FOREIGN KEY (voter, pair) REFERENCES ballots (voter, pair));
CREATE VIEW preferences AS
  SELECT v.name AS voter, p.prompt, p.seed, p.reference, p.other, o.question, o.answer,
    CASE WHEN b.reference_left THEN p.reference ELSE p.other END AS left_label,
    CASE WHEN b.reference_left THEN p.other ELSE p.reference END AS right_label,
    CASE WHEN o.answer = 'equal' THEN NULL
         WHEN (o.answer = 'left') = b.reference_left THEN p.reference ELSE p.other END AS preferred,
    o.seconds, o.at, o.pair
  FROM votes o JOIN ballots b ON b.voter = o.voter AND b.pair = o.pair
    JOIN pairs p ON p.id = o.pair JOIN voters v ON v.id = o.voter;
"""


class Ballots:
    """The votes of one folder. Safe for many threads and processes: a connection for each call, WAL.

    Args:
        path: of the database; made where it is missing.
        pairs: those to vote on now. Votes on others stay in the file.

    Raises:
        VoteError: no pairs; a file that is not ours or cannot be used. VideoFileError: a folder that cannot be written.
    """

    def __init__(self, path: str | Path, pairs: Sequence[Pair]) -> None:
        if not pairs:
            raise VoteError("There are no pairs to vote on: see find_pairs().", "failed")
        self.path, self.pairs = Path(path), {pair.id: pair for pair in pairs}
        if not self.path.parent.is_dir():
            raise VoteError(f"There is no folder {self.path.parent}: give the one that holds the videos.", "failed")
        files.refuse_existing([self.path], force=True)
        with self._open() as db:
            _prepare(db, self.path)
        rows = [
            (p.id, p.prompt, signed(p.seed), *p.labels, *(f.relative_to(self.path.parent).as_posix() for f in p.files))
            for p in pairs
        ]
        with self._open(write=True) as db:
            db.executemany("INSERT OR IGNORE INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            for (voter,) in db.execute("SELECT id FROM voters").fetchall():
                self._deal(db, voter)  # what is new in the folder

    def join(self, name: str) -> Seat:
        """The seat of the voter of this name, new or known (case and spaces do not matter).

        The order is random, and so is which clip stands left, in half of the pairs the reference.

        Raises:
            VoteError: an empty or too long name.
        """
        name = clean_name(name)
        with self._open(write=True) as db:
            row = db.execute("SELECT id FROM voters WHERE key = ?", (name.casefold(),)).fetchone()
            voter = row[0] if row else secrets.token_hex(8)
            if not row:
                db.execute("INSERT INTO voters VALUES (?, ?, ?, ?)", (voter, name, name.casefold(), _now()))
                self._deal(db, voter)
        return self.seat(voter)

    def seat(self, voter: str) -> Seat:
        """VoteError (unknown): no such voter."""
        with self._open() as db:
            row = db.execute("SELECT name FROM voters WHERE id = ?", (voter,)).fetchone()
            if not row:
                raise VoteError("This voter is not known here (any more): give your name again.", "unknown")
            order = db.execute("SELECT pair FROM ballots WHERE voter = ? ORDER BY position", (voter,)).fetchall()
            voted = {pair for (pair,) in db.execute("SELECT DISTINCT pair FROM votes WHERE voter = ?", (voter,))}
        mine = [pair for (pair,) in order if pair in self.pairs]
        left = [self.pairs[pair] for pair in mine if pair not in voted]
        return Seat(voter, row[0], len(mine) - len(left), len(mine), tuple(left[:2]))

    def leave_out(self, pair: str) -> None:
        """From now on nobody gets this pair; votes on it stay in the file."""
        self.pairs = {name: other for name, other in self.pairs.items() if name != pair}  # others read the old one

    def reference_left(self, voter: str, pair: str) -> bool:
        """Whether this voter sees the pair's reference on the left. VoteError (unknown): not theirs to see."""
        with self._open() as db:
            return self._reference_left(db, voter, pair)

    def vote(self, voter: str, pair: str, answers: Any, seconds: Any = None) -> bool:
        """Keeps a voter's answers to all questions about a pair, {question key: "left", "equal" or "right"}, and the
        seconds they took. Both are checked here.

        Returns:
            False where exactly these answers were kept before: sending twice does no harm.

        Raises:
            VoteError: unknown: a pair that this voter was not given; invalid: other than one answer for each
                question of the pair; conflict: other answers were kept before.
        """
        with self._open(write=True) as db:
            self._reference_left(db, voter, pair)
            _check_answers(self.pairs[pair], answers, seconds)
            kept = dict(
                db.execute("SELECT question, answer FROM votes WHERE voter = ? AND pair = ?", (voter, pair)).fetchall()
            )
            if kept and kept != dict(answers):
                raise VoteError("You have judged this pair before; the first answers count.", "conflict")
            if not kept:
                rows = [(voter, pair, question, answer, seconds, _now()) for question, answer in answers.items()]
                db.executemany("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?)", rows)
        return not kept

    def _reference_left(self, db: sqlite3.Connection, voter: str, pair: str) -> bool:
        row = db.execute("SELECT reference_left FROM ballots WHERE voter = ? AND pair = ?", (voter, pair)).fetchone()
        if not row or pair not in self.pairs:
            raise VoteError("This pair is not one of this voter's.", "unknown")
        return bool(row[0])

    def _deal(self, db: sqlite3.Connection, voter: str) -> None:
        dealt = [pair for (pair,) in db.execute("SELECT pair FROM ballots WHERE voter = ?", (voter,))]
        new = [pair for pair in self.pairs if pair not in set(dealt)]
        chance = random.SystemRandom()
        chance.shuffle(new)
        sides = [n % 2 for n in range(len(new))]
        if len(new) % 2:
            sides[-1] = chance.randrange(2)
        chance.shuffle(sides)
        rows = [(voter, pair, len(dealt) + n, side) for n, (pair, side) in enumerate(zip(new, sides, strict=True))]
        db.executemany("INSERT INTO ballots VALUES (?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        with connection(self.path) as db:
            if write:
                db.execute("BEGIN IMMEDIATE")  # readers go on, a second writer waits
            try:
                yield db
            except BaseException:
                if db.in_transaction:
                    db.rollback()
                raise
            if db.in_transaction:
                db.commit()


def questions_of(pair: Pair) -> tuple[Question, ...]:
    """All of them; where no prompt is known, those that can be answered without."""
    return tuple(question for question in QUESTIONS if question.key != "prompt" or pair.prompt)


def clean_name(name: Any) -> str:
    """A name as it is kept: spaces tidied, 1 to 60 characters that can be read. VoteError for others."""
    text = " ".join(unicodedata.normalize("NFC", name).split()) if isinstance(name, str) else ""
    if not 1 <= len(text) <= 60 or not text.isprintable():
        raise VoteError("Give a name of 1 to 60 characters.", "invalid")
    return text


@contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file of votes, closed at the end; SQLite's complaints as VoteError."""
    with explained(path), closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        yield db


def explained(path: Path) -> AbstractContextManager[None]:
    """Turns SQLite's complaints about a file of votes into VoteError."""
    return database.explained(path, partial(VoteError, reason="failed"))


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Makes the tables in a new file; VoteError for somebody else's, which is left as it is."""
    if not _is_new(db, path):
        return
    with suppress(sqlite3.OperationalError):  # network drives refuse it; without, readers wait for writers
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    if _is_new(db, path):  # no other process was quicker
        for statement in _SCHEMA.split(";\n"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {_VERSION}")


def _is_new(db: sqlite3.Connection, path: Path) -> bool:
    mark, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if (mark, version) == (_APPLICATION, _VERSION):
        return False
    if mark or version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise VoteError(f"{path} is not a file of votes of this version. Move it away to begin anew.", "failed")
    return True


def _check_answers(pair: Pair, answers: Any, seconds: Any) -> None:
    wanted = [question.key for question in questions_of(pair)]
    if not isinstance(answers, Mapping) or sorted(answers) != sorted(wanted):
        raise VoteError(f"One answer for each of {', '.join(wanted)} is needed.", "invalid")
    if not all(answer in ANSWERS for answer in answers.values()):
        raise VoteError(f"An answer is one of {', '.join(ANSWERS)}.", "invalid")
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (number and math.isfinite(seconds) and 0 <= seconds <= 1e6):
        raise VoteError("The time taken is a number of seconds.", "invalid")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
