"""A pair of videos as bytes that do not tell which is which: the pictures and nothing else."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import VideoFileError
from ..video import read_video, write_video


@dataclass(frozen=True)
class Kind:
    """What a video file is."""

    codec: str
    pixels: str
    width: int
    height: int
    rate: float  # frames per second
    frames: int  # 0 where the file does not say

    @property
    def plays_everywhere(self) -> bool:
        """H.264 in 4:2:0 with 8 bits: what every browser has a decoder for."""
        return self.codec == "h264" and self.pixels in ("yuv420p", "yuvj420p")


def inspect(path: Path) -> Kind:
    """Reads a video's header. VideoFileError: missing, unreadable, no video stream."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoFileError(f"{path} has no video stream. Is it the right file?")
            stream = container.streams.video[0]
            codec, rate = stream.codec_context, float(stream.average_rate or stream.guessed_rate or 0)
            return Kind(codec.name, codec.pix_fmt or "", codec.width, codec.height, rate, stream.frames)
    except FileNotFoundError as error:
        raise VideoFileError(f"There is no video at {path}.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, VideoFileError):
            raise
        raise VideoFileError(f"{path} cannot be read as a video ({error}).") from error


def neutral(files: tuple[Path, Path], kinds: tuple[Kind, Kind]) -> tuple[bytes, bytes]:
    """Both clips as mp4 without sound, metadata or notes of the encoder, made in the same way.

    The pictures are copied as they are where every browser plays them, else both are encoded anew with the same
    settings (H.264, crf 12).

    Raises:
        VideoFileError: a file that cannot be read (any more).
    """
    if all(kind.plays_everywhere for kind in kinds):
        return _copied(files[0]), _copied(files[1])
    return _encoded(files[0]), _encoded(files[1])


def _copied(path: Path) -> bytes:
    """The compressed pictures in a new container. x264 writes its settings into the stream itself (SEI): left out."""
    import av
    from av.bitstream import BitStreamFilterContext

    target = io.BytesIO()
    try:
        with (
            av.open(str(path)) as source,
            av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container,
        ):
            stream = source.streams.video[0]
            copy = container.add_stream_from_template(stream)
            without_notes = BitStreamFilterContext("filter_units=remove_types=6", stream, copy)
            for packet in source.demux(stream):
                for kept in without_notes.filter(packet if packet.size else None):  # the last one is empty: flush
                    kept.stream = copy
                    container.mux(kept)
    except (OSError, ValueError) as error:
        raise VideoFileError(f"{path} cannot be read as a video ({error}).") from error
    return target.getvalue()


def _encoded(path: Path) -> bytes:
    frames, rate = read_video(path)
    with tempfile.TemporaryDirectory() as folder:
        return _copied(write_video(Path(folder, "clip.mp4"), frames, rate or 8, crf=12))
