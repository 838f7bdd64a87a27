"""Video files, frame by frame, as a player shows them: upright, square pixels, on white where they are transparent.

    with open_video("a.mp4") as clip:
        for frame in clip: ...              # uint8 (H, W, 3)
    clip.frames, clip.duration, clip.fps    # what was read

Whatever is wrong with a file is raised as a VideoFileError of one sentence. A file whose end is missing gives the
frames that it has and then the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from io import BufferedReader
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...errors import VideoFileError
from ...limits import ordinary
from ...wording import count
from .pictures import as_rgb, decoding, picture_comment
from .structure import ends_early
from .wav import wav_comment

_MOST_PIXELS = (
    2**26
)  # of a frame, 8192 x 8192: a header that claims more is damaged, or the frames do not fit in memory
_WAY_OUT = "it is damaged, incomplete or no video. Get the file again, or convert it if a player shows it."
_MOST_ASPECT = 16  # of a pixel, width to height or height to width
_PICTURES = ("png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe")  # FFmpeg's formats of a single picture

_Timed = tuple[np.ndarray, "float | None", "float | None"]  # a frame (H, W, 3), its time and its duration in seconds


class OpenVideo:
    """An open video file: iterate over its frames once. `frames`, `duration` and `fps` hold for what was read so far.

    codec, pixels: FFmpeg's names of the codec and the pixel format.
    rate, declared: frames per second and number of frames by the file's header; None where it has none.
    comment: the comment in the file's metadata, "" where there is none.
    height, width: as shown; 0 before the first frame.
    as_stored: whether the first frame is shown as it is stored, neither turned nor stretched.
    times: of each frame read, in seconds; None where the file has none.

    Iterating raises VideoFileError where the file is damaged or its end is missing, after the last whole frame.
    """

    codec, pixels, comment = "", "", ""
    rate: float | None = None
    declared: int | None = None
    still = False  # a single picture
    as_stored = True

    def __init__(self, path: str, cut_off: bool) -> None:
        self.path, self.cut_off = path, cut_off
        self.height = self.width = 0
        self.times: list[float | None] = []
        self._last: float | None = None  # duration of the last frame

    def __iter__(self) -> Iterator[np.ndarray]:
        with _explained(self.path, self):
            for frame, time, lasts in self._decoded():
                height, width = frame.shape[:2]
                if self.times and (height, width) != (self.height, self.width):
                    raise VideoFileError(
                        f"{self.path} changes its size after {count(self.frames, 'frame')}, from "
                        f"{self.width}x{self.height} to {width}x{height}. Cut it in two there."
                    )
                self.height, self.width, self._last = height, width, lasts
                self.times.append(time)
                yield frame
            self.check_end()
            if not self.times:
                raise VideoFileError(f"{self.path} contains no complete frame: it is empty or was cut off.")

    def _decoded(self) -> Iterator[_Timed]:
        raise NotImplementedError

    def check_end(self) -> None:
        """Raises VideoFileError where the end of the file is missing."""
        if self.cut_off:
            there = f"after {count(self.frames, 'frame')}" if self.times else "before its first frame"
            raise VideoFileError(f"{self.path} is cut off {there}: the end of the file is missing. Copy it again.")

    @property
    def frames(self) -> int:
        """How many frames were read."""
        return len(self.times)

    @property
    def duration(self) -> float | None:
        """Seconds from the first frame read to the end of the last; None for a picture and where no rate is known."""
        if self.still or not self.times:
            return None
        steady = self.frames / self.rate if self.rate else None
        times = np.asarray(self.times, float)  # None becomes NaN
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            return steady
        span = float(times[-1] - times[0])
        last = self._last or (1 / self.rate if self.rate else span / max(1, self.frames - 1))
        rounded = steady and abs(span + last - steady) < 0.5 * steady / self.frames
        return steady if rounded else span + last  # containers round times to milliseconds; the rate is exact

    @property
    def fps(self) -> float | None:
        """Frames per second, the mean where they vary; None as `duration`."""
        return self.frames / self.duration if self.duration else None


@contextmanager
def open_video(path: str | Path) -> Iterator[OpenVideo]:
    """Opens a video, an animated picture or a picture (one frame).

    Raises:
        VideoFileError: no such file, a folder, no permission; nothing in it that can be read as a video.
    """
    path = str(path)
    with ExitStack() as stack:
        with _explained(path):
            file = stack.enter_context(open(ordinary(path), "rb"))
            cut_off = ends_early(file)
            try:
                clip = _opened(path, file, cut_off, stack)
            except Exception as error:
                if cut_off:  # what was missed was behind the cut
                    raise VideoFileError(
                        f"{path} is cut off: the end of the file is missing, and nothing can be read without it. "
                        "Copy it again."
                    ) from error
                raise
        yield clip


@contextmanager
def open_container(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container of a file and its video stream, to copy from; errors inside become VideoFileErrors."""
    with _explained(str(path)), open(ordinary(path), "rb") as file, _container(file) as container:
        yield container, _video_stream(str(path), container)


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """Reads a whole video.

    Returns:
        Frames, uint8 (T, H, W, 3), and frames per second (0 where none are known, as for a single picture).

    Raises:
        VideoFileError: as `open_video`; a file that is damaged or cut off.
    """
    with open_video(path) as clip:
        return np.stack(list(clip)), clip.fps or 0.0


