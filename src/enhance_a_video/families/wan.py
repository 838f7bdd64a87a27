"""Wan and its relatives: full attention over video tokens alone."""

from ..schedule import Flow
from ..seam import Tokens
from .registry import Family, FrameCount, register

register(Family(
    name="Wan",
    transformer="WanTransformer3DModel",
    attention=r"^blocks\.\d+\.attn1$",
    tokens=Tokens("video only"),
    frames=FrameCount("hidden_states", dim=2, patch="patch_size"),
    noise=Flow(shift=5.0),
    checkpoints=(
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "Wan-AI/Wan2.2-I2V-A14B-Diffusers", "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    ),
    notes="2.1, 2.2 (two transformers), image-to-video; TI2V's per-token timesteps",
))  # fmt: skip
