"""Allegro: video tokens alone."""

from ..attention import Tokens
from ..progress import VariancePreserving
from .registry import FrameCount, Model, Time, register

register(Model(
    name="Allegro",
    transformer="AllegroTransformer3DModel",
    axes=(Time(
        attention=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        frames=FrameCount("hidden_states", dim=2, patch="patch_size_t"),
    ),),
    noise=VariancePreserving(),
    checkpoints=("rhymes-ai/Allegro",),
    notes="",
    tested=("allegro",),
))  # fmt: skip
