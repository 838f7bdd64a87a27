"""Writes videos, pictures and sound: H.264 that every browser plays, PNG and WAV; whole or not at all.

Frames are uint8 or float in [0, 1], shape (T, H, W, 3), RGB, everywhere; a picture is one frame. Sound is float in
[-1, 1], shape (N, C): samples, channels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .. import limits
from ..errors import SettingsError, VideoFileError
from . import watermark
from .credentials import Claim, sign
from .files import atomic, explained, named, reason
from .media import VideoSource, wav_bytes, with_sound
from .media import read_comment as read_comment
from .media import read_video as read_video
from .media import to_uint8 as to_uint8

_BT709 = 1  # the code of ITU-R BT.709 in H.264's colour fields: conversion and tag have to agree


def write_clip(path: str | Path, frames: np.ndarray, fps: float, **how: Any) -> Path:
    """`write_video`, or by the name's ending `write_picture` (.png) or `write_sound` (.wav, `fps` samples a second).

    how: force, comment, claim.
    """
    if Path(path).suffix.lower() == ".wav":
        return write_sound(path, frames, int(fps), **how)
    if Path(path).suffix.lower() == ".png":
        return write_picture(path, frames, **how)
    return write_video(path, frames, fps, **how)


def write_picture(
    path: str | Path, frames: np.ndarray, *, force: bool = False, comment: str = "", claim: Claim | None = None
) -> Path:
    """Writes a clip of one frame, (1, H, W, 3), as a PNG file, atomically.

    Args and errors as in `write_video`. SettingsError: more frames than one.
    """
    from PIL import Image, PngImagePlugin

    path, frames = check_target(path), to_uint8(frames)
    if len(frames) != 1:
        raise SettingsError(f"{path} can hold a single picture, and there are {len(frames)} frames: name it .mp4.")
    frames = _marked(frames, claim)
    text = PngImagePlugin.PngInfo()
    if comment:
        text.add_itxt("Comment", comment.encode("utf-8", "backslashreplace").decode())
    with atomic(path, force=force) as draft:
        Image.fromarray(frames[0]).save(draft, "PNG", pnginfo=text)
        if claim is not None:
            sign(draft, claim)
    return path


def write_sound(
    path: str | Path,
    sound: np.ndarray,
    rate: int,
    *,
    force: bool = False,
    comment: str = "",
    claim: Claim | None = None,
) -> Path:
    """Writes a sound (N, C), float in [-1, 1], `rate` samples a second, as a WAV file of 16 bits, atomically.

    Args and errors as in `write_video`. SettingsError: another shape.
    """
    path = check_target(path)
    if sound.ndim != 2 or not sound.size:
        raise SettingsError(f"A sound is an array of shape (samples, channels); this one is {sound.shape}.")
    with atomic(path, force=force) as draft:
        draft.write_bytes(wav_bytes(sound, rate, comment))
        if claim is not None:
            sign(draft, claim)
    return path


def write_video(
    path: str | Path,
    frames: np.ndarray,
    fps: float,
    *,
    force: bool = False,
    crf: int = 17,
    comment: str = "",
    claim: Claim | None = None,
) -> Path:
    """Writes an mp4 (H.264, yuv420p, BT.709, index in front), atomically.

    Args:
        path: ends in .mp4; missing folders are made.
        frames: (T, H, W, 3). An odd height or width is padded by repeating the last row or column:
            4:2:0 needs even sizes.
        fps: frames per second.
        force: overwrite an existing file.
        crf: H.264 quality, 0 (lossless) to 51.
        comment: kept in the file's metadata.
        claim: how a model made it, for the file's content credentials; None: it is neither signed nor marked.

    Raises:
        OutputExistsError: the file exists and `force` is False.
        VideoFileError: the file cannot be written; nothing is left behind.
        SettingsError: frames or fps that cannot make a video.
    """
    path, frames = check_video_target(path, fps), to_uint8(frames)
    limits.whole("crf", crf, 0, 51)
    frames = _marked(frames, claim)
    with atomic(path, force=force) as draft, _encoding(path):
        frames = even(frames)
        _encode(draft, frames, frames.shape[1:3], Fraction(fps).limit_denominator(1001), crf, comment)
        if claim is not None:
            sign(draft, claim)
    return path


def write_video_like(
    path: str | Path,
    frames: Iterable[np.ndarray],
    like: VideoSource,
    *,
    force: bool = False,
    crf: int = 17,
    comment: str = "",
    claim: Claim | None = None,
) -> Path:
    """As `write_video`, frame by frame, and with what belongs to another video: its sound, times and metadata.

    Args:
        frames: uint8 (H, W, 3) each, as many as the source has.
        like: what was read of the source.
    """
    path = check_video_target(path, like.fps)
    limits.whole("crf", crf, 0, 51)
    rate = Fraction(like.fps).limit_denominator(1001)
    if claim is not None and watermark.wanted():
        frames = map(watermark.marked, frames)
    with atomic(path, force=force) as draft, _encoding(path):
        shape = like.height + like.height % 2, like.width + like.width % 2
        _encode(draft, (even(frame[None])[0] for frame in frames), shape, rate, crf, comment, like)
        if claim is not None:
            sign(draft, claim)
    return path


def _marked(frames: np.ndarray, claim: Claim | None) -> np.ndarray:
    """Frames (T, H, W, 3) with the watermark, where clips that are signed get one."""
    if claim is None or not watermark.wanted():
        return frames
    return np.stack([watermark.marked(frame) for frame in frames])


def video_bytes(
    frames: np.ndarray, fps: float, *, crf: int = 17, comment: str = "", claim: Claim | None = None
) -> bytes:
    """An mp4 as bytes, made in a temporary folder. Arguments and errors as in `write_video`."""
    with (
        explained("a temporary file", "make"),
        tempfile.TemporaryDirectory(prefix="enhance-a-video-", ignore_cleanup_errors=True) as folder,
    ):
        return write_video(Path(folder, "clip.mp4"), frames, fps, crf=crf, comment=comment, claim=claim).read_bytes()


def check_video_target(path: str | Path, fps: float = 1) -> Path:
    """The path, if its name and the frame rate can make a video; raises SettingsError."""
    return check_target(path, fps, (".mp4",))


def check_target(path: str | Path, fps: float = 1, endings: tuple[str, ...] = (".mp4", ".png", ".wav")) -> Path:
    """The path, if its name and the frame rate can make a video, a picture or a sound; raises SettingsError."""
    path = named(path) if isinstance(path, str) else path  # of ./~name a Path keeps ~name
    if path.suffix.lower() not in endings:
        what = "Videos are written as .mp4" + ", pictures as .png, sound as .wav" * (".png" in endings)
        raise SettingsError(f"{what}; got {str(path)!r}. Give a name such as {path.stem or 'video'}.mp4.")
    limits.option("fps", fps, "Frames per second")
    return path


def write_png(path: str | Path, image: np.ndarray, *, force: bool = False) -> Path:
    """Writes an image (H, W, 3) as PNG, atomically. Errors as in `write_video`."""
    with atomic(Path(path), force=force) as draft:
        draft.write_bytes(png_bytes(image))
    return Path(path)


def png_bytes(image: np.ndarray) -> bytes:
    """An image (H, W, 3), uint8, as the bytes of a PNG file."""
    import cv2

    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
        raise SettingsError(f"An image is uint8 of shape (H, W, 3); found {image.dtype} of {image.shape}.")
    return cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def enlarged(frames: np.ndarray, min_side: int = 256) -> np.ndarray:
    """A tiny clip (T, H, W, 3) at a size one can watch: smooth, by Lanczos' filter, by the smallest whole factor."""
    factor = -(-min_side // min(frames.shape[1:3]))
    if factor <= 1:
        return frames
    import cv2

    height, width = factor * frames.shape[1], factor * frames.shape[2]
    return np.stack(
        [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LANCZOS4) for frame in to_uint8(frames)]
    )


