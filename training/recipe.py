"""Sizes, vocabulary and training settings of the embedded models, in one place.

All parts are stock diffusers and transformers classes, so that the pipelines of diffusers load and run the folders.
`architectures.py` combines them into models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    LatteTransformer3DModel,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from training.worlds import SHAPES, World

LATENT_CHANNELS = 24
FRAME_LATENT_CHANNELS = 4
PUPPET_LATENT_CHANNELS = 48
SHIFT = 3.0  # of the flow-matching schedule, in training and in sampling
TEXT_WIDTH = 128


@dataclass(frozen=True)
class VaeTraining:
    """Freshly drawn clips, single frames first and 9-frame windows then; squared and absolute error of the pixels."""

    image_steps: int = 300
    steps: int = 2100
    decoder_steps: int = 1350  # of the decoder alone, on whole clips: what it learned on windows drifts in longer ones
    decoder_batch: int = 1
    decoder_share: float = 0.4  # of the rates, in that stage
    decay: int = 600  # the last steps, over which the rates fall to zero
    decoder_decay: int = 350
    batch: int = 4
    frames: int = 9
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    absolute: float = 0.25  # weight of the absolute error: edges
    things: float = 5.0  # from step `things_from` on, the things' pixels weigh this much more than the backdrop's,
    things_from: int = 800  # which by then is right
    noise: float = 0.1  # standard deviation of the noise that the decoder must put up with
    size: float = 1e-4  # weight of the latents' mean square: keeps them from growing to escape that noise
    seed: int = 1


@dataclass(frozen=True)
class Training:
    """Denoising the latents of `clips` captioned clips; the text encoder learns with the transformer."""

    clips: int = 8000
    captions: int = 4  # phrasings of each clip
    steps: int = 6000
    batch: int = 32
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    warmup: int = 100
    decay: int = 800  # the last steps, over which the rates fall to zero
    unconditional: float = 0.1  # share of samples with an empty prompt (classifier-free guidance)
    ema: float = 0.997
    reading: float = 0.5  # weight of reading the truth (which kind and colour is where) off the hidden states after
    # one block, architectures.Architecture.read: the world has it, and a model that must learn it too draws sooner
    binding: float = 0.1  # weight of reading each thing's motion, colour and texture off the text state of its noun
    compile: bool = True
    seed: int = 2


def build_vae(mean: list[float] | None = None, std: list[float] | None = None) -> AutoencoderKLWan:
    """A small Wan VAE: 4x in time, 8x in space (its own 2x2 patches, then two halvings)."""
    return AutoencoderKLWan(
        base_dim=32, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[True, True], z_dim=LATENT_CHANNELS,
        patch_size=2, in_channels=12, out_channels=12, is_residual=True,  # residual as in Wan 2.2: learns faster
        scale_factor_temporal=4, scale_factor_spatial=8,
        latents_mean=mean or [0.0] * LATENT_CHANNELS, latents_std=std or [1.0] * LATENT_CHANNELS,
    )  # fmt: skip


def build_puppet_vae(mean: list[float] | None = None, std: list[float] | None = None) -> AutoencoderKLWan:
    """A small Wan VAE: 4x in time, 16x in space (its own 4x4 patches, then two halvings), as Wan 2.2's."""
    channels = PUPPET_LATENT_CHANNELS
    return AutoencoderKLWan(
        base_dim=32, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[True, True], z_dim=channels,
        patch_size=4, in_channels=48, out_channels=48, is_residual=True,
        scale_factor_temporal=4, scale_factor_spatial=16,
        latents_mean=mean or [0.0] * channels, latents_std=std or [1.0] * channels,
    )  # fmt: skip


def build_frame_vae() -> AutoencoderKL:
    """A small Stable Diffusion VAE, which takes one frame at a time: 4x in space."""
    return AutoencoderKL(
        block_out_channels=(16, 48, 96), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, norm_num_groups=8, sample_size=SHAPES.size,
        latent_channels=FRAME_LATENT_CHANNELS, mid_block_add_attention=False, scaling_factor=1.0, force_upcast=False,
    )  # fmt: skip


