"""The supported transformers, of videos, pictures and sound: one declarative row a class, a file a group of relatives.

A row describes where the video self-attention of a class is, how its tokens lie, where the frame count is read and
on which noise schedule the class was trained. Nothing else in the package depends on a model's name. Adding yours:
docs/guide/add-a-model.md.
"""

from . import (  # noqa: F401  (each registers its rows)
    allegro,
    anyflow,
    cogvideox,
    cosmos,
    easyanimate,
    helios,
    hunyuan,
    images,
    kandinsky,
    latte,
    ltx,
    minimax,
    mochi,
    motif,
    sana,
    sound,
    unet,
    wan,
    wan_animate_2,
)
from .registry import (
    Arguments,
    Attention,
    Columns,
    Config,
    CrossAttention,
    FrameCount,
    Model,
    SelfAttention,
    attention_modules,
    block_around,
    chosen,
    denoisers,
    find,
    known_models,
    register,
    row_of,
    scaled_module,
    unwrapped,
)

__all__ = [
    "Arguments",
    "Attention",
    "Columns",
    "Config",
    "CrossAttention",
    "FrameCount",
    "Model",
    "SelfAttention",
    "attention_modules",
    "block_around",
    "chosen",
    "denoisers",
    "find",
    "known_models",
    "register",
    "row_of",
    "scaled_module",
    "unwrapped",
]
