"""Prints a contact sheet of the puppet world's clips, and how right its checker is about them.

python benchmarks/puppet_world.py --sheet docs/reference/puppet-world.jpg     # scenes 0 to 11 of those never trained on
python benchmarks/puppet_world.py --clips 200                       # two tables; about two seconds a clip on one core
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from enhance_a_video.embedded.puppet import paint, world
from enhance_a_video.embedded.puppet.checker import PUPPET_MEASURES, check
from enhance_a_video.embedded.puppet.damage import DAMAGES, found

FRAMES = (3, 14, 25)  # of each clip, in the sheet


def sheet(path: Path, size: int = 112) -> None:
    """Three frames of each of twelve clips, four clips high and three wide."""
    cells = []
    for index in range(12):
        scene = world.held_out_scene(index)
        frames = [paint.render(scene, size, slice(t, t + 1))[0][0] for t in FRAMES]
        cells.append(np.pad(np.concatenate(frames, 1), ((2, 2), (2, 2), (0, 0)), constant_values=255))
        print(f"{index + 1}. {world.caption(scene, np.random.default_rng(index))}")
    picture = np.concatenate([np.concatenate(cells[row : row + 3], 1) for row in range(0, 12, 3)])
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


def validate(clips: int) -> str:
    """Two tables: how right the checker is about held-out clips, and which measures find which planted damage."""
    rows, hits, planted = [], {name: dict.fromkeys(DAMAGES, 0) for name in DAMAGES}, dict.fromkeys(DAMAGES, 0)
    for index in track(range(clips), "checking"):
        scene = world.held_out_scene(index)
        frames, truth = paint.render(scene)
        rows.append(check(frames, scene))
        puppet = scene.puppet
        if puppet is None:
            continue
        for name, damage in DAMAGES.items():
            if name == "melt" and (puppet.texture == "plain" or puppet.action == "turn"):
                continue  # nothing to melt; nothing that is measured
            planted[name] += 1
            after = check(damage.plant(frames, truth, np.random.default_rng(index)), scene)
            for other in found(rows[-1], after):
                hits[name][other] += 1
    lines = ["| on clean clips | mean | clips |", "|---|---|---|"]
    for measure in PUPPET_MEASURES:
        values = [row[measure.name] for row in rows if np.isfinite(row[measure.name])]
        if values:
            lines.append(f"| {measure.label} ({measure.unit}) | {np.mean(values):.4g} | {len(values)} |")
    lines += ["", f"| planted | clips | {' | '.join(d.measure for d in DAMAGES.values())} |", "|---" * 6 + "|"]
    for name in DAMAGES:
        shares = " | ".join(f"{hits[name][other] / max(planted[name], 1):.2f}" for other in DAMAGES)
        lines.append(f"| {name} | {planted[name]} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="write the contact sheet there")
    parser.add_argument("--clips", type=int, default=0, help="validate the checker on so many clips")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.sheet:
        sheet(options.sheet)
    if options.clips:
        print(validate(options.clips))
    if not options.sheet and not options.clips:
        parser.error("give --sheet FILE, --clips N or both")


if __name__ == "__main__":
    main()
