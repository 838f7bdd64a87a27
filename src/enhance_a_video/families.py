"""One declarative row for each supported transformer class.

A row says where the video self-attention of a class is, how its tokens lie, where the frame count is read and on
which noise schedule the class was trained. Nothing else in the package knows a model by name. Adding yours:
docs/add-a-model.md.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SettingsError, TokenLayoutError, UnsupportedModelError
from .schedule import Flow, Noise, VariancePreserving
from .seam import Placement

Arguments = Mapping[str, Any]  # the transformer's forward arguments by name


@dataclass(frozen=True)
class FrameCount:
    """T, the latent frames after patching, from one forward argument.

    argument: its name. dim: the frame dimension of a tensor; None when the argument is the count itself.
    patch: the config entry with the temporal patch size (an int, a tuple that starts with it, or None for 1).
    """

    argument: str
    dim: int | None = None
    patch: str | None = None

    def __call__(self, config: Mapping[str, Any], arguments: Arguments) -> int:
        value = arguments.get(self.argument)
        if value is None:
            raise TokenLayoutError(
                f"the forward call did not give {self.argument!r}, from which the number of frames is read. "
                "Pass it, or remove the enhancement for this pipeline."
            )
        frames = value if self.dim is None else value.shape[self.dim]
        patch = config[self.patch] if self.patch is not None else None
        return frames // (patch[0] if isinstance(patch, (tuple, list)) else patch or 1)


@dataclass(frozen=True)
class Family:
    """One transformer class. The kernel kind needs no field: it is read off the processor's own code (seam.py)."""

    name: str  # what people call it
    transformer: str  # class name, a string: a diffusers that lacks it still imports
    attention: str  # regular expression: the full names of the video self-attention modules
    tokens: Placement  # how video and text lie in the query of that attention
    frames: FrameCount | Callable[[Mapping[str, Any], Arguments], int]
    noise: Noise | None  # what its timestep means, for a bare transformer; None when it cannot be said
    checkpoints: tuple[str, ...] = ()  # published weights of this class, as on the model hub
    notes: str = ""


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Add a row. Raises SettingsError for a class that has one already or an invalid regular expression."""
    if family.transformer in _FAMILIES:
        raise SettingsError(f"{family.transformer} is registered already: {_FAMILIES[family.transformer]}")
    try:
        re.compile(family.attention)
    except re.error as error:
        raise SettingsError(f"{family.transformer}: attention={family.attention!r}: {error}") from None
    _FAMILIES[family.transformer] = family
    return family


def families() -> tuple[Family, ...]:
    """All rows, in the order they were registered."""
    return tuple(_FAMILIES.values())


def find(model: object) -> Family | None:
    """The row of a model's class or of the nearest of its base classes, or None."""
    return next((_FAMILIES[c.__name__] for c in type(model).__mro__ if c.__name__ in _FAMILIES), None)


def family_of(model: object) -> Family:
    """As find(), but raises UnsupportedModelError that names what is supported."""
    family = find(model)
    if family is None:
        name = type(model).__name__
        near = difflib.get_close_matches(name, _FAMILIES, n=1, cutoff=0.4)
        raise UnsupportedModelError(
            f"{name} is not a supported video transformer"
            + (f" (the nearest name is {near[0]})" if near else "")
            + f". Supported: {', '.join(_FAMILIES)}. "
            "A class of your own can be added with one row: enhance_a_video.families.register(), docs/add-a-model.md."
        )
    return family


register(Family(
    name="Wan",
    transformer="WanTransformer3DModel",
    attention=r"^blocks\.\d+\.attn1$",
    tokens="video only",
    frames=FrameCount("hidden_states", dim=2, patch="patch_size"),
    noise=Flow(shift=5.0),
    checkpoints=(
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "Wan-AI/Wan2.2-I2V-A14B-Diffusers", "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    ),
    notes="2.1, 2.2 (two transformers), image-to-video; TI2V's per-token timesteps",
))  # fmt: skip
register(Family(
    name="CogVideoX",
    transformer="CogVideoXTransformer3DModel",
    attention=r"^transformer_blocks\.\d+\.attn1$",
    tokens="text first",
    frames=FrameCount("hidden_states", dim=1, patch="patch_size_t"),
    noise=VariancePreserving(),
    checkpoints=(
        "THUDM/CogVideoX-2b", "THUDM/CogVideoX-5b", "THUDM/CogVideoX-5b-I2V",
        "THUDM/CogVideoX1.5-5B", "THUDM/CogVideoX1.5-5B-I2V",
    ),
    notes="2B, 5B and 1.5 (temporal patches of 2); fuse_qkv_projections() is followed",
))  # fmt: skip
register(Family(
    name="HunyuanVideo",
    transformer="HunyuanVideoTransformer3DModel",
    attention=r"^(single_)?transformer_blocks\.\d+\.attn$",
    tokens="video first",
    frames=FrameCount("hidden_states", dim=2, patch="patch_size_t"),
    noise=Flow(shift=7.0),
    checkpoints=("hunyuanvideo-community/HunyuanVideo", "hunyuanvideo-community/HunyuanVideo-I2V"),
    notes="single blocks project after the attention module, so there the gain acts before that projection, as the authors'",
))  # fmt: skip
register(Family(
    name="LTX-Video",
    transformer="LTXVideoTransformer3DModel",
    attention=r"^transformer_blocks\.\d+\.attn1$",
    tokens="video only",
    frames=FrameCount("num_frames"),
    noise=Flow(shift=7.77),
    checkpoints=("Lightricks/LTX-Video",),
    notes="shift e^2.05 is the published one at 4096 tokens; LTXConditionPipeline does not pass num_frames",
))  # fmt: skip
