"""Small media files of every kind that somebody may have: real ones, made with PyAV and Pillow."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# The display matrices of a phone, (a, b, c, d), whichever way it is held, and what each does to a frame.
TURNS = {
    (1, 0, 0, 1): lambda frame: frame,
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),
    (-1, 0, 0, -1): lambda frame: np.rot90(frame, 2),
    (0, -1, 1, 0): lambda frame: np.rot90(frame, 1),
    (-1, 0, 0, 1): lambda frame: frame[:, ::-1],
    (1, 0, 0, -1): lambda frame: frame[::-1],
    (0, 1, 1, 0): lambda frame: frame.swapaxes(0, 1),
    (0, -1, -1, 0): lambda frame: np.rot90(frame, 2).swapaxes(0, 1),
}


def moving(frames: int = 12, height: int = 48, width: int = 64, detail: int = 8) -> np.ndarray:
    """A coarse random texture that moves to the right: no orientation equals another. uint8 (T, H, W, 3)."""
    coarse = np.random.default_rng(0).integers(20, 235, (-(-height // detail), -(-width // detail), 3), dtype=np.uint8)
    picture = coarse.repeat(detail, 0).repeat(detail, 1)[:height, :width]
    return np.stack([np.roll(picture, 2 * number, 1) for number in range(frames)])


def write(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 12,
    *,
    times: list[int] | None = None,
    aspect: Fraction | None = None,
    form: str | None = None,
    **options: str,
) -> Path:
    """A file in any of FFmpeg's formats.

    times: of each frame, in 1/1000 s; aspect: of a pixel, width to height; options: the format's own.
    """
    with (
        path.open("wb") as file,
        av.open(file, "w", format=form or _FORMATS[path.suffix], options=options) as container,
    ):
        stream = container.add_stream(codec, rate=rate, options={"crf": "10"} if codec.startswith("libx26") else {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, array in enumerate(frames):
            form_of_array = {3: "rgb24", 4: "rgba"}[array.shape[-1]]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=form_of_array)
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".gif": "gif",
            ".apng": "apng", ".nut": "nut"}  # fmt: skip


def turned(path: Path, turn: tuple[int, int, int, int]) -> Path:
    """Sets the display matrix in an mp4's track header, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (sign * 65536 for sign in turn)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def animation(path: Path, frames: np.ndarray, milliseconds: list[int]) -> Path:
    """A lossless animated WebP."""
    from PIL import Image

    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, duration=milliseconds, lossless=True)
    return path


def sound(path: Path, cover: bytes = b"") -> Path:
    """An mp3 without pictures, or with a cover: a PNG in its tag, which FFmpeg shows as a video stream."""
    with av.open(str(path), "w", format="mp3", options={"id3v2_version": "0", "write_xing": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=44100)
        stream.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4410), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if cover:
        content = b"\0image/png\0\3\0" + cover
        tag = b"APIC" + struct.pack(">IH", len(content), 0) + content
        length = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
        path.write_bytes(b"ID3\3\0\0" + length + tag + path.read_bytes())
    return path
