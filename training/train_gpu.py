"""Trains an embedded model on one GPU in minutes, within a given time: `python -m training.train_gpu`.

Worker processes draw the clips while the GPU learns from those that are already there: the VAE first, on single frames,
windows and whole clips, then the transformer with the text encoder. Every stage ends by the clock, not by a count of
steps. The recipe is that of `train.py`, which does the same on a CPU in days, and so are the files in the end.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.architectures import ARCHITECTURES, Architecture
from training.codecs import Codec
from training.muon import MuonAdamW
from training.recipe import Training, VaeTraining, build_tokenizer
from training.train import export, start_from
from training.train_transformer import NOUNS, Clips, Trainer, describe
from training.train_vae import save_atomically, vae_loss

HELD_OUT = 32  # clips that the VAE is measured on
CAPTIONS = Training.captions


@dataclass(frozen=True)
class VaeStage:
    """A part of the VAE's training: windows of so many frames, a batch of so many, until this share of its time."""

    frames: int
    batch: int
    until: float


VAE_STAGES = (VaeStage(1, 192, 0.2), VaeStage(9, 40, 0.6), VaeStage(33, 12, 1.0))


# ------------------------------------------------------------------------------------------------- drawing


class Drawing:
    """Clips drawn by worker processes into memory that all share. `ready` (N + HELD_OUT,): which are drawn."""

    def __init__(self, architecture: Architecture, count: int, workers: int):
        codec = architecture.codec
        world, total = codec.world, count + HELD_OUT
        self.architecture, self.count = architecture, count
        frames, side = len(range(0, world.frames, codec.every)), world.size
        tokens = codec.latent[1] * (codec.latent[2] // codec.patch) ** 2
        self.frames = _shared((total, frames, side, side, 3), np.uint8)
        self.things = _shared((total, frames, side, side), np.bool_)
        self.truth = _shared((total, tokens, world.truth_width), np.uint8)
        self.words = _shared((total, CAPTIONS, architecture.lengths[0]), np.int32)
        self.nouns = _shared((total, CAPTIONS, NOUNS), np.int32)
        self.stated = _shared((total, NOUNS, len(world.attributes)), np.int32)
        self.ready = _shared((total,), np.bool_)
        self.tokenizer = build_tokenizer(world)
        # Forked, before CUDA begins: the memory is theirs too.
        fork = multiprocessing.get_context("fork")
        self.workers = [fork.Process(target=self._draw, args=(n, workers), daemon=True) for n in range(workers)]
        for worker in self.workers:
            worker.start()

    def _draw(self, first: int, step: int) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        os.nice(10)  # the one that feeds the GPU goes first
        codec = self.architecture.codec
        held_out = range(self.count, self.count + HELD_OUT)
        for index in [*held_out[first::step], *range(first, self.count, step)]:
            scene = codec.world.held_out(index - self.count) if index in held_out else codec.world.scene(index)
            drawn, truth = codec.world.render(scene)
            self.frames[index] = drawn[:: codec.every]
            self.things[index] = codec.world.things(truth)[:: codec.every]
            if index not in held_out:
                self.truth[index] = codec.world.truth_map(scene, truth, codec.cover)
                self.words[index], self.nouns[index], self.stated[index] = describe(
                    codec.world, self.tokenizer, index, CAPTIONS, self.words.shape[2]
                )
            self.ready[index] = True

    def stop(self) -> np.ndarray:
        """Draw no more; the numbers of the training clips that are there."""
        for worker in self.workers:
            worker.terminate()
            worker.join()
        return np.flatnonzero(self.ready[: self.count])


def _shared(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that forked processes share; pages that nobody writes cost nothing."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)


class OnDevice:
    """The clips that are drawn, copied to the device as they come: at most `limit` of them."""

    def __init__(self, drawing: Drawing, device: str, limit: int):
        self.drawing, self.device, self.taken = drawing, device, np.zeros(0, int)
        limit = min(limit, drawing.count)
        self.frames = torch.empty((limit, *drawing.frames.shape[1:]), dtype=torch.uint8, device=device)
        self.things = torch.empty((limit, *drawing.things.shape[1:]), dtype=torch.bool, device=device)

    def refresh(self) -> int:
        """Copy what is new; how many there are."""
        ready = np.flatnonzero(self.drawing.ready[: self.drawing.count])
        new = np.setdiff1d(ready, self.taken)[: len(self.frames) - len(self.taken)]
        for index in new:
            at = len(self.taken)
            self.frames[at] = torch.from_numpy(self.drawing.frames[index]).to(self.device)
            self.things[at] = torch.from_numpy(self.drawing.things[index]).to(self.device)
            self.taken = np.append(self.taken, index)
        return len(self.taken)

    def windows(self, rng: np.random.Generator, batch: int, frames: int) -> tuple[Tensor, Tensor]:
        """Windows of random clips: (B, 3, frames, H, W) in [-1, 1], and their things' pixels: (B, 1, frames, H, W)."""
        ids = torch.from_numpy(rng.integers(0, len(self.taken), batch)).to(self.device)[:, None]  # (B, 1)
        starts = torch.from_numpy(rng.integers(0, self.frames.shape[1] - frames + 1, batch)).to(self.device)
        which = starts[:, None] + torch.arange(frames, device=self.device)  # (B, frames)
        clips, things = self.frames[ids, which], self.things[ids, which][:, None].float()
        near = F.max_pool3d(things, (1, 5, 5), stride=1, padding=(0, 2, 2))  # edges too
        return as_video(clips), near


def as_video(frames: Tensor) -> Tensor:
    """(B, F, H, W, 3) uint8 -> (B, 3, F, H, W) float in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


# ------------------------------------------------------------------------------------------------- training


class Log:
    """Lines of progress, on the terminal and in a file as JSON."""

    def __init__(self, folder: Path):
        self.folder, self.began = folder, time.time()

    def __call__(self, name: str, **values: float | Tensor) -> None:
        row = {key: float(value) for key, value in values.items()}
        row["seconds"] = time.time() - self.began
        with (self.folder / f"{name}-log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        text = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "seconds")
        print(f"{row['seconds']:6.1f} s  {name}: {text}", flush=True)


@dataclass(frozen=True)
class Tick:
    """A step of a training that ends by the clock. `spent`: the share of its time that is over."""

    step: int
    spent: float
    rates: float  # factor: up over the first steps, level, down to zero over the last `decay` of the time


def clock(seconds: float, warmup: int, decay: float) -> Iterator[Tick]:
    """Steps until the time is up."""
    began, step = time.time(), 0
    while (spent := (time.time() - began) / seconds if seconds else 1.0) < 1:
        yield Tick(step, spent, min(1.0, (step + 1) / warmup, (1 - spent) / decay))
        step += 1


class Captured:
    """A training step on tensors of fixed shapes as one CUDA graph: the host needs no time for its many small kernels.

    On another device, or where the step cannot be captured, the step itself.
    """

    def __init__(self, step: Callable[..., Tensor], *given: Tensor):
        self.step, self.given, self.graph = step, [tensor.clone() for tensor in given], None
        if not given[0].is_cuda:
            return
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step(*self.given)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.result = step(*self.given)
            self.graph = graph
        except RuntimeError as error:
            print(f"the step runs kernel by kernel: {str(error).splitlines()[0]}", flush=True)
            torch.cuda.synchronize()

    def __call__(self, *given: Tensor) -> Tensor:
        if self.graph is None:
            return self.step(*given)
        for kept, new in zip(self.given, given, strict=True):
            kept.copy_(new)
        self.graph.replay()
        return self.result.clone()


class Kept:
    """The weights and the optimiser's state as they last were with finite losses, to go back to.

    A VAE became NaN after 1,950 steps on a GPU once, and all that was trained after it was lost.
    """

    def __init__(self, model: torch.nn.Module, optimiser: MuonAdamW):
        self.model, self.optimiser, self.copies = model, optimiser, list[Tensor]()

    def _tensors(self) -> list[Tensor]:
        states = [state for half in (self.optimiser.muon, self.optimiser.adam) for state in half.state.values()]
        tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
        return [*(p.data for p in self.model.parameters()), *tensors]

    def keep(self) -> None:
        self.copies = [tensor.clone() for tensor in self._tensors()]

    def restore(self) -> None:
        """Back, in place: a CUDA graph goes on with it. SystemExit where nothing was kept: it never was finite."""
        if not self.copies:
            raise SystemExit("The losses were not finite from the start: lower the rates of the recipe.")
        for tensor, copy in zip(self._tensors(), self.copies, strict=True):
            tensor.copy_(copy)


def train_vae(
    drawing: Drawing, codec: Codec, recipe: VaeTraining, seconds: float, device: str, log: Log, limit: int, state: Any
) -> Any:
    """The VAE, trained on the clips as they come."""
    torch.manual_seed(recipe.seed)
    vae = codec.build()
    if state is not None:
        vae.load_state_dict(state)
    vae.to(device)
    clips = OnDevice(drawing, device, limit)
    while clips.refresh() < 64 and any(worker.is_alive() for worker in drawing.workers):
        time.sleep(0.1)
    keep = ("decoder.conv_out",)
    optimiser = MuonAdamW(vae, recipe.muon_rate, recipe.adam_rate, keep, captured=device == "cuda")

    def step(video: Tensor, weight: Tensor) -> Tensor:
        loss, error = vae_loss(codec, vae, video, weight, recipe)
        loss.backward()
        optimiser.update()
        return error

    rng, errors, now, share = np.random.default_rng(recipe.seed), [], None, 1.0
    run: Captured | None = None
    kept = Kept(vae, optimiser)
    for tick in clock(seconds, 50, 0.35):
        stage = next(stage for stage in VAE_STAGES if tick.spent < stage.until)
        if tick.step % 20 == 0:
            clips.refresh()
        video, things = clips.windows(rng, stage.batch, min(stage.frames, clips.frames.shape[1]))
        weight = 1 + (recipe.things if tick.step >= recipe.things_from else 0.0) * things
        optimiser.set_rates(share * tick.rates)
        if run is None or stage is not now:
            run = None  # its memory is free for the next
            now, run = stage, Captured(step, video, weight)
        errors.append(run(video, weight))
        if (tick.step + 1) % 100 == 0:
            psnr = 10 * math.log10(4 / float(torch.stack(errors).mean()))
            rates = share * tick.rates
            log("vae", step=tick.step + 1, frames=stage.frames, psnr=psnr, rates=rates, clips=len(clips.taken))
            if math.isfinite(psnr):
                kept.keep()
            else:
                kept.restore()
                share /= 2
            errors = []
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def fidelity(drawing: Drawing, codec: Codec, vae: Any, device: str) -> float:
    """PSNR of whole held-out clips through the VAE and back, dB."""
    errors = []
    for first in range(drawing.count, drawing.count + HELD_OUT, 8):
        video = as_video(torch.from_numpy(drawing.frames[first : first + 8]).to(device))
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            again = codec.decode(vae, codec.encode(vae, video)).float().clamp(-1, 1)
        errors.append(float(F.mse_loss(again, video)))
    return 10 * math.log10(4 / float(np.mean(errors)))


@torch.no_grad()
def encode(drawing: Drawing, ready: np.ndarray, codec: Codec, vae: Any, device: str) -> tuple[Clips, Tensor, Tensor]:
    """The drawn clips encoded, with their captions, and each channel's mean and standard deviation."""
    parts = []
    for chunk in np.array_split(ready, max(len(ready) // 128, 1)):
        video = as_video(torch.from_numpy(drawing.frames[chunk]).to(device))
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            parts.append(codec.encode(vae, video).half())
    latents = torch.cat(parts)  # (N, C, T, h, w)
    flat = latents[:4000].float().transpose(0, 1).flatten(1)
    mean, std = flat.mean(1), flat.std(1)
    view = (1, -1, 1, 1, 1)
    for chunk in latents.split(1000):
        chunk.copy_((chunk.float() - mean.view(view)) / std.view(view))
    rest = (torch.from_numpy(getattr(drawing, name)[ready]) for name in ("truth", "words", "nouns", "stated"))
    return Clips(latents, *rest), mean, std


def train_transformer(
    clips: Clips,
    recipe: Training,
    architecture: Architecture,
    seconds: float,
    device: str,
    log: Log,
    start: Path | None,
) -> Trainer:
    """The transformer and the text encoder."""
    trainer = Trainer(clips, recipe, architecture, device, start)
    trainer.step(0, 0.0)  # compiles, at no time of its own
    log("transformer", step=0)
    losses, warmup = [], recipe.warmup if start is None else 20
    for tick in clock(seconds, warmup, 0.3):
        losses.append(trainer.step(tick.step + 1, tick.rates))
        if (tick.step + 1) % 50 == 0:
            loss = float(torch.stack(losses).mean())
            if not math.isfinite(loss):
                raise SystemExit("The transformer's loss is not finite: its time would be lost. Lower the rates.")
            log("transformer", step=tick.step + 1, loss=loss, reading=trainer.read_loss, binding=trainer.binding_loss)
            losses = []
    return trainer


def warm(architecture: Architecture, recipe: Training, device: str) -> None:
    """Compile the transformer's training step once, for the compiler's cache: while the VAE trains, in a process."""
    codec, length = architecture.codec, architecture.lengths[0]
    tokens = codec.latent[1] * (codec.latent[2] // codec.patch) ** 2
    shape = (recipe.batch, CAPTIONS)
    clips = Clips(
        torch.randn(recipe.batch, *codec.latent).half(),
        torch.randint(255, (recipe.batch, tokens, codec.world.truth_width), dtype=torch.uint8),
        torch.ones(*shape, length, dtype=torch.int32),
        torch.zeros(*shape, NOUNS, dtype=torch.int32),
        torch.zeros(recipe.batch, NOUNS, len(codec.world.attributes), dtype=torch.int32),
    )
    Trainer(clips, recipe, replace(architecture, lengths=(length,)), device).step(0, 0.0)


# ------------------------------------------------------------------------------------------------- the command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train_gpu", description=__doc__)
    parser.add_argument("--model", choices=ARCHITECTURES, default="puppet", help="which architecture")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="logs, weights and the exported model")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--vae-seconds", type=float, default=150, help="0: keep the VAE that --start-from has")
    parser.add_argument("--seconds", type=float, default=200, help="of the transformer's training")
    parser.add_argument("--clips", type=int, default=20000, help="to draw, at most; 2.2 MB each in memory")
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 2, 1), help="that draw")
    parser.add_argument("--batch", type=int, default=192, help="of the transformer")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--start-from", type=Path, default=None, help="go on from a finished model")
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    architecture = ARCHITECTURES[options.model]
    recipe = Training(batch=options.batch, compile=not options.no_compile)
    if options.warm:
        return warm(architecture, recipe, options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 4
    run(options, architecture, recipe)


def run(options: argparse.Namespace, architecture: Architecture, recipe: Training) -> None:
    """All stages, and the files."""
    folder, device, codec, log = options.out, options.device, architecture.codec, Log(options.out)
    start, state = None, None
    if options.start_from:
        start_from(options.start_from, folder, architecture)
        start, state = folder / "start.pt", torch.load(folder / "decoder.pt", weights_only=True)["model"]
    drawing = Drawing(architecture, options.clips, options.workers)
    if recipe.compile:
        warm_up = [sys.executable, "-m", __spec__.name, "--warm", "--model", architecture.name, "--device", device]
        subprocess.Popen([*warm_up, "--batch", str(recipe.batch)])
    vae = train_vae(drawing, codec, codec.recipe, options.vae_seconds, device, log, 10000, state)
    psnr = fidelity(drawing, codec, vae, device)
    log("fidelity", psnr=psnr)
    if not math.isfinite(psnr):
        raise SystemExit("The VAE gives values that are not finite: a transformer cannot learn from it.")
    torch.cuda.empty_cache()
    ready = drawing.stop()
    clips, mean, std = encode(drawing, ready, codec, vae, device)
    log("encoding", clips=len(ready))
    save_atomically({"model": vae.cpu().state_dict()}, folder / "decoder.pt")
    save_atomically({"mean": mean.cpu(), "std": std.cpu()}, folder / "latents.pt")
    trainer = train_transformer(clips, recipe, architecture, options.seconds, device, log, start)
    average = {name: value.half().cpu() for name, value in trainer.average.state_dict().items()}
    save_atomically({"average": average, "recipe": asdict(recipe)}, folder / "transformer.pt")
    export(folder, architecture, recipe, codec.recipe, folder / "model")
    log("export")


if __name__ == "__main__":
    main()
