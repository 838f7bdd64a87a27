"""Cosmos 1 to 3."""

# ruff: noqa: C408
from typing import Any

import diffusers
import torch
from torch import nn

from .base import TEXT, H, T, Tiny, W, noise

COSMOS = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, mlp_ratio=2,
    text_embed_dim=16, adaln_lora_dim=4, max_size=(8, 32, 32), patch_size=(1, 2, 2), rope_scale=(2.0, 1.0, 1.0),
    concat_padding_mask=False, extra_pos_embed_type="learnable",
)  # fmt: skip


def _cosmos(**changes: Any) -> nn.Module:
    return diffusers.CosmosTransformer3DModel(**{**COSMOS, **changes})


def _cosmos_25() -> nn.Module:
    return _cosmos(
        extra_pos_embed_type=None, in_channels=5, use_crossattn_projection=True, crossattn_proj_in_channels=20,
        encoder_hidden_states_channels=16, img_context_dim_in=8, img_context_num_tokens=3, img_context_dim_out=24,
    )  # fmt: skip


def _inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, 4, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 0.5),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "attention_mask": torch.ones(batch, TEXT, dtype=torch.bool),
        "fps": 30,
    }


def _per_frame_inputs(batch: int, frames: int) -> dict[str, Any]:
    """As Predict2.5 gives them: a timestep a frame, text and image context, a mask of the given frames."""
    return {
        "hidden_states": noise(batch, 4, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch, 1, frames, 1, 1), 0.5),
        "encoder_hidden_states": (noise(batch, TEXT, 20, seed=1), noise(batch, 3, 8, seed=2)),
        "condition_mask": torch.zeros(batch, 1, frames, 2 * H, 2 * W),
    }


# ------------------------------------------------------------------------------------------------------ Cosmos 3
HEADS, KEY_HEADS, HEAD = 4, 2, 12


def _cosmos_3() -> nn.Module:
    return diffusers.Cosmos3OmniTransformer(
        head_dim=HEAD, hidden_size=24, intermediate_size=32, latent_channel=4, latent_patch_size=2,
        num_attention_heads=HEADS, num_hidden_layers=2, num_key_value_heads=KEY_HEADS, patch_latent_dim=16,
        vocab_size=32, rope_axes_dim=(2, 2, 2), sound_gen=True, sound_dim=5,
    )  # fmt: skip


def _packed_inputs(batch: int, frames: int, sound_first: bool = False) -> dict[str, Any]:
    """One sequence [text | video | sound], or with the sound before the video."""
    video, sound = frames * H * W, 3
    total = TEXT + video + sound
    order = torch.arange(total)
    first, last = (sound, video) if sound_first else (video, sound)
    parts = order[TEXT:].split([first, last])
    seen, heard = parts[::-1] if sound_first else parts
    positions = order.repeat(3, 1)  # time, row, column; of text and sound all three count on
    positions[:, seen] = TEXT + torch.cartesian_prod(*(torch.arange(n) for n in (frames, H, W))).T
    return {
        "input_ids": torch.arange(TEXT),
        "text_indexes": order[:TEXT],
        "position_ids": positions,
        "und_len": TEXT,
        "sequence_length": total,
        "vision_tokens": [noise(1, 4, frames, 2 * H, 2 * W)],
        "vision_token_shapes": [(frames, H, W)],
        "vision_sequence_indexes": seen,
        "vision_mse_loss_indexes": seen,
        "vision_timesteps": torch.full((video,), 500.0),
        "vision_noisy_frame_indexes": [torch.arange(frames)],
        "sound_tokens": [noise(1, 5, sound, seed=3)[0]],
        "sound_token_shapes": [(sound, 1, 1)],
        "sound_sequence_indexes": heard,
        "sound_mse_loss_indexes": heard,
        "sound_timesteps": torch.full((sound,), 500.0),
        "sound_noisy_frame_indexes": [torch.arange(sound)],
    }


def _same_keys(model: nn.Module) -> None:
    """Every query head = the key head that it shares with others."""
    for layer in model.layers:
        attention: Any = layer.self_attn
        key = attention.add_k_proj.weight.unflatten(0, (KEY_HEADS, HEAD))
        attention.add_q_proj.weight.data = key.repeat_interleave(HEADS // KEY_HEADS, 0).flatten(0, 1).clone()


TINY = {
    "cosmos": Tiny("CosmosTransformer3DModel", _cosmos, _inputs, 2, top=1.0),
    "cosmos_25": Tiny(
        "CosmosTransformer3DModel", _cosmos_25, _per_frame_inputs, 2, top=1.0, since="use_crossattn_projection",
    ),
    "cosmos_3": Tiny(
        "Cosmos3OmniTransformer", _cosmos_3, _packed_inputs, 2, lambda video: [video], stream="vision_tokens",
        timestep="vision_timesteps", batches=False, sharpen=_same_keys,
    ),
    "cosmos_3_sound_first": Tiny(
        "Cosmos3OmniTransformer", _cosmos_3, lambda b, t: _packed_inputs(b, t, sound_first=True), 2,
        lambda video: [video], stream="vision_tokens", timestep="vision_timesteps", batches=False, sharpen=_same_keys,
        frames=(T, 2),
    ),
}  # fmt: skip
