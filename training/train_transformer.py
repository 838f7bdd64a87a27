"""Trains an embedded model's transformer and text encoder on encoded clips: the last stages of training/train.py."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.architectures import WAN, Architecture
from training.codecs import CLIPS, Codec
from training.muon import MuonAdamW, has_quick_bf16
from training.recipe import Training, build_tokenizer
from training.train_vae import Report, save_atomically, to_video, trapezoid
from training.worlds import NOT_NAMED, World

NOT_HIDDEN = (
    "transformer.patch_embedding",
    "transformer.x_embedder",
    "transformer.pos_embed",
    "transformer.proj_out",
    "scale_shift_table",
    "text_encoder",  # under Muon its feed-forward layers grew and drowned its attention: it read words, not sentences
    "reader",
)


def encode_clips(folder: Path, recipe: Training, report: Report, codec: Codec = CLIPS, chunk: int = 16) -> Path:
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
        report("encoding clips", ids[-1] + 1, recipe.clips)
    tensor = torch.from_numpy(np.array(latents))
    flat = tensor.float().transpose(0, 1).flatten(1)  # (C, N·T·h·w)
    state = {"latents": tensor, "mean": flat.mean(1), "std": flat.std(1), "truth": torch.from_numpy(np.array(truth))}
    save_atomically(state, done)
    part.unlink()
    truth_part.unlink()
    return done


def _memmap(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, mode="r+" if path.exists() else "w+", dtype=dtype, shape=shape)


@dataclass
class Clips:
    """The encoded training clips and what their captions state, as tensors: N clips, K phrasings of each."""

    latents: Tensor  # (N, C, T, h, w) fp16, each channel of mean 0 and variance 1
    truth: Tensor  # (N, tokens, W) uint8: World.truth_map
    words: Tensor  # (N, K, L) word numbers, 0 beyond a caption's end
    nouns: Tensor  # (N, K, NOUNS) places in `words` of the nouns that something is stated about
    stated: Tensor  # (N, NOUNS, attributes): World.attributes_of, NOT_NAMED where there is nothing to read

    def to(self, device: str) -> Clips:
        return Clips(*(getattr(self, f.name).to(device) for f in fields(self)))


NOUNS = 3  # at most, of a caption


def describe(world: World, tokenizer: Any, index: int, captions: int, length: int) -> tuple[np.ndarray, ...]:
    """`words` (K, L), `nouns` (K, NOUNS) and `stated` (NOUNS, attributes) of training clip `index`; see Clips."""
    scene = world.scene(index)
    prompts = [world.caption(scene, np.random.default_rng((2, index, k))) for k in range(captions)]
    words = np.array(tokenizer(prompts, padding="max_length", max_length=length).input_ids, np.int32)
    of_nouns = np.isin(words, tokenizer.convert_tokens_to_ids(list(world.nouns)))
    attributes = np.array(world.attributes_of(scene), np.int32)
    nouns, stated = np.zeros((captions, NOUNS), np.int32), np.full((NOUNS, attributes.shape[1]), NOT_NAMED, np.int32)
    stated[: len(attributes)] = attributes
    for k in range(captions):
        nouns[k, : len(attributes)] = np.flatnonzero(of_nouns[k])
    return words, nouns, stated


def load_clips(folder: Path, recipe: Training, architecture: Architecture = WAN) -> Clips:
    """What `encode_clips` saved in `folder`, and the captions of these clips."""
    data = torch.load(folder / "latents.pt", weights_only=True)
    mean, std = (data[key].view(1, -1, 1, 1, 1) for key in ("mean", "std"))
    world, tokenizer = architecture.codec.world, build_tokenizer(architecture.codec.world)
    length, count = architecture.lengths[0], len(data["latents"])
    rows = [describe(world, tokenizer, i, recipe.captions, length) for i in range(count)]
    columns = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    return Clips(((data["latents"].float() - mean) / std).half(), data["truth"], *columns)


def _keep_output(module: torch.nn.Module, _: Any, output: Any) -> None:
    module.kept = output


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over the rows whose target is named; zero without any."""
    return F.cross_entropy(logits, target, reduction="sum") / (target >= 0).sum().clamp(min=1)


