"""A tiny FluxPipeline with real text encoders, saved to a folder: what the commands load for pictures."""

import copy
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

DEFAULTS = {"steps": 3, "guidance": 3.5, "height": 32, "width": 48}


def save_flux_pipeline(folder: Path, tokenizer: Any) -> Path:
    """tokenizer: of both encoders; CLIP's reads 77 tokens."""
    short = copy.deepcopy(tokenizer)
    short.model_max_length = 77
    torch.manual_seed(0)
    words = len(tokenizer)
    clip = CLIPTextConfig(
        vocab_size=words, hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=12, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    t5 = T5Config(vocab_size=words, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=12, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=12, axes_dims_rope=(4, 4, 4), guidance_embeds=True,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.0, scaling_factor=1.0,
    )  # fmt: skip
    for parameter in transformer.parameters():
        if parameter.numel() > 1 and not parameter.detach().any():
            parameter.data.normal_(0, 0.05)
    pipe = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae.eval(), transformer=transformer.eval(),
        text_encoder=CLIPTextModel(clip).eval(), tokenizer=short,
        text_encoder_2=T5EncoderModel(t5).eval(), tokenizer_2=tokenizer,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    (folder / "defaults.json").write_text(json.dumps(DEFAULTS))
    return folder
