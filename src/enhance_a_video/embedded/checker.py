"""Measures a clip of the embedded world against its prompt: whether everything is there, and stays what it was.

The checker gets only what a viewer has: the requested scene (kinds, colours, motions, backdrop) and the frames. It
finds each thing by its colour before the known backdrop, and reads kind, texture and motion off its mask.
On clips painted by the world itself it is right almost always (a study of the embedded model prints that ceiling).
"""

from __future__ import annotations

from functools import cache, partial

import cv2
import numpy as np

from ..generation.measures import Measure
from . import motion
from .patches import best_kind, largest_patch
from .world import BACKDROPS, COLOURS, KINDS, SIZE, Scene, Thing, backdrop, outline

MIN_AREA, MAX_AREA = 24, 900  # pixels: what is smaller or larger is not a thing
FOREGROUND = 34  # largest channel difference from the backdrop that still counts as backdrop
STRIPES = 0.15  # relative brightness swing between plain (shading only) and striped things


_truth = partial(Measure, source="the embedded world's checker", needs="truth")
TRUTH_MEASURES = (
    _truth("colour_right", "requested colours present", "higher", "share"),
    _truth("kind_right", "requested objects right", "higher", "share"),
    _truth("texture_right", "requested textures right", "higher", "share"),
    _truth("motion_right", "requested motions right", "higher", "share"),
    _truth("backdrop_right", "requested backdrop right", "higher", "share"),
    _truth("attributes_right", "requested attributes right, all", "higher", "share"),
    _truth("colour_drift", "colour drift of the objects", "lower", "share of full scale"),
    _truth("area_drift", "area drift of the objects", "lower", "share of the area"),
    _truth("shape_change", "shape change from frame to frame", "lower", "1 - IoU"),
    _truth("jerk", "jerk of the objects' paths", "lower", "px/frame^3"),
    _truth("path_length", "distance the objects travel", "neither", "px/frame"),
    _truth("backdrop_error", "backdrop error", "lower", "share of full scale"),
    _truth("backdrop_flicker", "backdrop flicker", "lower", "share of full scale"),
    _truth("debris", "foreground that nothing explains", "lower", "share of the picture"),
)


def check(frames: np.ndarray, scene: Scene) -> dict[str, float]:
    """All of TRUTH_MEASURES for a clip (F, 64, 64, 3) uint8 and its scene; NaN where nothing can be measured.

    Raises ValueError for frames of another shape or type.
    """
    if frames.ndim != 4 or frames.shape[1:] != (SIZE, SIZE, 3) or frames.dtype != np.uint8:
        raise ValueError(f"expected frames (F, {SIZE}, {SIZE}, 3) uint8, got {frames.shape} {frames.dtype}")
    shown = find_backdrop(frames)
    reference = backdrop(scene.backdrop)
    foreground = find_foreground(frames, backdrop(shown))
    labels = np.where(foreground, nearest_colour(frames), -1)  # (F, H, W), -1: backdrop
    tracks = find_things(labels, scene.things)
    clear = _apart(tracks)
    rows = [_judge(track, thing, frames, clear) for track, thing in zip(tracks, scene.things, strict=True)]
    result = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key.endswith("right")}
    result["backdrop_right"] = float(shown == scene.backdrop)
    right = [row[key] for row in rows for key in row if key.endswith("right")] + [result["backdrop_right"]]
    result["attributes_right"] = float(np.nanmean(right))  # a picture has no motion
    for key in ("colour_drift", "area_drift", "shape_change", "jerk", "path_length"):
        values = [row[key] for row in rows if np.isfinite(row[key])]
        result[key] = float(np.mean(values)) if values else float("nan")
    explained = np.any(tracks, axis=0)
    result |= _backdrop_measures(frames, reference, explained, foreground)
    return {measure.name: result[measure.name] for measure in TRUTH_MEASURES}


def find_backdrop(frames: np.ndarray) -> str:
    """The backdrop nearest to the clip's median picture."""
    median = np.median(frames[::2], axis=0)
    distance = {name: np.median(np.abs(median - backdrop(name).astype(float))) for name in BACKDROPS}
    return min(distance, key=lambda name: distance[name])