def read_comment(path: str | Path) -> str:
    """The comment in a file's metadata; "" where there is none. VideoFileError as in `open_video`."""
    if Path(path).suffix.lower() == ".png":
        return picture_comment(path)
    if Path(path).suffix.lower() == ".wav":
        return wav_comment(path)
    with open_video(path) as clip:
        return clip.comment


def in_pieces(clip: OpenVideo, overlap: int = 0, megapixels: float = 16.0) -> Iterator[np.ndarray]:
    """The frames of an open video in pieces, in memory for one of them at a time.

    Args:
        overlap: frames that each piece after the first repeats from the end of the one before it.
        megapixels: about how many pixels a piece holds at most, frames x height x width in millions (but at least
            four frames that are new).

    Yields:
        uint8 (T, H, W, 3).

    Raises:
        VideoFileError: the file is damaged or cut off, after a piece with the last whole frames.
    """
    piece: list[np.ndarray] = []
    fresh = 0  # frames of the piece that no earlier piece had
    try:
        for frame in clip:
            piece.append(frame)
            fresh += 1
            if fresh >= 4 and len(piece) >= int(megapixels * 1e6 / (clip.height * clip.width)):
                yield np.stack(piece)
                piece, fresh = piece[len(piece) - overlap :], 0
    except VideoFileError:
        if fresh:
            yield np.stack(piece)
        raise
    if fresh:
        yield np.stack(piece)


# ---------------------------------------------------------------------------------------------------- two decoders


def _opened(path: str, file: BufferedReader, cut_off: bool, stack: ExitStack) -> OpenVideo:
    head = file.peek(12)[:12]
    if not head:
        raise VideoFileError(f"{path} is empty.")
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":  # FFmpeg does not decode animated ones
        return _Picture(path, cut_off, file)
    container = stack.enter_context(_container(file))
    if container.format.name in _PICTURES:
        file.seek(0)
        return _Picture(path, cut_off, file)
    return _Stream(path, cut_off, container, _video_stream(path, container))


class _Stream(OpenVideo):
    """A video stream that FFmpeg decodes."""

    def __init__(self, path: str, cut_off: bool, container: Any, stream: Any) -> None:
        super().__init__(path, cut_off)
        self._container, self._stream = container, stream
        context = stream.codec_context
        if context is None:
            raise VideoFileError(f"{path} is in a format that the installed FFmpeg cannot decode.")
        _check_size(path, context.width, context.height)
        self.codec, self.pixels = context.name, context.pix_fmt or ""
        self.comment = str(container.metadata.get("comment", ""))
        self.rate = float(stream.average_rate or stream.guessed_rate or 0) or None
        self.declared = stream.frames or _expected(container, stream, self.rate)

    def _decoded(self) -> Iterator[_Timed]:
        aspect, base = _aspect(self.path, self._stream), self._stream.time_base
        for packet in self._container.demux(self._stream):
            for frame in packet.decode():
                if self.times and (frame.is_corrupt or packet.is_corrupt):  # a cut into a running stream begins so
                    raise VideoFileError(f"{self.path} is damaged after {count(self.frames, 'frame')}. Copy it again.")
                _check_size(self.path, frame.width, frame.height)
                turn = _turn(frame)
                self.as_stored = not turn and aspect == 1
                lasts = getattr(frame, "duration", None)  # PyAV 12 has none
                shown = np.ascontiguousarray(_turned(_stretched(_pixels(frame), aspect), turn))
                yield shown, frame.time, float(lasts * base) if lasts and base else None


class _Picture(OpenVideo):
    """A picture or an animated one, which Pillow decodes."""

    def __init__(self, path: str, cut_off: bool, file: BufferedReader) -> None:
        from PIL import Image

        super().__init__(path, cut_off)
        with decoding(f"{path} cannot be read", VideoFileError):
            self._picture = Image.open(file)
        self.codec = str(self._picture.format).lower()
        animated = self.codec == "webp"  # the others hold one, or several pages
        self.declared = getattr(self._picture, "n_frames", 1) if animated else 1
        self.still = self.declared == 1
        _check_size(path, *self._picture.size)

    def _decoded(self) -> Iterator[_Timed]:
        time = 0.0
        for number in range(self.declared or 1):
            with decoding(f"{self.path} cannot be read after {count(self.frames, 'frame')}", VideoFileError):
                self._picture.seek(number)
                frame = np.asarray(as_rgb(self._picture))
            lasts = (self._picture.info.get("duration") or 100) / 1000  # browsers show for 0.1 s what has no duration
            yield frame, time, lasts
            time += lasts


