"""Train the embedded model's transformer and text encoder on encoded clips: the last stages of toy/train.py."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import world
from .muon import MuonAdamW
from .recipe import Training, build_tokenizer, build_trained, build_vae, embed
from .train_vae import Say, save_atomically, to_video, trapezoid

NOT_HIDDEN = ("patch_embedding", "proj_out", "scale_shift_table", "shared", "embed_tokens", "relative_attention_bias")


def encode_clips(folder: Path, recipe: Training, say: Say, chunk: int = 16) -> Path:
    """Draw and encode the training clips once; resumable. Saves latents (N, C, 9, 8, 8) fp16 and their statistics."""
    done, part = folder / "latents.pt", folder / "latents-part.npy"
    if done.exists():
        return done
    vae = build_vae()
    vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["model"])
    vae.eval().requires_grad_(False)
    shape = (recipe.clips, vae.config.z_dim, (world.FRAMES - 1) // 4 + 1, world.SIZE // 8, world.SIZE // 8)
    latents = np.lib.format.open_memmap(part, mode="r+" if part.exists() else "w+", dtype=np.float16, shape=shape)
    for first in range(0, recipe.clips, chunk):
        if latents[min(first + chunk, recipe.clips) - 1].any():
            continue  # encoded before an interruption
        ids = range(first, min(first + chunk, recipe.clips))
        clips = np.stack([world.render(training_scene(i))[0] for i in ids])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            latents[first : ids[-1] + 1] = vae.encode(to_video(clips)).latent_dist.mean.float().numpy()
        say("encoding clips", ids[-1] + 1, recipe.clips)
    tensor = torch.from_numpy(np.array(latents))
    flat = tensor.float().transpose(0, 1).flatten(1)  # (C, N·F·h·w)
    save_atomically({"latents": tensor, "mean": flat.mean(1), "std": flat.std(1)}, done)
    part.unlink()
    return done


def training_scene(index: int) -> world.Scene:
    """The scene of training clip `index`."""
    return world.sample_scene(np.random.default_rng((0, index)))


def held_out_scene(index: int) -> world.Scene:
    """Scene `index` of those that training never draws."""
    return world.sample_scene(np.random.default_rng((1, index)))


class Trainer:
    """The trained modules, their optimiser and their exponential moving average."""

    def __init__(self, folder: Path, recipe: Training):
        torch.manual_seed(recipe.seed)
        data = torch.load(folder / "latents.pt", weights_only=True)
        mean, std = (data[key].view(1, -1, 1, 1, 1) for key in ("mean", "std"))
        self.latents = ((data["latents"].float() - mean) / std).half()  # (N, C, F, h, w), unit variance
        self.recipe = recipe
        self.tokenizer = build_tokenizer()
        self.modules = build_trained(len(self.tokenizer))
        if (folder / "start.pt").exists():  # written by train.start_from
            self.modules.load_state_dict(torch.load(folder / "start.pt", weights_only=True))
        self.average = deepcopy(self.modules).requires_grad_(False)
        self.optimiser = MuonAdamW(self.modules, recipe.muon_rate, recipe.adam_rate, keep=NOT_HIDDEN)
        transformer: Any = self.modules["transformer"]
        transformer.set_attention_backend("_native_math")  # a fifth faster: the CPU's flash kernel is slow backward
        self.compiled = torch.compile(transformer, dynamic=False) if recipe.compile else transformer
        self.captions = [
            [world.caption(training_scene(i), np.random.default_rng((2, i, k))) for k in range(recipe.captions)]
            for i in range(len(self.latents))
        ]

    def loss(self, step: int) -> torch.Tensor:
        """Flow-matching loss of one batch; all its randomness comes from (seed, step)."""
        recipe, rng = self.recipe, np.random.default_rng((self.recipe.seed, step))
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        ids = rng.integers(0, len(self.latents), recipe.batch)
        prompts = [
            "" if rng.random() < recipe.unconditional else self.captions[i][rng.integers(recipe.captions)] for i in ids
        ]
        clean = self.latents[torch.from_numpy(ids)].float()  # (B, C, F, h, w)
        noise = torch.randn_like(clean)
        u = (torch.arange(recipe.batch) + torch.rand(recipe.batch)) / recipe.batch  # stratified over the schedule
        sigma = recipe.shift * u / (1 + (recipe.shift - 1) * u)  # (B,)
        mixed = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1))
        length = int(rng.choice(recipe.lengths))
        model = (
            self.compiled if length == recipe.lengths[0] else self.modules["transformer"]
        )  # compile the usual length only
        with torch.autocast("cpu", dtype=torch.bfloat16):
            text = embed(self.tokenizer, self.modules["text_encoder"], prompts, length)
            velocity = model(mixed, sigma * 1000, text, return_dict=False)[0]
        return (velocity.float() - (noise - clean)).square().mean()

    def step(self, step: int) -> float:
        """One optimiser step; returns the loss."""
        loss = self.loss(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimiser.step(trapezoid(step, self.recipe.steps, self.recipe.warmup, self.recipe.decay))
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for averaged, now in zip(self.average.parameters(), self.modules.parameters(), strict=True):
                averaged.lerp_(now, 1 - decay)
        return float(loss.detach())

    def state(self) -> dict:
        return {key: getattr(self, key).state_dict() for key in ("modules", "average", "optimiser")}

    def load(self, state: dict) -> None:
        for key in ("modules", "average", "optimiser"):
            getattr(self, key).load_state_dict(state[key])


def train_transformer(folder: Path, recipe: Training, say: Say) -> Path:
    """Train (or go on training) in `folder`; returns the path of the averaged weights."""
    done, resume, log = (
        folder / "transformer.pt",
        folder / "transformer-checkpoint.pt",
        folder / "transformer-log.jsonl",
    )
    if done.exists():
        return done
    trainer, first, spent = Trainer(folder, recipe), 0, 0.0
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        trainer.load(state)
        first, spent = state["step"], state["seconds"]
    start, losses = time.time() - spent, []
    for step in range(first, recipe.steps):
        losses.append(trainer.step(step))
        if (step + 1) % 25 == 0 or step + 1 == recipe.steps:
            row = {"step": step + 1, "loss": float(np.mean(losses)), "seconds": time.time() - start}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            say(f"flow-matching loss {row['loss']:.4f}", step + 1, recipe.steps)
            losses = []
        if (step + 1) % 250 == 0:
            save_atomically(trainer.state() | {"step": step + 1, "seconds": time.time() - start}, resume)
    save_atomically({"average": trainer.average.state_dict(), "recipe": asdict(recipe)}, done)
    return done
