"""Measures whether a seam shows where the windows of a long restored clip meet, by how far they overlap.

    python benchmarks/restore_long.py --clips 6

A held-out scene of the embedded world, forwards, backwards and forwards again (97 frames), gets the damage "everything"
of restore.py. What is measured is how much the error, restored minus clean, changes from frame to frame: in the frames
that two windows share (without overlap: at the cut) over that in the others. 1 = no seam; a seam is seen as a jump.
"""

from __future__ import annotations

import argparse

import numpy as np
from restore import everything

from enhance_a_video.embedded import world
from enhance_a_video.generation import pipelines
from enhance_a_video.generation.restore import Restoring, engine, restore_frames
from enhance_a_video.lab import stats
from enhance_a_video.settings import Settings


def long_clip(scene: int) -> np.ndarray:
    """(97, 64, 64, 3), 0 to 1."""
    frames = world.render(world.held_out_scene(scene))[0].astype(np.float32) / 255
    return np.concatenate([frames, frames[-2::-1], frames[1:]])


def seam(error: np.ndarray, made: engine.Plan) -> float:
    """How much the error (T, H, W, 3) changes where windows meet, over how much elsewhere."""
    change = np.abs(np.diff(error, axis=0)).mean((1, 2, 3))  # (T - 1,): to frame 1, 2, ...
    meets = np.zeros(len(change), bool)
    for before, after in zip(made.spans, made.spans[1:], strict=False):
        meets[after.first - 1 : max(before.last, after.first + 1) - 1] = True
    return float(change[meets].mean() / change[~meets].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--first", type=int, default=900, help="the first held-out scene")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.1, 0.2])
    parser.add_argument("--overlap", type=int, nargs="+", default=[0, 4, 8, 16])
    options = parser.parse_args()
    pipe = pipelines.load()
    print(f"| overlap, frames | {' | '.join(f'noise {level:g}' for level in options.noise)} |")
    print("|---" * (1 + len(options.noise)) + "|")
    for overlap in options.overlap:
        cells = []
        for level in options.noise:
            found = []
            for scene in range(options.first, options.first + options.clips):
                clean = long_clip(scene)
                source = np.clip(everything(clean, scene), 0, 1).astype(np.float32)
                how = Restoring(noise=level, settings=Settings(), overlap=overlap, even_light=False)
                frames = restore_frames(pipe, source, how).astype(np.float32) / 255
                found.append(seam(frames - clean, engine.plan(pipe, how, *source.shape[:3])))
            low, high = stats.interval(found)
            cells.append(f"{np.mean(found):.2f} ({low:.2f} … {high:.2f})")
        print(f"| {overlap} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