def build_transformer() -> WanTransformer3DModel:
    """A small Wan transformer: 6 layers, 4 heads of 64; 144 tokens for 9 latent frames of 8x8."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=64, num_layers=6, ffn_dim=768,
        in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, text_dim=TEXT_WIDTH, freq_dim=128,
        cross_attn_norm=True, rope_max_seq_len=64,
    )  # fmt: skip


def build_puppet_transformer() -> WanTransformer3DModel:
    """A small Wan transformer: 8 layers, 4 heads of 64; 576 tokens for 9 latent frames of 8x8."""
    return WanTransformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=4, attention_head_dim=64, num_layers=8, ffn_dim=768,
        in_channels=PUPPET_LATENT_CHANNELS, out_channels=PUPPET_LATENT_CHANNELS, text_dim=TEXT_WIDTH, freq_dim=128,
        cross_attn_norm=True, rope_max_seq_len=64,
    )  # fmt: skip


def build_joint_transformer() -> Any:
    """Text and video in one stream of attention, as in HunyuanVideo: 2 dual-stream and 4 single-stream blocks."""
    from diffusers import MotifVideoTransformer3DModel  # diffusers 0.37 or newer: only this model needs it

    return MotifVideoTransformer3DModel(
        in_channels=2 * LATENT_CHANNELS + 1, out_channels=LATENT_CHANNELS, num_attention_heads=4, attention_head_dim=64,
        num_layers=2, num_single_layers=4, mlp_ratio=3.0, patch_size=2, patch_size_t=1, text_embed_dim=TEXT_WIDTH,
        rope_axes_dim=(16, 24, 24),
    )  # fmt: skip


def build_temporal_transformer() -> LatteTransformer3DModel:
    """Latte: 4 blocks over space and text, 4 over time, in turns; 16 tokens for each of 17 frames of 16x16."""
    return LatteTransformer3DModel(
        num_attention_heads=4, attention_head_dim=48, in_channels=FRAME_LATENT_CHANNELS,
        out_channels=2 * FRAME_LATENT_CHANNELS,  # LattePipeline drops the second half, a variance once
        num_layers=4, cross_attention_dim=192, attention_bias=True, sample_size=SHAPES.size // 4, patch_size=4,
        activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, norm_eps=1e-6, caption_channels=TEXT_WIDTH,
        video_length=(SHAPES.frames + 1) // 2,
    )  # fmt: skip


def build_text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """A small UMT5 encoder, trained with the transformer."""
    config = UMT5Config(
        vocab_size=vocabulary, d_model=TEXT_WIDTH, d_kv=32, d_ff=256, num_layers=2, num_heads=4, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    encoder = UMT5EncoderModel(config)
    distances = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 18, 24, 32, 48.0])  # of T5's buckets, roughly
    with torch.no_grad():
        for name, bias in encoder.named_parameters():  # (32, heads): 16 buckets at or before a word, 16 after it
            if "relative_attention_bias" in name:
                # Near words count more, from the beginning (as in ALiBi): one head attends back, one to the word
                # before, one ahead, one everywhere.
                for head, (back, ahead) in enumerate(((2.0, 9.0), (9.0, 0.7), (0.7, 9.0), (0.3, 0.3))):
                    bias[:16, head], bias[16:, head] = -back * distances, -ahead * distances
    return encoder


def build_tokenizer(world: World = SHAPES) -> PreTrainedTokenizerFast:
    """One token a word of the world's sentences; other words are <unk>."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *world.words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    end = ("</s>", vocabulary["</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[end])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def text_states(
    tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, prompts: list[str], length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder's states (B, n, TEXT_WIDTH) and which of them are words (B, n) bool; n: `length`, or the longest."""
    padding = "longest" if length is None else "max_length"
    tokens = tokenizer(prompts, padding=padding, max_length=length, truncation=length is not None, return_tensors="pt")
    return encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state, tokens.attention_mask.bool()


def embed(
    tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, prompts: list[str], length: int
) -> torch.Tensor:
    """Text states as WanPipeline makes them, zero beyond each prompt's end: (B, length, TEXT_WIDTH)."""
    states, words = text_states(tokenizer, encoder, prompts)
    states = (states * words[..., None])[:, :length]  # (B, n, TEXT_WIDTH)
    return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[1]))  # (B, length, TEXT_WIDTH)
