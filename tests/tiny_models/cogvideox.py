"""CogVideoX and its relatives."""

# ruff: noqa: C408
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from .base import TEXT, H, T, Tiny, W, noise

COG = dict(
    num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=4, text_embed_dim=8,
    num_layers=2, sample_width=2 * W, sample_height=2 * H, sample_frames=4 * (T - 1) + 1, patch_size=2,
    temporal_compression_ratio=4, max_text_seq_length=TEXT,
)  # fmt: skip


def cog(**changes: Any) -> nn.Module:
    return diffusers.CogVideoXTransformer3DModel(**{**COG, **changes})


def _inputs(batch: int, frames: int, patch_t: int = 1, rope: bool = True) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "hidden_states": noise(batch, frames * patch_t, 4, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 8, seed=1),
    }
    if rope:
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        inputs["image_rotary_emb"] = get_3d_rotary_pos_embed(
            embed_dim=16, crops_coords=((0, 0), (H, W)), grid_size=(H, W), temporal_size=frames
        )
    return inputs


def _frames_first(video: Tensor) -> Tensor:
    return video.transpose(1, 2)


TINY = {
    "cogvideox_2b": Tiny(
        "CogVideoXTransformer3DModel", cog, lambda b, t: _inputs(b, t, rope=False), 2, _frames_first,
    ),
    "cogvideox_5b": Tiny(
        "CogVideoXTransformer3DModel", lambda: cog(use_rotary_positional_embeddings=True), _inputs, 2, _frames_first,
    ),
    "cogvideox_15": Tiny(
        "CogVideoXTransformer3DModel",
        lambda: cog(use_rotary_positional_embeddings=True, patch_size_t=2, patch_bias=False),
        lambda b, t: _inputs(b, t, patch_t=2), 2, _frames_first, patch_t=2,
    ),
    "consisid": Tiny(
        "ConsisIDTransformer3DModel",
        lambda: diffusers.ConsisIDTransformer3DModel(
            **COG, use_rotary_positional_embeddings=True, is_train_face=False
        ),
        _inputs, 2, _frames_first,
    ),
}  # fmt: skip
