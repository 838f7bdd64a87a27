"""The six backdrops of the puppet world, painted once for each size: muted, textured, wider than the picture."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from .world import BACKDROPS, MARGIN, SIZE

TOP, BOTTOM = 10, 14  # pixels of backdrop above and below the picture


@cache
def backdrop(name: str, scale: float) -> np.ndarray:
    """A backdrop as (H, W, 3) float32 in 0..255, `scale` pixels for each of the world's, from x = -MARGIN, y = -TOP."""
    height, width = round((SIZE + TOP + BOTTOM) * scale), round((SIZE + 2 * MARGIN) * scale)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x + 0.5) / scale - MARGIN, (y + 0.5) / scale - TOP
    rng = np.random.default_rng((12, list(BACKDROPS).index(name)))
    picture = _PAINTERS[name](x, y, rng).astype(np.float32)
    grain = _noise(rng, x, y, 2.2) * 2.2 + _noise(rng, x, y, 9) * 3.0  # paper
    light = 1.05 - 0.16 * (((x - 52) / 110) ** 2 + ((y - 40) / 120) ** 2)  # a lamp at the upper left
    return np.clip((picture + grain[..., None]) * light[..., None], 0, 255)


def _noise(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, cell: float) -> np.ndarray:
    """Smooth noise with bumps of about `cell` pixels, variance near 1; the same at every scale."""
    rows, columns = (int(n / cell) + 4 for n in (SIZE + TOP + BOTTOM, SIZE + 2 * MARGIN))
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    u, v = (x + MARGIN) / cell + 1, (y + TOP) / cell + 1
    return 1.5 * cv2.remap(values, u.astype(np.float32), v.astype(np.float32), cv2.INTER_CUBIC)


def _rgb(*colour: float) -> np.ndarray:
    return np.array(colour, np.float32)


def _mix(top: np.ndarray, bottom: np.ndarray, share: np.ndarray) -> np.ndarray:
    return top + (bottom - top) * np.clip(share, 0, 1)[..., None]


def _over(picture: np.ndarray, colour: np.ndarray, distance: np.ndarray, soft: float = 0.7) -> np.ndarray:
    """Lay `colour` over the picture where `distance` (pixels) is negative, its edge `soft` pixels wide."""
    alpha = np.clip(0.5 - distance / (2 * soft), 0, 1)[..., None]
    return picture * (1 - alpha) + colour * alpha


