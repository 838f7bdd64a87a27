"""HunyuanVideo and its relatives: video first, then text, one sequence."""

from ..schedule import Flow
from ..seam import Tokens
from .registry import Family, FrameCount, register

register(Family(
    name="HunyuanVideo",
    transformer="HunyuanVideoTransformer3DModel",
    attention=r"^(single_)?transformer_blocks\.\d+\.attn$",
    tokens=Tokens("video first"),
    frames=FrameCount("hidden_states", dim=2, patch="patch_size_t"),
    noise=Flow(shift=7.0),
    checkpoints=("hunyuanvideo-community/HunyuanVideo", "hunyuanvideo-community/HunyuanVideo-I2V"),
    notes="single blocks project outside the attention module: the gain acts before that, as in the authors' code",
))  # fmt: skip
