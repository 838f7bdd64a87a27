"""Plants known damage in clean clips and prints how each measure moves: the tables of docs/reference/measures.md.

    python benchmarks/measures.py                 # the tables of docs/reference/measures.md, some minutes on a core

Two kinds of clean clips, both drawn and so without any defect: the embedded world's (64x64, the camera stands still,
things move before a fixed picture) and textures under a moving camera with a thing that moves against them (96x96).
For each damage and measure: the mean over the clips, and an arrow where nine clips in ten went that way
(and on average by more than 2 % of the standard deviation between clean clips).
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.progress import track

from enhance_a_video.embedded import world
from enhance_a_video.lab.metrics import MEASURES, measure
from enhance_a_video.lab.metrics.damage import DAMAGES

ERR = Console(stderr=True)


def world_clip(number: int) -> np.ndarray:
    """A held-out scene of the embedded world, float (33, 64, 64, 3)."""
    return world.render(world.held_out_scene(number))[0].astype(np.float32) / 255


def camera_clip(number: int, frames: int = 25, side: int = 96) -> np.ndarray:
    """A textured ground under a camera that moves steadily, and a disc with a motion of its own, float."""
    import cv2

    random = np.random.default_rng(number)
    large = 2 * side
    ground = cv2.GaussianBlur(random.random((large, large, 3)).astype(np.float32), (0, 0), random.uniform(1.5, 4))
    ground = 0.2 + 0.5 * (ground - ground.min()) / np.ptp(ground)
    start, speed = random.uniform(side * 0.4, side * 0.6, 2), random.uniform(-1, 1, 2)  # px, px per frame
    place, own = random.uniform(side * 0.35, side * 0.65, 2), random.uniform(-1, 1, 2)
    colour = tuple(float(c) for c in random.uniform(0, 1, 3))
    clip = []
    for t in range(frames):
        (x, y), (disc_x, disc_y) = start + speed * t, place + own * t
        frame = cv2.getRectSubPix(ground, (side, side), (x + side / 2, y + side / 2))
        cv2.circle(frame, (round(16 * disc_x), round(16 * disc_y)), 16 * side // 7, colour, -1, cv2.LINE_AA, 4)
        clip.append(frame)
    return np.clip(np.stack(clip), 0, 1)


def table(clip_of: Callable[[int], np.ndarray], clips: int, amounts: list[float], what: str) -> str:
    clean = [measure(clip_of(n)) for n in track(range(clips), description=what, console=ERR)]
    names = list(MEASURES)
    lines = ["| damage | amount | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    lines.append("| none | | " + " | ".join(_number(np.mean([row[name] for row in clean])) for name in names) + " |")
    for damage, apply in track(DAMAGES.items(), description=what, console=ERR):
        for amount in amounts:
            rows = [measure(apply(clip_of(n), amount)) for n in range(clips)]
            cells = [_cell([b[n] for b in clean], [a[n] for a in rows]) for n in names]
            lines.append(f"| {damage} | {amount:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(before: list[float], after: list[float]) -> str:
    change = np.subtract(after, before)
    seen = abs(change.mean()) > 0.02 * np.std(before)  # beside how much clean clips differ, not a trifle
    arrow = "↑" if (change > 0).mean() >= 0.9 else "↓" if (change < 0).mean() >= 0.9 else ""
    return f"{_number(np.mean(after))} {arrow if seen else ''}".strip()


def _number(value: float) -> str:
    return f"{value:.4f}" if 0.9 < value < 1 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16, help="clean clips of each kind")
    parser.add_argument("--amounts", type=float, nargs="*", default=[0.3, 1.0])
    options = parser.parse_args()
    began = time.time()
    for name, clip_of in (("embedded world", world_clip), ("moving camera", camera_clip)):
        print(f"\n{name}, {options.clips} clips\n\n{table(clip_of, options.clips, options.amounts, name)}")
    print(f"\n{(time.time() - began) / 60:.1f} minutes, numpy {np.__version__}, {platform.machine()}")


if __name__ == "__main__":
    main()
