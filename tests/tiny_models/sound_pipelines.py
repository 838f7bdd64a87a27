"""Tiny pipelines of sound with real text encoders and VAEs, saved to a folder: what the commands load for sound."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import Qwen3Config, Qwen3Model, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

# Samples a second (Chromium plays none below 3,000), samples of a latent, latents: 2 seconds at most.
RATE, HOP, LATENTS = 8000, 32, 500


def _vae(channels: int) -> Any:
    return diffusers.AutoencoderOobleck(
        encoder_hidden_size=8, downsampling_ratios=[4, 8], channel_multiples=[1, 2], decoder_channels=8,
        decoder_input_channels=4, audio_channels=channels, sampling_rate=RATE,
    ).eval()  # fmt: skip


def _stable_audio(tokenizer: Any) -> Any:
    transformer = diffusers.StableAudioDiTModel(
        sample_size=LATENTS, in_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        num_key_value_attention_heads=1, out_channels=4, cross_attention_dim=16, time_proj_dim=16,
        global_states_input_dim=32, cross_attention_input_dim=16,
    )  # fmt: skip
    t5 = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    projection = diffusers.StableAudioProjectionModel(
        text_encoder_dim=16, conditioning_dim=16, min_value=0, max_value=2
    )
    return diffusers.StableAudioPipeline(
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(), vae=_vae(2), transformer=transformer.eval(),
        text_encoder=T5EncoderModel(t5).eval(), tokenizer=tokenizer, projection_model=projection.eval(),
    )  # fmt: skip


def _ace_step(tokenizer: Any) -> Any:
    heads = {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
             "head_dim": 12}  # fmt: skip
    transformer = diffusers.AceStepTransformer1DModel(
        **heads, num_hidden_layers=2, in_channels=12, audio_acoustic_hidden_dim=4, patch_size=2, sliding_window=50
    )
    condition = diffusers.AceStepConditionEncoder(
        **heads, text_hidden_dim=16, timbre_hidden_dim=4, num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
    )  # fmt: skip
    condition.silence_latent.normal_()
    qwen = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    return diffusers.AceStepPipeline(
        vae=_vae(2), text_encoder=Qwen3Model(qwen).eval(), tokenizer=tokenizer, transformer=transformer.eval(),
        condition_encoder=condition.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )  # fmt: skip


def _longcat_audio(tokenizer: Any) -> Any:
    transformer = diffusers.LongCatAudioDiTTransformer(
        dit_dim=24, dit_depth=2, dit_heads=2, dit_text_dim=16, latent_dim=4, ff_mult=2.0
    )
    vae = diffusers.LongCatAudioDiTVae(
        channels=8, c_mults=[1, 2], strides=[4, 8], latent_dim=4, encoder_latent_dim=8, downsampling_ratio=HOP,
        sample_rate=RATE,
    )  # fmt: skip
    umt5 = UMT5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return diffusers.LongCatAudioDiTPipeline(
        vae=vae.eval(), text_encoder=UMT5EncoderModel(umt5).eval(), tokenizer=tokenizer, transformer=transformer.eval()
    )


PIPELINES: dict[str, Callable[[Any], Any]] = {
    "stable_audio": _stable_audio, "ace_step": _ace_step, "longcat_audio": _longcat_audio,
}  # fmt: skip


def save_sound_pipeline(name: str, folder: Path, tokenizer: Any) -> Path:
    """name: of PIPELINES."""
    tokenizer.model_max_length = 64
    torch.manual_seed(0)
    pipe = PIPELINES[name](tokenizer)
    for parameter in pipe.transformer.parameters():
        if parameter.numel() > 1 and not parameter.detach().any():
            parameter.data.normal_(0, 0.05)
    pipe.save_pretrained(folder)
    (folder / "defaults.json").write_text(json.dumps({"steps": 3, "guidance": 3.0}))
    return folder
