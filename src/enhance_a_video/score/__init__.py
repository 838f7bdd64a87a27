"""The measures of any video files, without a prompt or a reference; of long ones in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import video
from ..errors import EnhanceAVideoError
from ..metrics import MEASURES, OVERLAP, chosen, measure_pieces
from .vbench_bridge import DIMENSIONS, check_vbench, vbench

__all__ = ["DIMENSIONS", "Score", "add_vbench", "check_vbench", "rows", "score_files", "to_dict"]

Progress = Callable[[str, int, int | None], None]  # (path, frames done, frames in all where the file says so)


@dataclass
class Score:
    """What one file measures; `error` says why there is nothing, or not all."""

    path: str
    measures: dict[str, float] = field(default_factory=dict)
    error: str = ""


def score_files(
    paths: Sequence[str | Path], names: Sequence[str] | None = None, *, progress: Progress | None = None
) -> list[Score]:
    """Measures each file, in order. A file that cannot be read or measured has an `error`; the others go on.

    Args:
        names: of `metrics.MEASURES`; all by default, and then NaN for what a file is too short for.
        progress: called with (path, frames done, frames in all or None).

    Files are read in pieces of about 16 million pixels, so memory does not grow with their length; every frame counts,
    and the numbers are those of the whole clip.

    Raises:
        SettingsError: an unknown name of a measure.
    """
    chosen(names)
    return [_score(str(path), names, progress) for path in paths]


def _score(path: str, names: Sequence[str] | None, progress: Progress | None) -> Score:
    def pieces() -> Any:
        total, done = video.count_frames(path), 0
        for piece in video.read_pieces(path, OVERLAP):
            if progress:
                progress(path, done, total)
            yield piece
            done += len(piece) - (OVERLAP if done else 0)
        if progress:
            progress(path, done, done)

    try:
        return Score(path, measure_pieces(pieces(), names))
    except EnhanceAVideoError as error:
        return Score(path, error=str(error))


def add_vbench(
    scores: Sequence[Score],
    dimensions: Sequence[str],
    *,
    python: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Adds what VBench says to the measures of every file that could be read. Arguments and errors of `vbench`."""
    readable = [score for score in scores if not score.error]
    if readable:
        found = vbench([score.path for score in readable], dimensions, python=python, progress=progress)
        for score, values in zip(readable, found, strict=True):
            score.measures |= values


def rows(scores: Sequence[Score]) -> dict[str, dict[str, str]]:
    """name -> label, better, unit and source of every measure that any of the files has."""
    names = dict.fromkeys(name for score in scores for name in score.measures)
    described = {**MEASURES, **DIMENSIONS}
    keys = ("label", "better", "unit", "source")
    return {name: {key: getattr(described[name], key) for key in keys} for name in names}


def to_dict(scores: Sequence[Score]) -> dict[str, Any]:
    """JSON-able: the files in order, and what their measures are. What could not be measured is None."""
    files: list[dict[str, Any]] = []
    for score in scores:
        values = {name: value if np.isfinite(value) else None for name, value in score.measures.items()}
        files.append({"path": score.path, "measures": values} | ({"error": score.error} if score.error else {}))
    return {"files": files, "measures": rows(scores)}
