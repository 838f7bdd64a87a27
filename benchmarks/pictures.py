"""The pictures of README.md, from clips that a rule draws: `make pictures`.

    python benchmarks/pictures.py --out docs/pictures --clips runs/pictures

The rule: the first held-out prompts from number 625 on, where the confirmation of docs/results/index.md begins (no
setting was chosen on them), each with the noise of its own number, 10 steps, bfloat16, as in studies/models.yaml. The
model is models/joint, the trained one on which the default changes most. Clips are kept in --clips and made once.

    moving.webp       six prompts in motion, without and with
    strip.webp        three of them as film strips
    steadiness.webp   the same three: a temporal slice along the busiest line, and maps of flicker
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from enhance_a_video import Settings
from enhance_a_video.generation import pipelines
from enhance_a_video.generation.making import generate_with
from enhance_a_video.lab import pictures
from enhance_a_video.lab.metrics import measure
from enhance_a_video.lab.study.definition import held_out_prompt

FIRST, COUNT = 625, 6  # prompts in motion
STILL = 3  # of these as still pictures
STEPS = 10
LABELS = ("without", "with odds 2")
SETTINGS = (None, Settings())
NUMBERS = ("warping_error", "temporal_flicker", "motion_smoothness", "motion")


def clips_of(model: str, folder: Path) -> dict[int, list[np.ndarray]]:
    """Prompt's number -> its clips without and with, uint8 (T, H, W, 3); made where the folder does not have them."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, list[np.ndarray]] = {}
    pipe = None
    for number in range(FIRST, FIRST + COUNT):
        path = folder / f"{Path(model).name}-{number}.npz"
        if not path.exists():
            pipe = pipe or pipelines.load(model, dtype="bfloat16")
            print(f"making {path}", file=sys.stderr)
            np.savez(path, *(generated(pipe, number, settings) for settings in SETTINGS))
        with np.load(path) as stored:
            found[number] = [stored[name] for name in stored.files]
    return found


def generated(pipe: object, number: int, settings: Settings | None) -> np.ndarray:
    return generate_with(pipe, held_out_prompt(number), settings, seed=number, steps=STEPS)[0]


def strips(clips: dict[int, list[np.ndarray]]) -> np.ndarray:
    """Film strips of the first prompts, each under its sentence."""
    parts = []
    for number in list(clips)[:STILL]:
        large = [pictures.resized(clip, 128, 128) for clip in clips[number]]
        parts.append(pictures.film_strip(large, [f"{LABELS[0]}: {held_out_prompt(number)}", LABELS[1]], count=7))
    return pictures.above(parts)


def steadiness(clips: dict[int, list[np.ndarray]]) -> np.ndarray:
    """Temporal slices and maps of flicker of the first prompts."""
    return pictures.above([pictures.steadiness_picture(clips[number], LABELS) for number in list(clips)[:STILL]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/joint")
    parser.add_argument("--clips", type=Path, default=Path("runs/pictures"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    pipelines.quiet()
    clips = clips_of(args.model, args.clips)
    fps = json.loads(Path(args.model, "defaults.json").read_text(encoding="utf-8"))["fps"]
    pictures.write_webp(
        args.out / "moving.webp", pictures.clip_grid(list(clips.values()), LABELS, columns=3, side=160), fps, force=True
    )
    for name, image in (("strip", strips(clips)), ("steadiness", steadiness(clips))):
        Image.fromarray(image).save(args.out / f"{name}.webp", quality=90, method=6)
    for number, pair in clips.items():
        before, after = (measure(clip, NUMBERS) for clip in pair)
        changes = "  ".join(f"{name} {100 * (after[name] / before[name] - 1):+.2f} %" for name in NUMBERS)
        print(f"{number}  {changes}  {held_out_prompt(number)}")


if __name__ == "__main__":
    main()
