"""Encodes a clip into a pipeline's latent space, mixes noise in, denoises from there. Which pipelines can: `FORMATS`.

diffusers' own video-to-video pipelines exist for a few families only, and that of Wan draws noise of the wrong size
where the VAE has a patch. So this starts any text-to-video pipeline that takes `latents` in the middle of its schedule:
the scheduler's `set_timesteps` is replaced, on the instance and while it lasts, by one that drops the steps before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...errors import SettingsError, UnsupportedModelError
from ...wording import count
from ..shape import frames_per_latent, pixels_per_latent


@dataclass(frozen=True)
class Start:
    """Where in its schedule a denoising starts.

    steps, total: how many of the schedule's steps run. timestep: of the first of them, in the model's units.
    signal, noise: the share of each in the latents there: signal * clip + noise * Gaussian noise.
    """

    steps: int
    total: int
    timestep: float
    signal: float
    noise: float


class _Known(Exception):
    """Leaves a pipeline's call as soon as its schedule is known."""


# ---------------------------------------------------------------------------------------------- formats of latents


def _standardised(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """(B, C, T, h, w) less the mean of each channel, by its deviation, as Wan's and Motif's models have it."""
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape).to(latents)
    deviation = torch.tensor(vae.config.latents_std).view(shape).to(latents)
    return (latents - mean) / deviation


def _scaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return latents * vae.config.scaling_factor


def _standardised_and_scaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """As LTX and Mochi have it; LTX has the statistics among its weights, Mochi in its config, if at all."""
    weights = dict(vae.named_buffers())
    if "latents_mean" not in weights and vae.config.latents_mean is None:
        return _scaled(vae, latents)
    mean, deviation = (
        (weights[name] if name in weights else torch.tensor(vae.config[name])).view(1, -1, 1, 1, 1).to(latents)
        for name in ("latents_mean", "latents_std")
    )
    return (latents - mean) * vae.config.scaling_factor / deviation


