"""Plants damage in clips of the puppet world, to test that the checker finds it: one kind for each measure.

DAMAGES["vanish"].plant(frames, truth, rng)     # found by "hands_missing", and by no other
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .paint import BACKDROP, BODY, FEET, LEFT_HAND, RIGHT_HAND, Truth
from .world import COLOURS

Plant = Callable[[np.ndarray, Truth, np.random.Generator], np.ndarray]  # frames (F, H, W, 3) uint8 -> the same, damaged


@dataclass(frozen=True)
class Damage:
    """A kind of damage and the measure that finds it, by growing by a half and by more than `least`."""

    plant: Plant
    measure: str
    least: float


def vanish(frames: np.ndarray, truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """A hand is missing in two frames: what is around it covers its place."""
    result, hand = frames.copy(), int(rng.choice((LEFT_HAND, RIGHT_HAND)))
    first = int(rng.integers(4, len(frames) - 6))
    for t in (first, first + 1):
        place = cv2.dilate((truth.labels[t] == hand).astype(np.uint8), np.ones((5, 5), np.uint8))
        others = np.isin(truth.labels[t], (LEFT_HAND, RIGHT_HAND)) & (truth.labels[t] != hand)
        place[others] = 0
        grey = np.median(frames[t][(place == 0) & (truth.labels[t] == 0)], axis=0)
        result[t][place > 0] = grey
    return result


def recolour(frames: np.ndarray, truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """A glove has a hue that nothing else in the clip has, in its middle third."""
    result, hand = frames.copy(), int(rng.choice((LEFT_HAND, RIGHT_HAND)))
    shown = [n for n in np.unique(truth.labels[0]) if n not in (BACKDROP, FEET)]
    taken = np.array([_hue(np.median(frames[0][truth.labels[0] == n], axis=0)) for n in shown])
    free = max(map(_hue, COLOURS.values()), key=lambda hue: float(np.abs(_turned(taken - hue)).min()))
    shift = free - int(taken[shown.index(hand)])
    for t in range(len(frames) // 3, 2 * len(frames) // 3):
        hsv = cv2.cvtColor(frames[t], cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + shift) % 180
        glove = truth.labels[t] == hand
        result[t][glove] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[glove]
    return result


def _hue(colour: np.ndarray | tuple[int, int, int]) -> int:
    """OpenCV's hue of an RGB colour: 0 to 179 for the whole circle."""
    return int(cv2.cvtColor(np.array([[colour]], np.uint8), cv2.COLOR_RGB2HSV)[0, 0, 0])


def _turned(hues: np.ndarray) -> np.ndarray:
    """Differences of hues, the short way round."""
    return (hues + 90) % 180 - 90


def melt(frames: np.ndarray, truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """The coat's texture flows: its pixels come from a few pixels away, from elsewhere in each frame."""
    result, size = frames.copy(), frames.shape[1]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    for t in range(len(frames)):
        flow = cv2.resize(
            rng.normal(0, 0.03 * size, (6, 6, 2)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
        )
        body = truth.labels[t] == BODY
        source = np.where(body[..., None], frames[t], np.median(frames[t][body], axis=0)).astype(np.uint8)
        moved = cv2.remap(source, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        result[t][body] = moved[body]
    return result


def flicker(frames: np.ndarray, truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """Each frame is a little lighter or darker."""
    gain = 1 + rng.normal(0, 0.04, (len(frames), 1, 1, 1))
    return np.clip(frames * gain, 0, 255).astype(np.uint8)


DAMAGES = {
    "vanish": Damage(vanish, "hands_missing", 0.01),
    "recolour": Damage(recolour, "glove_drift", 3.0),
    "melt": Damage(melt, "texture_change", 0.02),
    "flicker": Damage(flicker, "flicker", 0.004),
}


def found(clean: dict[str, float], damaged: dict[str, float]) -> set[str]:
    """The damages that the checker's measures find, compared with the clean clip."""
    hits = set()
    for name, damage in DAMAGES.items():
        before, after = clean[damage.measure], damaged[damage.measure]
        if after > 1.5 * before and after > before + damage.least:
            hits.add(name)
    return hits
