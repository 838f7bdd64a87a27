"""The measures of a video: pure functions of frames, one declarative row each.

    from enhance_a_video.lab.metrics import measure, MEASURES
    measure(frames)      # frames (T, H, W, 3), uint8 or float in [0, 1] -> {"temporal_flicker": 0.98, ...}

To add a measure, add a row. `better` is "neither" where more is not better: those rows show what a gain
was paid with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ...errors import SettingsError
from ...generation.measures import Measure
from . import no_reference as _m
from .clip import Clip

__all__ = ["MEASURES", "OVERLAP", "Clip", "FrameMeasure", "chosen", "measure", "measure_pieces"]


def _mean(series: np.ndarray) -> float:
    return float(series.mean())


@dataclass(frozen=True, kw_only=True)
class FrameMeasure(Measure):
    """A measure that needs the frames alone, with how it is computed.

    series: clip -> one value for each run of `span` neighbouring frames, (T - span + 1, ...).
    pool: the series of the whole clip -> its number.
    min_frames: the shortest clip on which the number means something.
    """

    series: Callable[[Clip], np.ndarray]
    span: int = 1
    min_frames: int = 1
    pool: Callable[[np.ndarray], float] = _mean


MEASURES: dict[str, FrameMeasure] = {
    row.name: row
    for row in (
        FrameMeasure("temporal_flicker", "Steadiness (VBench)", "higher", "0..1",
                     "VBench temporal flickering, Huang et al. 2024",
                     series=_m.temporal_flicker, span=2, min_frames=2),
        FrameMeasure("warping_error", "Warping error", "lower", "1e-4", "Lai et al. 2018; OpenCV DIS flow",
                     series=_m.warping_error, span=2, min_frames=2),
        FrameMeasure("motion_smoothness", "Motion smoothness", "higher", "0..1",
                     "middle frame from its neighbours by DIS flow; the idea is VBench's, the number is not",
                     series=_m.motion_smoothness, span=3, min_frames=3),
        FrameMeasure("tone_drift", "Drift of the mean colour", "lower", "dE*ab",
                     "CIE 1976 distance of the mean colours of the first and last third",
                     series=_m.tone, span=1, min_frames=2, pool=_m.drift),
        FrameMeasure("motion", "Motion", "neither", "px/frame", "mean length of OpenCV DIS flow",
                     series=_m.motion, span=2, min_frames=2),
        FrameMeasure("dynamic_degree", "Fastest motion (top 5 %)", "neither", "%/frame",
                     "what VBench's dynamic degree thresholds, with DIS flow in place of RAFT; not VBench's number",
                     series=_m.dynamic_degree, span=2, min_frames=2),
        FrameMeasure("sharpness", "Sharpness", "neither", "1e-3",
                     "variance of the Laplacian, Pech-Pacheco et al. 2000",
                     series=_m.sharpness),
        FrameMeasure("contrast", "Contrast", "neither", "0..0.5", "RMS contrast, Peli 1990",
                     series=_m.contrast),
        FrameMeasure("saturation", "Saturation", "neither", "0..1", "HSV saturation",
                     series=_m.saturation),
    )
}  # fmt: skip

OVERLAP = max(row.span for row in MEASURES.values()) - 1  # frames that pieces of one clip have in common


def chosen(names: Iterable[str] | str | None) -> list[FrameMeasure]:
    """The rows of these names, all of them by default. Raises SettingsError for an unknown name or none at all."""
    names = list(MEASURES) if names is None else [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in list(MEASURES)]  # a name may be anything, also unhashable
    if unknown or not names:
        what = f"Unknown measure {', '.join(map(str, unknown))}" if unknown else "No measure is named"
        raise SettingsError(f"{what}. There are: {', '.join(MEASURES)}.")
    return [MEASURES[name] for name in names]


def measure(frames: np.ndarray | Clip, names: Iterable[str] | str | None = None) -> dict[str, float]:
    """Measures a clip.

    Args:
        frames: (T, H, W, 3), uint8 or floating point in [0, 1], RGB.
        names: which rows of `MEASURES`, or one of them; all by default.

    Returns:
        One number per name. Without `names`, NaN for what so short a clip cannot show.

    Raises:
        SettingsError: an unknown name; frames of another shape, dtype or range; NaN in them; a clip too short for
            a measure that was requested by name.
    """
    return measure_pieces([frames], names)


def measure_pieces(pieces: Iterable[np.ndarray | Clip], names: Iterable[str] | str | None = None) -> dict[str, float]:
    """Measures a clip that comes in pieces, so that a long one needs no more memory than a piece.

    Args:
        pieces: consecutive pieces as `measure` takes a whole clip; every piece but the first begins with the last
            `OVERLAP` frames of the one before it, and every piece but the last is longer than that.

    The numbers are those of `measure` on the whole clip. Errors as there; SettingsError too for no piece at all and for
    pieces of different sizes.
    """
    rows, total = chosen(names), 0
    parts: dict[str, list[np.ndarray]] = {row.name: [] for row in rows}
    sizes = set()
    for piece in pieces:
        clip = Clip.of(piece)
        sizes.add(clip.frames.shape[1:3])
        if len(sizes) > 1:
            raise SettingsError(f"The pieces of a clip have one size; found {sorted(sizes)} (height, width).")
        repeated = OVERLAP if total else 0
        total += len(clip) - repeated
        for row in rows:
            if len(clip) >= row.span:  # what a later piece repeats was in the series of the one before it
                parts[row.name].append(row.series(clip)[max(0, repeated - row.span + 1) :])
    if not sizes:
        raise SettingsError("There are no frames to measure.")
    short = [row for row in rows if total < row.min_frames]
    if short and names is not None:
        raise SettingsError(
            f"{short[0].label} compares frames and needs at least {short[0].min_frames}; the clip has {total}. "
            "Generate more frames, or measure only per-frame properties such as sharpness."
        )
    return {row.name: float("nan") if row in short else row.pool(np.concatenate(parts[row.name])) for row in rows}
