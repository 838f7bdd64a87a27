"""Helios: full attention over video tokens, the history of earlier chunks in front."""

from math import prod

from ..attention import Rows, Tokens
from .registry import Arguments, Config, FrameCount, Model, SelfAttention, register

_frames = FrameCount("hidden_states", dim=2, patch="patch_size")


def _current_rows(config: Config, arguments: Arguments) -> Rows:
    """Those of hidden_states (B, C, F, h, w), which come last; the history's are of other sizes."""
    _, height, width = config["patch_size"]
    sites = prod(arguments["hidden_states"].shape[3:]) // (height * width)
    return slice(-_frames(config, arguments) * sites, None)


register(Model(
    name="Helios",
    transformer="HeliosTransformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        frames=_frames,
        video=_current_rows,
    ),),
    noise=None,
    checkpoints=("BestWishYsh/Helios-Base", "BestWishYsh/Helios-Mid", "BestWishYsh/Helios-Distilled"),
    notes="the chunk being generated; history is neither counted nor scaled. The window counts within each chunk, and "
    "with the pyramid pipeline within each of its stages",
    tested=("helios", "helios_first_chunk"),
))  # fmt: skip
