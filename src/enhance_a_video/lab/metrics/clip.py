"""A checked clip, with the things several measures need computed once: luma and optical flow."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ...generation.media import float_frames

# Dense flow is estimated at a working size: DIS needs some pixels to hold on to, and 1080p gains nothing
# from all of its own.
_FLOW_SIDE = (192, 480)  # shortest side in pixels: at least, at most
_FLOW_LONG = 1920  # the longer side is not enlarged beyond this: a strip of one pixel's height would take minutes
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as OpenCV's grey


class Clip:
    """One video as float32 (T, H, W, 3) in [0, 1], checked.

    Args:
        frames: uint8 0..255 or floating point 0..1, shape (T, H, W, 3), RGB.

    Raises:
        SettingsError: another shape, dtype or range, or values that are not finite.
    """

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = float_frames(frames)  # (T, H, W, 3)

    @classmethod
    def of(cls, video: np.ndarray | Clip) -> Clip:
        """The clip itself, or the clip of an array."""
        return video if isinstance(video, Clip) else cls(video)

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def luma(self) -> np.ndarray:
        return self.frames @ _LUMA  # (T, H, W)

    @cached_property
    def forward_flow(self) -> np.ndarray:
        """Flow from each frame to the next, (T-1, H, W, 2), x then y, in pixels of the clip."""
        return np.stack([self.flow(t, t + 1) for t in range(len(self) - 1)])

    @cached_property
    def backward_flow(self) -> np.ndarray:
        """Flow from each frame back to the one before, (T-1, H, W, 2)."""
        return np.stack([self.flow(t + 1, t) for t in range(len(self) - 1)])

    def flow(self, first: int, second: int) -> np.ndarray:
        """Optical flow (OpenCV DIS) from one frame to another, (H, W, 2), x then y, in pixels of the clip."""
        import cv2

        height, width = self.frames.shape[1:3]
        small = self._grey
        estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        flow = estimate.calc(small[first], small[second], None)  # type: ignore[call-overload]  # at working size
        to_clip = np.array([width / small.shape[2], height / small.shape[1]], np.float32)
        return cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * to_clip

    @cached_property
    def _grey(self) -> np.ndarray:
        """The luma at the flow's working size, uint8 (T, h, w)."""
        import cv2

        _, height, width = self.luma.shape
        low, high = _FLOW_SIDE
        short, long = min(height, width), max(height, width)
        scale = max(min(low / short, _FLOW_LONG / long), 1.0) if short < low else min(high / short, 1.0)
        size = (max(round(width * scale), 32), max(round(height * scale), 32))
        how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        return np.stack([cv2.resize(np.rint(255 * y).astype(np.uint8), size, interpolation=how) for y in self.luma])
