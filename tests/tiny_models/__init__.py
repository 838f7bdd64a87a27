"""Tiny random-weight transformers of the real diffusers classes, one for each variant the families cover.

    model = TINY["wan"].model();  inputs = TINY["wan"].inputs(batch=2);  out = run(model, inputs)

A grid of 4 frames of 4 x 6 tokens, fp32, on the CPU, a forward call in milliseconds. A file a group of relatives; a
class that the installed diffusers lacks skips its tests, by name.
"""

from . import cogvideox, hunyuan, ltx, single, wan
from .base import TEXT, H, T, Tiny, W, noise, run, take

TINY: dict[str, Tiny] = {**wan.TINY, **cogvideox.TINY, **hunyuan.TINY, **ltx.TINY, **single.TINY}

__all__ = ["TEXT", "TINY", "H", "T", "Tiny", "W", "noise", "run", "take"]
