"""LTX and its relatives: packed video tokens."""

from ..schedule import Flow
from ..seam import Tokens
from .registry import Family, FrameCount, register

register(Family(
    name="LTX-Video",
    transformer="LTXVideoTransformer3DModel",
    attention=r"^transformer_blocks\.\d+\.attn1$",
    tokens=Tokens("video only"),
    frames=FrameCount("num_frames"),
    noise=Flow(shift=7.77),
    checkpoints=("Lightricks/LTX-Video",),
    notes="shift e^2.05 is the published one at 4096 tokens; LTXConditionPipeline does not pass num_frames",
))  # fmt: skip
