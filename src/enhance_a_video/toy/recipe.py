"""What the embedded model is made of: sizes, vocabulary and training settings, in one place.

All parts are stock diffusers and transformers classes, so that `diffusers.WanPipeline` loads and runs the folder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from . import world

LATENT_CHANNELS = 24
TEXT_WIDTH = 128
TEXT_READER = [len(world.MOTIONS), len(world.COLOURS), len(world.TEXTURES)]  # what is read off a noun's text state
TRUTH_WIDTH = 16 * len(world.KINDS) + len(world.COLOURS) + 1  # of train_transformer.truth_map


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
    """Flow matching on the latents of `clips` captioned clips; the text encoder learns with the transformer."""

    clips: int = 8000
    captions: int = 4  # phrasings of each clip
    steps: int = 6000
    batch: int = 32
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    warmup: int = 100
    decay: int = 800  # the last steps, over which the rates fall to zero
    lengths: tuple[int, ...] = (32,) * 16 + (
        128,
        128,
        512,
    )  # padded text lengths met in training: any of them works later
    unconditional: float = 0.1  # share of samples with an empty prompt (classifier-free guidance)
    shift: float = 3.0  # of the flow-matching schedule, in training and in sampling
    ema: float = 0.997
    reading: float = 0.5  # weight of reading the truth (which kind and colour is where) off the hidden states after
    binding: float = 0.1  # weight of reading each thing's motion, colour and texture off the text state of its noun
    read_at: int = 3  # this block: the world knows it, and a model that must know it too learns to draw sooner
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


def build_transformer() -> WanTransformer3DModel:
    """A small Wan transformer: 6 layers, 4 heads of 64; 144 tokens for 9 latent frames of 8x8."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=64, num_layers=6, ffn_dim=768,
        in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, text_dim=TEXT_WIDTH, freq_dim=128,
        cross_attn_norm=True, rope_max_seq_len=64,
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
                # Near words count more, from the beginning (as in ALiBi): one head looks back, one at the word before,
                # one ahead, one everywhere.
                for head, (back, ahead) in enumerate(((2.0, 9.0), (9.0, 0.7), (0.7, 9.0), (0.3, 0.3))):
                    bias[:16, head], bias[16:, head] = -back * distances, -ahead * distances
    return encoder


def build_trained(vocabulary: int) -> torch.nn.ModuleDict:
    """What is trained together: transformer, text encoder, and two readers, which are left behind in the end."""
    transformer = build_transformer()
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    reader = torch.nn.Sequential(
        torch.nn.LayerNorm(width), torch.nn.Linear(width, 256), torch.nn.GELU(), torch.nn.Linear(256, TRUTH_WIDTH)
    )
    parts = {
        "transformer": transformer,
        "text_encoder": build_text_encoder(vocabulary),
        "reader": reader,
        "text_reader": torch.nn.Linear(TEXT_WIDTH, sum(TEXT_READER)),
    }
    return torch.nn.ModuleDict(parts)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the world's sentences; other words are <unk>."""
    sentences = [phrase for phrases in world.MOTIONS.values() for phrase in phrases] + list(world.BACKDROPS.values())
    words = {word for sentence in sentences for word in sentence.split()}
    words |= {*world.COLOURS, *world.KINDS, *world.TEXTURES, "a", "an", "and", "while", ".", ","}
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *sorted(words)])}
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


def embed(
    tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, prompts: list[str], length: int
) -> torch.Tensor:
    """Text states as WanPipeline makes them, zero beyond each prompt's end: (B, length, TEXT_WIDTH)."""
    tokens = tokenizer(prompts, padding="longest", max_length=length, truncation=True, return_tensors="pt")
    mask = tokens.attention_mask  # (B, n)
    states = encoder(tokens.input_ids, mask).last_hidden_state * mask[..., None]  # (B, n, TEXT_WIDTH)
    return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[1]))  # (B, length, TEXT_WIDTH)
