"""Motif-Video: video first, then text; the decoder blocks have a second copy of the video in the text's place."""

from ..attention import Tokens
from .registry import Columns, FrameCount, Model, SelfAttention, register

register(Model(
    name="Motif-Video",
    transformer="MotifVideoTransformer3DModel",
    attention=(SelfAttention(
        names=r"^(single_)?transformer_blocks\.\d+\.attn$",
        tokens=Tokens("video first"),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=2, patch="patch_size_t"),
    ),),
    noise=None,
    checkpoints=("Motif-Technologies/Motif-Video-2B",),
    notes="dual, single and decoder blocks; in the decoder the stream that becomes the output. Single blocks project "
    "outside the attention module: the gain acts before that",
    tested=("motif_video",),
))  # fmt: skip
