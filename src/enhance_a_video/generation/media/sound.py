"""The sound of a video file, copied into another that is being written; re-encoded where mp4 cannot hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...errors import VideoFileError
from .reader import open_container

_COPIED = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # what players find in an mp4
_AAC = 1024  # samples of a frame
Until = Callable[[float], None]


def copied_as_it_is(codec: str) -> bool:
    """Whether a sound stream of this codec goes into an mp4 without being encoded again."""
    return codec in _COPIED


@contextmanager
def with_sound(path: str | Path | None, into: Any, start: float = 0.0) -> Iterator[Until]:
    """Adds the sound streams of a file to PyAV's container `into`, before its first packet is written.

    Args:
        path: None for no sound. start: the time in that file, in seconds, which is 0 in the new one.

    Yields:
        A function that writes the sound up to a time of the new file, in seconds; to be called as the pictures are
        written, so that players find both near each other, and at last with infinity.
    """
    if path is None:
        yield lambda until: None
        return
    stack = ExitStack()
    container, _ = stack.enter_context(open_container(path))
    try:
        yield _writer(str(path), container, into, start)
    finally:
        stack.close()  # without the error of what is being written, if there is one: it is none of this file


def _writer(path: str, container: Any, into: Any, start: float) -> Until:
    tracks = {stream.index: _Track(stream, into, start) for stream in container.streams.audio}
    packets = _packets(path, container)
    held: list[Any] = []

    def write(until: float) -> None:
        while (packet := held.pop() if held else next(packets, None)) is not None:
            if float(packet.dts * packet.time_base) - start > until:
                held.append(packet)
                return
            with _readable(path):
                tracks[packet.stream.index].add(packet)
        if until == float("inf"):
            for track in tracks.values():
                track.finish()

    return write


def _packets(path: str, container: Any) -> Iterator[Any]:
    with _readable(path):
        for packet in container.demux(list(container.streams.audio)):
            if packet.dts is not None:  # the last one of a stream is empty
                yield packet


@contextmanager
def _readable(path: str) -> Iterator[None]:
    from av.error import InvalidDataError

    try:
        yield
    except InvalidDataError as error:
        raise VideoFileError(f"The sound of {path} is damaged: copy it again, or take the sound out.") from error


def _codec(stream: Any) -> str:
    return stream.codec_context.name if stream.codec_context else "unknown"


class _Track:
    """One sound stream on its way: its packets shifted, or decoded and encoded as AAC."""

    def __init__(self, source: Any, into: Any, start: float) -> None:
        self._into, self._start = into, start
        self._copied = copied_as_it_is(_codec(source))
        if self._copied:
            add = getattr(into, "add_stream_from_template", None)  # PyAV 14
            self._out = add(source) if add else into.add_stream(template=source)
            return
        from av import AudioResampler

        rate = source.codec_context.sample_rate or 48_000
        layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"  # some files give a number only
        self._out = into.add_stream("aac", rate=rate)
        self._resampler = AudioResampler(format="fltp", layout=layout, rate=rate, frame_size=_AAC)
        self._out.layout = layout

    def add(self, packet: Any) -> None:
        if self._copied:
            shift = round(self._start / packet.time_base)
            packet.pts, packet.dts = (packet.dts if packet.pts is None else packet.pts) - shift, packet.dts - shift
            packet.stream = self._out
            self._into.mux(packet)
            return
        for frame in packet.decode():
            base = frame.time_base or Fraction(1, frame.sample_rate)
            frame.pts = None if frame.pts is None else frame.pts - round(self._start / base)
            for ready in self._resampler.resample(frame):
                self._into.mux(self._out.encode(ready))

    def finish(self) -> None:
        if not self._copied:
            for ready in self._resampler.resample(None):
                self._into.mux(self._out.encode(ready))
            self._into.mux(self._out.encode(None))
