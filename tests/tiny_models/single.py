"""Classes without relatives: Mochi, Allegro, Latte, EasyAnimate."""

from typing import Any

import diffusers
import torch
from torch import nn

from .base import TEXT, H, T, Tiny, W, noise


def _mochi() -> nn.Module:
    return diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
        in_channels=4, qk_norm="rms_norm", text_embed_dim=16, time_embed_dim=4, activation_fn="swiglu",
        max_sequence_length=8,
    )  # fmt: skip


def _mochi_inputs(batch: int, frames: int) -> dict[str, Any]:
    mask = torch.ones(batch, TEXT, dtype=torch.bool)
    mask[1::2, -2:] = False
    return {
        "hidden_states": noise(batch, 4, frames, 2 * H, 2 * W),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "timestep": torch.full((batch,), 500.0),
        "encoder_attention_mask": mask,
    }


def _allegro() -> nn.Module:
    return diffusers.AllegroTransformer3DModel(
        patch_size=2, patch_size_t=1, num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=4,
        num_layers=2, cross_attention_dim=48, sample_width=2 * W, sample_height=2 * H, sample_frames=T,
        caption_channels=16,
    )  # fmt: skip


def _allegro_inputs(batch: int, frames: int) -> dict[str, Any]:
    from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro

    *freqs, grid_t, grid_h, grid_w = get_3d_rotary_pos_embed_allegro(
        embed_dim=24, crops_coords=((0, 0), (H, W)), grid_size=(H, W), temporal_size=frames,
        interpolation_scale=(1.0, 1.0, 1.0),
    )  # fmt: skip
    grid = [torch.as_tensor(g).long() for g in (grid_t, grid_h, grid_w)]
    places = torch.cartesian_prod(*grid).T.reshape(3, 1, -1).contiguous()
    return {
        "hidden_states": noise(batch, 4, frames, 2 * H, 2 * W),
        "encoder_hidden_states": noise(batch, 1, TEXT, 16, seed=1),
        "timestep": torch.full((batch,), 500.0),
        "attention_mask": torch.ones(batch, frames, 2 * H, 2 * W),
        "encoder_attention_mask": torch.ones(batch, TEXT),
        "image_rotary_emb": (tuple(freqs), tuple(places)),
    }


def _latte() -> nn.Module:
    return diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=8,
        in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        video_length=T,
    )  # fmt: skip


def _latte_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, 4, frames, 8, 8),
        "encoder_hidden_states": noise(batch, TEXT, 8, seed=1),
        "timestep": torch.full((batch,), 500.0),
    }


def _easyanimate() -> nn.Module:
    return diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, patch_size=2,
        sample_width=2 * W, sample_height=2 * H, num_layers=2, mmdit_layers=1, time_embed_dim=2, text_embed_dim=16,
    )  # fmt: skip


def _easyanimate_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, 4, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
    }


TINY = {
    "mochi": Tiny("MochiTransformer3DModel", _mochi, _mochi_inputs, 2, counts_up=True),
    "allegro": Tiny("AllegroTransformer3DModel", _allegro, _allegro_inputs, 2),
    "latte": Tiny("LatteTransformer3DModel", _latte, _latte_inputs, 2, size=(8, 8), frames=(T, 1)),
    "easyanimate": Tiny("EasyAnimateTransformer3DModel", _easyanimate, _easyanimate_inputs, 2),
}
