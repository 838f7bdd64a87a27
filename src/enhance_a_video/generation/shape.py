"""How many frames and pixels a pipeline makes where it does not make the number that was requested.

Needed before a call, to report what will be rounded. Pipelines whose rule is not known here give None: what they made
is then compared with what was requested afterwards.
"""

from __future__ import annotations

from typing import Any

# What pipelines call the number of frames that one latent frame stands for.
_RATIOS = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")

# What they call the number of pixels, each way, that one latent stands for.
_SPATIAL = (
    "vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_spatial_scale_factor", "vae_scale_factor",
)  # fmt: skip

# n // ratio * ratio + 1: 36 frames become 37. Names begin with these.
_NEAREST = (
    "WanPipeline",
    "WanImageToVideo",
    "WanVACE",
    "SkyReelsV2",
    "AnyFlow",
    "ChronoEdit",
    "Kandinsky5T2V",
    "Kandinsky5I2V",
    "Kandinsky6TI2VA",
    "LucyEdit",
)
# (n - 1) // ratio * ratio + 1: 36 frames become 33.
_DOWN = (
    "CogVideoXPipeline", "CogVideoXImageToVideo", "HunyuanVideoPipeline", "HunyuanVideoImageToVideo",
    "HunyuanVideo15", "HunyuanSkyreels", "LTXPipeline", "LTXImageToVideo", "LTX2Pipeline", "LTX2ImageToVideo", "Mochi",
    "MotifVideo", "EasyAnimatePipeline", "ConsisID", "CosmosTextToWorld", "Cosmos2VideoToWorld",
)  # fmt: skip
# height and width // step * step, with step = a latent's pixels x a token's latents.
_PATCHED = ("WanPipeline", "WanImageToVideo")


def frames_per_latent(pipe: Any) -> int | None:
    """Frames that one latent frame stands for; None where the pipeline has no such attribute."""
    found = (getattr(pipe, name, None) for name in _RATIOS)
    return next((ratio for ratio in found if isinstance(ratio, int)), None)


def pixels_per_latent(pipe: Any) -> int:
    """Pixels, each way, that one latent stands for; 8 where the pipeline has no such attribute."""
    return next((int(ratio) for name in _SPATIAL if (ratio := getattr(pipe, name, 0))), 8)


def made_frames(pipe: Any, requested: int) -> int | None:
    """The frames that this pipeline makes of a requested number; None where its rule is not known."""
    name, ratio = type(pipe).__name__, frames_per_latent(pipe)
    if ratio is None:
        return None
    if name.startswith(_NEAREST):
        return requested if requested % ratio == 1 else max(1, requested // ratio * ratio + 1)
    return max(1, (requested - 1) // ratio * ratio + 1) if name.startswith(_DOWN) else None


def made_size(pipe: Any, height: int, width: int) -> tuple[int, int] | None:
    """(height, width) that this pipeline makes of requested ones; None where its rule is not known."""
    patch = getattr(getattr(_denoiser(pipe), "config", None), "patch_size", None)
    if not type(pipe).__name__.startswith(_PATCHED) or not isinstance(patch, list | tuple):
        return None
    if height % 16 or width % 16:  # the pipeline refuses these
        return None
    steps = [pixels_per_latent(pipe) * one for one in patch[1:]]
    return height // steps[0] * steps[0], width // steps[1] * steps[1]


def _denoiser(pipe: Any) -> Any:
    first = getattr(pipe, "transformer", None)
    return getattr(pipe, "transformer_2", None) if first is None else first
