"""Does it help? The embedded model without and with the method, paired by prompt and noise (docs/results.md).

    python benchmarks/paired.py --clips 200 --dtype bfloat16                  # the sweep
    python benchmarks/paired.py --first 200 --clips 200 --dtype bfloat16 --settings strength=0.7,start=0,end=0.7

Held-out prompts (scenes that training never draws), one noise each, the same for every setting. Each clip is measured
by the checker, which knows the truth, and by the no-reference measures. Finished settings are kept in --out and not
generated again. Prints Markdown: the plain model, then the change each setting makes with its 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from enhance_a_video.enhancement import Enhancement
from enhance_a_video.metrics import MEASURES, measure
from enhance_a_video.pipelines import defaults, load
from enhance_a_video.settings import Settings
from enhance_a_video.stats import interval, paired
from enhance_a_video.toy import world
from enhance_a_video.toy.checker import TRUTH_MEASURES, check
from enhance_a_video.toy.train_transformer import held_out_scene
from enhance_a_video.video import to_uint8, write_text

SWEEP = (
    "temperature=4,start=0,end=1",
    "strength=0.4,start=0,end=1",
    "strength=0.7,start=0,end=1",
    "strength=0.7,start=0,end=0.5",
    "strength=1.0,start=0,end=0.5",
    "strength=0.7,start=0,end=0.3",
    "strength=0.7,start=0,end=0.7",
    "strength=0.7,start=0.5,end=1",
)
ROWS = [(m.name, m.label, m.better) for m in (*TRUTH_MEASURES, *MEASURES.values())]


def parse(text: str) -> Settings | None:
    """'strength=0.7,end=0.5' -> Settings; 'plain' -> None."""
    if text == "plain":
        return None
    return Settings(**{key.strip(): float(value) for key, value in (part.split("=") for part in text.split(","))})


def run(pipe, text: str, options: argparse.Namespace) -> list[dict[str, float]]:
    """One row of measures for each clip; from the file of an earlier run where there is one."""
    run_of = f"{options.dtype}-s{options.steps}-c{options.guidance:g}-{options.first}+{options.clips}"
    name = f"{text.replace(',', '_')}-{run_of}.json"
    file = options.out / name
    if file.exists():
        return json.loads(file.read_text())
    settings, rows = parse(text), []
    handle = Enhancement(pipe, settings) if settings else None
    try:
        ids = range(options.first, options.first + options.clips)
        for at in track(range(0, len(ids), options.batch), description=text):
            rows += _clips(pipe, list(ids[at : at + options.batch]), options)
    finally:
        if handle:
            handle.remove()
    write_text(file, json.dumps(rows))
    return rows


def _clips(pipe, ids: list[int], options: argparse.Namespace) -> list[dict[str, float]]:
    scenes = [held_out_scene(i) for i in ids]
    prompts = [world.caption(scene, np.random.default_rng((3, i))) for i, scene in zip(ids, scenes, strict=True)]
    with torch.inference_mode():
        videos = pipe(
            prompt=prompts, generator=[torch.Generator().manual_seed(i) for i in ids], output_type="np",
            num_inference_steps=options.steps, guidance_scale=options.guidance, num_frames=world.FRAMES,
            height=world.SIZE, width=world.SIZE, **defaults(pipe).get("extra", {}),
        ).frames  # fmt: skip
    return [_measures(to_uint8(clip), scene) for clip, scene in zip(videos, scenes, strict=True)]


def _measures(clip: np.ndarray, scene: world.Scene) -> dict[str, float]:
    return check(clip, scene) | measure(clip)


def plain_table(rows: list[dict[str, float]], true_rows: list[dict[str, float]]) -> str:
    """The plain model's means with intervals beside the same measures of the world's own clips."""
    lines = ["| measure | better | the world's own clips | plain model | 95 % interval |", "|---|---|---|---|---|"]
    for name, label, better in ROWS:
        values = np.array([row[name] for row in rows])
        values = values[np.isfinite(values)]
        low, high = interval(values, method="bootstrap")
        truth = np.nanmean([row[name] for row in true_rows])
        lines.append(f"| {label} | {better} | {truth:.4g} | {values.mean():.4g} | {low:.4g} … {high:.4g} |")
    return "\n".join(lines)


def change_table(plain: list[dict[str, float]], changed: dict[str, list[dict[str, float]]]) -> str:
    """Change against plain in percent of the plain mean ± half its 95 % interval; bold where that excludes zero."""
    lines = ["| measure | better | " + " | ".join(changed) + " |", "|---" * (len(changed) + 2) + "|"]
    for name, label, better in ROWS:
        cells = []
        for rows in changed.values():
            pair = paired([r[name] for r in plain], [r[name] for r in rows], method="bootstrap")
            scale = 100 / abs(pair.before) if pair.before else float("nan")
            cell = f"{pair.difference * scale:+.1f} ± {(pair.high - pair.low) / 2 * scale:.1f}"
            cells.append(f"**{cell}**" if pair.clear else cell)
        lines.append(f"| {label} | {better} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="'embedded' or a folder of another model of this world")
    parser.add_argument("--first", type=int, default=0, help="first held-out prompt")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--dtype", default="float32", help="bfloat16 is faster on CPUs that have it")
    parser.add_argument("--settings", nargs="*", default=list(SWEEP))
    parser.add_argument("--out", type=Path, default=Path("runs/paired"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pipe = load(options.model, device="cpu", dtype=options.dtype)
    pipe.set_progress_bar_config(disable=True)
    options.steps = options.steps or defaults(pipe)["steps"]
    options.guidance = options.guidance or defaults(pipe)["guidance"]
    began = time.time()
    plain = run(pipe, "plain", options)
    changed = {text: run(pipe, text, options) for text in options.settings}
    ids = range(options.first, options.first + options.clips)
    true_rows = [_measures(world.render(scene)[0], scene) for scene in map(held_out_scene, ids)]
    print(f"Prompts {ids[0]} to {ids[-1]}, {options.steps} steps, guidance {options.guidance:g}, {options.dtype}.\n")
    print(plain_table(plain, true_rows), "\n\nChange against plain, in percent of the plain mean:\n")
    print(change_table(plain, changed))
    print(f"\n{(time.time() - began) / 60:.0f} minutes, torch {torch.__version__}, {torch.get_num_threads()} threads.")


if __name__ == "__main__":
    main()
