"""Makes a pair of videos indistinguishable but for their pictures: no metadata, no sound, one encoding."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import VideoFileError
from ...generation.media import open_container, open_video
from ...generation.video import write_video

_FALLBACK_RATE = 8.0  # frames per second, for files that have none
_MOST_RATE, _MOST_FRAMES = 60.0, 5000  # frames per second, and in all, that repeating makes of a rate that varies


@dataclass(frozen=True)
class Kind:
    """Size, rate, length and codec of a video file."""

    codec: str
    pixels: str
    width: int  # as shown, as the height
    height: int
    rate: float  # frames per second
    frames: int  # 0 where the file has no number
    as_stored: bool = True  # whether it is shown as it is stored, neither turned nor stretched

    @property
    def plays_everywhere(self) -> bool:
        """H.264 in 4:2:0 with 8 bits, upright: what every browser has a decoder for."""
        return self.codec == "h264" and self.pixels in ("yuv420p", "yuvj420p") and self.as_stored


def inspect(path: Path) -> Kind:
    """Reads a video's header and first frame. VideoFileError: missing, unreadable, cut off, no video stream."""
    with open_video(path) as clip:
        next(iter(clip))
        clip.check_end()
        return Kind(
            clip.codec, clip.pixels, clip.width, clip.height, clip.rate or 0.0, clip.declared or 0, clip.as_stored
        )


def neutral(files: tuple[Path, Path], kinds: tuple[Kind, Kind]) -> tuple[bytes, bytes]:
    """Both clips as mp4 without sound, metadata or notes of the encoder, made in the same way.

    The pictures are copied as they are where every browser plays them and mp4 can hold them, else both are encoded anew
    with the same settings (H.264, crf 12).

    Raises:
        VideoFileError: a file that cannot be read (any more).
    """
    if all(kind.plays_everywhere for kind in kinds):
        try:
            return _copied(files[0]), _copied(files[1])
        except VideoFileError:  # some containers lack what mp4 needs, as the times in AVI
            pass
    return _encoded(files[0]), _encoded(files[1])


def _copied(path: Path) -> bytes:
    """The compressed pictures in a new container. x264 writes its settings into the stream itself (SEI): left out."""
    import av
    from av.bitstream import BitStreamFilterContext

    target = io.BytesIO()
    with (
        open_container(path) as (source, stream),
        av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        copy = container.add_stream_from_template(stream)
        without_notes = BitStreamFilterContext("filter_units=remove_types=6", stream, copy)
        for packet in source.demux(stream):
            for kept in without_notes.filter(packet if packet.size else None):  # the last one is empty: flush
                kept.stream = copy
                container.mux(kept)
    return target.getvalue()


def _encoded(path: Path) -> bytes:
    with open_video(path) as clip:
        frames = np.stack(list(clip))
    shown, rate = _evenly(frames, clip.times, clip.duration)
    with tempfile.TemporaryDirectory() as folder:
        return _copied(write_video(Path(folder, "clip.mp4"), shown, float(np.clip(rate, 0.01, 1000)), crf=12))


def _evenly(frames: np.ndarray, times: Sequence[float | None], duration: float | None) -> tuple[np.ndarray, float]:
    """Frames (T, H, W, 3) of any times at one rate: where they vary, each is repeated for as long as it is shown."""
    if duration is None:
        return frames, _FALLBACK_RATE
    rate, at = len(frames) / duration, np.asarray(times, float)  # None becomes NaN
    gaps = np.diff(at)
    if not (gaps > 0).all() or np.abs(at - at[0] - np.arange(len(at)) / rate).max() < 0.5 / rate:
        return frames, rate
    rate = min(_MOST_RATE, 1 / float(gaps.min()), max(len(frames), _MOST_FRAMES) / duration)
    ticks = at[0] + (np.arange(max(1, round(duration * rate))) + 0.5) / rate
    return frames[np.searchsorted(at, ticks, side="right") - 1], rate
