"""LTX and LTX-2."""

# ruff: noqa: C408
from typing import Any

import diffusers
import torch
from torch import Tensor

from .base import TEXT, H, Tiny, W, noise

LTX = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24, num_layers=2,
    caption_channels=16,
)  # fmt: skip
SITES = 4 * H * W
FPS = 25


def _packed(video: Tensor) -> Tensor:
    return video.flatten(2).transpose(1, 2)


def _inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, frames * SITES, 4),
        "timestep": torch.full((batch, 1), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "encoder_attention_mask": torch.ones(batch, TEXT),
        "num_frames": frames,
        "height": 2 * H,
        "width": 2 * W,
    }


# ------------------------------------------------------------------------------------ conditions given by place
def _coordinates(start: int, frames: int) -> Tensor:
    """(3, frames * SITES): seconds and pixels, as LTXConditionPipeline makes them; the first latent is one frame."""
    time, row, column = torch.meshgrid(torch.arange(frames), torch.arange(2 * H), torch.arange(2 * W), indexing="ij")
    time = (8 * time - 7).clamp(min=0) + start
    return torch.stack([time / FPS, 32.0 * row, 32.0 * column]).flatten(1)


def _by_place(batch: int, frames: int, before: int = 0, after: int = 0) -> dict[str, Any]:
    """Condition frames before the video (LTXConditionPipeline) or behind it (LTXI2VLongMultiPromptPipeline)."""
    parts = [_coordinates(16, before), _coordinates(0, frames), _coordinates(0, after)]
    inputs = _inputs(batch, before + frames + after)
    for name in ("num_frames", "height", "width"):
        del inputs[name]
    return {**inputs, "video_coords": torch.cat(parts, 1).expand(batch, -1, -1).clone()}


def _between(video: Tensor, before: int = 0, after: int = 0) -> Tensor:
    around = [noise(len(video), n * SITES, 4, seed=7 + n) for n in (before, after)]
    return torch.cat([around[0], _packed(video), around[1]], 1)


# ------------------------------------------------------------------------------------------------------- LTX-2
LTX2 = dict(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24,
    audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=6,
    audio_cross_attention_dim=12, num_layers=2, caption_channels=16, rope_double_precision=False,
)  # fmt: skip
LTX23 = dict(
    LTX2, gated_attn=True, audio_gated_attn=True, cross_attn_mod=True, audio_cross_attn_mod=True, perturbed_attn=True,
    rope_type="split",
)  # fmt: skip


def _ltx2_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, frames * H * W, 4),
        "audio_hidden_states": noise(batch, 5, 4, seed=4),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "audio_encoder_hidden_states": noise(batch, TEXT, 16, seed=2),
        "timestep": torch.full((batch,), 500.0),
        "sigma": torch.full((batch,), 500.0),
        "encoder_attention_mask": torch.ones(batch, TEXT),
        "audio_encoder_attention_mask": torch.ones(batch, TEXT),
        "num_frames": frames,
        "height": H,
        "width": W,
        "fps": float(FPS),
        "audio_num_frames": 5,
    }


def _ltx2_coordinates(start: int, frames: int, single: bool = False) -> Tensor:
    """(3, frames * H * W, 2), from and to; a single latent may stand for one frame of the video, a keyframe."""
    time, row, column = torch.meshgrid(torch.arange(frames), torch.arange(H), torch.arange(W), indexing="ij")
    first, last = (8 * time - 7).clamp(min=0) + start, 8 * time + 1 + start
    if single:
        first, last = start + time, start + time + 1
    spans = [(first / FPS, last / FPS), (32.0 * row, 32.0 * row + 32), (32.0 * column, 32.0 * column + 32)]
    return torch.stack([torch.stack(span, -1) for span in spans]).flatten(1, 3)


def _keyframes_inputs(batch: int, frames: int, sizes: bool) -> dict[str, Any]:
    """Two keyframes appended, of which the last is the video's last frame; sizes: whether T, H and W are given."""
    inputs = _ltx2_inputs(batch, frames)
    keys = [_ltx2_coordinates(0, 1, True), _ltx2_coordinates(8 * (frames - 1), 1, True)]
    coordinates = torch.cat([_ltx2_coordinates(0, frames), *keys], 1)
    inputs["hidden_states"] = noise(batch, (frames + 2) * H * W, 4)
    inputs["video_coords"] = coordinates.expand(batch, -1, -1, -1).clone()
    if not sizes:  # as LTX2DFRPipeline
        for name in ("num_frames", "height", "width"):
            del inputs[name]
    return inputs


def _with_keyframes(video: Tensor) -> Tensor:
    return torch.cat([_packed(video), noise(len(video), 2 * H * W, 4, seed=7)], 1)


def _ltx() -> Any:
    return diffusers.LTXVideoTransformer3DModel(**LTX)


def _ltx2() -> Any:
    return diffusers.LTX2VideoTransformer3DModel(**LTX2)


TINY = {
    "ltx": Tiny("LTXVideoTransformer3DModel", _ltx, _inputs, 2, _packed),
    "ltx_conditions": Tiny(
        "LTXVideoTransformer3DModel", _ltx, lambda b, t: _by_place(b, t, before=2), 2,
        lambda video: _between(video, before=2),
    ),
    "ltx_guides": Tiny(
        "LTXVideoTransformer3DModel", _ltx, lambda b, t: _by_place(b, t, after=1), 2,
        lambda video: _between(video, after=1),
    ),
    "ltx2": Tiny("LTX2VideoTransformer3DModel", _ltx2, _ltx2_inputs, 2, _packed, size=(H, W)),
    "ltx2_keyframes": Tiny(
        "LTX2VideoTransformer3DModel", _ltx2, lambda b, t: _keyframes_inputs(b, t, sizes=True), 2, _with_keyframes,
        size=(H, W),
    ),
    "ltx2_keyframes_by_place": Tiny(
        "LTX2VideoTransformer3DModel", _ltx2, lambda b, t: _keyframes_inputs(b, t, sizes=False), 2, _with_keyframes,
        size=(H, W),
    ),
    "ltx23": Tiny(
        "LTX2VideoTransformer3DModel", lambda: diffusers.LTX2VideoTransformer3DModel(**LTX23), _ltx2_inputs, 2,
        _packed, size=(H, W),
    ),
}  # fmt: skip
