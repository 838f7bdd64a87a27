"""Kandinsky 5 and 6."""

# ruff: noqa: C408
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from . import flex  # noqa: F401
from .base import TEXT, H, T, Tiny, W, noise

KANDINSKY_5 = dict(
    in_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
    model_dim=24, ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 4, 4),
)  # fmt: skip
BLOCK = 8  # NABLA's neighbourhoods are 8 x 8


def channels_last(video: Tensor) -> Tensor:
    return video.permute(0, 2, 3, 4, 1).contiguous()


def _text(batch: int) -> dict[str, Any]:
    return {
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "pooled_projections": noise(batch, 8, seed=2),
        "timestep": torch.full((batch,), 500.0),
    }


def _inputs(batch: int, frames: int, height: int = H, width: int = W) -> dict[str, Any]:
    return {
        **_text(batch),
        "hidden_states": noise(batch, frames, 2 * height, 2 * width, 4),
        "visual_rope_pos": [torch.arange(n) for n in (frames, height, width)],
        "text_rope_pos": torch.arange(TEXT),
    }


def _nabla() -> nn.Module:
    model = diffusers.Kandinsky5Transformer3DModel(
        **{**KANDINSKY_5, "axes_dims": (8, 4, 4), "model_dim": 32, "num_visual_blocks": 1}, attention_type="nabla"
    )
    for block in model.visual_transformer_blocks:  # a block mask needs the flex backend
        block.self_attention.processor._attention_backend = "flex"
    return model


def _nabla_inputs(batch: int, frames: int) -> dict[str, Any]:
    height, width = BLOCK, 2 * BLOCK
    blocks = frames * (height // BLOCK) * (width // BLOCK)
    return {
        **_inputs(batch, frames, height, width),
        "sparse_params": {
            "sta_mask": torch.ones(1, 1, blocks, blocks, dtype=torch.bool), "attention_type": "nabla",
            "to_fractal": True, "P": 0.9, "wT": 11, "wW": 3, "wH": 3, "add_sta": True,
            "visual_shape": (frames, height, width), "method": "topcdf",
        },
    }  # fmt: skip


def same_keys(model: nn.Module) -> None:
    for block in model.visual_transformer_blocks:
        attention = getattr(block, "video_dec_block", block).self_attention
        attention.to_key.load_state_dict(attention.to_query.state_dict())
        attention.query_norm.weight.data.mul_(1.5)  # the embedding of token types makes tokens more alike


# -------------------------------------------------------------------------------------------------- Kandinsky 6
def _kandinsky_6(**changes: Any) -> nn.Module:
    return diffusers.Kandinsky6Transformer3DModel(
        **KANDINSKY_5, visual_cond=True, in_audio_dim=5,
        out_audio_dim=5, ca_rope=True, cross_gates=True, fix_modulation=True, **changes,
    )  # fmt: skip


def _audio_video_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        **_text(batch),
        "hidden_states": noise(batch, frames, 2 * H, 2 * W, 9),
        "audio_hidden_states": noise(batch, 6, 5, seed=3),
    }


def _reference_inputs(batch: int, frames: int) -> dict[str, Any]:
    """As image-to-video gives them: the clean reference frame last, at the place of the first, of another type."""
    inputs = _audio_video_inputs(batch, frames)
    types = torch.zeros(batch, frames + 1, dtype=torch.long)
    types[:, -1] = 1
    return {
        **inputs,
        "hidden_states": before_the_reference(noise(batch, 9, frames, 2 * H, 2 * W)),
        "visual_token_type_ids": types,
        "visual_rope_pos": (torch.tensor([*range(frames), 0]), torch.arange(H), torch.arange(W)),
    }


def before_the_reference(video: Tensor) -> Tensor:
    reference = noise(len(video), video.shape[1], 1, *video.shape[3:], seed=7)
    return channels_last(torch.cat([video, reference], 2))


def _upscaler() -> nn.Module:
    return diffusers.Kandinsky6SRTransformer3DModel(
        in_visual_dim=4, out_visual_dim=4, time_dim=16, patch_size=(1, 1, 1), model_dim=32, ff_dim=32,
        num_visual_blocks=1, axes_dims=(8, 4, 4),
    )  # fmt: skip


def _upscaler_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {"hidden_states": noise(batch, frames, BLOCK, 2 * BLOCK, 9), "timestep": torch.full((batch,), 500.0)}


TINY = {
    "kandinsky_5": Tiny(
        "Kandinsky5Transformer3DModel", lambda: diffusers.Kandinsky5Transformer3DModel(**KANDINSKY_5), _inputs, 2,
        channels_last, sharpen=same_keys,
    ),
    "kandinsky_5_nabla": Tiny(
        "Kandinsky5Transformer3DModel", _nabla, _nabla_inputs, 1, channels_last, size=(2 * BLOCK, 4 * BLOCK),
        batches=False,  # it rounds query and key to bfloat16: test_rows.py compares with that much tolerance
        sharpen=same_keys,
    ),
    "kandinsky_6": Tiny(
        "Kandinsky6Transformer3DModel", _kandinsky_6, _audio_video_inputs, 2, channels_last, channels=9,
        sharpen=same_keys,
    ),
    "kandinsky_6_reference": Tiny(
        "Kandinsky6Transformer3DModel", lambda: _kandinsky_6(visual_token_type_num_embeddings=2), _reference_inputs, 2,
        before_the_reference, channels=9, sharpen=same_keys,
    ),
    "kandinsky_6_sr": Tiny(
        "Kandinsky6SRTransformer3DModel", _upscaler, _upscaler_inputs, 1, channels_last, channels=9,
        size=(BLOCK, 2 * BLOCK), frames=(T, 2), sharpen=same_keys,
    ),
}  # fmt: skip
