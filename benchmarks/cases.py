"""Draws the worst, random and best pairs of a study as one picture, chosen by their score alone.

    python benchmarks/cases.py studies/models.yaml runs/models --setting "odds 2" --count 1 --out docs/results/cases.png

For each model the pairs of clips with the lowest, some with any, and the highest pooled score (as videos, ten of each,
they are in the study's report.html). They are generated again from their noise. Above without, below with the setting.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from enhance_a_video.generation import video
from enhance_a_video.lab import pictures
from enhance_a_video.lab.study import Study, analyse, read_study
from enhance_a_video.lab.study.analysis import Case
from enhance_a_video.lab.study.definition import Videos
from enhance_a_video.lab.study.run import ensure_videos

FRAMES = 7


def cases_of(study: Study, folder: Path, count: int) -> list[tuple[str, Case]]:
    """(kind, case) of the only setting of a study of one model."""
    (label,) = study.others
    found = analyse(replace(study, videos=Videos(False, (label,), count)), folder).cases[label]
    return [(kind, case) for kind, cases in found.items() for case in cases]


def strip(study: Study, folder: Path, kind: str, case: Case) -> np.ndarray:
    """One pair as two rows of frames, uint8 (H, W, 3)."""
    plain = next(t for t in study.trials() if t.item.label == study.baseline and t.pair == case.trial.pair)
    paths = ensure_videos(study, folder, {case.baseline: plain, case.clip: case.trial})
    clips = [video.read_video(paths[where])[0] for where in (case.baseline, case.clip)]
    why = "; ".join(f"{name} {before:.3g} to {after:.3g}" for name, before, after, _ in case.reasons[:2])
    labels = [
        f"{Path(case.trial.model).name}, {kind}, {case.score:+.2f} sd: {case.trial.item.prompt}",
        f"{case.trial.item.label}: {why}",
    ]
    return pictures.film_strip(clips, labels, count=FRAMES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--setting", required=True)
    parser.add_argument("--count", type=int, default=1, help="of each kind, for each model")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    whole = read_study(args.study)
    if args.setting not in whole.others:
        parser.error(f"--setting {args.setting!r}: the study has {', '.join(whole.others)}")
    whole = replace(whole, settings={label: whole.settings[label] for label in (whole.baseline, args.setting)})
    strips = []
    for model in whole.models:
        study = replace(whole, models=(model,))
        strips += [strip(study, args.folder, *one) for one in cases_of(study, args.folder, args.count)]
    width = max(one.shape[1] for one in strips)
    rows = [np.pad(one, ((0, 6), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in strips]
    image = Image.fromarray(np.concatenate(rows))
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=255).save(args.out, optimize=True)
    print(f"{args.out}: {len(strips)} pairs, {image.size[0]} x {image.size[1]}")


if __name__ == "__main__":
    main()
