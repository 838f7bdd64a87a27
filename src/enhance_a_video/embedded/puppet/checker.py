"""Measures a clip of the puppet world against its prompt: whether everything is there, and stays what it was.

    check(frames, parse_caption(prompt))       # {"hands_present": 1.0, "glove_drift": 1.2, ...}

The checker is given the requested scene and the frames, and finds everything by colour (`finding.py`). On the world's
own clips it is right almost always, and each planted damage is found by its own measure (tests/test_puppet_checker.py).
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np

from ...generation.measures import Measure
from .. import motion
from . import pose
from .finding import Seen, before_camera, centres, find, kind_of, reference, unit_area
from .world import COLOURS, HEIGHTS, SIZE, Puppet, Scene, Thing

_RADIUS = pose.HEAD_RADII[0]  # of a head, in puppet heights
_NAMES = list(COLOURS)
PALE = 70.0  # lightness in Lab: stripes and spots are lighter than this, a shade of a colour is not

_truth = partial(Measure, source="the puppet world's checker", needs="truth")
PUPPET_MEASURES = (
    _truth("puppet_right", "requested puppet present", "higher", "share"),
    _truth("action_right", "requested action right", "higher", "share"),
    _truth("gloves_right", "requested gloves right", "higher", "share"),
    _truth("held_right", "what it holds right", "higher", "share"),
    _truth("colour_right", "requested shapes present", "higher", "share"),
    _truth("kind_right", "requested kinds of shape right", "higher", "share"),
    _truth("motion_right", "requested motions of shapes right", "higher", "share"),
    _truth("size_right", "requested sizes right", "higher", "share"),
    _truth("texture_right", "requested textures right", "higher", "share"),
    _truth("backdrop_right", "requested backdrop right", "higher", "share"),
    _truth("camera_right", "requested camera right", "higher", "share"),
    _truth("attributes_right", "requested attributes right, all", "higher", "share"),
    _truth("hands_present", "frames with both hands", "higher", "share"),
    _truth("hands_missing", "hands missing", "lower", "share of hands and frames"),
    _truth("hands_extra", "hands too many", "lower", "a frame"),
    _truth("glove_drift", "drift of the gloves' hue", "lower", "degrees"),
    _truth("arm_stretch", "hands out of their arms' reach", "lower", "share of hands and frames"),
    _truth("hand_jerk", "jerk of the hands", "lower", "head radii/frame^3"),
    _truth("texture_change", "change of the texture", "lower", "share of its brightness"),
    _truth("flicker", "flicker of the light", "lower", "share of full scale"),
    _truth("path_length", "distance the hands travel", "neither", "head radii/frame"),
)


def check(frames: np.ndarray, scene: Scene) -> dict[str, float]:
    """All of PUPPET_MEASURES for a clip and its requested `scene`; NaN where nothing can be measured.

    Args:
        frames: (F, H, H, 3) uint8, two or more.
        scene: from `world.parse_caption` or `world.sample_scene`.

    Raises:
        ValueError: frames of another shape or type.
    """
    seen = find(frames, scene)
    right: dict[str, list[float]] = {"backdrop_right": [float(seen.backdrop == scene.backdrop)]}
    right["camera_right"] = [float(camera_of(seen) == scene.camera)]
    if scene.puppet:
        for name, value in _puppet_attributes(seen, scene.puppet).items():
            right.setdefault(name, []).append(value)
    for thing, mask in zip(scene.things, seen.things, strict=True):
        for name, value in _thing_attributes(seen, thing, mask).items():
            right.setdefault(name, []).append(value)
    result = {name: float(np.mean(values)) for name, values in right.items()}
    result["attributes_right"] = float(np.mean([value for values in right.values() for value in values]))
    if scene.puppet:
        result |= _hand_measures(seen)
    result["texture_change"] = texture_change(seen, scene)
    result["flicker"] = flicker(seen)
    return {measure.name: result.get(measure.name, float("nan")) for measure in PUPPET_MEASURES}


# --- what was requested ------------------------------------------------------------------------------------------


def camera_of(seen: Seen) -> str:
    """Which of CAMERAS the camera does."""
    (first, before), (last, after) = seen.camera[0], seen.camera[-1]
    if abs(np.log(after / before)) > 0.07:
        return "zoom in" if after > before else "zoom out"
    if abs(last - first) > 8:
        return "pan right" if last > first else "pan left"
    return "still"


def _puppet_attributes(seen: Seen, puppet: Puppet) -> dict[str, float]:
    """1 or 0 for each of a puppet's requested attributes."""
    there = np.isfinite(seen.head[:, 0])
    if there.mean() < 0.75:
        names = ("puppet_right", "action_right", "gloves_right", "size_right", "texture_right")
        return dict.fromkeys(names + (("held_right",) if puppet.held else ()), 0.0)
    height = float(np.median(seen.head[there, 2] / seen.camera[there, 1])) / _RADIUS
    between = (HEIGHTS["small"][1] + HEIGHTS["large"][0]) / 2
    action, side = action_of(seen)
    side_of_prompt = puppet.side if puppet.action in ("wave", "walk") else None
    result = {
        "puppet_right": 1.0,
        "action_right": float((action, side) == (puppet.action, side_of_prompt)),
        "gloves_right": float(glove_colours(seen) == puppet.gloves),
        "size_right": float(("small" if height < between else "large") == puppet.size),
        "texture_right": float(_coat_texture(seen, puppet) == puppet.texture),
    }
    if puppet.held:
        result["held_right"] = float(_holds(seen, puppet))
    return result


