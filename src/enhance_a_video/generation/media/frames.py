"""Frames as arrays: the one check of their shape, type and range, before they are measured or written."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import SettingsError


def float_frames(frames: Any) -> np.ndarray:
    """Frames as float32 (T, H, W, 3) in [0, 1].

    Raises:
        SettingsError: another shape, dtype or range, or values that are not finite.
    """
    frames = np.asarray(frames)
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
            f"{bad} values of the clip are NaN or infinite. A model run in "
            "float16 often gives these: use bfloat16 or float32."
        )
    low, high = float(frames.min()), float(frames.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise SettingsError(
            f"Floating-point frames lie in 0..1; these lie in {low:.3g}..{high:.3g}. "
            "Rescale them (for -1..1: (x + 1) / 2)."
        )
    return np.clip(frames, 0, 1).astype(np.float32)


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Frames as uint8 (T, H, W, 3), rounded. SettingsError for other shapes, dtypes, ranges, NaN."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[-1] == 3 and frames.size:
        return frames
    return np.rint(float_frames(frames) * 255).astype(np.uint8)
