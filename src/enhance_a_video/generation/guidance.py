"""The guidance scale of pipelines that keep it in their `guider` (HunyuanVideo 1.5, Motif) instead of an argument."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import SettingsError

SCALE = "guidance_scale"


def in_guider(pipe: Any) -> bool:
    """Whether a component of the pipeline holds the scale, and its call does not take one."""
    held = getattr(getattr(pipe, "guider", None), SCALE, None)
    return held is not None and SCALE not in inspect.signature(pipe.__call__).parameters


def arguments_of(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """What the pipeline's call takes, and the scale where its guider holds it: `guided` sets that for the call."""
    own = inspect.signature(pipe.__call__).parameters
    if not in_guider(pipe):
        return own
    scale = inspect.Parameter(SCALE, inspect.Parameter.KEYWORD_ONLY, default=pipe.guider.guidance_scale)
    return {**own, SCALE: scale}


def check_on(pipe: Any) -> None:
    """SettingsError where the pipeline's guider is switched off, so that a scale would do nothing."""
    if not getattr(pipe.guider, "_enabled", True):
        raise SettingsError(
            f"The guider of this {type(pipe).__name__} is switched off (a distilled model needs no guidance): "
            "leave guidance out."
        )


@contextmanager
def guided(pipe: Any, scale: float | None) -> Iterator[None]:
    """Sets the guider's scale for one call; nothing where `scale` is None."""
    if scale is None:
        yield
        return
    before = pipe.guider.guidance_scale
    pipe.guider.guidance_scale = float(scale)
    try:
        yield
    finally:
        pipe.guider.guidance_scale = before
