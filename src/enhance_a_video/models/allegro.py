"""Allegro: video tokens alone."""

from ..attention import Tokens
from ..progress import VariancePreserving
from .registry import Columns, FrameCount, Model, SelfAttention, register

register(Model(
    name="Allegro",
    transformer="AllegroTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=2, patch="patch_size_t"),
    ),),
    noise=VariancePreserving(),
    checkpoints=("rhymes-ai/Allegro",),
    notes="",
    tested=("allegro",),
))  # fmt: skip
