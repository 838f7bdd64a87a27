"""The embedded models: one row for each architecture, all but `puppet` trained on the world of shapes.

    wan       cross-attention to the text, full 3D self-attention (Wan's class): the packaged model
    joint     text and video in one stream of attention (HunyuanVideo's class, in Motif-Video's format)
    temporal  attention over space and attention over time, in turns (Latte's class)
    puppet    Wan's class again, of the puppet world, 128 x 128

`wan` and `joint` share VAE, text encoder, noise and data: what differs between them is the attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from training.codecs import CLIPS, FRAMES, PUPPET_CLIPS, Codec
from training.recipe import (
    SHIFT,
    TEXT_WIDTH,
    build_joint_transformer,
    build_puppet_transformer,
    build_temporal_transformer,
    build_text_encoder,
    build_transformer,
)


@dataclass(frozen=True)
class Architecture:
    """One model, as training, export and generation need it."""

    name: str
    codec: Codec
    build: Callable[[], Any]  # the transformer
    predict: Callable[[Any, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    # (transformer, mixed (B, C, T, h, w), timestep (B,), text (B, n, width), words (B, n), prompted (B,)) -> v
    noisy: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    # (clean, noise, u (B,) from 0, clean, to 1) -> mixed, timestep (B,), the velocity to predict
    read: str  # the transformer's block off whose output the truth is read in training
    tokens: Callable[[Any, int], Tensor]  # that output, batch size -> (B, tokens, width), frame after frame
    pipeline: Callable[..., Any]  # of transformer, vae, text_encoder, tokenizer
    guidance: float  # the best of several on held-out prompts (the models' cards)
    lengths: tuple[int, ...] = (32,)  # padded text lengths met in training
    extra: dict[str, Any] = field(default_factory=dict)  # of the pipeline's call
    several: bool = True  # whether its pipeline treats several prompts as it treats one

    @property
    def frames(self) -> int:
        """Of a generated clip."""
        return -(-self.codec.world.frames // self.codec.every)

    @property
    def fps(self) -> float:
        return self.codec.world.fps / self.codec.every

    def defaults(self) -> dict[str, Any]:
        """What `generate` fills in, the folder's defaults.json."""
        side = self.codec.world.size
        size = {"frames": self.frames, "height": side, "width": side, "fps": self.fps}
        options = {
            "prompt": self.codec.world.prompt,
            **size,
            "steps": 20,
            "guidance": self.guidance,
            "extra": self.extra,
        }
        return options if self.several else options | {"several": False}

    def modules(self, vocabulary: int) -> torch.nn.ModuleDict:
        """What is trained together: transformer, text encoder, and two readers, which are left behind in the end."""
        transformer, world = self.build(), self.codec.world
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        reader = torch.nn.Sequential(
            torch.nn.LayerNorm(width),
            torch.nn.Linear(width, 256),
            torch.nn.GELU(),
            torch.nn.Linear(256, world.truth_width),
        )
        parts = {
            "transformer": transformer,
            "text_encoder": build_text_encoder(vocabulary),
            "reader": reader,
            "text_reader": torch.nn.Linear(TEXT_WIDTH, sum(world.attributes)),
        }
        return torch.nn.ModuleDict(parts)


# ------------------------------------------------------------------------------------------------------- noise


