"""Trains the small encoder of the embedded world whose features `encoder.py` uses for Fréchet distances.

    python -m training.train_encoder          # under four minutes on one core

It learns to find which colours, kinds, textures and motions are where in a clip, and before which backdrop, from clips
that are drawn. No damaged clip is ever shown to it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save as as_bytes
from torch.nn import functional as F

from enhance_a_video.embedded import world
from enhance_a_video.embedded.encoder import PLACED, WEIGHTS, Encoder, as_input, drawn_scene

WINDOW = 17  # frames of a clip that a training step sees
_CELL = world.SIZE // 4  # pixels
_ERR = Console(stderr=True)


def placed(thing: world.Thing) -> np.ndarray:
    """Which of PLACED a thing is, (len(PLACED),) of 0 and 1."""
    names = (thing.colour, thing.kind, thing.texture, thing.motion)
    return np.array([float(name in names) for name in PLACED], np.float32)


def cover(truth: world.Truth) -> np.ndarray:
    """Share of each cell of 16 x 16 pixels that each thing covers: (2, frames, 4, 4), zeros where there is only one."""
    count, frames = truth.masks.shape[:2]
    shares = np.zeros((2, frames, 4, 4), np.float32)
    shares[:count] = truth.masks.reshape(count, frames, 4, _CELL, 4, _CELL).mean(axis=(3, 5))
    return shares


def train(clips: int = 2000, steps: int = 2400, batch: int = 16, rate: float = 4e-3, seed: int = 0) -> Encoder:
    """A trained encoder, in evaluation mode. Deterministic in the arguments on one machine."""
    torch.manual_seed(seed)
    scenes = [world.sample_scene(np.random.default_rng((4, seed, n))) for n in range(clips)]
    videos = np.empty((clips, world.FRAMES, world.SIZE, world.SIZE, 3), np.uint8)  # 0.4 MB a clip
    covers = np.empty((clips, 2, world.FRAMES, 4, 4), np.float32)
    for n, scene in enumerate(track(scenes, "drawing", console=_ERR)):
        videos[n], truth = world.render(scene)
        covers[n] = cover(truth)
    encoder, rng = Encoder(), np.random.default_rng(seed)
    _laid_out(encoder, torch.channels_last_3d)  # a third faster
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in track(range(steps), "training", console=_ERR):
        ids, starts = rng.integers(clips, size=batch), rng.integers(world.FRAMES - WINDOW + 1, size=batch)
        seen = as_input(np.stack([videos[n, s : s + WINDOW] for n, s in zip(ids, starts, strict=True)]))
        where = np.stack([covers[n, :, s : s + WINDOW : 8] for n, s in zip(ids, starts, strict=True)])
        optimiser.zero_grad()
        loss(encoder, seen, where, [scenes[n] for n in ids]).backward()
        optimiser.step()
        schedule.step()
    _laid_out(encoder, torch.contiguous_format)
    return _scaled(encoder.eval().requires_grad_(False), videos[:256])


def _laid_out(module: Any, layout: torch.memory_format) -> None:
    module.to(memory_format=layout)


def loss(encoder: Encoder, seen: torch.Tensor, where: np.ndarray, scenes: Sequence[world.Scene]) -> torch.Tensor:
    """How wrong the encoder is about `seen` (B, 3, 17, 64, 64), in which things cover `where` (B, 2, 3, 4, 4)."""
    things = np.zeros((len(scenes), 2, len(PLACED)), np.float32)
    for row, scene in zip(things, scenes, strict=True):
        row[: len(scene.things)] = [placed(thing) for thing in scene.things]
    shares = torch.from_numpy(np.einsum("bifhw,bip->bpfhw", where, things)).clamp(max=1)
    backdrops = torch.tensor([list(world.BACKDROPS).index(scene.backdrop) for scene in scenes])
    with torch.autocast("cpu", torch.bfloat16):
        last = encoder.maps(seen)[-1]  # (B, 48, 3, 4, 4)
        found, behind = encoder.where(last).float(), encoder.backdrop(last.mean(dim=(2, 3, 4))).float()
    return 10 * F.binary_cross_entropy_with_logits(found, shares) + 0.3 * F.cross_entropy(behind, backdrops)


@torch.inference_mode()
def _scaled(encoder: Encoder, videos: np.ndarray) -> Encoder:
    """Sets `mean` and `scale` so that the features of these clips (N, F, 64, 64, 3) have mean 0 and variance 1."""
    raw = torch.cat([encoder(as_input(video[None])) for video in videos])
    encoder.mean.copy_(raw.mean(0))
    encoder.scale.copy_(raw.std(0) + 1e-3)
    return encoder


@torch.inference_mode()
def accuracy(encoder: Encoder, clips: int = 256) -> dict[str, float]:
    """Share of right answers on clips that training did not draw; of a thing where it covers most of a cell."""
    groups = {"colour": tuple(world.COLOURS), "kind": world.KINDS, "texture": world.TEXTURES,
              "motion": tuple(world.MOTIONS)}  # fmt: skip
    right: dict[str, list[bool]] = {name: [] for name in (*groups, "backdrop")}
    for number in range(clips):
        scene = drawn_scene(number)
        frames, truth = world.render(scene)
        last = encoder.maps(as_input(frames[None]))[-1]
        found, where = encoder.where(last)[0], cover(truth)[:, ::8]  # (P, 5, 4, 4) and (2, 5, 4, 4)
        behind = int(encoder.backdrop(last.mean(dim=(2, 3, 4)))[0].argmax())
        right["backdrop"].append(list(world.BACKDROPS)[behind] == scene.backdrop)
        for thing, share in zip(scene.things, where, strict=False):
            answer = found.flatten(1)[:, int(share.argmax())]  # where it covers most
            for name, words in groups.items():
                scores = answer[[PLACED.index(word) for word in words]]
                right[name].append(words[int(scores.argmax())] == getattr(thing, name))
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def save(encoder: Encoder, path: Path) -> None:
    """Writes the weights, atomically."""
    draft = path.with_suffix(".tmp")
    draft.write_bytes(as_bytes(encoder.state_dict()))
    os.replace(draft, path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=2400)
    options = parser.parse_args(argv)
    began = time.process_time()
    encoder = train(options.clips, options.steps)
    save(encoder, options.out)
    print(f"{options.out}: {time.process_time() - began:.0f} s of CPU time. Right on new clips:")
    print(", ".join(f"{name} {100 * share:.0f} %" for name, share in accuracy(encoder).items()))


if __name__ == "__main__":
    main()
