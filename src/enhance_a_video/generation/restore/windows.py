"""Long clips in overlapping windows: where they lie, how their results are blended, how clips are padded to a grid.

Pure functions of numbers and NumPy arrays. Frames are (T, H, W, 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """Frames first to last (exclusive) of a clip. first is a multiple of the model's frames in a latent frame."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


def windows(frames: int, length: int, overlap: int, step: int = 1) -> list[Window]:
    """Windows that cover a clip, each after the first overlapping the one before it.

    Args:
        frames: of the clip, at least 1. length: of a window, more than `step`; a clip that is no longer is one window.
        overlap: frames that two windows share at least, less than length. step: windows start at its multiples.
    """
    if frames <= length:
        return [Window(0, frames)]
    stride = max(step, (length - overlap) // step * step)
    final = -(-(frames - length) // step) * step  # the last one begins as late as the multiple allows
    firsts = [*range(0, final, stride), final]
    return [Window(first, min(first + length, frames)) for first in firsts]


def ramp(length: int) -> np.ndarray:
    """Weights (length,) of a new window over the old one while it is blended in: from above 0 to below 1, smooth."""
    share = (np.arange(length) + 1) / (length + 1)
    return (1 - np.cos(np.pi * share)) / 2


def blended(spans: Sequence[Window], clips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames of the whole clip, float32 (H, W, 3), one by one, from those of its windows.

    Where two windows overlap, the later one is blended in over all frames that they share. Two windows are in memory at
    a time.
    """
    kept: np.ndarray | None = None  # the end of the windows so far, from `at` on
    at = 0
    for number, (span, clip) in enumerate(zip(spans, clips, strict=True)):
        fresh = np.asarray(clip, np.float32)
        if kept is not None:
            shared = at + len(kept) - span.first
            weights = ramp(shared).astype(np.float32)[:, None, None, None]
            fresh = fresh.copy()
            fresh[:shared] = kept[len(kept) - shared :] + weights * (fresh[:shared] - kept[len(kept) - shared :])
            kept = None
        following = spans[number + 1].first if number + 1 < len(spans) else span.last
        yield from fresh[: following - span.first]
        kept, at = fresh[following - span.first :], following


def padded(frames: np.ndarray, length: int, height: int, width: int) -> np.ndarray:
    """Frames (T, H, W, 3) mirrored at their end, bottom and right to a length and size that are at least theirs."""
    return _mirrored(_mirrored(_mirrored(frames, length, 0), height, 1), width, 2)


def _mirrored(array: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Longer along an axis: there and back again without repeating the turning points, as often as it takes."""
    there = array.shape[axis]
    if size == there:
        return array
    period = max(1, 2 * (there - 1))
    index = np.arange(size) % period
    return np.take(array, np.minimum(index, period - index), axis=axis)
