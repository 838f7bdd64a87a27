"""An invisible watermark in the pictures themselves, and its detection: for `--watermark` and `inspect`.

The recipe known as dwtDctSvd, without weights: the largest singular value of 4 x 4 blocks of the Haar transform's
coarse band is moved to one of two places of a lattice, one for each bit. (Its DCT changes no singular value and is left
out.) The 64 bits are the same in every clip of this package and lie in a tile of 8 x 8 blocks that repeats over the
picture, so that a crop and a shift can be searched. What it survives: docs/guide/responsible-use.md.
"""

from __future__ import annotations

import hashlib
import warnings
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnlabelledWarning
from .media import open_video
from .switches import is_on, switched_on

ON = "ENHANCE_A_VIDEO_WATERMARK"  # "on": clips that are signed are marked too
NAME = "enhance-a-video, 64 bits, dwtDctSvd in luma"
STEP = 48.0  # of the lattice, in grey levels of a block's sum by 8
_TILE = 8  # blocks; its bits are the picture's
_BLOCK = 8  # pixels of a block: 4 x 4 of the coarse band
SMALLEST = _TILE * _BLOCK  # pixels of a side
BITS = _TILE * _TILE
_SURE, _SURE_OF_MANY = (
    54,
    58,
)  # bits that have to agree: at the place where they were put, and over all that is searched
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_SCALES = (1.0, 2.0, 0.5, 4 / 3, 0.75, 1.5, 2 / 3)  # sizes that are searched, as factors of the file's
_PATTERN = np.unpackbits(np.frombuffer(hashlib.sha256(b"enhance-a-video").digest()[:8], np.uint8)).reshape(_TILE, _TILE)


def marking(wanted: bool) -> AbstractContextManager[None]:
    """For a command and the processes that it starts: whether the clips that it signs are marked too."""
    return switched_on(ON, wanted)


def wanted() -> bool:
    return is_on(ON)


# ---------------------------------------------------------------------------------------------------------- marking


