"""Latte: blocks for space and blocks for time, in turns."""

from ..attention import Tokens
from ..progress import VariancePreserving
from .registry import FrameCount, Model, SelfAttention, register

register(Model(
    name="Latte",
    transformer="LatteTransformer3DModel",
    attention=(SelfAttention(
        names=r"^temporal_transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("temporal"),
        frames=FrameCount("hidden_states", dim=2),
    ),),
    noise=VariancePreserving(),
    checkpoints=("maxin-cn/Latte-1",),
    notes="its temporal blocks; the spatial ones see one frame at a time and are left alone",
    tested=("latte",),
))  # fmt: skip
