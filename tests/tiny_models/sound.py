"""Tiny sound models: 23 steps of latent sound, a token each."""

from typing import Any

import diffusers
import torch

from .base import Tiny, noise

STEPS, WORDS = 23, 7


def stable_audio() -> Any:
    return diffusers.StableAudioDiTModel(
        sample_size=STEPS, in_channels=4, num_layers=2, attention_head_dim=12, num_attention_heads=2,
        num_key_value_attention_heads=1, out_channels=4, cross_attention_dim=12, time_proj_dim=16,
        global_states_input_dim=8, cross_attention_input_dim=16,
    )  # fmt: skip


def _stable_audio(batch: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, 4, STEPS),
        "timestep": torch.full((batch,), 0.5),
        "encoder_hidden_states": noise(batch, WORDS, 16, seed=1),
        "global_hidden_states": noise(batch, 1, 8, seed=2),
    }


def ace_step() -> Any:
    """Its first layer sees a window of 5 steps each way, its second one everything."""
    return diffusers.AceStepTransformer1DModel(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=12, in_channels=12, audio_acoustic_hidden_dim=4, patch_size=2, sliding_window=5,
    )  # fmt: skip


def _ace_step(batch: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, 2 * STEPS - 1, 4),
        "timestep": torch.full((batch,), 0.5),
        "timestep_r": torch.full((batch,), 0.5),
        "encoder_hidden_states": noise(batch, WORDS, 24, seed=1),
        "context_latents": noise(batch, 2 * STEPS - 1, 8, seed=2),
    }


def longcat_audio() -> Any:
    return diffusers.LongCatAudioDiTTransformer(
        dit_dim=24, dit_depth=2, dit_heads=2, dit_text_dim=16, latent_dim=4, ff_mult=2.0
    )


def _longcat_audio(batch: int) -> dict[str, Any]:
    return {
        "hidden_states": noise(batch, STEPS, 4),
        "encoder_hidden_states": noise(batch, WORDS, 16, seed=1),
        "encoder_attention_mask": torch.ones(batch, WORDS, dtype=torch.bool),
        "timestep": torch.full((batch,), 0.5),
        "latent_cond": noise(batch, STEPS, 4, seed=2),
    }


def _padded(batch: int) -> dict[str, Any]:
    """As the pipeline calls it: which steps are sound. The last three of the first sample are padding."""
    mask = torch.ones(batch, STEPS, dtype=torch.bool)
    mask[0, -3:] = False
    return {**_longcat_audio(batch), "attention_mask": mask}


def _tiny(transformer: str, build: Any, inputs: Any) -> Tiny:
    return Tiny(transformer, build, lambda batch, frames: inputs(batch), layers=2, top=1.0, frames=(STEPS,))


SOUNDS: dict[str, Tiny] = {
    "stable_audio": _tiny("StableAudioDiTModel", stable_audio, _stable_audio),
    "ace_step": _tiny("AceStepTransformer1DModel", ace_step, _ace_step),
    "longcat_audio": _tiny("LongCatAudioDiTTransformer", longcat_audio, _longcat_audio),
    "longcat_audio_padded": _tiny("LongCatAudioDiTTransformer", longcat_audio, _padded),
}
