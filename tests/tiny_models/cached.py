"""Generation against cached keys: AnyFlow-FAR and Wan-Animate-2. Their kernel works on blocks of 128 tokens."""

from typing import Any
from unittest import mock

import diffusers
import torch
from torch import Tensor, nn

from . import flex  # noqa: F401
from .base import TEXT, H, T, Tiny, W, noise
from .wan import WAN

# -------------------------------------------------------------------------------------------------- AnyFlow-FAR
BEFORE = (1, 1, 2)  # frames of the chunks generated before; the first is kept small (compressed)
SMALL = H * W // 4


def _far() -> nn.Module:
    return diffusers.AnyFlowFARTransformer3DModel(
        **WAN, compressed_patch_size=(1, 4, 4), full_chunk_limit=3, chunk_partition=(*BEFORE, T)
    )


def far_inputs(batch: int, frames: int) -> dict[str, Any]:
    """A step of the chunk after BEFORE."""

    def keys_and_values(tokens: int, seed: int) -> Tensor:
        return noise(batch, 2, 2, tokens, 12, seed=seed).transpose(0, 1).contiguous()  # (2, B, H, N, D)

    return {
        "hidden_states": noise(batch, frames, 4, 2 * H, 2 * W),
        "timestep": torch.full((batch, frames), 500.0),
        "r_timestep": torch.full((batch, frames), 250.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "chunk_partition": [*BEFORE, frames],
        "kv_cache": [
            {
                "compressed_cache": keys_and_values(BEFORE[0] * SMALL, seed=10 + layer),
                "full_cache": keys_and_values(sum(BEFORE[1:]) * H * W, seed=20 + layer),
            }
            for layer in range(2)
        ],
        "kv_cache_flag": {"num_cached_chunks": len(BEFORE), "is_cache_step": False},
    }


# ------------------------------------------------------------------------------------------------ Wan-Animate-2
def _animate_2() -> nn.Module:
    from diffusers.models.transformers import transformer_wan_animate_2 as home

    model = diffusers.WanAnimate2Transformer3DModel(
        patch_size=(1, 2, 2), text_len=8, in_dim=8, dim=24, ffn_dim=32, freq_dim=32, text_dim=16, out_dim=4,
        num_heads=2, num_layers=2, use_img_emb=False,
    )  # fmt: skip
    made = home.create_block_mask
    with mock.patch.object(home, "create_block_mask", lambda *a, **k: made(*a, **{**k, "_compile": False})):
        model.block_masks = {(f, H * W): model.create_mask(f, H * W, "cpu") for f in (1, 2, T)}
    for offsets in ((0, 0, 0), (1, 0, W)):  # filled at the first call otherwise, which is not ours to undo
        model._rope_freqs(offsets, torch.device("cpu"))
    return model


def animate_2_inputs(batch: int, frames: int) -> dict[str, Any]:
    """A denoising step: the reference image's place and the video, beside the cached keys of the driving video."""
    from diffusers.models.transformers.transformer_wan_animate_2 import WanAnimate2KVCache

    cache = WanAnimate2KVCache(2)
    for layer in range(2):
        cache.get(layer).store(*(noise(batch, frames * H * W, 2, 12, seed=s + layer) for s in (10, 20)))
    return {
        "hidden_states": after_the_reference(noise(batch, 4, frames, 2 * H, 2 * W)),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": list(noise(batch, 6, 16, seed=1)),
        "condition_latents": list(0.1 * noise(batch, 4, frames + 1, 2 * H, 2 * W, seed=2)),
        "kv_cache": cache,
        "kv_cache_mode": "cached",
        "seq_len": (frames + 1) * H * W,
        "reference_grid_sizes": torch.tensor([[frames, H, W]] * batch),
        "origin_len": 4 * (frames - 1) + 1,
        "origin_area": (16 * H, 16 * W),
    }


def after_the_reference(video: Tensor) -> list[Tensor]:
    return list(torch.cat([noise(len(video), 4, 1, 2 * H, 2 * W, seed=7), video], 2))


# No batch here: a cache is made for one number of samples. test_rows.py gives each sample its own.
TINY = {
    "anyflow_far": Tiny(
        "AnyFlowFARTransformer3DModel", _far, far_inputs, 2, lambda video: video.transpose(1, 2), batches=False,
    ),
    "wan_animate_2": Tiny(
        "WanAnimate2Transformer3DModel", _animate_2, animate_2_inputs, 2, after_the_reference, batches=False,
    ),
}  # fmt: skip
