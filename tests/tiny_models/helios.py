"""Helios, MiniMax-H3, Motif-Video."""

from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from .base import TEXT, H, Tiny, W, noise


def _helios() -> nn.Module:
    return diffusers.HeliosTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=32, ffn_dim=32, num_layers=2, rope_dim=(4, 4, 4), is_amplify_history=True,
    )  # fmt: skip


def _first_chunk_inputs(batch: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, 4, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
    }


def _helios_inputs(batch: int, frames: int) -> dict[str, Any]:
    """A later chunk: 4 frames of history at a quarter of the size, 2 at half, 1 whole."""

    def history(frames: int, seed: int) -> Tensor:
        return noise(batch, 4, frames, 2 * H, 2 * W, seed=seed)

    return {
        **_first_chunk_inputs(batch, frames),
        "indices_hidden_states": torch.arange(7, 7 + frames)[None],
        "indices_latents_history_long": torch.arange(0, 4)[None],
        "indices_latents_history_mid": torch.arange(4, 6)[None],
        "indices_latents_history_short": torch.arange(6, 7)[None],
        "latents_history_long": history(4, seed=3),
        "latents_history_mid": history(2, seed=4),
        "latents_history_short": history(1, seed=5),
    }


# --------------------------------------------------------------------------------------------------- MiniMax-H3
REFERENCE = 2 * H * W  # tokens of a reference video of two frames
AUDIO = 4


def _minimax() -> nn.Module:
    return diffusers.MiniMaxH3Transformer3DModel(
        num_attention_heads=2, attention_head_dim=16, hidden_size=24, num_layers=2, num_refiner_layers=1, ffn_dim=32,
        in_channels=4, audio_in_channels=5, patch_size=(1, 2, 2), text_dim=8, freq_dim=32, time_embed_hidden_dim=16,
        time_embed_dim=16, rope_freq_dim=2,
    )  # fmt: skip


def _minimax_inputs(batch: int, frames: int, reference: int = 0) -> dict[str, Any]:
    """One sequence [text | reference | audio | video], as the pipeline packs it."""
    sizes = [TEXT, reference, AUDIO, frames * H * W]
    text, before, audio, video = torch.arange(sum(sizes)).split(sizes)
    positions = torch.zeros(sum(sizes), 3)
    positions[: video[0], 0] = torch.arange(int(video[0]))
    grid = [torch.arange(n) for n in (frames, H, W)]
    positions[video] = torch.tensor([20.0, 0.0, 0.0]) + torch.cartesian_prod(*grid) * torch.tensor([5 / 3, 1.0, 1.0])
    tags = torch.zeros(sum(sizes), dtype=torch.long)
    tags[text], tags[audio] = 1, 2
    return {
        "hidden_states": noise(batch, reference + frames * H * W, 16),
        "audio_hidden_states": noise(batch, AUDIO, 5, seed=2),
        "encoder_hidden_states": noise(batch, TEXT, 8, seed=1),
        "timestep": torch.tensor([0.5]),
        "timestep_indices": torch.zeros(sum(sizes), dtype=torch.long),
        "token_tags": tags,
        "position_ids": positions,
        "video_indices": torch.cat([before, video]),
        "audio_indices": audio,
        "text_indices": text,
    }


def _rows(video: Tensor) -> Tensor:
    """(B, C, F, 2H, 2W) -> (B, F*H*W, 4C)."""
    patches = video.unflatten(4, (-1, 2)).unflatten(3, (-1, 2))  # (B, C, F, H, 2, W, 2)
    return patches.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)


def _after_the_reference(video: Tensor) -> Tensor:
    return torch.cat([noise(len(video), REFERENCE, 16, seed=7), _rows(video)], 1)


# ----------------------------------------------------------------------------------------------------- Motif
def _motif() -> nn.Module:
    """Two dual blocks, two single blocks, one decoder block."""
    return diffusers.MotifVideoTransformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, num_single_layers=3,
        num_decoder_layers=1, patch_size=2, patch_size_t=1, text_embed_dim=16, rope_axes_dim=(4, 4, 4),
        enable_text_cross_attention_dual=True, enable_text_cross_attention_single=True,
    )  # fmt: skip


def _motif_inputs(batch: int, frames: int) -> dict[str, Any]:
    mask = torch.ones(batch, TEXT, dtype=torch.long)
    mask[1::2, -2:] = 0
    return {
        "hidden_states": noise(batch, 9, frames, 2 * H, 2 * W),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": noise(batch, TEXT, 16, seed=1),
        "encoder_attention_mask": mask,
    }


TINY = {
    "helios": Tiny("HeliosTransformer3DModel", _helios, _helios_inputs, 2),
    "helios_first_chunk": Tiny("HeliosTransformer3DModel", _helios, _first_chunk_inputs, 2),
    "minimax_h3": Tiny("MiniMaxH3Transformer3DModel", _minimax, _minimax_inputs, 2, _rows),
    "minimax_h3_reference": Tiny(
        "MiniMaxH3Transformer3DModel", _minimax, lambda b, t: _minimax_inputs(b, t, REFERENCE), 2, _after_the_reference,
        frames=(4, 2),  # a single frame beside a reference is refused: test_rows.py
    ),
    "motif_video": Tiny("MotifVideoTransformer3DModel", _motif, _motif_inputs, 5, channels=9),
}  # fmt: skip
