"""Measures any video files, without a prompt or a reference; long ones in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EnhanceAVideoError, SettingsError, VideoFileError
from ...generation.events import Progress, Report, silent
from ...generation.media import OpenVideo, in_pieces, open_video
from ..metrics import MEASURES, OVERLAP, chosen, measure_pieces
from .vbench_bridge import DIMENSIONS, check_vbench, vbench

__all__ = ["DIMENSIONS", "Score", "add_vbench", "check_vbench", "rows", "score_files", "to_dict"]


@dataclass
class Score:
    """The measures of one file; `error` is the reason where there are none, or not all.

    Of a file that is damaged or cut off, everything holds for the frames before that. duration: seconds; it and `fps`
    are None for a picture, and everything but the path is None for a file that cannot be read.
    """

    path: str
    measures: dict[str, float] = field(default_factory=dict)
    error: str = ""
    frames: int | None = None
    duration: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None


def score_files(
    paths: Sequence[str | Path], names: Sequence[str] | None = None, *, progress: Report = silent
) -> list[Score]:
    """Measures each file, in order. A file that cannot be read or measured has an `error`; the others go on.

    Args:
        names: of `metrics.MEASURES`; all by default, and then NaN for what a file is too short for.
        progress: called after each piece of a file, with the frames of that file.

    Files are read in pieces of about 16 million pixels, so memory does not grow with their length; every frame counts,
    and the numbers are those of the whole clip.

    Raises:
        SettingsError: an unknown name of a measure; no files, or a text in place of a list of them.
    """
    chosen(names)
    if isinstance(paths, str | Path) or not paths:
        raise SettingsError(f"paths={paths!r}: give a list of one or more video files.")
    count = f"of {len(paths)}"
    return [_score(str(path), names, progress, f"{n} {count}") for n, path in enumerate(paths, 1)]


def _score(path: str, names: Sequence[str] | None, progress: Report, which: str) -> Score:
    score = Score(path)
    try:
        with open_video(path) as clip:
            score.measures = measure_pieces(_pieces(clip, score, progress, which), names)
    except EnhanceAVideoError as error:
        score.error = score.error or str(error)
    except MemoryError:
        score.error = f"{path} does not fit in memory. Make it smaller."
    return score


def _pieces(clip: OpenVideo, score: Score, progress: Report, which: str) -> Iterator[np.ndarray]:
    """The pieces of a file, and what is known of it in `score`. Where it is damaged the pieces end."""
    doing = f"{Path(clip.path).name} ({which})"
    progress(Progress(0, clip.declared, "frame", doing))
    try:
        for piece in in_pieces(clip, OVERLAP):
            yield piece
            progress(Progress(clip.frames, max(clip.declared or 0, clip.frames), "frame", doing))
    except VideoFileError as error:
        if not clip.frames:
            raise
        score.error = str(error)
    score.frames, score.duration, score.fps = clip.frames, clip.duration, clip.fps
    score.width, score.height = clip.width, clip.height


def add_vbench(
    scores: Sequence[Score],
    dimensions: Sequence[str],
    *,
    python: str | None = None,
    progress: Report = silent,
) -> None:
    """Adds VBench's measures to those of every file that could be read. Arguments and errors of `vbench`."""
    readable = [score for score in scores if not score.error]
    if readable:
        found = vbench([score.path for score in readable], dimensions, python=python, progress=progress)
        for score, values in zip(readable, found, strict=True):
            score.measures |= values


def rows(scores: Sequence[Score]) -> dict[str, dict[str, str]]:
    """name -> the row of every measure that any of the files has."""
    names = dict.fromkeys(name for score in scores for name in score.measures)
    described = {**MEASURES, **DIMENSIONS}
    return {name: described[name].to_dict() for name in names}


def to_dict(scores: Sequence[Score]) -> dict[str, Any]:
    """JSON-able: the files in order, and what their measures are. What could not be measured or read is None."""
    files: list[dict[str, Any]] = []
    for score in scores:
        values = {name: value if np.isfinite(value) else None for name, value in score.measures.items()}
        facts = {name: getattr(score, name) for name in ("path", "frames", "duration", "fps", "width", "height")}
        files.append(facts | {"measures": values} | ({"error": score.error} if score.error else {}))
    return {"files": files, "measures": rows(scores)}