def _flow(clean: Tensor, noise: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flow matching with shift: a straight line from clean to noise."""
    sigma = SHIFT * u / (1 + (SHIFT - 1) * u)  # (B,)
    return torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1)), sigma * 1000, noise - clean


def ddim() -> DDIMScheduler:
    """Latte's noise (linear betas), predicting velocity, which is well defined in pure noise as well."""
    return DDIMScheduler(
        beta_schedule="linear", prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )  # fmt: skip


_ALPHAS = ddim().alphas_cumprod


def _diffusion(clean: Tensor, noise: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Variance-preserving diffusion: a quarter circle from clean to noise, the velocity along it."""
    timestep = (1000 * u).long().clamp(max=999)  # (B,)
    a = _ALPHAS.to(timestep.device)[timestep].view(-1, 1, 1, 1, 1)
    return a.sqrt() * clean + (1 - a).sqrt() * noise, timestep, a.sqrt() * noise - (1 - a).sqrt() * clean


# -------------------------------------------------------------------------------------- calls, as the pipelines do


def _predict_wan(model: Any, mixed: Tensor, timestep: Tensor, text: Tensor, words: Tensor, prompted: Tensor) -> Tensor:
    """WanPipeline sets the text states beyond a prompt's end to zero."""
    return model(mixed, timestep, text * words[..., None], return_dict=False)[0]


def _predict_joint(
    model: Any, mixed: Tensor, timestep: Tensor, text: Tensor, words: Tensor, prompted: Tensor
) -> Tensor:
    """MotifVideoPipeline masks them, and appends a picture to start from and its mask: none here."""
    nothing = mixed.new_zeros(mixed.shape[0], mixed.shape[1] + 1, *mixed.shape[2:])
    return model(torch.cat([mixed, nothing], 1), timestep, text, words, return_dict=False)[0]


def _predict_temporal(
    model: Any, mixed: Tensor, timestep: Tensor, text: Tensor, words: Tensor, prompted: Tensor
) -> Tensor:
    """LattePipeline cuts a prompt's states at its end, and the empty prompt's where the other prompt ends."""
    counts = torch.where(prompted[:, None], words, words.roll(1, 0))  # (B, n)
    bias = (~counts).to(mixed.dtype) * -10000.0
    bias = bias.repeat_interleave(mixed.shape[2], 0)[:, None]  # (B·T, 1, n)
    return model(mixed, timestep, text, bias, return_dict=False)[0][:, : mixed.shape[1]]


def _over_time(output: Tensor, batch: int) -> Tensor:
    """(B·sites, T, width) -> (B, T·sites, width)."""
    return output.unflatten(0, (batch, -1)).transpose(1, 2).flatten(1, 2)


# -------------------------------------------------------------------------- pipelines, imported when one is made


def _flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def _wan_pipeline(**parts: Any) -> Any:
    from diffusers import WanPipeline

    return WanPipeline(scheduler=_flow_scheduler(), **parts)


def _joint_pipeline(**parts: Any) -> Any:
    from diffusers import ClassifierFreeGuidance, MotifVideoPipeline

    guider = ClassifierFreeGuidance(guidance_scale=JOINT.guidance)  # where this pipeline has it
    return MotifVideoPipeline(scheduler=_flow_scheduler(), guider=guider, **parts)


def _temporal_pipeline(**parts: Any) -> Any:
    from diffusers import LattePipeline

    return LattePipeline(scheduler=ddim(), **parts)


# ------------------------------------------------------------------------------------------------------- the rows


WAN = Architecture(
    name="wan", codec=CLIPS, build=build_transformer, predict=_predict_wan, noisy=_flow,
    read="blocks.3", tokens=lambda output, batch: output,
    pipeline=_wan_pipeline,
    guidance=4.0, lengths=(32,) * 16 + (128, 128, 512),  # any of them works later
    extra={"max_sequence_length": 32},  # the longest sentence of the world has fewer words; 512 works, slower
)  # fmt: skip
JOINT = Architecture(
    name="joint", codec=CLIPS, build=build_joint_transformer, predict=_predict_joint, noisy=_flow,
    read="single_transformer_blocks.1", tokens=lambda output, batch: output[0],
    pipeline=_joint_pipeline,
    guidance=2.5, extra={"max_sequence_length": 32},
)  # fmt: skip
TEMPORAL = Architecture(
    name="temporal", codec=FRAMES, build=build_temporal_transformer, predict=_predict_temporal, noisy=_diffusion,
    read="temporal_transformer_blocks.1", tokens=_over_time,
    pipeline=_temporal_pipeline,
    guidance=2.5, extra={"clean_caption": False},
    several=False,
)  # fmt: skip
PUPPET = Architecture(
    name="puppet", codec=PUPPET_CLIPS, build=build_puppet_transformer, predict=_predict_wan, noisy=_flow,
    read="blocks.4", tokens=lambda output, batch: output, pipeline=_wan_pipeline,
    guidance=4.0, lengths=(64,) * 40 + (128, 512),
    extra={"max_sequence_length": 64},  # the longest sentence of this world has fewer words
)  # fmt: skip
ARCHITECTURES = {row.name: row for row in (WAN, JOINT, TEMPORAL, PUPPET)}
