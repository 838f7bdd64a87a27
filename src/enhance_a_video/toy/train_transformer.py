"""Train an embedded model's transformer and text encoder on encoded clips: the last stages of toy/train.py."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .architectures import WAN, Architecture
from .codecs import CLIPS, Codec
from .muon import MuonAdamW, has_quick_bf16
from .recipe import Training, build_tokenizer, text_states
from .train_vae import Say, save_atomically, to_video, trapezoid

NOT_HIDDEN = (
    "transformer.patch_embedding",
    "transformer.x_embedder",
    "transformer.pos_embed",
    "transformer.proj_out",
    "scale_shift_table",
    "text_encoder",  # under Muon its feed-forward layers grew and drowned its attention: it read words, not sentences
    "reader",
)


def encode_clips(folder: Path, recipe: Training, say: Say, codec: Codec = CLIPS, chunk: int = 16) -> Path:
    """Draw and encode the training clips once; resumable. Saves latents (N, C, T, h, w) fp16, statistics and truth."""
    done, part, truth_part = folder / "latents.pt", folder / "latents-part.npy", folder / "truth-part.npy"
    if done.exists():
        return done
    vae = codec.build()
    vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["model"])
    vae.eval().requires_grad_(False)
    latents = _memmap(part, np.float16, (recipe.clips, *codec.latent))
    world, tokens = codec.world, codec.latent[1] * (codec.latent[2] // codec.patch) ** 2
    truth = _memmap(truth_part, np.uint8, (recipe.clips, tokens, world.truth_width))
    for first in range(0, recipe.clips, chunk):
        if latents[min(first + chunk, recipe.clips) - 1].any():
            continue  # encoded before an interruption
        ids = range(first, min(first + chunk, recipe.clips))
        scenes = [world.scene(i) for i in ids]
        drawn = [world.render(scene) for scene in scenes]
        clips = to_video(np.stack([frames[:: codec.every] for frames, _ in drawn]))
        truth[first : ids[-1] + 1] = [
            world.truth_map(scene, t, codec.cover) for scene, (_, t) in zip(scenes, drawn, strict=True)
        ]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_quick_bf16()):
            latents[first : ids[-1] + 1] = codec.encode(vae, clips).float().numpy()
        say("encoding clips", ids[-1] + 1, recipe.clips)
    tensor = torch.from_numpy(np.array(latents))
    flat = tensor.float().transpose(0, 1).flatten(1)  # (C, N·T·h·w)
    state = {"latents": tensor, "mean": flat.mean(1), "std": flat.std(1), "truth": torch.from_numpy(np.array(truth))}
    save_atomically(state, done)
    part.unlink()
    truth_part.unlink()
    return done


def _memmap(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, mode="r+" if path.exists() else "w+", dtype=dtype, shape=shape)


def _keep_output(module: torch.nn.Module, _: Any, output: Any) -> None:
    module.kept = output


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean over the rows whose target is named; zero without any."""
    return F.cross_entropy(logits, target, reduction="sum") / (target >= 0).sum().clamp(min=1)


