"""Tiny random-weight transformers of the real diffusers classes, one for each variant the families cover.

    model = TINY["wan"].model();  inputs = TINY["wan"].inputs(batch=2);  out = run(model, inputs)

A grid of 4 frames of 4 x 6 tokens, fp32, on the CPU, a forward call in milliseconds.
"""

# ruff: noqa: C408
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

diffusers.utils.logging.set_verbosity_error()

T, H, W = 4, 4, 6  # frames, rows and columns of tokens
TEXT = 7


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal; sample b of a batch does not depend on how many samples there are."""
    return torch.stack(
        [torch.randn(shape[1:], generator=torch.Generator().manual_seed(1000 * seed + b)) for b in range(shape[0])]
    )


@dataclass(frozen=True)
class Tiny:
    build: Callable[[], nn.Module]
    make_inputs: Callable[[int, int], dict[str, Any]]  # (batch, frames)
    layers: int  # video self-attention layers
    latents: Callable[[Tensor], Tensor] = lambda video: video  # (B, C, F, H, W) -> the layout of the class
    patch_t: int = 1

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        model = self.build().eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        for p in model.parameters():  # gates are initialised to zero, which would hide the attention
            if p.numel() > 1 and not p.any():
                p.data.normal_(0, 0.05, generator=generator)
        return model

    def inputs(
        self, batch: int = 2, frames: int = T, timestep: float = 500.0, video: Tensor | None = None
    ) -> dict[str, Any]:
        inputs = self.make_inputs(batch, frames)
        inputs["timestep"] = torch.full_like(inputs["timestep"], timestep, dtype=torch.float32)
        if video is not None:
            inputs["hidden_states"] = self.latents(video)
        return inputs

    def noise_video(self, batch: int, frames: int = T, seed: int = 0) -> Tensor:
        channels = {"wan_i2v": 12}.get(self.name, 4)
        return noise(batch, channels, frames * self.patch_t, 2 * H, 2 * W, seed=seed)

    @property
    def name(self) -> str:
        return next(name for name, tiny in TINY.items() if tiny is self)


def run(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """The model's prediction, (B, ...)."""
    with torch.no_grad():
        return model(**inputs, return_dict=False)[0]


def take(inputs: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Some samples of a batch of inputs."""
    size = inputs["hidden_states"].shape[0]
    return {
        k: v[rows] if isinstance(v, Tensor) and v.ndim > 0 and v.shape[0] == size and k != "image_rotary_emb" else v
        for k, v in inputs.items()
    }


# ------------------------------------------------------------------------------------------------------- Wan
WAN = dict(
    patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
    freq_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True, rope_max_seq_len=32,
)  # fmt: skip


def wan(**changes: Any) -> nn.Module:
    return diffusers.WanTransformer3DModel(**{**WAN, **changes})


def _wan_inputs(batch: int, frames: int, channels: int = 4, text: int = TEXT) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, channels, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, text, 16, seed=1),
    }


def _wan_i2v_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {**_wan_inputs(batch, frames, 12, 512), "encoder_hidden_states_image": noise(batch, 5, 8, seed=2)}


def _wan_ti2v_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {**_wan_inputs(batch, frames), "timestep": torch.full((batch, frames * H * W), 500.0)}


# -------------------------------------------------------------------------------------------------- CogVideoX
COG = dict(
    num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=4, text_embed_dim=8,
    num_layers=2, sample_width=2 * W, sample_height=2 * H, sample_frames=4 * (T - 1) + 1, patch_size=2,
    temporal_compression_ratio=4, max_text_seq_length=TEXT,
)  # fmt: skip


def cog(**changes: Any) -> nn.Module:
    return diffusers.CogVideoXTransformer3DModel(**{**COG, **changes})


def _cog_inputs(batch: int, frames: int, patch_t: int = 1, rope: bool = True) -> dict[str, Any]:
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


# ----------------------------------------------------------------------------------------------- HunyuanVideo
HUNYUAN = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, num_single_layers=2,
    num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True, text_embed_dim=16,
    pooled_projection_dim=8, rope_axes_dim=(4, 4, 4),
)  # fmt: skip


def hunyuan(**changes: Any) -> nn.Module:
    return diffusers.HunyuanVideoTransformer3DModel(**{**HUNYUAN, **changes})


def _hunyuan_inputs(batch: int, frames: int, channels: int = 4, guidance: bool = True) -> dict[str, Any]:
    mask = torch.ones(batch, TEXT, dtype=torch.long)
    mask[1::2, -2:] = 0
    inputs = {
        "hidden_states": noise(batch, channels, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "encoder_attention_mask": mask,
        "pooled_projections": noise(batch, 8, seed=2),
    }
    return {**inputs, "guidance": torch.full((batch,), 6000.0)} if guidance else inputs


# -------------------------------------------------------------------------------------------------------- LTX
LTX = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24, num_layers=2,
    caption_channels=16,
)  # fmt: skip


def _ltx_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, frames * 4 * H * W, 4),
        "timestep": torch.full((batch, 1), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "encoder_attention_mask": torch.ones(batch, TEXT),
        "num_frames": frames,
        "height": 2 * H,
        "width": 2 * W,
    }


TINY: dict[str, Tiny] = {
    "wan": Tiny(wan, _wan_inputs, 2),
    "wan_i2v": Tiny(lambda: wan(in_channels=12, added_kv_proj_dim=24, image_dim=8), _wan_i2v_inputs, 2),
    "wan22_ti2v": Tiny(wan, _wan_ti2v_inputs, 2),
    "cogvideox_2b": Tiny(cog, lambda b, t: _cog_inputs(b, t, rope=False), 2, lambda v: v.transpose(1, 2)),
    "cogvideox_5b": Tiny(
        lambda: cog(use_rotary_positional_embeddings=True), _cog_inputs, 2, lambda v: v.transpose(1, 2)
    ),
    "cogvideox_15": Tiny(
        lambda: cog(use_rotary_positional_embeddings=True, patch_size_t=2, patch_bias=False),
        lambda b, t: _cog_inputs(b, t, patch_t=2), 2, lambda v: v.transpose(1, 2), patch_t=2,
    ),
    "hunyuan": Tiny(hunyuan, _hunyuan_inputs, 4),
    "hunyuan_token_replace": Tiny(
        lambda: hunyuan(guidance_embeds=False, image_condition_type="token_replace"),
        lambda b, t: _hunyuan_inputs(b, t, guidance=False), 4,
    ),
    "hunyuan_latent_concat": Tiny(
        lambda: hunyuan(in_channels=9, guidance_embeds=False, image_condition_type="latent_concat"),
        lambda b, t: _hunyuan_inputs(b, t, channels=9, guidance=False), 4,
    ),
    "ltx": Tiny(
        lambda: diffusers.LTXVideoTransformer3DModel(**LTX), _ltx_inputs, 2, lambda v: v.flatten(2).transpose(1, 2)
    ),
}  # fmt: skip
