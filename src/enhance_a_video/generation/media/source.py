"""A source video, read once before it is restored: length, size, rate, sound, metadata, and what a copy cannot keep."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import SettingsError
from ...limits import ordinary
from .reader import open_container, open_video
from .sound import copied_as_it_is

_STREAM_TAGS = ("comment", "encoder", "major_brand", "minor_version", "compatible_brands")  # of the file, not the film


@dataclass(frozen=True)
class VideoSource:
    """What a video file holds.

    frames, height, width: as shown (upright, square pixels). fps: the mean where it varies. times: of each frame in
    seconds from the first, empty where they are even. start: the time of the first frame in the file, in seconds.
    sound: the codecs of its sound streams. metadata: of the file, such as its title; comment: kept apart. sha256: of
    the file's bytes. notes: what a copy in H.264 will not have as it is.
    """

    path: Path
    frames: int
    height: int
    width: int
    fps: float
    sha256: str
    times: tuple[float, ...] = ()
    start: float = 0.0
    sound: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    comment: str = ""
    notes: tuple[str, ...] = ()


def scan(path: str | Path, each: Callable[[np.ndarray], None] = lambda frame: None) -> VideoSource:
    """Reads a whole file once, so that what is wrong with it shows before hours of work. each: called with every frame.

    Raises:
        VideoFileError: it cannot be read, is damaged or cut off. SettingsError: it is a single picture.
    """
    path = Path(path)
    with open_video(path) as clip:
        for frame in clip:
            each(frame)
        if clip.still or not clip.fps:
            raise SettingsError(f"{path} is a single picture, or has no frame rate: give a video.")
        times, pixels, comment = clip.times, clip.pixels, clip.comment
        shape = (clip.frames, clip.height, clip.width, clip.fps)
    sound, metadata, others = _besides(path)
    notes = [
        f"{path.name}: its sound ({name}) is encoded again, as AAC." for name in sound if not copied_as_it_is(name)
    ]
    notes += [f"{path.name}: {kind} streams are left out." for kind in others]
    if "10" in pixels or "12" in pixels or "16" in pixels:
        notes.append(f"{path.name}: its pixels ({pixels}) become 8 bits a channel.")
    if shape[1] % 2 or shape[2] % 2:
        notes.append(f"{path.name}: {shape[2]}x{shape[1]} is odd; its last row or column is repeated.")
    return VideoSource(
        path, *shape, sha256=_hash(path), times=_uneven(times, shape[3]), start=times[0] or 0.0, sound=sound,
        metadata=metadata, comment=comment, notes=tuple(notes),
    )  # fmt: skip


def _uneven(times: list[float | None], fps: float) -> tuple[float, ...]:
    """Times from the first frame on; () where they are even to within 2 ms, as containers round them."""
    found = np.asarray(times, float)  # None becomes NaN
    if not (np.isfinite(found).all() and (np.diff(found) > 0).all()):
        return ()
    found = found - found[0]
    even = np.abs(found - np.arange(len(found)) / fps).max() < 0.002
    return () if even else tuple(float(one) for one in found)


def _besides(path: Path) -> tuple[tuple[str, ...], dict[str, str], list[str]]:
    """The sound's codecs, the file's metadata, and kinds of further streams that are not kept."""
    if _is_webp(path):
        return (), {}, []
    with open_container(path) as (container, _):
        sound = tuple(s.codec_context.name if s.codec_context else "unknown" for s in container.streams.audio)
        kinds = [stream.type for stream in container.streams if stream.type not in ("video", "audio")]
        metadata = {name: str(value) for name, value in container.metadata.items() if name.lower() not in _STREAM_TAGS}
    return sound, metadata, sorted(set(kinds))


def _is_webp(path: Path) -> bool:
    with open(ordinary(path), "rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def _hash(path: Path) -> str:
    found = hashlib.sha256()
    with open(ordinary(path), "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
