"""Finds the backdrop, the camera, a puppet and shapes in the frames of a clip of the puppet world, by colour alone.

Positions are pixels of the picture, (x, y); what is not found is NaN. Frames are 128 x 128; others are resized.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np

from ..patches import best_kind, largest_patch
from . import pose
from .backdrops import TOP, backdrop
from .paint import outline
from .world import BACKDROPS, COLOURS, KINDS, MARGIN, SIZE, ZOOM, Puppet, Scene, Thing

CHROMA = 25.0  # no backdrop is as saturated as this, in Lab; everything else is
MIDDLE = np.array([SIZE / 2, 0.62 * SIZE])  # what a zoom leaves in its place
HAND_SHARE = 0.35  # of a glove's area: less is not a hand
_NAMES = list(COLOURS)


@dataclass(frozen=True)
class Seen:
    """Everything that was found in a clip. Sides: 0 left, 1 right."""

    frames: np.ndarray = field(repr=False)  # (F, 128, 128, 3) uint8
    lab: np.ndarray = field(repr=False)  # (F, 128, 128, 3) float32
    labels: np.ndarray = field(repr=False)  # (F, 128, 128): index into COLOURS, -1 muted
    backdrop: str
    camera: np.ndarray  # (F, 2): pan and magnification
    head: np.ndarray  # (F, 3): centre and radius
    hands: np.ndarray  # (F, 2, 2)
    hand_count: np.ndarray  # (F,)
    hand_masks: np.ndarray = field(repr=False)  # (F, 2, 128, 128) bool
    things: tuple[np.ndarray, ...] = field(repr=False)  # masks (F, 128, 128) bool, as Scene.things
    held: np.ndarray = field(repr=False)  # (F, 128, 128) bool: everything in the colour of what the puppet holds


def find(frames: np.ndarray, scene: Scene) -> Seen:
    """The things of `scene`, where they are found in frames (F, H, H, 3) uint8.

    Raises:
        ValueError: frames of another shape or type, or fewer than two.
    """
    if frames.ndim != 4 or frames.shape[1] != frames.shape[2] or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"expected frames (F, H, H, 3) uint8, got {frames.shape} {frames.dtype}")
    if len(frames) < 2:
        raise ValueError("expected two frames or more: a single picture has no motion")
    if frames.shape[1] != SIZE:
        frames = np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in frames])
    lab = np.stack([cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for frame in frames])
    labels = colour_labels(lab)
    name, camera = find_camera(frames, labels < 0)
    count = len(frames)
    head, hands = np.full((count, 3), np.nan), np.full((count, 2, 2), np.nan)
    number, masks = np.zeros(count, int), np.zeros((count, 2, SIZE, SIZE), bool)
    held = np.zeros(labels.shape, bool)
    if scene.puppet:
        head = find_head(labels, _NAMES.index(scene.puppet.colour), camera[:, 1])
        others = [thing.colour for thing in scene.things] + ([scene.puppet.held[0]] if scene.puppet.held else [])
        hands, number, masks = find_hands(labels, scene.puppet, others, head)
        if scene.puppet.held:
            held = labels == _NAMES.index(scene.puppet.held[0])
    things = tuple(find_thing(labels, thing) for thing in scene.things)
    return Seen(frames, lab, labels, name, camera, head, hands, number, masks, things, held)


# --- colours -----------------------------------------------------------------------------------------------------


@cache
def _palette() -> tuple[np.ndarray, np.ndarray]:
    """Every colour lit and in the shade: Lab prototypes (P, 3), and the colour of each (P,)."""
    shades = (0.45, 0.6, 0.75, 0.9, 1.0, 1.12)
    rgb = np.array([[np.clip(np.array(c) * s, 0, 255) for s in shades] for c in COLOURS.values()], np.float32)
    return _weighted(cv2.cvtColor(rgb / 255, cv2.COLOR_RGB2LAB)).reshape(-1, 3), np.repeat(np.arange(7), len(shades))


def _weighted(lab: np.ndarray) -> np.ndarray:
    """Lightness weighted down: shade changes it, the name of a colour does not."""
    return lab * np.array([0.3, 1, 1], np.float32)


def colour_labels(lab: np.ndarray) -> np.ndarray:
    """Index into COLOURS of the colour nearest to each saturated pixel of (..., 3) Lab, -1 for the others."""
    prototypes, owner = _palette()
    saturated = np.hypot(lab[..., 1], lab[..., 2]) > CHROMA
    flat = _weighted(lab[saturated])  # (N, 3)
    square = (prototypes**2).sum(1) - 2 * flat @ prototypes.T  # (N, P)
    labels = np.full(lab.shape[:-1], -1, np.int8)
    labels[saturated] = owner[square.argmin(1)]
    return labels


# --- backdrop and camera -----------------------------------------------------------------------------------------


def find_camera(frames: np.ndarray, muted: np.ndarray) -> tuple[str, np.ndarray]:
    """The backdrop's name, and the camera (F, 2), taken to move evenly from its first place to its last."""
    middle = len(frames) // 2
    found = {name: _register(frames[middle], muted[middle], name, (1.0, 1.08)) for name in BACKDROPS}
    name = min(found, key=lambda key: found[key][0])
    zooms = np.linspace(1, ZOOM, 7)
    ends = np.array([_register(frames[t], muted[t], name, zooms)[1:] for t in (0, -1)])  # (2, 2)
    u = np.linspace(0, 1, len(frames))
    return name, np.stack([ends[0, 0] + (ends[1, 0] - ends[0, 0]) * u, ends[0, 1] * (ends[1, 1] / ends[0, 1]) ** u], 1)


