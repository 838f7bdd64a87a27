"""UNets with temporal attention: ModelScope's, I2VGen-XL's, AnimateDiff's, Stable Video Diffusion's."""

from typing import Any

import diffusers
import torch
from torch import nn

from .base import TEXT, H, Tiny, W, noise

SIZE = (2 * H, 2 * W)


def _unet3d() -> nn.Module:
    return diffusers.UNet3DConditionModel(
        block_out_channels=(8, 16), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=8, attention_head_dim=4,
    )  # fmt: skip


def _i2vgen() -> nn.Module:
    return diffusers.I2VGenXLUNet(
        block_out_channels=(8, 16), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=8, attention_head_dim=4,
    )  # fmt: skip


def _motion() -> nn.Module:
    return diffusers.UNetMotionModel(
        block_out_channels=(8, 16), down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=8, num_attention_heads=2, motion_num_attention_heads=2, motion_max_seq_length=8,
    )  # fmt: skip


def _svd() -> nn.Module:
    return diffusers.UNetSpatioTemporalConditionModel(
        in_channels=4, block_out_channels=(32, 64), layers_per_block=1, num_attention_heads=(2, 4),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=8,
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=12,
    )  # fmt: skip


def _inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "sample": noise(batch, 4, frames, *SIZE),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 8, seed=1),
    }


def _motion_inputs(batch: int, frames: int) -> dict[str, Any]:
    text = noise(batch, TEXT, 8, seed=1).repeat_interleave(frames, 0)  # as the pipeline gives it, frame by frame
    return {**_inputs(batch, frames), "encoder_hidden_states": text}


def _i2vgen_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        **_inputs(batch, frames),
        "fps": torch.full((batch,), 16),
        "image_latents": noise(batch, 4, frames, *SIZE, seed=2),
        "image_embeddings": noise(batch, 8, seed=3),
    }


def _svd_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "sample": noise(batch, frames, 4, *SIZE),
        "timestep": torch.full((batch,), 0.5),
        "encoder_hidden_states": noise(batch, 1, 8, seed=1),
        "added_time_ids": noise(batch, 3, seed=2),
    }


def _sharpen(model: nn.Module) -> None:
    """Key = query projections, four times as large: behind convolutions and norms, frames differ less."""
    for name, module in model.named_modules():
        if name.endswith(".pos_embed"):  # it would make equal frames different
            module.pe.mul_(0.1)
        if name.endswith((".attn1", ".attn2")) and module.to_q.weight.shape == module.to_k.weight.shape:
            module.to_q.weight.mul_(4)
            module.to_k.load_state_dict(module.to_q.state_dict())


TINY = {
    "unet3d": Tiny("UNet3DConditionModel", _unet3d, _inputs, 10, stream="sample", sharpen=_sharpen),
    "i2vgen": Tiny("I2VGenXLUNet", _i2vgen, _i2vgen_inputs, 10, stream="sample", sharpen=_sharpen),
    "animatediff": Tiny("UNetMotionModel", _motion, _motion_inputs, 14, stream="sample", sharpen=_sharpen),
    "svd": Tiny(
        "UNetSpatioTemporalConditionModel", _svd, _svd_inputs, 4, lambda v: v.transpose(1, 2), stream="sample",
        top=1.6378, sharpen=_sharpen,
    ),
}  # fmt: skip