def find_foreground(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Pixels that are not backdrop, (F, H, W) bool, cleaned of specks."""
    difference = np.abs(frames.astype(np.int16) - reference.astype(np.int16)).max(axis=-1)  # (F, H, W)
    mask = (difference > FOREGROUND).astype(np.uint8)
    kernel = np.ones((2, 2), np.uint8)
    return np.stack([cv2.morphologyEx(m, cv2.MORPH_OPEN, kernel) for m in mask]).astype(bool)


@cache
def _palette() -> tuple[np.ndarray, np.ndarray]:
    """Every colour lit, in shade and striped: Lab prototypes (P, 3) and the colour of each (P,)."""
    shades = (0.5, 0.62, 0.75, 0.9, 1.0, 1.12)
    rgb = np.array([[np.clip(np.array(c) * s, 0, 255) for s in shades] for c in COLOURS.values()])
    return _lab(rgb.reshape(1, -1, 3).astype(np.uint8))[0], np.repeat(np.arange(len(COLOURS)), len(shades))


def _lab(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to Lab with lightness weighted down: shading changes it, the colour's name does not."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab * np.array([0.35, 1, 1], np.float32)


def nearest_colour(frames: np.ndarray) -> np.ndarray:
    """Index into COLOURS of the colour each pixel is nearest to, (F, H, W)."""
    prototypes, owner = _palette()
    flat = _lab(frames.reshape(-1, SIZE, 3)).reshape(-1, 3)  # (F·H·W, 3)
    square = (flat**2).sum(1)[:, None] - 2 * flat @ prototypes.T + (prototypes**2).sum(1)  # (F·H·W, P)
    return owner[square.argmin(1)].reshape(frames.shape[:3])


def find_things(labels: np.ndarray, things: tuple[Thing, ...]) -> list[np.ndarray]:
    """A mask (F, H, W) for each thing: the largest patch of its colour; absent frames are empty."""
    names = list(COLOURS)
    return [np.stack([_largest(frame == names.index(thing.colour)) for frame in labels]) for thing in things]


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected patch, joined over gaps of a pixel (stripes, a thing passing in front)."""
    patch = mask & largest_patch(mask, gap=3)
    return patch if MIN_AREA <= patch.sum() <= MAX_AREA else np.zeros_like(mask)


def _apart(tracks: list[np.ndarray]) -> np.ndarray:
    """Frames (F,) in which no two things touch: only there are shape and area their own."""
    if len(tracks) < 2:
        return np.ones(len(tracks[0]), bool)
    kernel = np.ones((5, 5), np.uint8)
    grown = np.stack([cv2.dilate(mask.astype(np.uint8), kernel) for mask in tracks[0]]).astype(bool)
    return np.asarray([not frame.any() for frame in grown & tracks[1]])


def _judge(mask: np.ndarray, thing: Thing, frames: np.ndarray, clear: np.ndarray) -> dict[str, float]:
    """The attributes of one thing and their constancy, read off its mask (F, H, W)."""
    area = mask.sum(axis=(1, 2)).astype(float)  # (F,)
    seen = area > 0
    usable = seen & clear if (seen & clear).sum() >= 6 else seen
    row = {
        "colour_right": float(seen.mean() >= 0.75),
        "kind_right": float(_kind(mask[usable]) == thing.kind),
        "texture_right": float(_texture(mask[usable], frames[usable]) == thing.texture),
        "motion_right": float(_motion(mask) == thing.motion) if len(mask) > 1 else float("nan"),
    }
    centre = _centres(mask)  # (F, 2), NaN where unseen
    row["jerk"] = _mean_norm(np.diff(centre, n=3, axis=0)[_runs(usable, 4)])
    row["path_length"] = _mean_norm(np.diff(centre, axis=0)[_runs(usable, 2)])
    if usable.sum() >= 2:
        tone = np.stack([frame[m].mean(0) for frame, m in zip(frames[usable], mask[usable], strict=True)]) / 255
        row["colour_drift"] = _mean_norm(tone - tone.mean(0))
        row["area_drift"] = float(area[usable].std() / area[usable].mean())
        pairs = [_overlap(mask[t], mask[t + 1], centre[t + 1] - centre[t]) for t in np.flatnonzero(_runs(usable, 2))]
        row["shape_change"] = 1 - float(np.mean(pairs)) if pairs else float("nan")
    else:
        row |= dict.fromkeys(("colour_drift", "area_drift", "shape_change"), float("nan"))
    return row


def _mean_norm(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=-1).mean()) if len(vectors) else float("nan")