class Trainer:
    """The trained modules, their optimiser and their exponential moving average, all on one device.

    `start`: weights to begin with, of the parts that fit (train.start_from).
    """

    def __init__(
        self,
        clips: Clips,
        recipe: Training,
        architecture: Architecture = WAN,
        device: str = "cpu",
        start: Path | None = None,
    ):
        torch.manual_seed(recipe.seed)
        self.clips, self.recipe, self.architecture, self.device = clips.to(device), recipe, architecture, device
        self.world = architecture.codec.world
        some = self.clips.truth[:8000].float()
        self.truth_scale = some.std((0, 1)).clamp(min=2.55)  # (W,)
        self.tokenizer = build_tokenizer(self.world)
        self.modules = architecture.modules(len(self.tokenizer))
        if start is not None:
            self.modules.load_state_dict(torch.load(start, weights_only=True), strict=False)
        self.modules.to(device)
        self.average = deepcopy(self.modules).requires_grad_(False)
        self.optimiser = MuonAdamW(self.modules, recipe.muon_rate, recipe.adam_rate, keep=NOT_HIDDEN)
        transformer: Any = self.modules["transformer"]
        self.read = transformer.get_submodule(architecture.read)
        self.read.register_forward_hook(_keep_output)
        self.compiled = torch.compile(transformer, dynamic=False) if recipe.compile else transformer

    def loss(self, step: int) -> Tensor:
        """The denoising loss of one batch; all its randomness comes from (seed, step)."""
        recipe, model, clips, n = self.recipe, self.architecture, self.clips, self.recipe.batch
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        length = int(np.random.default_rng((recipe.seed, step)).choice(model.lengths))
        ids = torch.randint(len(clips.latents), (n,), device=self.device)
        phrasing = torch.randint(recipe.captions, (n,), device=self.device)
        prompted = torch.rand(n, device=self.device) >= recipe.unconditional  # (B,)
        clean = clips.latents[ids].float()  # (B, C, T, h, w)
        noise = torch.randn_like(clean)
        u = torch.arange(n, device=self.device) + torch.rand(n, device=self.device)
        mixed, timestep, target = model.noisy(clean, noise, u / n)  # stratified over the schedule
        words = torch.where(prompted[:, None], clips.words[ids, phrasing], self._no_words(clips.words.shape[-1]))
        words = F.pad(words, (0, length - words.shape[1])).long()  # (B, length)
        # compile the usual length only
        transformer = self.compiled if length == model.lengths[0] else self.modules["transformer"]
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device != "cpu" or has_quick_bf16()):
            text = self.modules["text_encoder"](words, (words != 0).long()).last_hidden_state  # (B, length, TEXT_WIDTH)
            velocity = model.predict(transformer, mixed, timestep, text, words != 0, prompted)
            reading = self.modules["reader"](model.tokens(self.read.kept, n))  # (B, tokens, W)
        self.read_loss = (reading.float() - clips.truth[ids].float() / self.truth_scale).square().mean()
        stated = clips.stated[ids].long().masked_fill(~prompted[:, None, None], NOT_NAMED)
        self.binding_loss = self._binding(text, clips.nouns[ids, phrasing].long(), stated)
        return (velocity.float() - target).square().mean()

    def _no_words(self, length: int) -> Tensor:
        """The empty prompt, (length,)."""
        return F.pad(torch.tensor([self.tokenizer.eos_token_id], device=self.device), (0, length - 1)).int()

    def _binding(self, text: Tensor, nouns: Tensor, stated: Tensor) -> Tensor:
        """How badly what is stated (B, NOUNS, attributes) is read off the text states (B, n, TEXT_WIDTH) of `nouns`."""
        states = text.gather(1, nouns[..., None].expand(-1, -1, text.shape[2])).float()  # (B, NOUNS, TEXT_WIDTH)
        parts = self.modules["text_reader"](states).split(self.world.attributes, -1)
        return sum(
            (_cross_entropy(part.flatten(0, 1), stated[..., n].flatten()) for n, part in enumerate(parts)),
            start=torch.zeros((), device=self.device),
        )

    def step(self, step: int, rates: float | None = None) -> Tensor:
        """One optimiser step at `rates` times the recipe's rates (default: its trapezoid); returns the loss."""
        # on a CPU a fifth faster and more: its flash kernel is slow backward
        with sdpa_kernel(SDPBackend.MATH) if self.device == "cpu" else nullcontext():
            loss = self.loss(step)
        (loss + self.recipe.reading * self.read_loss + self.recipe.binding * self.binding_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        recipe = self.recipe
        self.optimiser.step(trapezoid(step, recipe.steps, recipe.warmup, recipe.decay) if rates is None else rates)
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.modules.parameters()), 1 - decay)
        return loss.detach()

    def state(self) -> dict:
        return {key: getattr(self, key).state_dict() for key in ("modules", "average", "optimiser")}

    def load(self, state: dict) -> None:
        for key in ("modules", "average", "optimiser"):
            getattr(self, key).load_state_dict(state[key])


def train_transformer(folder: Path, recipe: Training, report: Report, architecture: Architecture = WAN) -> Path:
    """Train (or go on training) in `folder`; returns the path of the averaged weights."""
    done, resume, log = (
        folder / "transformer.pt",
        folder / "transformer-checkpoint.pt",
        folder / "transformer-log.jsonl",
    )
    if done.exists():
        return done
    start = folder / "start.pt"  # written by train.start_from
    clips = load_clips(folder, recipe, architecture)
    trainer, first, spent = Trainer(clips, recipe, architecture, start=start if start.exists() else None), 0, 0.0
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        trainer.load(state)
        first, spent = state["step"], state["seconds"]
    began, losses = time.time() - spent, []
    for step in range(first, recipe.steps):
        losses.append(float(trainer.step(step)))
        if (step + 1) % 25 == 0 or step + 1 == recipe.steps:
            row = {"step": step + 1, "loss": float(np.mean(losses)), "seconds": time.time() - began}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            report(f"denoising loss {row['loss']:.4f}", step + 1, recipe.steps)
            losses = []
        if (step + 1) % 250 == 0:
            save_atomically(trainer.state() | {"step": step + 1, "seconds": time.time() - began}, resume)
    save_atomically({"average": trainer.average.state_dict(), "recipe": asdict(recipe)}, done)
    return done