class Trainer:
    """The trained modules, their optimiser and their exponential moving average."""

    def __init__(self, folder: Path, recipe: Training, architecture: Architecture = WAN):
        torch.manual_seed(recipe.seed)
        self.architecture = architecture
        data = torch.load(folder / "latents.pt", weights_only=True)
        mean, std = (data[key].view(1, -1, 1, 1, 1) for key in ("mean", "std"))
        self.latents = ((data["latents"].float() - mean) / std).half()  # (N, C, F, h, w), unit variance
        self.truth, scale = data["truth"], (data["truth"].float() / 255).std((0, 1))  # (N, tokens, W) uint8, (W,)
        self.truth_scale = 255 * scale.clamp(min=0.01)
        self.recipe = recipe
        self.world = architecture.codec.world
        self.tokenizer = build_tokenizer(self.world)
        self.modules = architecture.modules(len(self.tokenizer))
        if (folder / "start.pt").exists():  # written by train.start_from
            self.modules.load_state_dict(torch.load(folder / "start.pt", weights_only=True), strict=False)
        self.average = deepcopy(self.modules).requires_grad_(False)
        self.optimiser = MuonAdamW(self.modules, recipe.muon_rate, recipe.adam_rate, keep=NOT_HIDDEN)
        transformer: Any = self.modules["transformer"]
        self.read = transformer.get_submodule(architecture.read)
        self.read.register_forward_hook(_keep_output)
        self.compiled = torch.compile(transformer, dynamic=False) if recipe.compile else transformer
        self.scenes = [self.world.scene(i) for i in range(len(self.latents))]
        self.captions = [
            [self.world.caption(scene, np.random.default_rng((2, i, k))) for k in range(recipe.captions)]
            for i, scene in enumerate(self.scenes)
        ]

    def loss(self, step: int) -> torch.Tensor:
        """The denoising loss of one batch; all its randomness comes from (seed, step)."""
        recipe, model, rng = self.recipe, self.architecture, np.random.default_rng((self.recipe.seed, step))
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        ids = rng.integers(0, len(self.latents), recipe.batch)
        prompts = [
            "" if rng.random() < recipe.unconditional else self.captions[i][rng.integers(recipe.captions)] for i in ids
        ]
        clean = self.latents[torch.from_numpy(ids)].float()  # (B, C, T, h, w)
        noise = torch.randn_like(clean)
        u = (torch.arange(recipe.batch) + torch.rand(recipe.batch)) / recipe.batch  # stratified over the schedule
        mixed, timestep, target = model.noisy(clean, noise, u)
        length = int(rng.choice(model.lengths))
        # compile the usual length only
        transformer = self.compiled if length == model.lengths[0] else self.modules["transformer"]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_quick_bf16()):
            text, words = text_states(self.tokenizer, self.modules["text_encoder"], prompts, length)
            said = torch.tensor([bool(prompt) for prompt in prompts])
            velocity = model.predict(transformer, mixed, timestep, text, words, said)
            reading = self.modules["reader"](model.tokens(self.read.kept, recipe.batch))  # (B, tokens, W)
        self.read_loss = (reading.float() - self.truth[ids].float() / self.truth_scale).square().mean()
        self.binding_loss = self._binding(text, prompts, [self.scenes[i] for i in ids])
        return (velocity.float() - target).square().mean()

    def _binding(self, text: torch.Tensor, prompts: list[str], scenes: list[Any]) -> torch.Tensor:
        """How badly what is said of a thing is read off the text state (B, n, TEXT_WIDTH) of its noun."""
        world, length = self.world, text.shape[1]
        tokens = self.tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt").input_ids
        nouns = torch.isin(tokens, torch.tensor(self.tokenizer.convert_tokens_to_ids(list(world.nouns))))  # (B, n)
        said = [row for prompt, scene in zip(prompts, scenes, strict=True) if prompt for row in world.said(scene)]
        parts = self.modules["text_reader"](text[nouns].float()).split(world.attributes, 1)
        return sum(
            (_cross_entropy(part, target) for part, target in zip(parts, torch.tensor(said).T, strict=True)),
            start=torch.zeros(()),
        )

    def step(self, step: int) -> float:
        """One optimiser step; returns the loss."""
        with sdpa_kernel(SDPBackend.MATH):  # a fifth faster and more: the CPU's flash kernel is slow backward
            loss = self.loss(step)
        (loss + self.recipe.reading * self.read_loss + self.recipe.binding * self.binding_loss).backward()
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


def train_transformer(folder: Path, recipe: Training, say: Say, architecture: Architecture = WAN) -> Path:
    """Train (or go on training) in `folder`; returns the path of the averaged weights."""
    done, resume, log = (
        folder / "transformer.pt",
        folder / "transformer-checkpoint.pt",
        folder / "transformer-log.jsonl",
    )
    if done.exists():
        return done
    trainer, first, spent = Trainer(folder, recipe, architecture), 0, 0.0
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
            say(f"denoising loss {row['loss']:.4f}", step + 1, recipe.steps)
            losses = []
        if (step + 1) % 250 == 0:
            save_atomically(trainer.state() | {"step": step + 1, "seconds": time.time() - start}, resume)
    save_atomically({"average": trainer.average.state_dict(), "recipe": asdict(recipe)}, done)
    return done
