"""Tests whether the Fréchet distance of the embedded world's encoder ranks known damage.

    python benchmarks/frechet.py --clips 256

Real clips of the world against other real clips of it, damaged and not: the table of docs/reference/measures.md.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rich.console import Console
from rich.progress import track

from enhance_a_video.embedded.encoder import drawn_clips, features, frechet_distance
from enhance_a_video.lab.metrics.damage import DAMAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=256, help="in each of the two sets")
    parser.add_argument("--amounts", type=float, nargs="*", default=[0.1, 0.3, 1.0])
    options = parser.parse_args()
    began = time.process_time()
    real = features(drawn_clips(range(options.clips)))
    others = list(drawn_clips(range(options.clips, 2 * options.clips)))
    print(f"| damage | {' | '.join(f'{amount:g}' for amount in options.amounts)} |")
    print("|---" * (len(options.amounts) + 1) + "|")
    print(f"| none | {frechet_distance(real, features(others)):.3g} |" + " |" * (len(options.amounts) - 1))
    for name, apply in track(DAMAGES.items(), "damage", console=Console(stderr=True)):
        cells = []
        for amount in options.amounts:
            damaged = (np.rint(255 * apply(clip / 255.0, amount).clip(0, 1)).astype(np.uint8) for clip in others)
            cells.append(f"{frechet_distance(real, features(damaged)):.3g}")
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n{options.clips} clips in each set, {time.process_time() - began:.0f} s of CPU time")


if __name__ == "__main__":
    main()