def _container(file: BufferedReader) -> Any:
    """A file for PyAV without its name: FFmpeg takes "12:30.mp4" for a protocol and "%03d.png" for many files."""
    import av

    def seek(offset: int, whence: int = 0) -> int:
        try:
            return file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # where a damaged header points; PyAV would print a traceback
            return -1

    content = SimpleNamespace(read=file.read, seek=seek, tell=file.tell, seekable=file.seekable)
    return av.open(content, metadata_errors="replace")


def _video_stream(path: str, container: Any) -> Any:
    """The first video stream that is not the cover of a sound file."""
    for stream in container.streams.video:
        disposition = getattr(getattr(stream, "disposition", None), "value", 0)  # PyAV 12 has none
        if not disposition & 0x400:  # AV_DISPOSITION_ATTACHED_PIC
            return stream
    raise VideoFileError(f"{path} has no video stream. Is it the right file?")


def _expected(container: Any, stream: Any, rate: float | None) -> int | None:
    seconds = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1_000_000
    return round(seconds * rate) if seconds and rate else None


def _check_size(path: str, width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise VideoFileError(
            f"{path} has frames of {width}x{height}: more than {_MOST_PIXELS // 10**6} megapixels are not read."
        )


# ------------------------------------------------------------------------------------------------ as a player shows it


def _pixels(frame: Any) -> np.ndarray:
    """A decoded frame as uint8 RGB (H, W, 3), on white where it is transparent."""
    if not (frame.format.has_palette or any(component.is_alpha for component in frame.format.components)):
        return frame.to_ndarray(format="rgb24")
    rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _aspect(path: str, stream: Any) -> Fraction:
    """Width of a stored pixel by its height."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if not Fraction(1, _MOST_ASPECT) <= aspect <= _MOST_ASPECT:
        raise VideoFileError(f"{path} has pixels of {aspect.numerator}:{aspect.denominator}: its header is damaged.")
    return aspect


def _stretched(frame: np.ndarray, aspect: Fraction) -> np.ndarray:
    """Square pixels: the side on which stored pixels are long is enlarged, so that nothing is lost."""
    if aspect == 1:
        return frame
    import cv2

    height, width = frame.shape[:2]
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)


def _turn(frame: Any) -> tuple[int, ...]:
    """The signs (a, b, c, d) of the display matrix, x' = a x + c y, y' = b x + d y; () where nothing is turned."""
    try:
        found = [side for side in frame.side_data if side.type.name == "DISPLAYMATRIX"]
        matrix = np.frombuffer(bytes(found[0]), "<i4").reshape(3, 3)[:2, :2] if found else np.eye(2)
    except ValueError:  # side data of a kind that this PyAV has no name for
        turns = round(getattr(frame, "rotation", 0) / 90) % 4  # anticlockwise
        matrix = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns)
    matrix = np.where(np.abs(matrix) > np.abs(matrix).max() / 2, np.sign(matrix), 0).astype(int)
    return () if (matrix == np.eye(2)).all() else tuple(int(sign) for sign in matrix.ravel())


def _turned(frame: np.ndarray, turn: tuple[int, ...]) -> np.ndarray:
    if not turn:
        return frame
    a, b, c, d = turn
    if b and c:
        frame, a, d = frame.swapaxes(0, 1), c, b
    return frame[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


# ----------------------------------------------------------------------------------------------------------- errors


@contextmanager
def _explained(path: str, clip: OpenVideo | None = None) -> Iterator[None]:
    """Turns what Python, PyAV and NumPy raise for a file into a VideoFileError.

    Most of PyAV's errors are neither OSError nor ValueError.
    """
    import av

    try:
        yield
    except VideoFileError:
        raise
    except FileNotFoundError as error:
        raise VideoFileError(f"There is no video at {path}.") from error
    except IsADirectoryError as error:
        raise VideoFileError(f"{path} is a folder, not a video.") from error
    except MemoryError as error:
        raise VideoFileError(f"{path} does not fit in memory. Make it shorter or smaller.") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
        if clip is not None:
            clip.check_end()
        if clip is not None and clip.times:
            raise VideoFileError(f"{path} is damaged after {count(clip.frames, 'frame')} ({reason}).") from error
        raise VideoFileError(f"{path} cannot be read as a video ({reason}): {_WAY_OUT}") from error
