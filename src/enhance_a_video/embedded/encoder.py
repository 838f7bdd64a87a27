"""The Fréchet distance of generated clips of the embedded world from drawn ones, and the encoder of its features.

    real = features(drawn_clips(range(512)))
    frechet_distance(real, features(my_clips))

What FID and FVD are for photographs (Heusel et al. 2017, Unterthiner et al. 2018), with an encoder for this
world alone: a small 3D convolutional network trained to find which colours, kinds, textures and motions are where in a
clip, and before which backdrop (`training/train_encoder.py`). Features are the mean and the standard deviation of every
channel of all its layers over a clip, early layers too: what the last one has learned to ignore, such as flicker, the
first ones still respond to.

The distance is one of sets: one number for many clips, with a bias that falls with their number. Compare sets of one
size only, of 256 clips and more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from . import world

WEIGHTS = Path(__file__).with_name("encoder.safetensors")
WIDTHS = (16, 24, 32, 48)
FEATURES = 2 * sum(WIDTHS)  # 240
PLACED = (*world.COLOURS, *world.KINDS, *world.TEXTURES, *world.MOTIONS)  # their shares, cell by cell: `where`


class Encoder(nn.Module):
    """Clips (B, 3, F, 64, 64) in [-1, 1] to features (B, 240).

    `where` and `backdrop` are what it was trained through: the share of each of PLACED in every cell of 16 x 16 pixels
    and about eight frames, and the logits of the backdrops. `mean` and `scale` are those of the features on clips of
    the world, so that every feature counts alike.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        sizes = zip((6, *WIDTHS[:-1]), WIDTHS, strict=True)
        self.layers = nn.ModuleList(_layer(*pair, across_time=n > 0) for n, pair in enumerate(sizes))
        self.where = nn.Conv3d(WIDTHS[-1], len(PLACED), 1)
        self.backdrop = nn.Linear(WIDTHS[-1], len(world.BACKDROPS))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))

    def maps(self, video: torch.Tensor) -> list[torch.Tensor]:
        """The output of each layer, (B, C, f, h, w). The input is every frame and its change from the one before."""
        change = F.pad(video[:, :, 1:] - video[:, :, :-1], (0, 0, 0, 0, 1, 0))
        found = [torch.cat([video, 4 * change], dim=1)]  # (B, 6, F, 64, 64)
        for layer in self.layers:
            found.append(layer(found[-1]))
        return found[1:]

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        responses = [response.flatten(2) for response in self.maps(video)]  # (B, C, f·h·w)
        raw = torch.cat([part for r in responses for part in (r.mean(2), r.std(2))], dim=1)
        return (raw - self.mean) / self.scale


def _layer(inside: int, outside: int, *, across_time: bool) -> nn.Sequential:
    """Halves height and width, and beyond the first layer the frames too."""
    time = {"kernel_size": 3, "stride": 2, "padding": 1}
    space = {"kernel_size": (1, 3, 3), "stride": (1, 2, 2), "padding": (0, 1, 1)}
    convolution = nn.Conv3d(inside, outside, **(time if across_time else space))  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.BatchNorm3d(outside), nn.ReLU())


@cache
def packaged_encoder() -> Encoder:
    """The encoder whose weights come with the package."""
    encoder = Encoder().eval().requires_grad_(False)
    encoder.load_state_dict(load_file(WEIGHTS))
    return encoder


@torch.inference_mode()
def features(clips: Iterable[np.ndarray], encoder: Encoder | None = None) -> np.ndarray:
    """Features of clips.

    Args:
        clips: each (F, 64, 64, 3) uint8; F may differ from the world's 33, but sets of other lengths do not compare.
        encoder: by default the packaged one.

    Returns:
        (N, 240) float64.

    Raises:
        ValueError: a clip of another shape or type; no clips.
    """
    encoder = encoder or packaged_encoder()
    rows = []
    for clip in clips:
        if clip.ndim != 4 or clip.shape[1:] != (world.SIZE, world.SIZE, 3) or clip.dtype != np.uint8:
            raise ValueError(f"expected frames (F, {world.SIZE}, {world.SIZE}, 3) uint8, got {clip.shape} {clip.dtype}")
        rows.append(encoder(as_input(clip[None]))[0].double().numpy())
    if not rows:
        raise ValueError("no clips to take features of")
    return np.stack(rows)


def as_input(clips: np.ndarray) -> torch.Tensor:
    """(B, F, H, W, 3) uint8 -> (B, 3, F, H, W) float in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def drawn_clips(ids: Iterable[int]) -> Iterator[np.ndarray]:
    """Clips of the world itself to compare with: drawn for this and for no training, nor as anybody's prompt."""
    for number in ids:
        yield world.render(drawn_scene(number))[0]


def drawn_scene(number: int) -> world.Scene:
    """The scene of `drawn_clips`' clip `number`."""
    return world.sample_scene(np.random.default_rng((5, number)))


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance (Dowson and Landau 1982) of two sets of features, (N, D) and (M, D), taken as Gaussian.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½). Zero for a set and itself.

    Raises:
        ValueError: fewer than two rows, or rows of different widths.
    """
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(f"expected two sets of two or more rows of one width, got {first.shape} and {second.shape}")
    gap = first.mean(0) - second.mean(0)
    one, two = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T  # C1^½
    shared = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(min=0)).sum()  # tr (C1^½ C2 C1^½)^½
    return float(gap @ gap + np.trace(one) + np.trace(two) - 2 * shared)
