"""HunyuanVideo and its relatives."""

# ruff: noqa: C408
from typing import Any

import diffusers
import torch
from torch import nn

from .base import TEXT, H, Tiny, W, noise

HUNYUAN = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, num_single_layers=2,
    num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True, text_embed_dim=16,
    pooled_projection_dim=8, rope_axes_dim=(4, 4, 4),
)  # fmt: skip


def hunyuan(**changes: Any) -> nn.Module:
    return diffusers.HunyuanVideoTransformer3DModel(**{**HUNYUAN, **changes})


def _mask(batch: int) -> torch.Tensor:
    mask = torch.ones(batch, TEXT, dtype=torch.long)
    mask[1::2, -2:] = 0
    return mask


def _inputs(batch: int, frames: int, channels: int = 4, guidance: bool = True) -> dict[str, Any]:
    inputs = {
        "hidden_states": noise(batch, channels, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "encoder_attention_mask": _mask(batch),
        "pooled_projections": noise(batch, 8, seed=2),
    }
    return {**inputs, "guidance": torch.full((batch,), 6000.0)} if guidance else inputs


# ------------------------------------------------------------------------------------------------- FramePack
def _framepack() -> nn.Module:
    return diffusers.HunyuanVideoFramepackTransformer3DModel(
        **HUNYUAN, has_image_proj=True, image_proj_dim=8, has_clean_x_embedder=True
    )


def _framepack_inputs(batch: int, frames: int) -> dict[str, Any]:
    """One clean frame, two at half and four at a quarter of the resolution lie in front of the current ones."""
    return {
        **_inputs(batch, frames),
        "image_embeds": noise(batch, 3, 8, seed=3),
        "indices_latents": torch.arange(frames) + 7,
        "latents_clean": noise(batch, 4, 2, 2 * H, 2 * W, seed=4),
        "indices_latents_clean": torch.tensor([0, 6]),
        "latents_history_2x": noise(batch, 4, 2, 2 * H, 2 * W, seed=5),
        "indices_latents_history_2x": torch.arange(2) + 4,
        "latents_history_4x": noise(batch, 4, 4, 2 * H, 2 * W, seed=6),
        "indices_latents_history_4x": torch.arange(4),
    }


# ----------------------------------------------------------------------------------------------------- 1.5
def _hunyuan15() -> nn.Module:
    return diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2,
        num_refiner_layers=1, patch_size=1, patch_size_t=1, text_embed_dim=16, text_embed_2_dim=8, image_embed_dim=8,
        rope_axes_dim=(4, 4, 4),
    )  # fmt: skip


def _hunyuan15_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, 4, frames, H, W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "encoder_attention_mask": _mask(batch).float(),
        "encoder_hidden_states_2": noise(batch, 4, 8, seed=2),
        "encoder_attention_mask_2": torch.ones(batch, 4),
        "image_embeds": torch.zeros(batch, 3, 8),
    }


TINY = {
    "hunyuan": Tiny("HunyuanVideoTransformer3DModel", hunyuan, _inputs, 4),
    "hunyuan_token_replace": Tiny(
        "HunyuanVideoTransformer3DModel",
        lambda: hunyuan(guidance_embeds=False, image_condition_type="token_replace"),
        lambda b, t: _inputs(b, t, guidance=False), 4,
    ),
    "hunyuan_latent_concat": Tiny(
        "HunyuanVideoTransformer3DModel",
        lambda: hunyuan(in_channels=9, guidance_embeds=False, image_condition_type="latent_concat"),
        lambda b, t: _inputs(b, t, channels=9, guidance=False), 4, channels=9,
    ),
    "hunyuan_framepack": Tiny("HunyuanVideoFramepackTransformer3DModel", _framepack, _framepack_inputs, 4),
    "hunyuan15": Tiny("HunyuanVideo15Transformer3DModel", _hunyuan15, _hunyuan15_inputs, 2, size=(H, W)),
}  # fmt: skip
