"""Whether the end of a video file is missing, by the sizes in its own headers; decoders read such files silently.

Covers MP4 and MOV, Matroska and WebM, AVI and WebP, GIF. Transport streams and raw streams give no sizes.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

_BOXES = {b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"meta", b"sidx", b"styp", b"mfra"}
_EBML = b"\x1a\x45\xdf\xa3"
# Matroska's elements of the first two levels, and what a cluster holds, for clusters of unknown length.
_ELEMENTS = {_EBML, *map(bytes.fromhex, (
    "18538067", "114d9b74", "1549a966", "1654ae6b", "1f43b675", "1c53bb6b", "1254c367", "1941a469", "1043a770",
    "ec", "bf", "e7", "a3", "a0", "a7", "ab",
))}  # fmt: skip
_SLACK = 8  # bytes: some writers of RIFF files count their own header, or do not count padding


def ends_early(file: BinaryIO) -> bool:
    """Whether a part of an open file reaches beyond the file's end. Leaves the file at its start."""
    if not file.seekable():
        return False
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(12)
    if head[4:8] in _BOXES:
        early = _end_of_boxes(file, size) > size
    elif head[:4] == b"RIFF":
        early = _end_of_chunks(file, size) > size + _SLACK
    elif head[:4] == _EBML:
        early = _end_of_elements(file, size) > size
    elif head[:4] == b"GIF8":
        file.seek(max(0, size - 1024))
        early = not file.read().rstrip(b"\0").endswith(b";")  # its trailer
    else:
        early = False
    file.seek(0)
    return early


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """ISO base media: size (32 bits), type, and a size of 64 bits where the first is 1; 0 is the rest of the file."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        length = large if length == 1 else length
        if kind not in _BOXES or length < 8:
            break  # to the end of the file, or something that another program has appended
        at += length
    return at


def _end_of_chunks(file: BinaryIO, size: int) -> int:
    """RIFF: one chunk, or several in a large AVI file. Writers that cannot seek give 0 or all ones for its length."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):
            break
        at += 8 + length
    return at


def _end_of_elements(file: BinaryIO, size: int) -> int:
    """EBML: identifier, length, content. An element of unknown length (all ones) is entered instead of passed over."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(12).ljust(12, b"\0")
        width = 9 - head[0].bit_length()  # bytes of the identifier, its marker included
        if head[:width] not in _ELEMENTS:
            break  # something that another program has appended
        wide = 9 - head[width].bit_length()  # bytes of the length
        bits = 7 * wide
        length = int.from_bytes(head[width : width + wide], "big") & ((1 << bits) - 1)
        at += width + wide + (0 if length == (1 << bits) - 1 else length)
    return at
