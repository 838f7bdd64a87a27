"""The guidance scale of pipelines that keep it in their `guider` (HunyuanVideo 1.5, Motif) instead of an argument."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import SettingsError


def held_scale(pipe: Any) -> float | None:
    """The scale that the pipeline's guider holds; None where there is no guider, or one without a scale."""
    scale = getattr(getattr(pipe, "guider", None), "guidance_scale", None)
    return None if scale is None else float(scale)


def check_held(pipe: Any) -> None:
    """SettingsError where the pipeline's guider is switched off, so that a scale would do nothing."""
    if not getattr(pipe.guider, "_enabled", True):
        raise SettingsError(
            f"The guider of this {type(pipe).__name__} is switched off (a distilled model needs no guidance): "
            "leave guidance out."
        )


@contextmanager
def guided(pipe: Any, scale: float | None) -> Iterator[None]:
    """Sets the guider's scale for one call; nothing where `scale` is None or the pipeline takes it as an argument."""
    if scale is None or held_scale(pipe) is None:
        yield
        return
    before = pipe.guider.guidance_scale
    pipe.guider.guidance_scale = float(scale)
    try:
        yield
    finally:
        pipe.guider.guidance_scale = before
