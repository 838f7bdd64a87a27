"""CogVideoX and its relatives: text first, then video, one sequence."""

from ..attention import Tokens
from ..progress import VariancePreserving
from .registry import Columns, FrameCount, Model, SelfAttention, register

register(Model(
    name="CogVideoX",
    transformer="CogVideoXTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("text first"),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=1, patch="patch_size_t"),
    ),),
    noise=VariancePreserving(),
    checkpoints=(
        "THUDM/CogVideoX-2b", "THUDM/CogVideoX-5b", "THUDM/CogVideoX-5b-I2V",
        "THUDM/CogVideoX1.5-5B", "THUDM/CogVideoX1.5-5B-I2V", "alibaba-pai/CogVideoX-Fun-V1.1-5b-Pose",
    ),
    notes="2B, 5B, 1.5 (temporal patches of 2), Fun; fuse_qkv_projections() is followed",
    tested=("cogvideox_2b", "cogvideox_5b", "cogvideox_15"),
))  # fmt: skip

register(Model(
    name="ConsisID",
    transformer="ConsisIDTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("text first"),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=1),
    ),),
    noise=VariancePreserving(),
    checkpoints=("BestWishYsh/ConsisID-preview",),
    notes="the face is brought in by layers of its own (perceiver_cross_attention), which are left alone",
    tested=("consisid",),
))  # fmt: skip
