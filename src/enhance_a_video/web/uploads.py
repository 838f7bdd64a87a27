"""Checks what was dropped on the page: a clip, of which only header and comment are read, or a first picture."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

from .. import limits
from ..errors import SettingsError, VideoFileError
from ..generation import files
from ..generation.media import open_picture, open_video
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


def kept_picture(path: str | Path, folder: Path) -> Path:
    """A picture that was chosen on the page, kept in the page's folder as PNG. VideoFileError: it is none."""
    path = Path(path)
    if path.parent == folder and path.is_file():  # one that is kept already, of a clip whose settings are used again
        return path
    if not 0 < path.stat().st_size <= LARGEST:
        raise VideoFileError("The picture is empty or too large: choose another.")
    try:
        picture = open_picture(path)
    except SettingsError as error:
        raise VideoFileError(str(error).replace(str(path), path.name)) from None
    data = io.BytesIO()
    picture.save(data, "PNG")
    out = folder / f"{hashlib.sha256(data.getvalue()).hexdigest()[:16]}.png"
    if not out.exists():
        with files.atomic(out) as draft:
            draft.write_bytes(data.getvalue())
    return out


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
