"""Evens the light of whole frames: brightness and white balance that waver from frame to frame.

Nothing of a model is needed for that, and no model does it as well (docs/guide/restore.md). Frames are uint8 (H, W, 3).
"""

from __future__ import annotations

from math import comb

import numpy as np

_REACH = 8  # frames to either side that a frame's light is compared with
_MOST = 1.3  # times as light or as dark: more than this is no flicker
_CUT = 0.12  # mean difference of two frames of equal light, of full scale, that is a cut


class LightMeter:
    """Measures the frames of a clip one after the other, and gives the factors that make their light even."""

    def __init__(self) -> None:
        self._means: list[np.ndarray] = []
        self._cuts: list[int] = [0]
        self._last: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        """The next frame. A cut to another shot is noticed: light is even within a shot only."""
        seen = frame[:: max(1, frame.shape[0] // 64), :: max(1, frame.shape[1] // 64)].astype(np.float32) / 255
        mean = np.maximum(frame.mean((0, 1), dtype=np.float64) / 255, 1e-3)  # (3,)
        level = seen / mean.astype(np.float32) * 0.5  # the picture without its light
        if self._last is not None and np.abs(level - self._last).mean() > _CUT:
            self._cuts.append(len(self._means))
        self._last = level
        self._means.append(mean)

    def gains(self) -> np.ndarray:
        """(T, 3): what makes each frame's mean colour that of the frames around it, by binomial weights."""
        weights = np.array([comb(2 * _REACH, one) for one in range(2 * _REACH + 1)], float) / 4**_REACH
        found = []
        for first, last in zip(self._cuts, [*self._cuts[1:], len(self._means)], strict=True):
            light = np.log(self._means[first:last])  # (t, 3)
            index = np.arange(-_REACH, len(light) + _REACH)
            period = max(1, 2 * (len(light) - 1))
            index = np.abs(index) % period
            around = light[np.minimum(index, period - index)] if len(light) > 1 else light[np.zeros_like(index)]
            even = np.stack([weights @ around[t : t + 2 * _REACH + 1] for t in range(len(light))])
            found.append(np.exp(even - light))
        return np.clip(np.concatenate(found), 1 / _MOST, _MOST)


def gains_of(frames: np.ndarray) -> np.ndarray:
    """`LightMeter.gains` of a whole clip (T, H, W, 3)."""
    meter = LightMeter()
    for frame in frames:
        meter.add(frame)
    return meter.gains()


def lit(frames: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3), uint8, multiplied by their gains (T, 3)."""
    return np.rint(np.clip(frames * gains[:, None, None].astype(np.float32), 0, 255)).astype(np.uint8)
