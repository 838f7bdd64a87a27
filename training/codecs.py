"""The two autoencoders of the embedded models: over clips (Wan's) and over single frames (Stable Diffusion's).

One row for each: video in, latents out, and which frames a latent frame covers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.recipe import (
    FRAME_LATENT_CHANNELS,
    LATENT_CHANNELS,
    PUPPET_LATENT_CHANNELS,
    VaeTraining,
    build_frame_vae,
    build_puppet_vae,
    build_vae,
)
from training.worlds import PUPPETS, SHAPES, World


@dataclass(frozen=True)
class Codec:
    """A kind of VAE. `every`: it is given each so-manieth frame of the world's clips."""

    build: Callable[..., Any]  # Wan's: of the latents' mean and standard deviation
    latent: tuple[int, int, int, int]  # (C, T, h, w) of a clip of the world
    patch: int  # latent cells along a side of one of the transformer's tokens, which are 16 x 16 pixels
    every: int
    encode: Callable[[Any, Tensor], Tensor]  # vae, (B, 3, F, H, W) in [-1, 1] -> (B, C, T, h, w)
    decode: Callable[[Any, Tensor], Tensor]
    cover: Callable[[Tensor], Tensor]  # masks (things, F, H, W) -> shares of each latent frame (things, T, H, W)
    recipe: VaeTraining
    world: World = SHAPES


def _encode_clips(vae: Any, video: Tensor) -> Tensor:
    return vae.encode(video).latent_dist.mean


def _decode_clips(vae: Any, latents: Tensor) -> Tensor:
    return vae.decode(latents).sample


def _encode_frames(vae: Any, video: Tensor) -> Tensor:
    frames = video.transpose(1, 2)  # (B, F, 3, H, W)
    return vae.encode(frames.flatten(0, 1)).latent_dist.mean.unflatten(0, frames.shape[:2]).transpose(1, 2)


def _decode_frames(vae: Any, latents: Tensor) -> Tensor:
    frames = latents.transpose(1, 2)  # (B, F, C, h, w)
    return vae.decode(frames.flatten(0, 1)).sample.unflatten(0, frames.shape[:2]).transpose(1, 2)


def _in_fours(masks: Tensor) -> Tensor:
    """The first frame alone, then four by four: the groups of a causal VAE with 4x in time."""
    return torch.cat([masks[:, :1], masks[:, 1:].unflatten(1, (-1, 4)).mean(2)], 1)


CLIPS = Codec(
    build=build_vae, latent=(LATENT_CHANNELS, 9, 8, 8), patch=2, every=1, encode=_encode_clips, decode=_decode_clips,
    cover=_in_fours, recipe=VaeTraining(),
)  # fmt: skip
FRAMES = Codec(
    build=build_frame_vae, latent=(FRAME_LATENT_CHANNELS, (SHAPES.frames + 1) // 2, 16, 16), patch=4, every=2,
    encode=_encode_frames, decode=_decode_frames, cover=lambda masks: masks[:, ::2],
    recipe=VaeTraining(image_steps=1500, steps=0, decoder_steps=0, batch=16, things_from=400, decay=500),
)  # fmt: skip
PUPPET_CLIPS = Codec(
    build=build_puppet_vae, latent=(PUPPET_LATENT_CHANNELS, 9, 8, 8), patch=1, every=1, encode=_encode_clips,
    decode=_decode_clips, cover=_in_fours, world=PUPPETS,
    recipe=VaeTraining(
        image_steps=1000, steps=9000, decoder_steps=1500, batch=8, things=2.0, things_from=600, decay=2000, noise=0.05
    ),
)  # fmt: skip