def _runs(usable: np.ndarray, length: int) -> np.ndarray:
    """Starts (F - length + 1,) bool of runs of `length` usable frames."""
    if len(usable) < length:
        return np.zeros(0, bool)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(usable, length).all(axis=1))


def _centres(mask: np.ndarray) -> np.ndarray:
    """Middle of each frame's mask, (F, 2) as (x, y); NaN where it is empty."""
    area = mask.sum(axis=(1, 2))
    yy, xx = np.mgrid[0 : mask.shape[1], 0 : mask.shape[2]]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([(mask * xx).sum((1, 2)) / area, (mask * yy).sum((1, 2)) / area], axis=1)


def _overlap(a: np.ndarray, b: np.ndarray, move: np.ndarray) -> float:
    """Intersection over union of mask `a` moved by `move` pixels (subpixel) with mask `b`."""
    shift = np.array([[1, 0, move[0]], [0, 1, move[1]]], np.float32)
    moved = cv2.warpAffine(a.astype(np.float32), shift, a.shape[::-1], flags=cv2.INTER_LINEAR)
    return float(np.minimum(moved, b).sum() / np.maximum(moved, b).sum())


@cache
def _templates(size: int = 28) -> dict[str, np.ndarray]:
    """Each kind's silhouette centred on its own middle and scaled to unit area, (size, size) over [-1.4, 1.4]²."""
    grid = (np.mgrid[0:size, 0:size] + 0.5) / size * 2.8 - 1.4
    fine = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j]
    result = {}
    for kind in KINDS:
        inside = outline(kind, fine[1], fine[0]) < 0
        middle = (fine[1][inside].mean(), fine[0][inside].mean())
        scale = np.sqrt(inside.mean() * 9)  # area in radii²; unit area after division
        result[kind] = outline(kind, grid[1] * scale + middle[0], grid[0] * scale + middle[1]) < 0
    return result


def _kind(mask: np.ndarray) -> str | None:
    """The kind whose silhouette fits best over all frames, or None without a mask."""
    return best_kind(mask, _centres(mask), _templates(), reach=1.4)


def _texture(mask: np.ndarray, frames: np.ndarray) -> str | None:
    """Striped if the brightness across the stripes' direction swings more than shading does."""
    swings = []
    kernel = np.ones((3, 3), np.uint8)
    for frame, m in zip(frames, mask, strict=True):
        core = cv2.erode(m.astype(np.uint8), kernel).astype(bool)
        if core.sum() >= 12:
            values = frame[core].max(axis=-1).astype(float)  # brightness as the strongest channel
            swings.append(values.std() / max(values.mean(), 1.0))
    if not swings:
        return None
    return "striped" if np.median(swings) > STRIPES else "plain"


def _motion(mask: np.ndarray) -> str | None:
    """Name the path of the mask's middle."""
    centre = _centres(mask)
    centre = centre[np.isfinite(centre[:, 0])]
    if len(centre) < 12:
        return None
    centre = np.stack([np.convolve(c, np.ones(3) / 3, "valid") for c in centre.T], axis=1)
    return motion.name_of(centre, least=6, circle=0.45, back=0.2, far=0.8)


def _backdrop_measures(
    frames: np.ndarray, reference: np.ndarray, explained: np.ndarray, foreground: np.ndarray
) -> dict[str, float]:
    """Error and flicker of the backdrop away from the things, and foreground that no thing explains."""
    kernel = np.ones((7, 7), np.uint8)
    near = np.stack([cv2.dilate(m.astype(np.uint8), kernel) for m in explained]).astype(bool)
    far = ~near
    error = np.abs(frames.astype(np.float32) - reference.astype(np.float32)).mean(-1) / 255
    change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean(-1) / 255
    steady = far[1:] & far[:-1]
    return {
        "backdrop_error": float(error[far].mean()) if far.any() else float("nan"),
        "backdrop_flicker": float(change[steady].mean()) if steady.any() else float("nan"),
        "debris": float((foreground & far).mean()),
    }
