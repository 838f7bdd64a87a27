"""SANA-WM and its refiner; SANA-Video, which is refused."""

# ruff: noqa: C408
import functools
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from .base import TEXT, H, Tiny, W, noise

FRAME = 10.0  # (fx, fy, cx, cy) of the cameras


def sana_video() -> nn.Module:
    return diffusers.SanaVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=8,
        mlp_ratio=2.5, patch_size=(1, 2, 2), rope_max_seq_len=32,
    )  # fmt: skip


def _world() -> nn.Module:
    """Four blocks, of which the second and the fourth have softmax attention."""
    return diffusers.SanaWMTransformer3DModel(
        in_channels=4, num_layers=4, hidden_size=32, num_attention_heads=2, linear_head_dim=16, patch_size=(1, 1, 1),
        softmax_every_n=2, caption_channels=8, chunk_plucker_channels=6, mlp_ratio=2.0,
    )  # fmt: skip


def _world_inputs(batch: int, frames: int, cameras: bool = False) -> dict[str, Any]:
    inputs = {
        "hidden_states": noise(batch, 4, frames, H, W),
        "timestep": torch.full((batch, 1, frames), 500.0),
        "encoder_hidden_states": noise(batch, 1, TEXT, 8, seed=1),
        "mask": torch.ones(batch, TEXT),
    }
    if cameras:  # the pose (4, 4), looking ahead and moving on, and the lens
        pose = torch.eye(4).repeat(batch, frames, 1, 1)
        pose[:, :, 2, 3] = torch.arange(frames)
        lens = torch.tensor([FRAME, FRAME, W / 2, H / 2]).expand(batch, frames, 4)
        inputs["camera_conditions"] = torch.cat([pose.flatten(2), lens], -1)
    return inputs


def _same_world_keys(model: nn.Module) -> None:
    for block in model.blocks:
        query, key, _ = block.attn.qkv.weight.data.chunk(3)
        key.copy_(query)


# ------------------------------------------------------------------------------------------------------ refiner
LTX2 = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24,
    audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=6,
    audio_cross_attention_dim=12, num_layers=2, caption_channels=16, rope_double_precision=False,
)  # fmt: skip
BEFORE = 3  # frames refined before: one sink, two of history


def _refiner(**changes: Any) -> nn.Module:
    return diffusers.SanaWMLTX2RefinerTransformer3DModel(**{**LTX2, **changes})


@functools.cache
def rotary(batch: int, frames: tuple[int, ...], **changes: Any) -> tuple[Tensor, Tensor]:
    with torch.device("meta"):  # it takes no weights
        model = _refiner(**changes)
    return model.build_rotary_emb_for_absolute_positions(batch, list(frames), H, W, torch.device("cpu"), 24.0)


def _refiner_inputs(batch: int, frames: int, first: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, frames * H * W, 4),
        "timestep": torch.full((batch, frames * H * W), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "video_rotary_emb": tuple(x.clone() for x in rotary(batch, tuple(range(first, first + frames)), **changes)),
    }


def _cached_inputs(batch: int, frames: int) -> dict[str, Any]:
    """A block in the middle of a video, its heads' rotary embedding apart, with the keys of earlier frames."""
    from diffusers.models.transformers.transformer_sana_wm_refiner import SanaWMRefinerKVCache

    cache, sites = SanaWMRefinerKVCache(2), H * W
    cache.sink_pe = rotary(batch, (0,), rope_type="split")
    for layer in range(2):
        cache.get(layer).store_sink(noise(batch, sites, 24, seed=3), noise(batch, sites, 24, seed=4))
        history = (BEFORE - 1) * sites
        cache.get(layer).store_history(noise(batch, history, 24, seed=5), noise(batch, history, 24, seed=6))
    return {
        **_refiner_inputs(batch, frames, first=BEFORE, rope_type="split"),
        "kv_cache": cache,
        "kv_cache_mode": "inject",
    }


def packed(video: Tensor) -> Tensor:
    """(B, C, F, H, W) -> (B, F*H*W, C)."""
    return video.flatten(2).transpose(1, 2).contiguous()


TINY = {
    "sana_wm": Tiny(
        "SanaWMTransformer3DModel", _world, _world_inputs, 2, size=(H, W), sharpen=_same_world_keys,
    ),
    "sana_wm_cameras": Tiny(
        "SanaWMTransformer3DModel", _world, lambda b, t: _world_inputs(b, t, cameras=True), 2, size=(H, W),
        sharpen=_same_world_keys,
    ),
    "sana_wm_refiner": Tiny(
        "SanaWMLTX2RefinerTransformer3DModel", _refiner, _refiner_inputs, 2, packed, size=(H, W),
    ),
    "sana_wm_refiner_cached": Tiny(
        "SanaWMLTX2RefinerTransformer3DModel", lambda: _refiner(rope_type="split"), _cached_inputs, 2, packed,
        size=(H, W), batches=False,  # the cache is made for one number of samples
    ),
}  # fmt: skip