def _register(frame: np.ndarray, muted: np.ndarray, name: str, zooms: Iterable[float]) -> tuple[float, float, float]:
    """How badly (mean squared error), with which pan and magnification a picture is a part of a backdrop."""
    small = cv2.resize(frame, (SIZE // 2,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32)
    mask = cv2.erode(muted.astype(np.uint8), np.ones((5, 5), np.uint8))
    mask = np.repeat(cv2.resize(mask, (SIZE // 2,) * 2, interpolation=cv2.INTER_NEAREST)[..., None], 3, 2)
    best = (np.inf, 0.0, 1.0)
    for zoom in zooms:
        picture = cv2.resize(backdrop(name, 1.0), None, fx=zoom / 2, fy=zoom / 2, interpolation=cv2.INTER_AREA)
        # The top left of the picture is here in the backdrop, but for the pan:
        x, y = ((MIDDLE * (1 - 1 / zoom) + (MARGIN, TOP)) * zoom / 2).tolist()
        rows = slice(max(round(y) - 1, 0), round(y) + 2 + SIZE // 2)
        errors = cv2.matchTemplate(picture[rows], small, cv2.TM_SQDIFF, mask=mask.astype(np.float32))
        error, _, (left, line), _ = cv2.minMaxLoc(errors)
        shift = _vertex(errors[line], left)
        error /= max(float(mask.sum()), 1.0)
        if error < best[0]:
            best = (error, (left + shift - x) * 2 / zoom, float(zoom))
    return best


def _vertex(values: np.ndarray, at: int) -> float:
    """Where the parabola through the smallest value and its neighbours is smallest, from `at`."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(v) for v in values[at - 1 : at + 2])
    return 0.5 * (before - after) / max(before - 2 * here + after, 1e-9)


def reference(seen: Seen) -> np.ndarray:
    """The backdrop as the camera should see it in each frame, (F, 128, 128, 3) float32."""
    picture, result = backdrop(seen.backdrop, 1.0), []
    for pan, zoom in seen.camera:
        corner = (np.array([-MARGIN - pan, -TOP]) - MIDDLE) * zoom + MIDDLE
        shift = np.array([[zoom, 0, corner[0]], [0, zoom, corner[1]]])
        result.append(cv2.warpAffine(picture, shift, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT))
    return np.stack(result)


def before_camera(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Points (F, 2) of the picture -> of the world, where a camera's pan and zoom move nothing."""
    return (points - MIDDLE) / camera[:, 1:] + MIDDLE + np.stack([camera[:, 0], 0 * camera[:, 0]], 1)


# --- the puppet --------------------------------------------------------------------------------------------------


def find_head(labels: np.ndarray, colour: int, zoom: np.ndarray) -> np.ndarray:
    """Centre and radius of the head of a puppet of a colour, (F, 3); NaN where there is none.

    A head is a disc of the puppet's colour that stands free but for its neck; eyes and mouth are holes in it, and what
    is in front of it, in another colour, counts half.
    """
    masks = [_without_holes(frame == colour) + 0.5 * ((frame >= 0) & (frame != colour)) for frame in labels]
    masks = [np.minimum(mask, 1).astype(np.float32) for mask in masks]
    some = range(0, len(masks), max(1, len(masks) // 4))
    radii = np.arange(10.0, 22.0, 0.75)  # at magnification 1
    fits = [np.mean([_best_disc(masks[t], r * zoom[t])[0] for t in some]) for r in radii]
    result = np.full((len(masks), 3), np.nan)
    for t, mask in enumerate(masks):
        radius = float(radii[int(np.argmax(fits))]) * zoom[t]
        fit, x, y = _best_disc(mask, radius)
        if fit > 0.4:
            result[t] = (x, y, radius)
    return result


def _best_disc(mask: np.ndarray, radius: float) -> tuple[float, float, float]:
    """How well a head of this radius fits a mask, and where: 1 at best. Of two that fit alike, the upper one."""
    fit = cv2.filter2D(mask, cv2.CV_32F, _head_kernel(round(4 * radius)), borderType=cv2.BORDER_CONSTANT)
    _, best, _, (x, y) = cv2.minMaxLoc(fit - 0.004 * np.arange(len(mask), dtype=np.float32)[:, None])
    return best + 0.004 * y, x + 0.5, y + 0.5


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """A mask with its gaps and its smaller holes filled, uint8."""
    patch = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    _, where, sizes, _ = cv2.connectedComponentsWithStats(1 - patch, connectivity=4)
    small = sizes[:, cv2.CC_STAT_AREA] < 0.12 * patch.sum()
    small[0] = False  # the patch itself
    patch[small[where]] = 1
    return patch


@cache
def _head_kernel(radius: int) -> np.ndarray:
    """A disc of `radius` quarters of pixels against a ring around it that leaves room for a neck: 1 on a free disc."""
    r = radius / 4
    half = int(1.4 * r) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    far = np.hypot(x, y)
    neck = (y > 0.5 * r) & (np.abs(x) < 0.85 * r)
    inside, around = far <= r, (far > 1.1 * r) & (far < 1.4 * r) & ~neck
    return (inside / inside.sum() - around / around.sum()).astype(np.float32)


def find_hands(
    labels: np.ndarray, puppet: Puppet, others: list[str], head: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hands are patches as large as gloves in any colour but the puppet's own and those of other things.

    Returns: centres (F, 2, 2), left and right; how many there are (F,); masks (F, 2, H, W).
    """
    count = len(labels)
    centres, number = np.full((count, 2, 2), np.nan), np.zeros(count, int)
    masks = np.zeros((count, 2, *labels.shape[1:]), bool)
    foreign = [_NAMES.index(name) for name in (puppet.colour, *others)]
    found = (labels >= 0) & ~np.isin(labels, foreign)
    for t in np.flatnonzero(np.isfinite(head[:, 0])):
        area = np.pi * (head[t, 2] * pose.HAND / pose.HEAD_RADII[0]) ** 2
        patches = [patch for patch in _patches(found[t], area) if _apart(_centre(patch), head[t])]
        number[t] = len(patches)
        patches = sorted(patches, key=np.sum)[-2:]
        places = np.array([_centre(patch) for patch in patches]).reshape(-1, 2)
        if len(patches) == 2:
            order = list(np.argsort(places[:, 0]))
        elif len(patches) == 1:
            order = [_side(places[0], centres[:t], head[t])]
            centres[t, order[0]], masks[t, order[0]] = places[0], patches[0]
            continue
        else:
            continue
        centres[t], masks[t] = places[order], np.stack(patches)[order]
    return centres, number, masks


def _apart(place: tuple[float, float], head: np.ndarray) -> bool:
    """Not a cheek or a nose."""
    return bool(np.hypot(*(place - head[:2])) > 0.8 * head[2])


def _side(place: np.ndarray, before: np.ndarray, head: np.ndarray) -> int:
    """Which hand a single one is: the one that was nearer to it last, or the one on its side of the head."""
    whole = before[np.isfinite(before).all((1, 2))]
    if len(whole):
        return int(np.linalg.norm(whole[-1] - place, axis=1).argmin())
    return int(place[0] > head[0])


def _patches(mask: np.ndarray, area: float) -> list[np.ndarray]:
    """Patches of at least HAND_SHARE of `area`; one of nearly two areas is two hands that touch."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) * mask
    count, where, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    result: list[np.ndarray] = []
    for n in range(1, count):
        size = stats[n, cv2.CC_STAT_AREA]
        if size >= HAND_SHARE * area:
            result += _halves(where == n) if size > 1.75 * area else [where == n]
    return result


def _halves(mask: np.ndarray) -> list[np.ndarray]:
    """A patch cut in two across its width."""
    ys, xs = np.nonzero(mask)
    left = np.zeros_like(mask)
    keep = xs <= np.median(xs)
    left[ys[keep], xs[keep]] = True
    return [left, mask & ~left]


def _centre(mask: np.ndarray) -> tuple[float, float]:
    ys, xs = np.nonzero(mask)
    return float(xs.mean()) + 0.5, float(ys.mean()) + 0.5


# --- shapes ------------------------------------------------------------------------------------------------------


def find_thing(labels: np.ndarray, thing: Thing) -> np.ndarray:
    """The largest patch of a shape's colour in each frame, (F, H, W) bool, its stripes and spots included."""
    return np.stack([largest(frame == _NAMES.index(thing.colour)) for frame in labels])


def largest(mask: np.ndarray, least: int = 40) -> np.ndarray:
    """The largest patch of at least `least` pixels, joined over gaps of a few pixels."""
    patch = largest_patch(mask, gap=5, edge=6)
    return patch if (patch & mask).sum() >= least else np.zeros_like(mask)


def centres(masks: np.ndarray) -> np.ndarray:
    """Middle of each mask (F, H, W), (F, 2); NaN where it is empty."""
    return np.array([_centre(mask) if mask.any() else (np.nan, np.nan) for mask in masks])


@cache
def _templates(size: int = 32) -> dict[str, np.ndarray]:
    """Each kind's silhouette about its own middle, scaled to unit area, (size, size) over [-1, 1]²."""
    result = {}
    for kind in KINDS:
        fine = np.zeros((400, 400), np.uint8)
        polygons = [outline(kind)] + ([0.45 * outline("ball") / 0.95] if kind == "ring" else [])
        cv2.fillPoly(fine, [(p * 140 + 200).round().astype(np.int32) for p in polygons], 1)
        x0, y0 = _centre(fine > 0)
        scale = np.sqrt(fine.sum())
        grid = ((np.arange(size) + 0.5) / size * 2 - 1) * scale
        x, y = np.meshgrid(grid + x0, grid + y0)
        result[kind] = cv2.remap(fine.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_AREA)
    return result


def unit_area(kind: str) -> float:
    """Area of a kind of shape with radius 1."""
    points = outline(kind)
    area = 0.5 * abs(np.dot(points[:, 0], np.roll(points[:, 1], 1)) - np.dot(points[:, 1], np.roll(points[:, 0], 1)))
    return float(area - (np.pi * 0.45**2 if kind == "ring" else 0))


def kind_of(masks: np.ndarray) -> str | None:
    """The kind whose silhouette fits masks (N, H, W) best, or None without any."""
    middles = [(x - 0.5, y - 0.5) for x, y in map(_centre, masks)]
    return best_kind(masks, middles, _templates(), reach=1.0)
