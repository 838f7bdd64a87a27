"""Finds the gain of each layer that the denoising loss would choose, and the price of the method's gain in that loss.

    python benchmarks/optimal_gain.py [--model embedded | FOLDER] [--architecture wan] [--clips 48] [--out table.md]

A model is trained to predict the velocity from noise to clip. The output of a layer's attention could have been larger
or smaller by any constant, training decided. So at the end of training the loss is flat in the gains: its derivative
by a layer's gain s is 0 at s = 1, over all noise levels together, and what a gain can still win is what training left.
Held-out clips of the embedded world, real noise, the prompt given, no guidance: derivative and curvature of the loss by
the gain of each layer at 8 noise levels, the gain that a parabola through them would choose, and the loss under the
method's gain of strength 0.7. It answers for the denoiser alone: what guidance and twenty steps do to a clip is a
study's business.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from enhance_a_video import enhance
from enhance_a_video.embedded import world
from enhance_a_video.generation import pipelines
from enhance_a_video.lab.stats import interval
from enhance_a_video.policies import GainContext, Strength
from training.architectures import ARCHITECTURES, Architecture
from training.recipe import text_states
from training.train_vae import to_video

LEVELS = (0.9375, 0.8125, 0.6875, 0.5625, 0.4375, 0.3125, 0.1875, 0.0625)  # u: 1 is pure noise
BATCH = 8
STRENGTH = 0.7  # of the method's gain, as docs/results/index.md has it
STEP = 0.25  # of the gain, for the curvature


class Gains:
    """A policy that gives each layer the gain that is set for it."""

    def __init__(self, gains: Tensor):
        self.gains = gains  # (layers,)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        return self.gains[round(float(moment.layer) * (len(self.gains) - 1))].expand(mass.shape)


class Denoiser:
    """A trained transformer and held-out clips in its latents."""

    def __init__(self, model: str, architecture: Architecture, clips: int, first: int = 3000):
        self.architecture = architecture
        self.pipe = pipelines.load(model, device="cpu", dtype="float32")
        self.transformer = self.pipe.transformer.eval().requires_grad_(False)
        scenes = [world.held_out_scene(i) for i in range(first, first + clips)]
        self.captions = [world.caption(s, np.random.default_rng((3, first + i))) for i, s in enumerate(scenes)]
        self.latents = torch.cat([self._encoded(scenes[i : i + BATCH]) for i in range(0, clips, BATCH)])
        with enhance(self.transformer, observe_only=True, start=0.0, end=1.0) as handle:
            self.layers = handle.summary().layers

    @torch.no_grad()
    def _encoded(self, scenes: list[world.Scene]) -> Tensor:
        codec, vae = self.architecture.codec, self.pipe.vae
        clips = to_video(np.stack([world.render(scene)[0][:: codec.every] for scene in scenes]))
        latents = codec.encode(vae, clips)  # (B, C, T, h, w)
        mean, std = (getattr(vae.config, f"latents_{name}", None) for name in ("mean", "std"))
        if not mean:
            return latents
        return (latents - torch.tensor(mean).view(1, -1, 1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1, 1)

    def loss(self, first: int, u: float, policy: object) -> Tensor:
        """Mean squared error of the velocity on one batch at noise level u; the same noise at each call."""
        clean = self.latents[first : first + BATCH]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(first))
        mixed, timestep, target = self.architecture.noisy(clean, noise, torch.full((len(clean),), u))
        prompts = self.captions[first : first + BATCH]
        with torch.no_grad():
            text, words = text_states(self.pipe.tokenizer, self.pipe.text_encoder, prompts, 32)
        prompted = torch.ones(len(clean), dtype=torch.bool)
        with enhance(self.transformer, policy=policy, start=0.0, end=1.0):
            velocity = self.architecture.predict(self.transformer, mixed, timestep, text, words, prompted)
        return (velocity - target).square().mean()

    def at(self, u: float) -> dict[str, np.ndarray]:
        """Per batch: loss (n,), its derivative by each gain (n, layers), curvature (n, layers), the method's (n,)."""
        found: dict[str, list] = {"loss": [], "slope": [], "curvature": [], "method": []}
        for first in range(0, len(self.latents), BATCH):
            gains = torch.ones(len(self.layers), requires_grad=True)
            loss = self.loss(first, u, Gains(gains))
            loss.backward()
            assert gains.grad is not None
            found["loss"].append(loss.item())
            found["slope"].append(gains.grad.numpy().copy())
            with torch.no_grad():
                found["method"].append(self.loss(first, u, Strength(STRENGTH)).item())
                found["curvature"].append([self._curvature(first, u, i, loss.item()) for i in range(len(gains))])
        return {name: np.array(values) for name, values in found.items()}

    def _curvature(self, first: int, u: float, layer: int, middle: float) -> float:
        gains = torch.ones(2, len(self.layers))
        gains[:, layer] += torch.tensor([-STEP, STEP])
        below, above = (self.loss(first, u, Gains(row)).item() for row in gains)
        return (below + above - 2 * middle) / STEP**2


def table(denoiser: Denoiser) -> list[str]:
    """A row for each noise level: the loss, the best gain of each layer ± its 95 % interval, the method's loss."""
    names = [name.removesuffix(".attn1").removesuffix(".attn") for name in denoiser.layers]
    lines = [
        f"| u | loss | best gain of {' | '.join(names)} | won by these, at most | the method's gain |",
        "|---" * (len(names) + 4) + "|",
    ]
    for u in LEVELS:
        found = denoiser.at(u)
        slope, curvature, loss = found["slope"], found["curvature"].mean(0), found["loss"].mean()
        curvature = np.maximum(curvature, 1e-9)
        best = 1 - slope.mean(0) / curvature
        spans = [interval(column) for column in (1 - slope / curvature).T]
        half = [(high - low) / 2 for low, high in spans]
        won = (slope.mean(0) ** 2 / (2 * curvature)).sum() / loss
        cells = [f"{b:.2f} ± {h:.2f}" for b, h in zip(best, half, strict=True)]
        method = found["method"].mean() / loss - 1
        lines.append(f"| {u:.2f} | {loss:.3f} | {' | '.join(cells)} | {-won:.2%} | {method:+.1%} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="wan")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    lines = table(Denoiser(args.model, ARCHITECTURES[args.architecture], args.clips))
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
