"""enhance_attention(model, ...) -> Enhancement: a model of any origin, described where it is enhanced."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from .enhancement import Enhancement
from .errors import NoLayersError, SettingsError, UnsupportedModelError
from .families import Arguments, Family, FrameCount, unwrapped
from .query_key import QueryKey
from .schedule import Noise
from .seam import Rows, Tokens
from .settings import Settings


def enhance_attention(
    model: nn.Module,
    *,
    attention: str | Sequence[nn.Module],
    frames: int | str | FrameCount | Callable[[Arguments], int],
    tokens: Tokens,
    query_key: QueryKey = None,
    video: slice | Callable[[Arguments], Rows] | None = None,
    scale_at: str | None = None,
    batch: int | Callable[[Arguments], int] | None = None,
    timestep: str = "timestep",
    noise: Noise | None = None,
    **settings: Any,
) -> Enhancement:
    """Enhance-A-Video on a model that no family row describes: the row for this one model, in the call.

    docs/add-a-model.md walks through a model. Functions get the arguments of the model's forward call by name.

    Args:
        model: the module that is called once for each prediction; the others are found inside it.
        attention: its temporal or full 3D self-attention, a regular expression for the full names or the modules.
        frames: T, the number of latent frames: a number, the name of an argument that is it, or a function.
        tokens: how the tokens lie in that attention: Tokens("video only"), Tokens("temporal") for (B*S, T, C), ...
        query_key: where query and key are seen: None = at the scaled_dot_product_attention that the layer's forward
            calls; else a Kernel, Outputs or a function (query_key.py).
        video: which tokens of the layer are the video, frame-major, where it has others as well.
        scale_at: the module whose output is scaled, where that is not the attention's own: a name beside it, "" for
            the module around it, ".name" for one inside it (the output projection, where a block is the attention).
        batch: how many videos there are in a call with temporal attention, where that is not the first dimension of
            the first tensor among the arguments.
        timestep, noise: the argument that says how noisy the video is, and what it means (schedule.py). Without noise
            only start=0.0, end=1.0 is possible.
        settings: as enhance().

    Raises:
        SettingsError: arguments that conflict or are out of range.
        NoLayersError: no module matches, or one that is named is not there.
        UnsupportedModelError: this is no module, or query and key cannot be seen in such a layer as asked.
        AlreadyEnhancedError: the model is enhanced already. In each case nothing was changed.
    """
    chosen = Settings(**settings)
    if noise is None and not chosen.always:
        raise SettingsError(
            f"start={chosen.start}, end={chosen.end} need the place in the denoising: say what the model's timestep "
            "means, noise=Flow(shift) or VariancePreserving() of enhance_a_video.schedule, or give start=0.0, end=1.0."
        )
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"{type(model).__name__} is no torch module: give the model inside it")
    model, name = unwrapped(model), type(unwrapped(model)).__name__
    row = Family(
        name=name,
        transformer=name,
        attention=_expression(model, attention),
        tokens=tokens,
        frames=_from_arguments(FrameCount(frames) if isinstance(frames, str) else frames),
        noise=noise,
        video=_from_arguments(video),
        scale_at=scale_at,
        timestep=timestep,
        query_key=query_key,
        batch=_from_arguments(batch),
    )
    return Enhancement(model, chosen, row)


def _from_arguments(value: Any) -> Any:
    """As a row has it, a function of the model's config and arguments; None stays None."""
    if value is None or isinstance(value, FrameCount):
        return value
    return lambda config, arguments: value(arguments) if callable(value) else value


def _expression(model: nn.Module, attention: str | Sequence[nn.Module]) -> str:
    """A regular expression for the names of the modules."""
    if isinstance(attention, str):
        return attention
    names = {id(module): name for name, module in model.named_modules()}
    missing = [type(module).__name__ for module in attention if id(module) not in names]
    if missing:
        raise NoLayersError(f"attention=...: {', '.join(missing)} is no module inside this {type(model).__name__}")
    return "|".join(f"^{re.escape(names[id(module)])}$" for module in attention) or "(?!)"
