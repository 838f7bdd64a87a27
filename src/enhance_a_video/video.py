"""Videos as files: H.264 that every browser plays, written whole or not at all; and clips laid side by side.

Frames are uint8 or float in [0, 1], shape (T, H, W, 3), RGB, everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from . import limits
from .errors import SettingsError, VideoFileError
from .files import atomic, reason
from .media import read_comment as read_comment
from .media import read_video as read_video

_BT709 = 1  # the code of ITU-R BT.709 in H.264's colour fields: conversion and tag have to agree
_INK, GROUND = (245, 246, 248), (22, 24, 29)  # label text, and what it and the clips stand on


def write_video(
    path: str | Path, frames: np.ndarray, fps: float, *, force: bool = False, crf: int = 17, comment: str = ""
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

    Raises:
        OutputExistsError: the file exists and `force` is False.
        VideoFileError: the file cannot be written; nothing is left behind.
        SettingsError: frames or fps that cannot make a video.
    """
    path, frames = check_video_target(path, fps), to_uint8(frames)
    limits.whole("crf", crf, 0, 51)
    with atomic(path, force=force) as draft, _encoding(path):
        _encode(draft, _even(frames), Fraction(fps).limit_denominator(1001), crf, comment)
    return path


def check_video_target(path: str | Path, fps: float = 1) -> Path:
    """The path, if its name and the frame rate can make a video; raises SettingsError."""
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise SettingsError(
            f"Videos are written as .mp4; got {path.name!r}. Give a name such as {path.stem or 'video'}.mp4."
        )
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


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Frames as uint8 (T, H, W, 3), rounded. SettingsError for other shapes, dtypes, ranges, NaN."""
    from .metrics.clip import Clip

    frames = np.asarray(frames)
    if frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[-1] == 3 and frames.size:
        return frames
    return np.rint(Clip(frames).frames * 255).astype(np.uint8)


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


def side_by_side(
    panels: Sequence[np.ndarray], labels: Sequence[str], *, min_side: int = 256, gap: int = 8
) -> np.ndarray:
    """Clips next to each other, each under its label, on one dark ground.

    Args:
        panels: clips (T, H, W, 3) of one height; shorter ones hold their last frame.
        labels: one per clip.
        min_side: clips with a shorter side below this are enlarged by a whole factor.
        gap: pixels between clips.

    Returns:
        uint8 (T, H', W', 3), even sizes.
    """
    clips = _comparable(panels, labels, min_side)
    length = max(map(len, clips))
    clips = [np.concatenate([clip, np.repeat(clip[-1:], length - len(clip), 0)]) for clip in clips]
    size = max(15, round(clips[0].shape[1] / 18))  # type size in pixels
    columns = []
    for clip, label in zip(clips, labels, strict=True):
        bar = label_bar(label, clip.shape[2], size)  # (h, W, 3)
        columns += [np.concatenate([np.broadcast_to(bar, (length, *bar.shape)), clip], axis=1), None]
    tall = columns[0].shape[1]  # type: ignore[union-attr]
    ground = np.full((length, tall, gap, 3), GROUND, np.uint8)
    return _even(np.concatenate([ground if column is None else column for column in columns[:-1]], axis=2))


def film_strip(
    panels: Sequence[np.ndarray], labels: Sequence[str], *, count: int = 8, min_side: int = 128, gap: int = 4
) -> np.ndarray:
    """A picture of a video: per clip one labelled row of `count` evenly spaced frames. uint8 (H', W', 3)."""
    limits.whole("count", count, 1)
    rows = []
    for clip, label in zip(_comparable(panels, labels, min_side), labels, strict=True):
        chosen = clip[np.linspace(0, len(clip) - 1, min(count, len(clip))).round().astype(int)]
        spaced = np.pad(chosen, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=0)
        spaced[:, -gap:], spaced[:, :, -gap:] = GROUND, GROUND
        row = np.concatenate(list(spaced), axis=1)[:, :-gap]
        rows += [label_bar(label, row.shape[1], max(14, clip.shape[1] // 9)), row]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_widen(row, width) for row in rows])


def label_bar(text: str, width: int, size: int) -> np.ndarray:
    """One line of text on a dark bar, uint8 (about 1.9 size, width, 3); made smaller, then cut, to fit."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    face = Path(
        matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"
    )  # Greek and Cyrillic too, unlike Pillow's own
    image = Image.new("RGB", (width, 2 * round(0.95 * size)), GROUND)
    draw, room = ImageDraw.Draw(image), width - size
    text = " ".join("".join(one if one.isprintable() else " " for one in text[:1000]).split())  # Pillow takes one line
    for points in range(size, max(9, size // 2) - 1, -1):
        font = ImageFont.truetype(str(face), points)
        if draw.textlength(text, font=font) <= room:
            break
    while len(text) > 1 and draw.textlength(text, font=font) > room:
        text = text.rstrip("…")[:-1] + "…"
    draw.text((size / 2, image.height / 2), text, fill=_INK, font=font, anchor="lm")
    return np.asarray(image)


def _comparable(panels: Sequence[np.ndarray], labels: Sequence[str], min_side: int) -> list[np.ndarray]:
    clips = [to_uint8(panel) for panel in panels]
    if len(clips) != len(labels) or not clips:
        raise SettingsError(f"Each clip needs one label; found {len(clips)} clips and {len(labels)} labels.")
    sizes = {clip.shape[1:3] for clip in clips}
    if len(sizes) > 1:
        raise SettingsError(f"Clips side by side must have one size; found {sorted(sizes)} (height, width).")
    return [enlarged(clip, min_side) for clip in clips]


def _even(frames: np.ndarray) -> np.ndarray:
    _, height, width, _ = frames.shape
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _widen(row: np.ndarray, width: int) -> np.ndarray:
    ground = np.full((len(row), width, 3), GROUND, np.uint8)
    ground[:, : row.shape[1]] = row
    return ground


# x264's macroblock tree reads memory that it never wrote when the picture is small: the same frames then give another
# file each time (measured at 64 x 64, with one thread too). Without it the same frames give the same file.
_X264 = "mbtree=0"


def _encode(path: Path, frames: np.ndarray, rate: Fraction, crf: int, comment: str) -> None:
    import av

    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
        if comment:
            container.metadata["comment"] = comment.encode("utf-8", "backslashreplace").decode()
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": str(crf), "preset": "medium", "x264-params": _X264}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # limited ("TV") range
        for array in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="AREA"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


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