def glove_colours(seen: Seen) -> tuple[str | None, str | None]:
    """The commonest colour of the left and of the right hand's pixels over the clip."""
    result: list[str | None] = []
    for side in (0, 1):
        values = seen.labels[seen.hand_masks[:, side]]
        result.append(_NAMES[int(np.bincount(values).argmax())] if len(values) else None)
    return result[0], result[1]


def _relative(seen: Seen) -> np.ndarray:
    """The hands from the head's centre, in head radii: (F, 2, 2); gaps filled in between."""
    places = (seen.hands - seen.head[:, None, :2]) / seen.head[:, None, 2:]
    return np.stack([np.stack([_filled(places[:, n, d]) for d in (0, 1)], 1) for n in (0, 1)], 1)


def _filled(values: np.ndarray) -> np.ndarray:
    """(F,) with NaN replaced by what lies between its neighbours; zeros where all is NaN."""
    known = np.isfinite(values)
    if not known.any():
        return np.zeros_like(values)
    at = np.arange(len(values))
    return np.asarray(np.interp(at, at[known], values[known]))


def action_of(seen: Seen) -> tuple[str | None, str | None]:
    """What the puppet does, and on which side: read off the paths of its hands and of its head."""
    if not np.isfinite(seen.hands).all((1, 2)).sum() >= 4:
        return None, None
    stands = before_camera(seen.head[:, :2], seen.camera)[:, 0] / np.nanmedian(seen.head[:, 2] / seen.camera[:, 1])
    stands = _filled(stands)
    if abs(stands[-1] - stands[0]) > 0.9:
        return "walk", "right" if stands[-1] > stands[0] else "left"
    hands = _relative(seen)  # (F, 2, 2)
    up = np.median(hands[:, :, 1], axis=0)  # (2,)
    if up.min() < 0.8:  # above the shoulders
        return "wave", ("left", "right")[int(up.argmin())]
    middle, gap = hands[:, :, 0].mean(1), hands[:, 1, 0] - hands[:, 0, 0]
    if np.ptp(middle) > 0.9:
        return "turn", None
    low = hands[:, 1, 1] - hands[:, 0, 1]
    if np.ptp(gap) < 0.75:
        return ("juggle", None) if np.ptp(low) > 0.25 else (None, None)
    smooth = np.convolve(gap, np.ones(3) / 3, "same")[1:-1]
    middle_gap = (smooth.max() + smooth.min()) / 2
    crossings = int((np.diff(np.sign(smooth - middle_gap)) != 0).sum())
    nearest = np.percentile(gap, 10)
    return ("pass" if nearest > 0.87 or crossings <= 3 else "clap"), None


def _coat_texture(seen: Seen, puppet: Puppet) -> str | None:
    """The texture of a puppet's body between neck and hem."""
    patches = [p for p in (_coat(seen, t, 40) for t in range(0, len(seen.frames), 2)) if p is not None]
    return _texture(np.stack(patches)) if patches else None


def _coat(seen: Seen, t: int, size: int, margin: int = 0) -> np.ndarray | None:
    """A puppet's belly in frame t: (size, size, 3) Lab, as wide as half its head; more by `margin` on every side."""
    x, y, radius = seen.head[t]
    if not np.isfinite(x):
        return None
    return _patch(seen.lab[t], x, y + 2.5 * radius, 0.46 * radius, 0.28 * radius, size, margin)


