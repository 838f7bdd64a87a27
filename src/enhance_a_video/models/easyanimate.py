"""EasyAnimate: text first, then video, one sequence."""

from ..attention import Tokens
from .registry import FrameCount, Model, SelfAttention, register

register(Model(
    name="EasyAnimate",
    transformer="EasyAnimateTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("text first"),
        frames=FrameCount("hidden_states", dim=2),
    ),),
    noise=None,
    checkpoints=(
        "alibaba-pai/EasyAnimateV5.1-7b-zh-diffusers", "alibaba-pai/EasyAnimateV5.1-12b-zh-Control-diffusers",
        "alibaba-pai/EasyAnimateV5.1-12b-zh-InP-diffusers",
    ),
    notes="the published shift is not known here: a bare transformer needs start=0.0, end=1.0, a pipeline nothing",
    tested=("easyanimate",),
))  # fmt: skip
