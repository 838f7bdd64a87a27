"""What can be measured on a video: pure functions of frames, one declarative row each.

    from enhance_a_video.metrics import measure, MEASURES
    measure(frames)      # frames (T, H, W, 3), uint8 or float in [0, 1] -> {"temporal_flicker": 0.98, ...}

To add a measure, add a row. `better` is "neither" where more is not better: those rows show what a gain
was paid with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import SettingsError
from . import no_reference as _m
from .clip import Clip

__all__ = ["MEASURES", "Clip", "Measure", "measure"]


@dataclass(frozen=True)
class Measure:
    """One row: what is measured, in which unit, which way is better and where the definition comes from."""

    name: str
    label: str
    better: Literal["higher", "lower", "neither"]
    unit: str
    fn: Callable[[Clip], float]
    source: str
    min_frames: int = 1


MEASURES: dict[str, Measure] = {
    row.name: row
    for row in (
        Measure("temporal_flicker", "Steadiness (VBench)", "higher", "0..1", _m.temporal_flicker,
                "VBench temporal flickering, Huang et al. 2024", 2),
        Measure("warping_error", "Warping error", "lower", "1e-4", _m.warping_error,
                "Lai et al. 2018; OpenCV DIS flow", 2),
        Measure("motion", "Motion", "neither", "px/frame", _m.motion, "mean length of OpenCV DIS flow", 2),
        Measure("sharpness", "Sharpness", "neither", "1e-3", _m.sharpness,
                "variance of the Laplacian, Pech-Pacheco et al. 2000"),
        Measure("contrast", "Contrast", "neither", "0..0.5", _m.contrast, "RMS contrast, Peli 1990"),
        Measure("saturation", "Saturation", "neither", "0..1", _m.saturation, "HSV saturation"),
    )
}  # fmt: skip


def measure(frames: np.ndarray | Clip, names: Iterable[str] | None = None) -> dict[str, float]:
    """Measures a clip.

    Args:
        frames: (T, H, W, 3), uint8 or floating point in [0, 1], RGB.
        names: which rows of `MEASURES`; all of them by default.

    Returns:
        One number per name.

    Raises:
        SettingsError: an unknown name; frames of another shape, dtype or range; NaN; one frame where two
            are needed.
    """
    names = list(MEASURES) if names is None else list(names)
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise SettingsError(f"Unknown measure {', '.join(unknown)}. There are: {', '.join(MEASURES)}.")
    clip = Clip.of(frames)
    return {name: float(MEASURES[name].fn(clip)) for name in names}
