"""Measures a model of the puppet world: how much of its prompts it shows, and what each setting of the method changes.

    python benchmarks/puppet_model.py runs/puppet/model --prompts 0:200                            # the model alone
    python benchmarks/puppet_model.py runs/puppet/model --prompts 0:250 --settings plain odds-2    # paired
    python benchmarks/puppet_model.py --table runs/puppet/study.jsonl                              # the tables again

Held-out prompts with a seed each, in batches on any device; every clip's measures go into a JSON file, one line a clip.
A run goes on from the clips that its file has.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import torch

from enhance_a_video import enhance
from enhance_a_video.embedded.puppet import world
from enhance_a_video.embedded.puppet.checker import PUPPET_MEASURES, check
from enhance_a_video.lab import stats

SETTINGS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "odds-1.5": {"odds": 1.5},
    "odds-1.5-exact": {"odds": 1.5, "scale": "exact"},
    "odds-2-exact": {"odds": 2.0, "scale": "exact"},
    "odds-1.2-exact-conditional": {"odds": 1.2, "scale": "exact", "passes": "conditional"},
    "odds-1.5-exact-conditional": {"odds": 1.5, "scale": "exact", "passes": "conditional"},
    "odds-2-exact-conditional": {"odds": 2.0, "scale": "exact", "passes": "conditional"},
    "odds-0.7-exact-conditional": {"odds": 0.7, "scale": "exact", "passes": "conditional"},
    "odds-2": {"odds": 2.0},
    "odds-3": {"odds": 3.0},
    "odds-5": {"odds": 5.0},
    "strength-0.3": {"strength": 0.3},
    "temperature-1": {"temperature": 1.0},
    "constant-1.1": {"policy": {"name": "constant", "gain": 1.1}},
}


def prompt(index: int) -> str:
    """Held-out prompt `index`."""
    return world.caption(world.held_out_scene(index), np.random.default_rng(index))


def load(folder: Path, device: str) -> Any:
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(str(folder), torch_dtype=torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def latents_of(pipe: Any, indices: list[int], guidance: float, steps: int) -> torch.Tensor:
    """Latents (B, C, T, h, w) of these held-out prompts, each with the seed of its number."""
    side = world.SIZE
    return pipe(
        prompt=[prompt(i) for i in indices], height=side, width=side, num_frames=world.FRAMES,
        num_inference_steps=steps, guidance_scale=guidance, max_sequence_length=64, output_type="latent",
        generator=[torch.Generator().manual_seed(i) for i in indices],
    ).frames  # fmt: skip


@torch.no_grad()
def decoded(pipe: Any, latents: torch.Tensor) -> np.ndarray:
    """Latents as WanPipeline gives them -> frames (B, F, H, W, 3) uint8."""
    view, config = (1, -1, 1, 1, 1), pipe.vae.config
    mean, std = (torch.tensor(v, device=latents.device).view(view) for v in (config.latents_mean, config.latents_std))
    clips = [pipe.vae.decode(part * std + mean).sample for part in latents.float().split(16)]
    frames = (torch.cat(clips) / 2 + 0.5).clamp(0, 1).mul(255).round().byte()
    return frames.permute(0, 2, 3, 4, 1).cpu().numpy()


def measured(job: tuple[int, np.ndarray]) -> dict[str, float]:
    index, frames = job
    cv2.setNumThreads(1)
    return check(frames, world.held_out_scene(index))


def generate(options: argparse.Namespace, known: set[tuple]) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """(row, frames, latents) of each clip that is not known, setting by setting within a batch of prompts."""
    pipe = load(options.model, options.device)
    first, last = (int(n) for n in options.prompts.split(":"))
    for guidance in options.guidance:
        for start in range(first, last, options.batch):
            indices = list(range(start, min(start + options.batch, last)))
            for name in options.settings:
                if all((i, name, guidance, options.steps) in known for i in indices):
                    continue
                began, wanted = time.time(), SETTINGS[name]
                with nullcontext() if wanted is None else enhance(pipe, **wanted):
                    latents = latents_of(pipe, indices, guidance, options.steps)
                frames = decoded(pipe, latents)
                seconds = (time.time() - began) / len(indices)
                for n, index in enumerate(indices):
                    row = {"prompt": index, "setting": name, "guidance": guidance, "steps": options.steps}
                    yield row | {"seconds": seconds}, frames[n], latents[n].half().cpu().numpy()


def write(file: TextIO, row: dict[str, Any], found: Future) -> None:
    """A clip's line."""
    file.write(json.dumps(row | found.result()) + "\n")
    file.flush()


