"""A checked clip, with the things several measures need computed once: luma and optical flow."""

from __future__ import annotations

import itertools
from functools import cached_property

import numpy as np

from ..errors import SettingsError

# Dense flow is estimated at a working size: DIS needs some pixels to hold on to, and 1080p gains nothing
# from all of its own.
_FLOW_SIDE = (192, 480)  # shortest side in pixels: at least, at most
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as OpenCV's grey


class Clip:
    """One video as float32 (T, H, W, 3) in [0, 1], checked.

    Args:
        frames: uint8 0..255 or floating point 0..1, shape (T, H, W, 3), RGB.

    Raises:
        SettingsError: another shape, dtype or range, or values that are not finite.
    """

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = _checked(np.asarray(frames))  # (T, H, W, 3)

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
        return self._flow(forward=True)

    @cached_property
    def backward_flow(self) -> np.ndarray:
        """Flow from each frame back to the one before, (T-1, H, W, 2)."""
        return self._flow(forward=False)

    def needs(self, frames: int, what: str) -> None:
        """Raises SettingsError when the clip is too short for a measure."""
        if len(self) < frames:
            raise SettingsError(
                f"{what} compares neighbouring frames and needs at least {frames}; the clip has {len(self)}. "
                "Generate more frames, or measure only per-frame properties such as sharpness."
            )

    def _flow(self, *, forward: bool) -> np.ndarray:
        import cv2

        _, height, width = self.luma.shape
        low, high = _FLOW_SIDE
        short = min(height, width)
        scale = max(low / short, 1.0) if short < low else min(high / short, 1.0)
        size = (max(round(width * scale), 32), max(round(height * scale), 32))
        grey = [
            cv2.resize(np.rint(255 * y).astype(np.uint8), size, interpolation=_interpolation(scale)) for y in self.luma
        ]
        estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        to_clip = np.array([width / size[0], height / size[1]], np.float32)
        flows = []
        for first, second in itertools.pairwise(grey):
            start, end = (first, second) if forward else (second, first)
            flow = estimate.calc(start, end, None)  # type: ignore[call-overload]  # (h, w, 2) at working size
            flows.append(cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * to_clip)
        return np.stack(flows)  # (T-1, H, W, 2)


def _interpolation(scale: float) -> int:
    import cv2

    return cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA


def _checked(frames: np.ndarray) -> np.ndarray:
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise SettingsError(f"A clip is an array of shape (frames, height, width, 3), RGB; this one is {frames.shape}.")
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / 255
    if not np.issubdtype(frames.dtype, np.floating):
        raise SettingsError(
            f"Frames are uint8 (0..255) or floating point (0..1); these are {frames.dtype}. Convert them."
        )
    if not np.isfinite(frames).all():
        bad = int(np.size(frames) - np.isfinite(frames).sum())
        raise SettingsError(
            f"{bad} values of the clip are NaN or infinite, so nothing can be measured. A model run in "
            "float16 often gives these: use bfloat16 or float32."
        )
    low, high = float(frames.min()), float(frames.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise SettingsError(
            f"Floating-point frames lie in 0..1; these lie in {low:.3g}..{high:.3g}. "
            "Rescale them (for -1..1: (x + 1) / 2)."
        )
    return np.clip(frames, 0, 1).astype(np.float32)