def _stage(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    fold = np.sin(2 * np.pi * x / 17 + 0.6 * np.sin(2 * np.pi * x / 51))
    curtain = _rgb(92, 68, 80) * (1 + 0.17 * fold + 0.06 * np.sin(2 * np.pi * x / 8.5 + 1))[..., None]
    curtain = curtain * (1.08 - 0.0035 * np.clip(y, 0, 100))[..., None]
    plank = np.floor((x - 64) / (10 + 0.10 * (y - 98)) + 50)
    tone = 1 + 0.07 * np.sin(plank * 12.9898)
    boards = _rgb(146, 120, 98) * (tone * (0.78 + 0.012 * (y - 98)))[..., None]
    seam = np.abs(np.mod((x - 64) / (10 + 0.10 * (y - 98)) + 50.5, 1) - 0.5) * 10 - 0.35
    boards = _over(boards, _rgb(96, 76, 62), seam, 0.4)
    picture = np.where((y > 98)[..., None], boards, curtain)
    picture = _over(picture, _rgb(66, 50, 56), np.abs(y - 98) - 0.8)
    scallop = 13 - 5 * np.abs(np.sin(np.pi * x / 22))  # a valance above, with a braid
    picture = _over(picture, _rgb(112, 84, 94) * (1 + 0.10 * np.cos(2 * np.pi * x / 22))[..., None], y - scallop)
    return _over(picture, _rgb(176, 156, 126), np.abs(y - scallop) - 0.9)


def _meadow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = _mix(_rgb(168, 190, 206), _rgb(222, 226, 218), y / 70)
    for cx, cy, r in ((18, 22, 9), (28, 20, 12), (40, 24, 8), (108, 34, 7), (117, 32, 10), (128, 35, 7)):
        picture = _over(picture, _rgb(232, 234, 234), np.hypot((x - cx), (y - cy) * 1.5) - r, 2)
    hills = (
        (58, 7, 90, 0.3, _rgb(158, 176, 162)),
        (72, 6, 70, 2.2, _rgb(138, 158, 134)),
        (88, 5, 110, 4.1, _rgb(122, 142, 114)),
    )
    for base, height, length, shift, colour in hills:
        crest = base + height * np.sin(2 * np.pi * x / length + shift)
        picture = _over(picture, colour * (1.06 - 0.004 * np.clip(y - crest, 0, 30))[..., None], crest - y)
    crest = 103 + 1.5 * np.sin(2 * np.pi * x / 60)
    blades = 2.2 * np.abs(np.sin(2 * np.pi * x / 4.3 + 2 * np.sin(x / 7)))
    picture = _over(picture, _rgb(110, 128, 100) * (0.96 + 0.004 * (y - 100))[..., None], crest - blades - y)
    for cx, cy in zip(np.linspace(-22, 150, 23), 107 + 19 * rng.random(23), strict=True):
        picture = _over(picture, _rgb(228, 226, 214), np.hypot(x - cx, y - cy) - 1.1, 0.5)
        picture = _over(picture, _rgb(196, 178, 138), np.hypot(x - cx, y - cy) - 0.45, 0.4)
    return picture


def _room(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    stripe = np.where(np.mod(x, 24) < 12, 1.0, 0.955)
    picture = _rgb(196, 194, 180) * stripe[..., None]
    row = np.floor(y / 16)
    dx, dy = np.mod(x + 12 * np.mod(row, 2), 24) - 12, np.mod(y, 16) - 8
    picture = _over(picture, _rgb(170, 174, 160), np.hypot(dx, dy * 1.1) - 2.6)  # flowers
    picture = _over(picture, _rgb(206, 198, 178), np.hypot(dx, dy) - 0.9, 0.5)
    inside = np.maximum(np.abs(x - 104) - 14, np.abs(y - 32) - 17)  # a picture on the wall
    picture = _over(
        picture,
        _rgb(150, 146, 132),
        np.hypot(*(np.clip(np.abs(d) - r, 0, 99) for d, r in ((x - 105.5, 15), (y - 34, 18)))) - 3,
        3,
    )
    picture = _over(picture, _rgb(118, 98, 80), inside - 3)
    picture = _over(picture, _mix(_rgb(206, 212, 212), _rgb(170, 182, 176), (y - 15) / 34), inside)
    picture = _over(picture, _rgb(128, 144, 136), np.maximum(inside, 38 + 6 * np.sin((x - 90) / 7) - y))
    floor = _rgb(140, 118, 104) * (0.86 + 0.008 * (y - 100))[..., None]
    rug = np.hypot((x - 64) / 60, (y - 117) / 12)
    floor = _over(floor, _rgb(126, 136, 146), 24 * (rug - 1))
    floor = _over(floor, _rgb(178, 178, 170), 24 * np.abs(rug - 0.86) - 0.9)
    picture = np.where((y > 100)[..., None], floor, picture)
    return _over(picture, _rgb(218, 212, 200), np.abs(y - 97.5) - 3.0)  # skirting board


def _beach(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = _mix(_rgb(176, 198, 208), _rgb(232, 224, 212), y / 58)
    picture = _over(picture, _rgb(246, 238, 222), np.hypot(x - 98, y - 24) - 9, 2.5)
    sea = _mix(_rgb(128, 164, 172), _rgb(112, 152, 158), (y - 58) / 34)
    sea = (
        sea
        + (
            7
            * np.sin(2 * np.pi * np.clip(y - 58, 0, None) ** 0.75 / 2.6 + 1.6 * np.sin(x / 13))
            * np.clip((y - 56) / 20, 0, 1)
        )[..., None]
    )
    picture = _over(picture, sea, 58 - y)
    hull = np.maximum(np.abs(x - 26) - 7 + (y - 57), np.abs(y - 57) - 2)  # a boat
    picture = _over(picture, _rgb(122, 98, 86), hull)
    sail = np.maximum(np.maximum(26.5 - x, y - 54), (x - 26.5) - 0.6 * (y - 40))
    picture = _over(picture, _rgb(236, 230, 218), sail)
    shore = 91 + 2.5 * np.sin(2 * np.pi * x / 74) + 0.8 * np.sin(2 * np.pi * x / 23)
    picture = _over(picture, _rgb(224, 228, 222), shore - 2.2 - y, 1)
    sand = _mix(_rgb(206, 186, 158), _rgb(214, 194, 164), (y - 92) / 36)
    picture = _over(picture, sand + 3 * np.sin(y * 1.1 + 2 * np.sin(x / 11))[..., None], shore - y, 0.8)
    for cx, cy in zip(np.linspace(-20, 148, 15), 101 + 26 * rng.random(15), strict=True):
        picture = _over(picture, _rgb(178, 160, 138), np.hypot((x - cx) / 1.5, y - cy) - 0.9, 0.5)
    return picture


def _night(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = _mix(_rgb(44, 48, 68), _rgb(84, 86, 104), y / 92)
    for cx, cy, r in zip(180 * rng.random(70) - 26, 96 * rng.random(70) - 10, 0.35 + 0.5 * rng.random(70), strict=True):
        picture = _over(picture, _rgb(216, 216, 212), np.hypot(x - cx, y - cy) - r, 0.5)
    picture = _over(picture, _rgb(112, 112, 118), np.hypot(x - 30, y - 26) - 12, 9)
    moon = np.maximum(np.hypot(x - 30, y - 26) - 10, 9 - np.hypot(x - 35, y - 23))
    picture = _over(picture, _rgb(234, 230, 214), moon, 0.7)
    far = 84 + 5 * np.sin(2 * np.pi * x / 97 + 1) + 2 * np.sin(2 * np.pi * x / 31)
    picture = _over(picture, _rgb(128, 132, 148), far - y)
    for cx, base, h in zip(np.linspace(-20, 150, 12), 90 + 6 * rng.random(12), 15 + 13 * rng.random(12), strict=True):
        tier = np.mod((base - y) / h * 3, 1)  # a fir: three tiers
        tree = np.maximum(
            np.maximum(base - h - y, y - base), np.abs(x - cx) - 0.30 * h * (1 - (base - y) / h) * (1.25 - 0.5 * tier)
        )
        picture = _over(picture, _rgb(60, 68, 74), tree, 0.6)
    snow = 96 + 2.5 * np.sin(2 * np.pi * x / 83) + 1.0 * np.sin(2 * np.pi * x / 29 + 2)
    return _over(picture, _mix(_rgb(200, 204, 214), _rgb(176, 182, 198), (y - 96) / 40), snow - y, 1)


def _wall(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = np.floor(y / 8)
    u = x / 17 + 0.5 * np.mod(row, 2)
    tone = 1 + 0.10 * np.sin(np.floor(u) * 12.9898 + row * 78.233)
    brick = _rgb(148, 116, 104) * tone[..., None]
    edge = np.minimum(np.minimum(np.mod(u, 1), 1 - np.mod(u, 1)) * 17, np.minimum(np.mod(y, 8), 8 - np.mod(y, 8)))
    brick = brick * (1 + 0.05 * np.clip(2.5 - edge, 0, 2))[..., None]
    picture = _over(_rgb(176, 166, 154) + 0 * brick, brick, 0.75 - edge, 0.5)
    ground = _rgb(150, 148, 144) * (0.84 + 0.008 * (y - 102))[..., None]
    stone = np.abs(np.mod((x - 64) / (15 + 0.2 * (y - 102)) + 40, 1) - 0.5) * 15
    ground = _over(ground, _rgb(122, 120, 118), 7.5 - stone - 0.5 + 0 * y, 0.5)
    ground = _over(ground, _rgb(122, 120, 118), np.abs(y - 113) - 0.5, 0.5)
    picture = np.where((y > 102)[..., None], ground, picture)
    return _over(picture, _rgb(92, 82, 78), np.abs(y - 102) - 0.8)


_PAINTERS = {"stage": _stage, "meadow": _meadow, "room": _room, "beach": _beach, "night": _night, "wall": _wall}