def marked(frame: np.ndarray) -> np.ndarray:
    """A frame, uint8 (H, W, 3), with the watermark; as it is, with an UnlabelledWarning, where it is too small."""
    height, width = frame.shape[:2]
    if min(height, width) < SMALLEST:
        text = f"{width}x{height} is too small for a watermark: it takes {SMALLEST} pixels each way. The clip has none."
        warnings.warn(text, UnlabelledWarning, stacklevel=2)
        return frame
    blocks = _blocks(_luma(frame)[None])[0]  # (rows, columns, 4, 4)
    left, values, right = np.linalg.svd(blocks)
    rows, columns = blocks.shape[:2]
    bits = np.tile(_PATTERN, (-(-rows // _TILE), -(-columns // _TILE)))[:rows, :columns]
    place = 0.25 + 0.5 * bits
    target = np.maximum(np.rint(values[..., 0] / STEP - place), 0) + place
    change = (target * STEP - values[..., 0])[..., None, None] * (left[..., :, :1] * right[..., :1, :])
    pixels = change.repeat(2, -2).repeat(2, -1) / 2  # (rows, columns, 8, 8)
    whole = np.zeros((height, width, 1), np.float32)
    whole[: rows * _BLOCK, : columns * _BLOCK, 0] = pixels.swapaxes(1, 2).reshape(rows * _BLOCK, columns * _BLOCK)
    return np.rint(np.clip(frame + whole, 0, 255)).astype(np.uint8)


def _luma(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32) @ _LUMA


def _blocks(luma: np.ndarray) -> np.ndarray:
    """(T, H, W) -> (T, rows, columns, 4, 4): the coarse band of Haar's transform, cut into blocks."""
    length, rows, columns = len(luma), luma.shape[1] // _BLOCK, luma.shape[2] // _BLOCK
    cut = luma[:, : rows * _BLOCK, : columns * _BLOCK].reshape(length, rows * 4, 2, columns * 4, 2)
    return (cut.sum((2, 4)) / 2).reshape(length, rows, 4, columns, 4).swapaxes(2, 3)


# -------------------------------------------------------------------------------------------------------- detection


_FEW = 24  # frames of a file, its first ones, in which a watermark is looked for


def find_in(path: str | Path) -> Watermark:
    """The watermark in a video or picture file. VideoFileError: it cannot be read."""
    with open_video(path) as clip:
        return find(np.stack(list(islice(clip, _FEW))))


@dataclass(frozen=True)
class Watermark:
    """present: whether there is one of this package. bits: how many of `of` agree, at the best place. scale, shift: the
    size relative to the marked one, and the place in pixels, at which it was found."""

    present: bool
    bits: int
    of: int = BITS
    scale: float = 1.0
    shift: tuple[int, int] = (0, 0)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(frames: np.ndarray, *, search: bool = True) -> Watermark:
    """The watermark in frames, uint8 (T, H, W, 3), of one clip; a few are enough.

    Args:
        search: look for it in a clip that was cropped, moved or resized as well, where it is not at its place.
    """
    if min(frames.shape[1:3]) >= SMALLEST:
        found = _at_places(_luma(frames), [(0, 0)], 1.0, any_tile=False)
        if found.present or not search:
            return found
    best = Watermark(False, 0)
    for scale in _SCALES if search else ():
        luma = _middle(_luma(frames[:: max(1, len(frames) // 4)]), scale)
        if min(luma.shape[1:]) >= SMALLEST:
            places = [(y, x) for y in range(_BLOCK) for x in range(_BLOCK)]
            best = max(best, _at_places(luma, places, scale, any_tile=True), key=lambda one: one.bits)
        if best.present:
            break
    return best


def _middle(luma: np.ndarray, scale: float) -> np.ndarray:
    """At most 256 pixels each way of the middle of frames (T, H, W), resized by 1 / scale."""
    import cv2

    if scale != 1:
        size = round(luma.shape[2] / scale), round(luma.shape[1] / scale)
        how = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
        luma = np.stack([cv2.resize(frame, size, interpolation=how) for frame in luma])
    top, left = (max(0, (side - 256) // 2) for side in luma.shape[1:])
    return luma[:, top : top + 256, left : left + 256]


def _at_places(luma: np.ndarray, places: list[tuple[int, int]], scale: float, any_tile: bool) -> Watermark:
    """The best of several places of the grid of blocks; any_tile: and of all places of the tile in it."""
    best = Watermark(False, 0)
    for y, x in places:
        votes = _votes(luma[:, y:, x:])
        if votes is None:
            continue
        for row in range(_TILE if any_tile else 1):
            for column in range(_TILE if any_tile else 1):
                agree = _agreeing(np.roll(votes, (row, column), (0, 1)))
                if agree > best.bits:
                    sure = agree >= (_SURE_OF_MANY if any_tile else _SURE)
                    best = Watermark(sure, agree, scale=scale, shift=(y + _BLOCK * row, x + _BLOCK * column))
    return best


def _votes(luma: np.ndarray) -> np.ndarray | None:
    """(8, 8), complex: where the blocks of each bit lie between two points of the lattice, as an angle, mean of all
    frames; None where a bit has no block."""
    blocks = _blocks(luma)
    _, rows, columns = blocks.shape[:3]
    if min(rows, columns) < _TILE - (luma.shape[1] % _BLOCK > 0):
        return None
    says = np.exp(2j * np.pi * _largest(blocks) / STEP).mean(0)  # (rows, columns)
    total = np.zeros((_TILE, _TILE), complex)
    np.add.at(total, (np.arange(rows)[:, None] % _TILE, np.arange(columns)[None] % _TILE), says)
    return total


def _agreeing(votes: np.ndarray) -> int:
    """Bits that agree. All angles may have been turned by the same amount: a codec makes the picture lighter or darker
    by a fraction of a grey level, and that is no other bit."""
    signs = 1 - 2 * _PATTERN.astype(int)  # a 0 and a 1 are opposite
    turned = (signs * votes).sum()
    return int(((votes * signs * turned.conjugate()).real > 0).sum())


def _largest(blocks: np.ndarray) -> np.ndarray:
    """The largest singular value of matrices (..., 4, 4), by powers: quicker than all of them, and equal to 1e-3."""
    square = np.swapaxes(blocks, -1, -2) @ blocks
    vector = np.ones((*blocks.shape[:-1], 1), np.float32)
    for _ in range(4):
        vector = square @ vector
        vector = vector / np.maximum(np.linalg.norm(vector, axis=-2, keepdims=True), 1e-9)
    return np.linalg.norm(blocks @ vector, axis=(-2, -1))
