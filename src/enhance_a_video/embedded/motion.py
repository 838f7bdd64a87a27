"""The motions of shapes in both drawn worlds: the path of each, the words for it, and the name of a measured path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

FRAMES = 33  # 9 latent frames of a VAE with 4x in time
WORDS = {  # regular expressions for whatever a reader may write
    "bounce": r"bounc|hop",
    "swing": r"swing|sway|back and forth|side to side",
    "circle": r"circl|round",
    "right": r"\bright\b",
    "left": r"\bleft\b",
    "up": r"ris(e|es|ing)|\bup\b|upward",
    "down": r"sink|fall|\bdown\b|downward",
}


def path_of(thing: Any, frames: int = FRAMES) -> np.ndarray:
    """Centre of a shape in each frame, (frames, 2) as (x, y), before any camera.

    thing: has a motion, its start (x, y) and reach in pixels and its phase in radians.
    """
    u = np.linspace(0, 1, frames)
    still = np.zeros(frames)
    swing = 2 * np.pi * u + thing.phase
    dx, dy = {
        "right": (u * thing.reach, still),
        "left": (-u * thing.reach, still),
        "up": (still, -u * thing.reach),
        "down": (still, u * thing.reach),
        "bounce": (still, -thing.reach * np.abs(np.sin(np.pi * 1.5 * u + thing.phase))),
        "swing": (thing.reach * np.sin(swing), still),
        "circle": (thing.reach * np.cos(swing), thing.reach * np.sin(swing)),
    }[thing.motion]
    return np.stack([thing.start[0] + dx, thing.start[1] + dy], axis=1)


def first_word(words: Mapping[str, str], text: str) -> str | None:
    """The name whose words come first in the text; at the same place, the one listed first.

    A compound motion wins over a plain direction: "bounces up and down" holds "up" too.
    """
    found = [(match.start(), name) for name, pattern in words.items() if (match := re.search(pattern, text))]
    compound = [hit for hit in found if hit[1] in ("bounce", "swing", "circle")]
    return min(compound or found)[1] if found else None


def name_of(centre: np.ndarray, *, least: float, circle: float, back: float, far: float) -> str | None:
    """The motion whose path centre (F, 2) is; None where it hardly moves.

    Args:
        least: pixels that it has to move. circle: of the longer side of its extent, what the shorter one of a circle
            has at least. back: the share of its way that a straight path may go backwards. far: of its extent, the
            distance between its ends on a straight path.
    """
    spread, net = np.ptp(centre, axis=0), centre[-1] - centre[0]  # (x, y), pixels
    if spread.max() < least:
        return None
    if min(spread) > circle * max(spread):
        return "circle"
    axis = int(spread.argmax())
    steps = np.diff(centre[:, axis])
    backward = min(steps.clip(min=0).sum(), -steps.clip(max=0).sum())
    if backward < back * np.abs(steps).sum() and abs(net[axis]) > far * spread[axis]:
        return (("left", "right"), ("up", "down"))[axis][int(net[axis] > 0)]
    return ("swing", "bounce")[axis]
