"""Counts the votes of a folder: win rates and agreement for each label, its reference and question."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import SettingsError
from ..database import reading
from .ballots import FILE, QUESTIONS, Question, explained
from .statistics import Agreement, WinRate, agreement, win_rate


@dataclass(frozen=True)
class Row:
    """One question about one label against its reference."""

    label: str
    against: str
    question: Question
    wins: WinRate
    agreement: Agreement


@dataclass(frozen=True)
class Results:
    """The rows, and the counts that show how far to trust them."""

    rows: tuple[Row, ...]
    voters: dict[str, int]  # name -> pairs judged
    pairs: int  # judged by anybody
    left: float  # share of left among the answers that are not equal; far from one half: habit, not judgement
    left_out: int  # pairs that were judged and are not counted, as their clips changed or went

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: NaN becomes None."""
        rows = [
            {
                "label": row.label,
                "against": row.against,
                "question": row.question.key,
                **_plain({**asdict(row.wins), "clear": row.wins.clear}),
                "agreement": _plain(asdict(row.agreement)),
            }
            for row in self.rows
        ]
        own = {"voters": self.voters, "pairs": self.pairs, "left": self.left, "left_out": self.left_out}
        return {**_plain(own), "results": rows}


def results(folder: str | Path, current: Collection[str] | None = None) -> Results:
    """Counts the votes in a folder.

    Args:
        current: ids of the pairs to count; None counts all that were ever voted on.

    Raises:
        SettingsError: nobody has voted here.
        VoteError: the file cannot be read.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise SettingsError(f"Nobody has voted in {folder} yet. Ask for votes: enhance-a-video vote {folder}")
    with explained(path), reading(path) as db:
        everything = [_Vote(*row) for row in db.execute(_VOTES)]
    votes = [vote for vote in everything if current is None or vote.pair in current]
    if not votes:
        raise SettingsError(f"There are no votes yet on the videos in {folder}: enhance-a-video vote {folder}")
    judged = {(vote.voter, vote.pair) for vote in votes}
    sides = [vote.answer for vote in votes if vote.answer != "equal"]
    return Results(
        rows=tuple(_rows(votes)),
        voters={name: sum(name == voter for voter, _ in judged) for name in sorted({voter for voter, _ in judged})},
        pairs=len({pair for _, pair in judged}),
        left=sides.count("left") / len(sides) if sides else float("nan"),
        left_out=len({vote.pair for vote in everything} - {vote.pair for vote in votes}),
    )


class _Vote(NamedTuple):
    label: str
    against: str
    question: str
    pair: str
    voter: str
    answer: str
    value: int  # 1: for the label, -1: for its reference, 0: about equal


_VOTES = """
SELECT other, reference, question, pair, voter, answer,
  CASE WHEN preferred IS NULL THEN 0 WHEN preferred = other THEN 1 ELSE -1 END
FROM preferences ORDER BY reference, other, pair, voter
"""


def _rows(votes: list[_Vote]) -> Iterator[Row]:
    for label, against in dict.fromkeys((vote.label, vote.against) for vote in votes):
        for question in QUESTIONS:
            chosen = [vote for vote in votes if vote[:3] == (label, against, question.key)]
            if chosen:
                values, clips = [vote.value for vote in chosen], [vote.pair for vote in chosen]
                yield Row(label, against, question, win_rate(values, clips), agreement(values, clips))


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value != value else value for key, value in data.items()}
