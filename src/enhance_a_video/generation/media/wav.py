"""Sound files (WAV, 16 bits) with a comment: what models that make sound write, and what `inspect` reads."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import VideoFileError
from ...limits import ordinary

_FULL = 32767  # the largest sample of 16 bits


def wav_bytes(sound: np.ndarray, rate: int, comment: str = "") -> bytes:
    """A WAV file of a sound (N, C), float in [-1, 1], `rate` samples a second; the comment is in RIFF's LIST/INFO."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(sound.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(np.rint(np.clip(sound, -1, 1) * _FULL).astype("<i2").tobytes())
    text = comment.encode("utf-8", "backslashreplace") + b"\0"
    info = b"INFO" + _chunk(b"ICMT", text) if comment else b""
    body = file.getvalue()[8:] + (_chunk(b"LIST", info) if info else b"")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wav_comment(path: str | Path) -> str:
    """The comment in a WAV file's metadata; "" where there is none. Raises VideoFileError: it cannot be read."""
    try:
        with open(ordinary(path), "rb") as file:
            data = file.read()
    except OSError as error:
        raise VideoFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise VideoFileError(f"{path} cannot be read: it is no WAV file.")
    info = next((one[4:] for one in _chunks(data[12:], b"LIST") if one[:4] == b"INFO"), b"")
    return next(_chunks(info, b"ICMT"), b"").rstrip(b"\0").decode("utf-8", "replace")


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _chunks(data: bytes, name: bytes) -> Iterator[bytes]:
    """The contents of RIFF's chunks with this name, one after the other."""
    at = 0
    while at + 8 <= len(data):
        found, size = struct.unpack_from("<4sI", data, at)
        if found == name:
            yield data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
