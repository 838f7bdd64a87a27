"""Tiny random-weight transformers of the real diffusers classes, one for each variant the families cover.

    model = TINY["wan"].model();  inputs = TINY["wan"].inputs(batch=2);  out = run(model, inputs)

A grid of 4 frames of 4 x 6 tokens, fp32, on the CPU, a forward call in milliseconds. A file a group of relatives; a
class that the installed diffusers lacks skips its tests, by name.
"""

from . import cached, cogvideox, cosmos, helios, hunyuan, images, kandinsky, ltx, sana, single, sound, unet, wan
from .base import TEXT, H, T, Tiny, W, noise, run, take, with_attention

_GROUPS = (wan, cogvideox, hunyuan, ltx, single, cosmos, kandinsky, sana, helios, cached, unet)
TINY: dict[str, Tiny] = {name: tiny for group in _GROUPS for name, tiny in group.TINY.items()}
IMAGES = images.IMAGES
SOUNDS = sound.SOUNDS

__all__ = ["IMAGES", "SOUNDS", "TEXT", "TINY", "H", "T", "Tiny", "W", "noise", "run", "take", "with_attention"]
