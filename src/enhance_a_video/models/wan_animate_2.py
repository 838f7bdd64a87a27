"""Wan-Animate-2: video tokens, and the cached keys of a reference pass behind them."""

from math import prod

from ..attention import Rows, Tokens
from ..errors import TokenLayoutError
from .registry import Arguments, Config, Model, SelfAttention, register


def _sites(config: Config, arguments: Arguments) -> int:
    """S: latents (C, F, h, w) are a list with an entry for each sample, all of one size."""
    _, height, width = config["patch_size"]
    return prod(arguments["hidden_states"][0].shape[2:]) // (height * width)


def _frames(config: Config, arguments: Arguments) -> int:
    """T without the first frame, the place of the reference image. The reference pass is left alone: 1."""
    if arguments["kv_cache_mode"] == "extract":
        return 1
    places, sites = prod(arguments["origin_area"]) // 256, _sites(config, arguments)  # of a frame in the kernel's query
    if places != sites:
        raise TokenLayoutError(
            f"the segment has {sites} tokens in a frame but origin_area={list(arguments['origin_area'])} reserves "
            f"{places}, so the layer's tokens are not the kernel's. Give the segment's own size (as the pipeline "
            "does), or remove the enhancement."
        )
    return max(1, arguments["hidden_states"][0].shape[1] // config["patch_size"][0] - 1)


def _rows(config: Config, arguments: Arguments) -> Rows:
    return slice(_sites(config, arguments), None)


register(Model(
    name="Wan-Animate-2",
    transformer="WanAnimate2Transformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.self_attn$",
        tokens=Tokens("video first", keys="first"),  # padding follows, and behind it the reference's keys
        frames=_frames,
        video=_rows,
    ),),
    noise=None,
    checkpoints=("Wan-AI/Wan2.2-Animate-2-14B-Diffusers",),
    notes="the first frame, the reference image's place, is neither counted nor scaled; the pass over the driving "
    "video is left alone. The window counts within each segment",
    tested=("wan_animate_2",),
))  # fmt: skip
