"""Tiny picture models: a grid of 4 rows and 6 columns of tokens, 7 of text."""

from typing import Any

import diffusers
import torch

from .base import H, Tiny, W, noise

WORDS, CHANNELS = 7, 8


def _ids(pictures: int = 1, width: int = 3) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    grid = torch.zeros(H * W, width)
    grid[:, 1], grid[:, 2] = rows.flatten(), columns.flatten()
    every = []
    for number in range(pictures):
        every.append(grid.clone())
        every[-1][:, 0] = number
    return torch.cat(every)


def _flux(batch: int, pictures: int = 1) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, pictures * H * W, CHANNELS),
        "encoder_hidden_states": noise(batch, WORDS, 16, seed=1),
        "pooled_projections": noise(batch, 12, seed=2),
        "timestep": torch.full((batch,), 0.5),
        "img_ids": _ids(pictures),
        "txt_ids": torch.zeros(WORDS, 3),
    }


def _flux2(batch: int) -> dict[str, Any]:
    inputs = {name: value for name, value in _flux(batch).items() if name != "pooled_projections"}
    return {**inputs, "img_ids": _ids(width=4), "txt_ids": torch.zeros(WORDS, 4), "guidance": torch.ones(batch)}


def _latents(batch: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, 4, 2 * H, 2 * W),
        "encoder_hidden_states": noise(batch, WORDS, 16, seed=1),
        "timestep": torch.full((batch,), 500.0),
        **more,
    }


def _qwen(batch: int, pictures: int = 1) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, pictures * H * W, CHANNELS),
        "encoder_hidden_states": noise(batch, WORDS, 16, seed=1),
        "encoder_hidden_states_mask": torch.ones(batch, WORDS, dtype=torch.bool),
        "timestep": torch.full((batch,), 0.5),
        "img_shapes": [[(1, H, W)] * pictures] * batch,
    }


def flux() -> Any:
    return diffusers.FluxTransformer2DModel(
        in_channels=CHANNELS, num_layers=1, num_single_layers=2, attention_head_dim=12, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=12, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip


def flux2() -> Any:
    return diffusers.Flux2Transformer2DModel(
        in_channels=CHANNELS, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=16,
    )  # fmt: skip


def sd3() -> Any:
    return diffusers.SD3Transformer2DModel(
        sample_size=12, in_channels=4, num_layers=2, attention_head_dim=12, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=24, pooled_projection_dim=12, out_channels=4,
        pos_embed_max_size=12,
    )  # fmt: skip


def qwen() -> Any:
    return diffusers.QwenImageTransformer2DModel(
        in_channels=CHANNELS, out_channels=2, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip


def pixart() -> Any:
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=24, caption_channels=16, sample_size=12, use_additional_conditions=False,
    )  # fmt: skip


def lumina2() -> Any:
    return diffusers.Lumina2Transformer2DModel(
        in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1,
        multiple_of=8, axes_dim_rope=(4, 4, 4), axes_lens=(32, 32, 32), cap_feat_dim=16,
    )  # fmt: skip


def _lumina2(batch: int) -> dict[str, Any]:
    words = torch.ones(batch, WORDS + 2, dtype=torch.bool)
    words[:, WORDS:] = False
    states = noise(batch, WORDS + 2, 16, seed=1)
    return _latents(batch, encoder_hidden_states=states, encoder_attention_mask=words)


def z_image() -> Any:
    return diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=24, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 4, 4], axes_lens=[128, 32, 32],
    )  # fmt: skip


def _z_image(batch: int) -> dict[str, Any]:
    return {
        "x": list(noise(batch, 4, 1, 2 * H, 2 * W)),
        "t": torch.full((batch,), 0.5),
        "cap_feats": list(noise(batch, WORDS, 16, seed=1)),
    }


def _tiny(transformer: str, build: Any, inputs: Any, layers: int, **more: Any) -> Tiny:
    return Tiny(transformer, build, lambda batch, frames: inputs(batch), layers=layers, frames=(1,), **more)


IMAGES: dict[str, Tiny] = {
    "flux": _tiny("FluxTransformer2DModel", flux, _flux, 3, top=1.0),
    "flux_kontext": _tiny("FluxTransformer2DModel", flux, lambda batch: _flux(batch, 2), 3, top=1.0),
    "flux2": _tiny("Flux2Transformer2DModel", flux2, _flux2, 3, top=1.0),
    "sd3": _tiny("SD3Transformer2DModel", sd3, lambda b: _latents(b, pooled_projections=noise(b, 12, seed=2)), 2),
    "qwen_image": _tiny("QwenImageTransformer2DModel", qwen, _qwen, 2, top=1.0),
    "qwen_image_edit": _tiny("QwenImageTransformer2DModel", qwen, lambda batch: _qwen(batch, 2), 2, top=1.0),
    "pixart": _tiny("PixArtTransformer2DModel", pixart, _latents, 2),
    "lumina2": _tiny("Lumina2Transformer2DModel", lumina2, _lumina2, 2),
    "z_image": _tiny("ZImageTransformer2DModel", z_image, _z_image, 2, top=1.0, timestep="t", stream="x"),
}
