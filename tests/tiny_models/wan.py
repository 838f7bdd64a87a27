"""Wan and its relatives."""

# ruff: noqa: C408
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from .base import TEXT, H, T, Tiny, W, noise

WAN = dict(
    patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
    freq_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True, rope_max_seq_len=32,
)  # fmt: skip


def wan(**changes: Any) -> nn.Module:
    return diffusers.WanTransformer3DModel(**{**WAN, **changes})


def _inputs(batch: int, frames: int, channels: int = 4, text: int = TEXT) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, channels, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, text, 16, seed=1),
    }


def _i2v_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {**_inputs(batch, frames, 12, 512), "encoder_hidden_states_image": noise(batch, 5, 8, seed=2)}


def _ti2v_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {**_inputs(batch, frames), "timestep": torch.full((batch, frames * H * W), 500.0)}


# ------------------------------------------------------------------------------------------------------ VACE
def _vace() -> nn.Module:
    return diffusers.WanVACETransformer3DModel(**WAN, vace_layers=[0, 1], vace_in_channels=12)


def _vace_inputs(batch: int, frames: int, references: int = 0) -> dict[str, Any]:
    """As WanVACEPipeline lays its conditions out: kept part, changed part, mask; references have the first alone."""
    control = noise(batch, 12, references + frames, 2 * H, 2 * W, seed=3)
    control[:, 4:, :references] = 0
    return {**_inputs(batch, references + frames), "control_hidden_states": control}


def _after_references(video: Tensor) -> Tensor:
    return torch.cat([noise(len(video), 4, 2, 2 * H, 2 * W, seed=7), video], 2)


# --------------------------------------------------------------------------------------------------- Animate
def _animate() -> nn.Module:
    return diffusers.WanAnimateTransformer3DModel(
        **{**WAN, "in_channels": 12}, latent_channels=4, image_dim=4, added_kv_proj_dim=None,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8}, motion_encoder_size=16, motion_style_dim=8,
        motion_dim=4, motion_encoder_dim=16, face_encoder_hidden_dim=16, face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    )  # fmt: skip


def _animate_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        **_inputs(batch, frames + 1, 12),
        "encoder_hidden_states_image": noise(batch, 5, 4, seed=2),
        "pose_hidden_states": 0.1 * noise(batch, 4, frames, 2 * H, 2 * W, seed=3),
        "face_pixel_values": noise(batch, 3, 4 * (frames - 1) + 1, 16, 16, seed=4),
    }


def _after_the_reference(video: Tensor) -> Tensor:
    return torch.cat([noise(len(video), 12, 1, 2 * H, 2 * W, seed=7), video], 2)


# -------------------------------------------------------------------------------- SkyReels, ChronoEdit, AnyFlow
def _forcing(frames_of_a_block: int = 1) -> nn.Module:
    model = diffusers.SkyReelsV2Transformer3DModel(**WAN)
    if frames_of_a_block > 1:
        model._set_ar_attention(frames_of_a_block)
    return model


def _forcing_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        **_inputs(batch, frames),
        "timestep": torch.full((batch, frames), 500.0),
        "enable_diffusion_forcing": True,
    }


def _anyflow_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, frames, 4, 2 * H, 2 * W),
        "timestep": torch.full((batch, frames), 500.0),
        "r_timestep": torch.full((batch, frames), 250.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
    }


TINY = {
    "wan": Tiny("WanTransformer3DModel", wan, _inputs, 2),
    "wan_i2v": Tiny(
        "WanTransformer3DModel", lambda: wan(in_channels=12, added_kv_proj_dim=24, image_dim=8), _i2v_inputs, 2,
        channels=12,
    ),
    "wan22_ti2v": Tiny("WanTransformer3DModel", wan, _ti2v_inputs, 2),
    "wan_vace": Tiny("WanVACETransformer3DModel", _vace, _vace_inputs, 4),
    "wan_vace_references": Tiny(
        "WanVACETransformer3DModel", _vace, lambda b, t: _vace_inputs(b, t, references=2), 4, _after_references,
    ),
    "wan_animate": Tiny(
        "WanAnimateTransformer3DModel", _animate, _animate_inputs, 2, _after_the_reference, channels=12,
    ),
    "skyreels_v2": Tiny("SkyReelsV2Transformer3DModel", _forcing, _inputs, 2),
    "skyreels_v2_forcing": Tiny(
        "SkyReelsV2Transformer3DModel", lambda: _forcing(2), _forcing_inputs, 2,
        frames=(T, 2),
    ),
    "chronoedit": Tiny(
        "ChronoEditTransformer3DModel", lambda: diffusers.ChronoEditTransformer3DModel(**WAN), _inputs, 2,
    ),
    "anyflow": Tiny(
        "AnyFlowTransformer3DModel", lambda: diffusers.AnyFlowTransformer3DModel(**WAN), _anyflow_inputs, 2,
        lambda video: video.transpose(1, 2),
    ),
}  # fmt: skip
