"""A few frames of a video while it is denoised, from the latents of one step: for pages that show progress.

A small Wan VAE decodes them. For any other model the three strongest components of the latents are shown as colours:
shapes and motion are those of the video, the colours are not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .media import to_uint8

_SMALL = 20_000_000  # parameters of a VAE that decodes a few frames in a fraction of a second on a CPU
_FRAMES = 3  # latent frames that are decoded


def preview_of(pipe: Any, latents: Any) -> np.ndarray | None:
    """Frames, uint8 (T, H, W, 3), of a batch's first video; None where the latents are no video with an axis of frames.

    Args:
        latents: as the pipeline passes them to its callback: (B, C, T, H, W) or (B, T, C, H, W).
    """
    video = _video(pipe, latents)  # (C, T, H, W)
    if video is None:
        return None
    vae: Any = getattr(pipe, "vae", None)
    if type(vae).__name__ == "AutoencoderKLWan" and sum(one.numel() for one in vae.parameters()) < _SMALL:
        return _decoded(vae, video)
    return _components(video)


def _video(pipe: Any, latents: Any) -> Tensor | None:
    """The first video of the batch as (C, T, H, W); the axis of channels is the one as long as the VAE's."""
    if not isinstance(latents, Tensor) or latents.ndim != 5:
        return None
    config = getattr(getattr(pipe, "vae", None), "config", {})
    channels = next((config[name] for name in ("z_dim", "latent_channels") if name in config), None)
    first = latents[0].detach().float()
    return first.transpose(0, 1) if first.shape[0] != channels and first.shape[1] == channels else first


def _decoded(vae: Any, video: Tensor) -> np.ndarray:
    part = video[None, :, :_FRAMES].to(vae.device, vae.dtype)  # (1, C, t, H, W)
    mean, std = (
        torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1).to(part) for name in ("latents_mean", "latents_std")
    )
    with torch.inference_mode():
        frames = vae.decode(part * std + mean, return_dict=False)[0][0]  # (3, T, H, W) in [-1, 1]
    return _uint8(frames / 2 + 0.5)


def _components(video: Tensor) -> np.ndarray:
    flat = video.flatten(1)  # (C, T*H*W)
    flat = flat - flat.mean(1, keepdim=True)
    axes = torch.linalg.eigh(flat @ flat.T)[1][:, -3:].flip(1)  # (C, 3), the strongest first
    signs = torch.where(axes.sum(0) < 0, -1.0, 1.0)  # of an eigenvector either sign is right: keep it from step to step
    colours = (axes * signs).T @ flat  # (3, T*H*W)
    if len(colours) < 3:
        colours = colours[:1].expand(3, -1)
    spread = 2 * colours.std(1, keepdim=True) + 1e-6
    return _uint8((colours / spread / 2 + 0.5).view(3, *video.shape[1:]))


def _uint8(frames: Tensor) -> np.ndarray:
    """(3, T, H, W), about 0 to 1, as uint8 (T, H, W, 3); what is not finite is black or white."""
    clean = torch.nan_to_num(frames.float(), 0.0, 1.0, 0.0).clamp(0, 1)
    return to_uint8(clean.permute(1, 2, 3, 0).cpu().numpy())