def _as_they_are(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    return latents


def _frames_first(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """(1, C, t, h, w) -> (1, t, C, h, w): CogVideoX."""
    return latents.transpose(1, 2)


def _channels_last(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """(1, C, t, h, w) -> (1, t, h, w, C): Kandinsky 5."""
    return latents.permute(0, 2, 3, 4, 1)


def _packed(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """(1, C, t, h, w) -> (1, tokens, channels of a token): LTX-Video."""
    return pipe._pack_latents(latents, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)


def _encode_video(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """(1, 3, T, H, W) -> (1, C, t, h, w): the mode of the VAE's distribution, which is no draw."""
    return vae.encode(video).latent_dist.mode()


def _encode_frames(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """As `_encode_video`, for a VAE of pictures: eight frames at a time."""
    frames = video[0].transpose(0, 1)  # (T, 3, H, W)
    parts = [vae.encode(part).latent_dist.mode() for part in frames.split(8)]
    return torch.cat(parts).transpose(0, 1)[None]


@dataclass(frozen=True)
class Format:
    """How a pipeline holds a clip: encode(vae, video (1, 3, T, H, W) in -1..1), then scale(vae, latents), and, as its
    call takes them, arrange(pipe, latents (1, C, t, h, w)).

    unguided: whether guidance_scale=1 is what switches classifier-free guidance off in its call.
    """

    encode: Callable[[Any, torch.Tensor], torch.Tensor]
    scale: Callable[[Any, torch.Tensor], torch.Tensor]
    unguided: bool = True
    arrange: Callable[[Any, torch.Tensor], torch.Tensor] = _as_they_are


# By the pipeline's class: those whose denoising depends on nothing else that is drawn from the clip.
FORMATS: dict[str, Format] = {
    "WanPipeline": Format(_encode_video, _standardised),
    "MotifVideoPipeline": Format(_encode_video, _standardised, unguided=False),  # its guider decides
    "HunyuanVideoPipeline": Format(_encode_video, _scaled, unguided=False),  # its guidance is an input of the model
    "LattePipeline": Format(_encode_frames, _scaled),
    "CogVideoXPipeline": Format(_encode_video, _scaled, arrange=_frames_first),
    "LTXPipeline": Format(_encode_video, _standardised_and_scaled, arrange=_packed),
    "MochiPipeline": Format(_encode_video, _standardised_and_scaled),
    "Kandinsky5T2VPipeline": Format(_encode_video, _scaled, arrange=_channels_last),
}


def format_of(pipe: Any) -> Format:
    """UnsupportedModelError for a pipeline whose latents are not prepared here."""
    name = type(pipe).__name__
    if name not in FORMATS:
        raise UnsupportedModelError(
            f"restore cannot prepare the latents of {name}. It can those of {', '.join(FORMATS)}: give such a model "
            "with --model, or leave it out for the packaged one."
        )
    if getattr(pipe.scheduler, "order", 1) != 1:
        raise UnsupportedModelError(
            f"restore cannot start {type(pipe.scheduler).__name__} in the middle of its schedule, as it takes several "
            "calls for a step. Give the pipeline another scheduler."
        )
    if getattr(pipe.transformer.config, "patch_size_t", None) not in (None, 1) and name.startswith("CogVideoX"):
        raise UnsupportedModelError(
            "restore cannot prepare the latents of CogVideoX 1.5, which are padded to pairs of frames. "
            "CogVideoX 1.0 works."
        )
    return FORMATS[name]


def encoded(pipe: Any, frames: np.ndarray) -> torch.Tensor:
    """A clip as the pipeline's latents, (1, C, t, h, w), float32, on its device.

    Args:
        frames: uint8 (T, H, W, 3), of a length and size on the model's grid (`grid_of`).

    Raises:
        UnsupportedModelError: as `format_of`.
    """
    form, vae = format_of(pipe), pipe.vae
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None]  # (1, 3, T, H, W)
    video = video.to(pipe._execution_device, vae.dtype) / 127.5 - 1
    with torch.inference_mode():
        return form.scale(vae, form.encode(vae, video).float())


@dataclass(frozen=True)
class Grid:
    """What a model's clips consist of: time * n + 1 frames (time 1: any number), sides that are multiples of space."""

    time: int
    space: int

    def frames(self, least: int) -> int:
        """The smallest length on the grid that is at least this."""
        return -(-(least - 1) // self.time) * self.time + 1

    def side(self, least: int) -> int:
        return -(-least // self.space) * self.space


def grid_of(pipe: Any) -> Grid:
    patch = getattr(pipe.transformer.config, "patch_size", 1)
    patch = patch[-1] if isinstance(patch, list | tuple) else patch
    # Several pipelines refuse sides that are no multiples of 16, whatever their VAE and patch.
    return Grid(frames_per_latent(pipe) or 1, int(np.lcm(pixels_per_latent(pipe) * patch, 16)))


# ---------------------------------------------------------------------------------------- noise and where to start


def noise_of_frames(seed: int, first: int, shape: tuple[int, int, int, int]) -> torch.Tensor:
    """Gaussian noise (C, t, h, w) in which each latent frame has its own draw, by its absolute number in the clip.

    Args:
        seed: of the whole clip. first: the absolute number of the first latent frame. shape: (C, t, h, w).

    Windows that overlap therefore agree on the noise of the frames that they share.
    """
    channels, length, height, width = shape
    draws = []
    for number in range(first, first + length):
        own = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
        draws.append(torch.randn(channels, height, width, generator=torch.Generator("cpu").manual_seed(own)))
    return torch.stack(draws, dim=1)


def steps_for(noise: float, total: int) -> int:
    """How many of a schedule's steps a noise level takes: its share of them, rounded, at least one."""
    return min(total, max(1, round(noise * total)))


@contextmanager
def late(scheduler: Any, steps: int, found: Callable[[Start], None] | None = None) -> Iterator[None]:
    """While it lasts, the scheduler's schedules consist of their last `steps` steps; `found` gets where they start."""
    whole = scheduler.set_timesteps

    @functools.wraps(whole)  # pipelines read its signature
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        dropped = len(scheduler.timesteps) - steps
        if dropped < 0:
            raise SettingsError(f"The schedule has {count(len(scheduler.timesteps), 'step')}; {steps} were to run.")
        scheduler.timesteps = scheduler.timesteps[dropped:]
        if hasattr(scheduler, "sigmas") and len(scheduler.sigmas) > steps:
            scheduler.sigmas = scheduler.sigmas[dropped:]
        if found:
            found(_start(scheduler, steps, steps + dropped))

    scheduler.set_timesteps = set_timesteps
    try:
        yield
    finally:
        del scheduler.set_timesteps  # the class's own is seen again


def _start(scheduler: Any, steps: int, total: int) -> Start:
    """The shares of signal and noise at the first step: flow matching by its sigma, others by their alphas."""
    timestep = float(scheduler.timesteps[0])
    config = scheduler.config
    if "FlowMatch" in type(scheduler).__name__ or config.get("prediction_type") == "flow_prediction":
        sigma = float(scheduler.sigmas[0])
        sigma = 1 - sigma if config.get("invert_sigmas") else sigma  # Mochi counts up to the clean clip
        return Start(steps, total, timestep, 1 - sigma, sigma)
    kept = float(scheduler.alphas_cumprod[int(timestep)])
    return Start(steps, total, timestep, kept**0.5, (1 - kept) ** 0.5)


def start_of(pipe: Any, call: dict[str, Any], steps: int) -> Start:
    """Where the pipeline's own schedule for this call starts when only its last `steps` steps run.

    Schedules depend on what the pipeline passes to its scheduler (sigmas, a shift by the size), so it is called, and
    left as soon as the schedule is set: the cost is one text encoding.
    """
    starts: list[Start] = []

    def leave(start: Start) -> None:
        starts.append(start)
        raise _Known

    with late(pipe.scheduler, steps, leave), torch.inference_mode():
        try:
            pipe(**call)
        except _Known:
            return starts[0]
    raise UnsupportedModelError(f"{type(pipe).__name__} never set a schedule, so restore cannot start within it.")
