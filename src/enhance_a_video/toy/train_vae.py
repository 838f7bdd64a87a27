"""Train the embedded model's VAE: the first stage of toy/train.py. Resumable: kill it and start it again."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch.nn import functional as F

from . import world
from .muon import MuonAdamW
from .recipe import VaeTraining, build_vae

Say = Callable[[str, int, int], None]  # (what is going on, steps done, steps in all)
CHECKPOINT_EVERY = 100  # steps


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


def _windows(rng: np.random.Generator, batch: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fresh clips, a random window of each: (B, 3, frames, H, W), and where their things are: (B, 1, frames, H, W)."""
    starts = rng.integers(0, world.FRAMES - frames + 1, batch)
    clips = [world.render(world.sample_scene(rng), slice(s, s + frames)) for s in starts]
    masks = torch.from_numpy(np.stack([truth.masks.any(0) for _, truth in clips])).float()[:, None]
    near = F.max_pool3d(masks, (1, 5, 5), stride=1, padding=(0, 2, 2))  # their edges too
    return to_video(np.stack([clip for clip, _ in clips])), near


def vae_loss(
    vae: AutoencoderKLWan, video: torch.Tensor, weight: torch.Tensor, recipe: VaeTraining, train_encoder: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, pixels weighted by `weight` (B, 1, F, H, W), and the plain mean squared error of the reconstruction."""
    with torch.autocast(video.device.type, dtype=torch.bfloat16):
        with torch.set_grad_enabled(train_encoder):
            latents = vae.encode(video).latent_dist.mean
        again = vae.decode(latents + recipe.noise * torch.randn_like(latents)).sample
    again = again.float()
    error = again - video
    loss = (weight * (error.square() + recipe.absolute * error.abs())).mean()
    loss = loss + recipe.size * latents.float().square().mean()
    return loss, F.mse_loss(again.detach().clamp(-1, 1), video)


def train_vae(folder: Path, recipe: VaeTraining, say: Say) -> Path:
    """Train encoder and decoder (or go on training) in `folder`; returns the path of the finished state."""
    torch.manual_seed(recipe.seed)
    return _train(folder, "vae", build_vae(), recipe, say)


def polish_decoder(folder: Path, recipe: VaeTraining, say: Say) -> Path:
    """Go on with the decoder alone: the latents stay what they are, so the transformer can be trained meanwhile."""
    vae = build_vae()
    vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["model"])
    return _train(folder, "decoder", vae, recipe, say)


def _train(folder: Path, name: str, vae: AutoencoderKLWan, recipe: VaeTraining, say: Say) -> Path:
    """The loop of both. `name`: "vae" trains everything, "decoder" only the decoder. Resumable."""
    done, resume, log = folder / f"{name}.pt", folder / f"{name}-checkpoint.pt", folder / f"{name}-log.jsonl"
    if done.exists():
        return done
    whole = name == "vae"
    steps = recipe.image_steps + recipe.steps if whole else recipe.decoder_steps
    trained, last = (vae, "decoder.conv_out") if whole else (vae.decoder, "conv_out")
    share, decay = (1.0, recipe.decay) if whole else (recipe.decoder_share, recipe.decoder_decay)
    optimiser = MuonAdamW(trained, recipe.muon_rate, recipe.adam_rate, keep=(last,))
    first, spent = 0, 0.0
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first, spent = state["step"], state.get("seconds", 0.0)
    start, losses, errors = time.time() - spent, [], []
    for step in range(first, steps):
        # Each step has its own randomness: a resumed run is the same run.
        torch.manual_seed((recipe.seed + (not whole)) * 1_000_003 + step)
        rng = np.random.default_rng((recipe.seed, step) if whole else (recipe.seed, step, 1))
        if whole:
            video, things = _windows(rng, recipe.batch, 1 if step < recipe.image_steps else recipe.frames)
        else:
            video, things = _windows(rng, recipe.decoder_batch, world.FRAMES)
        extra = 0.0 if whole and step < recipe.things_from else recipe.things
        loss, error = vae_loss(vae, video, 1 + extra * things, recipe, train_encoder=whole)
        loss.backward()
        optimiser.step(share * trapezoid(step, steps, 50, decay))
        losses.append(float(loss.detach()))
        errors.append(float(error))
        if (step + 1) % 25 == 0 or step + 1 == steps:
            psnr = 10 * math.log10(4 / max(float(np.mean(errors)), 1e-9))
            row = {"step": step + 1, "loss": float(np.mean(losses)), "psnr": psnr, "seconds": time.time() - start}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            say(f"{name} loss {row['loss']:.4f}, PSNR {psnr:.1f} dB", step + 1, steps)
            losses, errors = [], []
        if (step + 1) % CHECKPOINT_EVERY == 0:
            state = {"model": vae.state_dict(), "optimiser": optimiser.state_dict()}
            save_atomically(state | {"step": step + 1, "seconds": time.time() - start}, resume)
    save_atomically({"model": vae.state_dict(), "recipe": asdict(recipe)}, done)
    return done
