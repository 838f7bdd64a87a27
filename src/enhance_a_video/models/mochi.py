"""Mochi: video first, then the valid text, one kernel call for each sample."""

from ..attention import Tokens
from ..progress import LinearQuadratic
from .registry import Columns, FrameCount, Model, SelfAttention, register

register(Model(
    name="Mochi",
    transformer="MochiTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video first", call=None),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=2),
        scale_at="norm2",
    ),),
    noise=LinearQuadratic(threshold=0.025),
    checkpoints=("genmo/mochi-1-preview",),
    notes="the block normalises what its attention returns, which would undo any gain: the gain acts behind norm2; "
    "timesteps count up to the clean video",
    tested=("mochi",),
))  # fmt: skip
