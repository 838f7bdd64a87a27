"""Train an embedded model's VAE: the first stage of training/train.py. Resumable: kill it and start it again."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from training.codecs import CLIPS, Codec
from training.muon import MuonAdamW, has_quick_bf16
from training.recipe import VaeTraining

Report = Callable[[str, int, int], None]  # (what is going on, steps done, steps in all)
CHECKPOINT_EVERY = 100  # steps
CHECKPOINT_SECONDS = 180.0  # or so many seconds after the last one


def trapezoid(step: int, steps: int, warmup: int, decay: int) -> float:
    """Rate factor: up, level, down; level for most of the way, so that a longer run begins like a shorter one."""
    return min(1.0, (step + 1) / warmup, (steps - step) / decay)


def save_atomically(state: dict, path: Path) -> None:
    """torch.save that a kill cannot tear."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def to_video(frames: np.ndarray) -> torch.Tensor:
    """(B, F, H, W, 3) uint8 -> (B, 3, F, H, W) float in [-1, 1], the layout of AutoencoderKLWan."""
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _windows(codec: Codec, rng: np.random.Generator, batch: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of fresh clips: (B, 3, frames, H, W), and where their things are: (B, 1, frames, H, W)."""
    clips, things = codec.world.windows(rng, batch, frames)
    near = F.max_pool3d(torch.from_numpy(things)[:, None].float(), (1, 5, 5), stride=1, padding=(0, 2, 2))  # edges too
    return to_video(clips), near


def vae_loss(
    codec: Codec, vae: Any, video: torch.Tensor, weight: torch.Tensor, recipe: VaeTraining, train_encoder: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, pixels weighted by `weight` (B, 1, F, H, W), and the plain mean squared error of the reconstruction."""
    with torch.autocast(video.device.type, dtype=torch.bfloat16, enabled=video.is_cuda or has_quick_bf16()):
        with torch.set_grad_enabled(train_encoder):
            latents = codec.encode(vae, video)
        again = codec.decode(vae, latents + recipe.noise * torch.randn_like(latents))
    again = again.float()
    error = again - video
    loss = (weight * (error.square() + recipe.absolute * error.abs())).mean()
    loss = loss + recipe.size * latents.float().square().mean()
    return loss, F.mse_loss(again.detach().clamp(-1, 1), video)


@dataclass(frozen=True)
class Stage:
    """One run of the loop: what is trained, on which clips, for how long. `key` seeds its randomness."""

    name: str  # of its files
    trained: torch.nn.Module
    last: str  # its last layer, which is AdamW's
    steps: int
    clips: Callable[[int, np.random.Generator], tuple[torch.Tensor, torch.Tensor]]  # step -> video, things (_windows)
    things_from: int
    share: float  # of the rates
    decay: int
    train_encoder: bool
    key: tuple[int, ...] = ()


def train_vae(folder: Path, recipe: VaeTraining, report: Report, codec: Codec = CLIPS) -> Path:
    """Train encoder and decoder (or go on training) in `folder`; returns the path of the finished state."""
    torch.manual_seed(recipe.seed)
    vae = codec.build()

    def clips(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return _windows(codec, rng, recipe.batch, 1 if step < recipe.image_steps else recipe.frames)

    steps = recipe.image_steps + recipe.steps
    stage = Stage("vae", vae, "decoder.conv_out", steps, clips, recipe.things_from, 1.0, recipe.decay, True)
    return _train(folder, codec, vae, stage, recipe, report)


def polish_decoder(folder: Path, recipe: VaeTraining, report: Report, codec: Codec = CLIPS) -> Path:
    """Go on with the decoder alone: the latents stay what they are, so the transformer can be trained meanwhile."""
    vae = codec.build()
    vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["model"])

    def clips(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return _windows(codec, rng, recipe.decoder_batch, codec.world.frames)

    steps, share, decay = recipe.decoder_steps, recipe.decoder_share, recipe.decoder_decay
    stage = Stage("decoder", vae.decoder, "conv_out", steps, clips, 0, share, decay, False, key=(1,))
    return _train(folder, codec, vae, stage, recipe, report)


def _train(folder: Path, codec: Codec, vae: Any, stage: Stage, recipe: VaeTraining, report: Report) -> Path:
    """The loop of both. Resumable."""
    name, steps = stage.name, stage.steps
    done, resume, log = folder / f"{name}.pt", folder / f"{name}-checkpoint.pt", folder / f"{name}-log.jsonl"
    if done.exists():
        return done
    optimiser = MuonAdamW(stage.trained, recipe.muon_rate, recipe.adam_rate, keep=(stage.last,))
    first, spent = 0, 0.0
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first, spent = state["step"], state.get("seconds", 0.0)
    start, losses, errors, saved = time.time() - spent, [], [], time.time()
    for step in range(first, steps):
        # Each step has its own randomness: a resumed run is the same run.
        torch.manual_seed((recipe.seed + sum(stage.key)) * 1_000_003 + step)
        video, things = stage.clips(step, np.random.default_rng((recipe.seed, step, *stage.key)))
        extra = 0.0 if step < stage.things_from else recipe.things
        loss, error = vae_loss(codec, vae, video, 1 + extra * things, recipe, stage.train_encoder)
        loss.backward()
        optimiser.step(stage.share * trapezoid(step, steps, 50, stage.decay))
        losses.append(float(loss.detach()))
        errors.append(float(error))
        if (step + 1) % 25 == 0 or step + 1 == steps:
            psnr = 10 * math.log10(4 / max(float(np.mean(errors)), 1e-9))
            row = {"step": step + 1, "loss": float(np.mean(losses)), "psnr": psnr, "seconds": time.time() - start}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            report(f"{name} loss {row['loss']:.4f}, PSNR {psnr:.1f} dB", step + 1, steps)
            losses, errors = [], []
        if (step + 1) % CHECKPOINT_EVERY == 0 or time.time() > saved + CHECKPOINT_SECONDS:
            state = {"model": vae.state_dict(), "optimiser": optimiser.state_dict()}
            save_atomically(state | {"step": step + 1, "seconds": time.time() - start}, resume)
            saved = time.time()
    save_atomically({"model": vae.state_dict(), "recipe": asdict(recipe)}, done)
    return done
