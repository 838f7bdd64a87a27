"""AnyFlow-FAR: chunks of video generated one after the other, each attending to the cached ones before it."""

from ..attention import Tokens
from ..errors import TokenLayoutError
from .registry import Arguments, Config, FrameCount, Model, SelfAttention, register

_all_frames = FrameCount("hidden_states", dim=1, patch="patch_size")


def _chunk_frames(config: Config, arguments: Arguments) -> int:
    """T of the chunk being generated. The pass that only fills the cache is left alone: 1."""
    if arguments.get("kv_cache") is None:
        raise TokenLayoutError(
            "without a cache (training; use_kv_cache=False) all chunks are in one sequence and a mask keeps frames "
            "from looking at later chunks, so there is no attention between all frames to measure. Generate with the "
            "cache, or remove the enhancement."
        )
    filling = (arguments.get("kv_cache_flag") or {}).get("is_cache_step")
    return 1 if filling else _all_frames(config, arguments)


register(Model(
    name="AnyFlow-FAR",
    transformer="AnyFlowFARTransformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.attn1$",
        tokens=Tokens("video first", keys="last"),  # padding follows; the cached keys come before
        frames=_chunk_frames,
    ),),
    noise=None,
    checkpoints=("nvidia/AnyFlow-FAR-Wan2.1-1.3B-Diffusers",),
    notes="the chunk being generated (3 latent frames in the released models); cached chunks are neither counted nor "
    "scaled, and the pass that fills the cache is left alone. The window counts within each chunk",
    tested=("anyflow_far",),
))  # fmt: skip