def even(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) with the last row and column repeated where 4:2:0 needs them: even sizes."""
    _, height, width, _ = frames.shape
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


# x264's macroblock tree reads memory that it never wrote when the picture is small: the same frames then give another
# file each time (measured at 64 x 64, with one thread too). Without it the same frames give the same file.
_X264 = "mbtree=0"


def _encode(
    path: Path,
    frames: Iterable[np.ndarray],
    size: tuple[int, ...],
    rate: Fraction,
    crf: int,
    comment: str,
    like: VideoSource | None = None,
) -> None:
    """Writes frames, uint8 (H, W, 3) each, of one even size (H, W), with the sound, times and metadata of `like`."""
    import av

    metadata = {**(like.metadata if like else {}), **({"comment": comment} if comment else {})}
    flags = "+faststart" + "+use_metadata_tags" * (len(metadata) > bool(comment))  # for names that mp4 has no place for
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": flags}) as container:
        for name, value in metadata.items():
            container.metadata[name] = value.encode("utf-8", "backslashreplace").decode()
        stream = _video_stream(container, size, rate, crf, bool(like and like.times))
        with with_sound(like.path if like and like.sound else None, container, like.start if like else 0.0) as sound:
            for number, array in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
                frame = frame.reformat(
                    format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="AREA"
                )
                time = like.times[number] if like and like.times else number / rate
                if like and like.times:
                    frame.time_base, frame.pts = Fraction(1, _TICKS), round(time * _TICKS)
                container.mux(stream.encode(frame))
                sound(float(time))
            container.mux(stream.encode())
            sound(float("inf"))


def _video_stream(container: Any, size: tuple[int, ...], rate: Fraction, crf: int, timed: bool) -> Any:
    """An H.264 stream. timed: its frames bring their times, in ticks."""
    stream = container.add_stream(
        "libx264", rate=rate, options={"crf": str(crf), "preset": "medium", "x264-params": _X264}
    )
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    if timed:
        context.time_base = Fraction(1, _TICKS)
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = 1  # limited ("TV") range
    return stream


_TICKS = 90_000  # in a second, for frames whose times are not even


@contextmanager
def _encoding(path: Path) -> Iterator[None]:
    """Turns PyAV's own errors, most of which are no OSErrors, into VideoFileErrors."""
    import av

    try:
        yield
    except OSError:
        raise  # of the file system: explained by those who write
    except av.codec.codec.UnknownCodecError as error:
        raise VideoFileError(
            f"Cannot write {path}: the installed PyAV has no H.264 encoder ({error}). The one of PyPI has: pip install "
            "--force-reinstall av"
        ) from error
    except av.error.FFmpegError as error:
        raise VideoFileError(f"Cannot write {path}: FFmpeg stopped ({reason(error)}).") from error