def _patch(lab: np.ndarray, x: float, y: float, rx: float, ry: float, size: int, margin: int = 0) -> np.ndarray:
    """The part of a picture about (x, y), `size` samples wide and high, and `margin` more on every side."""
    grid = (np.arange(-margin, size + margin) + 0.5) / size * 2 - 1
    u, v = np.meshgrid(grid * rx + x - 0.5, grid * ry + y - 0.5)
    return cv2.remap(lab, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _texture(patches: np.ndarray) -> str:
    """Plain, striped or spotted: how much of (N, S, S, 3) Lab is pale, and whether whole rows are."""
    chroma = np.hypot(patches[..., 1], patches[..., 2])
    pale = (chroma < 0.62 * np.percentile(chroma, 90)) & (patches[..., 0] > PALE)
    if pale.mean() < 0.10:
        return "plain"
    rows = pale.mean(2)  # (N, S)
    return "striped" if np.mean(rows.var(1) / (pale.var((1, 2)) + 1e-9)) > 0.5 else "spotted"


def _holds(seen: Seen, puppet: Puppet) -> bool:
    """What it holds is there in the requested colour: three balls (two may cover each other) or one of its kind."""
    assert puppet.held is not None
    radius = 0.062 if puppet.action == "juggle" else 0.085
    found, masks = [], []
    for mask, head in zip(seen.held, seen.head, strict=True):
        area = unit_area(puppet.held[1]) * (radius * head[2] / _RADIUS) ** 2
        count, where, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        sizes = stats[1:, cv2.CC_STAT_AREA]
        found.append(int((sizes > 0.3 * area).sum()) if np.isfinite(area) else 0)
        if count > 1:
            masks.append(where == 1 + int(sizes.argmax()))
    if puppet.action == "juggle":
        return 2 <= float(np.median(found)) <= 3
    return float(np.mean(np.array(found) == 1)) >= 0.75 and kind_of(np.stack(masks)) == puppet.held[1]


def _thing_attributes(seen: Seen, thing: Thing, mask: np.ndarray) -> dict[str, float]:
    """1 or 0 for each of a shape's requested attributes."""
    area = mask.sum((1, 2)).astype(float)
    there = area > 0
    if there.mean() < 0.3:
        return dict.fromkeys(("colour_right", "kind_right", "motion_right", "size_right", "texture_right"), 0.0)
    full = area / seen.camera[:, 1] ** 2
    whole = there & (full > 0.85 * np.percentile(full[there], 75))  # frames in which nothing hides it
    radius = np.sqrt(np.median(full[whole]) / unit_area(thing.kind))
    path = before_camera(centres(mask), seen.camera)
    path[~whole] = np.nan
    return {
        "colour_right": 1.0,
        "kind_right": float(kind_of(mask[whole]) == thing.kind),
        "motion_right": float(motion_of(path) == thing.motion),
        "size_right": float(("small" if radius < 10.5 else "large") == thing.size),
        "texture_right": float(_thing_texture(seen, mask, whole) == thing.texture),
    }


def _thing_texture(seen: Seen, mask: np.ndarray, whole: np.ndarray) -> str | None:
    """The texture within a shape's masks."""
    pale, rows = [], []
    for t in np.flatnonzero(whole)[::2]:
        chroma = np.hypot(seen.lab[t, ..., 1], seen.lab[t, ..., 2])
        inside = cv2.erode(mask[t].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if inside.sum() < 20:
            continue
        light = (chroma < 0.62 * np.percentile(chroma[inside], 85)) & (seen.lab[t, ..., 0] > PALE) & inside
        pale.append(light.sum() / inside.sum())
        used = inside.sum(1) >= 4
        share = light.sum(1)[used] / inside.sum(1)[used]
        rows.append(share.var() / max(pale[-1] * (1 - pale[-1]), 1e-6))
    if not pale:
        return None
    if np.mean(pale) < 0.08:
        return "plain"
    return "striped" if np.mean(rows) > 0.42 else "spotted"


def motion_of(path: np.ndarray) -> str | None:
    """Which of MOTIONS a path (F, 2) is; NaN where it is not known."""
    known = np.isfinite(path[:, 0])
    if known.sum() < 8:
        return None
    centre = np.stack([_filled(path[:, d]) for d in (0, 1)], 1)
    centre = centre[np.flatnonzero(known)[0] : np.flatnonzero(known)[-1] + 1]
    return motion.name_of(centre, least=8, circle=0.4, back=0.15, far=0.7)


# --- whether it stayed what it was -----------------------------------------------------------------------------


def _hand_measures(seen: Seen) -> dict[str, float]:
    """How many hands there are, what colour they keep, and how they move."""
    there = np.isfinite(seen.head[:, 0])
    if not there.any():
        return {"hands_present": 0.0, "hands_missing": 1.0}
    number = np.where(there, seen.hand_count, 0)
    result = {
        "hands_present": float((number >= 2).mean()),
        "hands_missing": float((2 - number.clip(max=2)).mean() / 2),
        "hands_extra": float((number - 2).clip(min=0).mean()),
        "glove_drift": glove_drift(seen),
        "arm_stretch": arm_stretch(seen),
    }
    known = np.isfinite(seen.hands).all((1, 2)) & there
    places = (seen.hands - seen.head[:, None, :2]) / seen.head[:, None, 2:]  # (F, 2, 2)
    for name, order in (("hand_jerk", 3), ("path_length", 1)):
        runs = np.lib.stride_tricks.sliding_window_view(known, order + 1).all(1) if len(known) > order else known[:0]
        steps = np.linalg.norm(np.diff(places, n=order, axis=0), axis=-1)[runs]
        result[name] = float(steps.mean()) if len(steps) else float("nan")
    return result


def glove_drift(seen: Seen) -> float:
    """How far each hand's hue is from what it is over the clip, on average: degrees on the circle of hues in Lab."""
    drifts = []
    for side in (0, 1):
        angles = []
        for lab, mask in zip(seen.lab, seen.hand_masks[:, side], strict=True):
            if mask.any():
                a, b = np.median(lab[mask][:, 1:], axis=0)
                angles.append(np.arctan2(b, a))
        if angles:
            usual = np.arctan2(np.median(np.sin(angles)), np.median(np.cos(angles)))
            drifts.append(np.abs(np.angle(np.exp(1j * (np.array(angles) - usual)))).mean())
    return float(np.degrees(np.mean(drifts))) if drifts else float("nan")


def arm_stretch(seen: Seen) -> float:
    """Share of the hands that are found farther from their shoulder than an arm is long (and a tenth more)."""
    radius = seen.head[:, 2:] / _RADIUS  # (F, 1): pixels of a puppet height
    shares = []
    for n, side in enumerate((-1.0, 1.0)):
        shoulder = seen.head[:, :2] + radius * (pose.SHOULDER * (side, 1) - pose.HEAD)
        far = np.linalg.norm(seen.hands[:, n] - shoulder, axis=1) / radius[:, 0]
        far = far[np.isfinite(far)]
        shares.append(float((far > 1.1 * pose.REACH + 0.03).mean()) if len(far) else np.nan)
    return float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")


def texture_change(seen: Seen, scene: Scene) -> float:
    """How much a coat's or a shape's texture changes from each frame to the next but one, moved to fit.

    The change of brightness (root mean square) over its mean, so that a change of the light does not count. NaN for a
    puppet that turns: it shows another side. Rings, which show the backdrop, are left out.
    """
    pairs: list[float] = []
    size, margin = 20, 3
    times = range(len(seen.frames))
    if scene.puppet and scene.puppet.action != "turn":
        coats = [(_coat(seen, t, size), _coat(seen, t, size, margin)) for t in times]
        pairs += [
            _unlike(a, b) for (a, _), (_, b) in zip(coats, coats[2:], strict=False) if a is not None and b is not None
        ]
    for thing, mask in zip(scene.things, seen.things, strict=True):
        if thing.kind == "ring" or not mask.any():
            continue
        area = mask.sum((1, 2))
        usual, places = np.median(area[area > 0]), centres(mask)
        whole = area > 0.85 * usual
        r = 0.5 * np.sqrt(usual / np.pi)
        for a, b in zip(times, times[2:], strict=False):
            if whole[a] and whole[b]:
                one = _patch(seen.lab[a], places[a, 0], places[a, 1], r, r, size)
                pairs.append(_unlike(one, _patch(seen.lab[b], places[b, 0], places[b, 1], r, r, size, margin)))
    return float(np.mean(pairs)) if pairs else float("nan")


def _unlike(patch: np.ndarray, wider: np.ndarray) -> float:
    """The difference in brightness of a patch (S, S, 3) Lab and the part of a wider one that is most like it."""
    one, two = (p[..., 0] / max(float(p[..., 0].mean()), 1.0) for p in (patch, wider))
    return float(np.sqrt(max(cv2.matchTemplate(two, one, cv2.TM_SQDIFF).min(), 0) / one.size))


def flicker(seen: Seen) -> float:
    """How much the light on the backdrop changes from frame to frame, beyond what the camera explains."""
    lightness = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in seen.frames]).astype(np.float32)
    expected = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in reference(seen)])
    kernel = np.ones((13, 13), np.uint8)
    free = np.stack([cv2.dilate((label >= 0).astype(np.uint8), kernel) == 0 for label in seen.labels])
    error = np.where(free, lightness - expected, np.nan)
    cells = error.reshape(len(error), 4, SIZE // 4, 4, SIZE // 4).transpose(0, 1, 3, 2, 4).reshape(len(error), 16, -1)
    full = np.isfinite(cells).mean(2) > 0.25
    with np.errstate(all="ignore"):
        level = np.array(
            [
                [np.nanmedian(c) if ok else np.nan for c, ok in zip(*row, strict=True)]
                for row in zip(cells, full, strict=True)
            ]
        )
    steps = np.abs(np.diff(level, axis=0))
    return float(np.nanmean(steps)) / 255 if np.isfinite(steps).any() else float("nan")
