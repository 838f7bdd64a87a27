"""Checks a clip that was dropped on the page, and reads its settings: only its header and comment are used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .. import limits
from ..errors import SettingsError, VideoFileError
from ..generation.media import open_video
from .form import Form, form_of

LARGEST = 500_000_000  # bytes
LONGEST = 600.0  # seconds
TYPES = (".mp4", ".mov", ".m4v", ".mkv", ".webm")
_COMMENT = 1_000_000  # characters


def restored(path: str | Path) -> Form:
    """The form that a clip carries in its comment.

    Raises:
        VideoFileError: no video of a kind, size and length that is taken here. SettingsError: no settings in it.
    """
    comment = checked(path)
    try:
        record: Any = limits.parse_json(comment) if comment else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise SettingsError(
            "This clip carries no settings: it was not made here, or a program has rewritten the file without them."
        )
    return form_of(record)


def checked(path: str | Path) -> str:
    """The comment of a video file whose type, size and length are taken. Errors as `restored`; they name no folder."""
    path = Path(path)
    name = re.sub(r"[^\w. -]", "_", path.name)[-60:]
    if path.suffix.lower() not in TYPES:
        raise VideoFileError(f"{name} is no video that is taken here: drop one of {', '.join(TYPES)}.")
    if not path.is_file():
        raise VideoFileError(f"{name} did not arrive: drop it again.")
    size = path.stat().st_size
    if not 0 < size <= LARGEST:
        limit = f"more than {LARGEST // 10**6} MB are not taken" if size else "it is empty"
        raise VideoFileError(f"{name} has {size / 1e6:,.0f} MB: {limit}.")
    try:
        with open_video(path) as clip:
            if clip.declared and clip.rate and clip.declared / clip.rate > LONGEST:
                raise VideoFileError(f"{name} is longer than {LONGEST / 60:.0f} minutes: cut it first.")
            next(iter(clip))
            comment = clip.comment
    except VideoFileError as error:
        raise VideoFileError(str(error).replace(str(path), name)) from None
    except StopIteration:
        raise VideoFileError(f"{name} contains no complete frame: it is empty or was cut off.") from None
    return comment if len(comment) <= _COMMENT else ""