def sheet(clips: dict[str, list[np.ndarray]], path: Path, frames: tuple[int, ...] = (2, 12, 22, 32)) -> None:
    """Frames of the first clips of each setting, a row a clip, the settings side by side."""
    rows = []
    for row in zip(*clips.values(), strict=True):
        strips = [np.pad(np.concatenate([clip[t] for t in frames], 1), ((1, 1), (4, 4), (0, 0))) for clip in row]
        rows.append(np.concatenate(strips, 1))
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def table(path: Path) -> str:
    """The measures of each setting, and their paired differences from the plain model."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = []
    for guidance, steps in sorted({(row["guidance"], row["steps"]) for row in rows}):
        here = [row for row in rows if (row["guidance"], row["steps"]) == (guidance, steps)]
        settings = list(dict.fromkeys(row["setting"] for row in here))
        of = {name: {row["prompt"]: row for row in here if row["setting"] == name} for name in settings}
        prompts = sorted(set.intersection(*(set(clips) for clips in of.values())))
        lines += ["", f"guidance {guidance}, {steps} steps, {len(prompts)} prompts", ""]
        lines += [f"| measure (better) | {' | '.join(settings)} |", "|---" * (len(settings) + 1) + "|"]
        for measure in PUPPET_MEASURES:
            values = {n: np.array([of[n][p].get(measure.name, np.nan) for p in prompts], float) for n in settings}
            if all(np.isnan(column).all() for column in values.values()):
                continue
            cells = []
            for name in settings:
                if name == "plain" or "plain" not in values:
                    cells.append(f"{np.nanmean(values[name]):.4g}")
                else:
                    pair = stats.paired(values["plain"], values[name], method="bootstrap")
                    cells.append(
                        f"{pair.difference:+.3g} ({pair.low:+.2g}…{pair.high:+.2g}){'*' if pair.clear else ''}"
                    )
            lines.append(f"| {measure.label} ({measure.better}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", default="0:200", help="FIRST:LAST of the held-out scenes")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["plain"])
    parser.add_argument("--guidance", type=float, nargs="+", default=[4.0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1), help="that check clips")
    parser.add_argument("--out", type=Path, default=Path("runs/puppet/study.jsonl"))
    parser.add_argument("--latents", type=Path, help="a folder: keep each setting's latents, one file each")
    parser.add_argument("--sheet", type=Path, help="a picture of the first twelve prompts")
    parser.add_argument("--table", type=Path, help="print the tables of this file; nothing is generated")
    options = parser.parse_args()
    if options.table or not options.model:
        print(table(options.table or options.out))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {(row["prompt"], row["setting"], row["guidance"], row["steps"]) for row in rows}
    shown: dict[str, list[np.ndarray]] = {}
    kept: dict[str, dict[str, np.ndarray]] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=spawn) as pool, options.out.open("a") as file:
        waiting: deque[tuple[dict[str, Any], Future]] = deque()
        for row, frames, latents in generate(options, known):
            waiting.append((row, pool.submit(measured, (row["prompt"], frames))))
            while waiting and waiting[0][1].done():  # as they come: a run that is stopped keeps its clips
                write(file, *waiting.popleft())
            column = f"{row['setting']} {row['guidance']:g}"
            if len(shown.setdefault(column, [])) < 12:
                shown[column].append(frames)
            kept.setdefault(column.replace(" ", "-guidance-"), {})[str(row["prompt"])] = latents
        for row, found in waiting:
            write(file, row, found)
    if options.sheet and shown:
        sheet(shown, options.sheet)
    if options.latents:
        options.latents.mkdir(parents=True, exist_ok=True)
        for name, clips in kept.items():
            np.savez(options.latents / f"{name}.npz", **clips)
    print(table(options.out))


if __name__ == "__main__":
    main()
