"""Clips made under given settings, and what those did: `pipelines.generate` with the method around it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .alternatives import Change
from .enhancement import Enhancement
from .errors import NoEffectWarning
from .limits import or_none
from .pipelines import Notice, generate
from .record import Summary
from .settings import Settings


def generate_with(
    pipe: Any,
    prompt: str | Sequence[str],
    settings: Change | None,
    *,
    observe: bool = False,
    notice: Notice | None = None,
    **options: Any,
) -> tuple[np.ndarray, Summary | None]:
    """`pipelines.generate` under settings (None: the plain model) or an alternative, and what they did.

    Several prompts, with a seed each, give several videos.

    Args:
        observe: record cross-frame mass and temporal attention maps, of the plain model too.
        notice: as in `generate`, and called with what would be a NoEffectWarning.
        options: of `generate`.
    """
    if settings is None and not observe:
        return generate(pipe, prompt, notice=notice, **options), None
    own = Settings(observe_only=True, start=0.0, end=1.0) if settings is None else settings
    own = replace(own, attention_maps=observe or own.attention_maps)
    with _noticed(notice), Enhancement(pipe, own) as handle:
        frames, summary = generate(pipe, prompt, notice=notice, **options), handle.summary()
    return frames, summary


@contextlib.contextmanager
def _noticed(notice: Notice | None) -> Iterator[None]:
    """Sentences of NoEffectWarnings go to `notice`, where there is one; other warnings stay warnings."""
    if notice is None:
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NoEffectWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, NoEffectWarning):
            notice(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def brief(summary: Summary | None) -> dict[str, Any] | None:
    """What an enhancement did, in a few numbers; None where none was present."""
    if summary is None:
        return None
    gains = summary.gain[summary.active]
    gains = gains[np.isfinite(gains)]
    return {
        "layers": len(summary.layers),
        "calls": summary.calls_made,
        "active_calls": int(summary.active.sum()),
        "mean_gain": float(gains.mean()) if gains.size else None,
        "highest_gain": float(gains.max()) if gains.size else None,
        "progress_source": summary.progress_source,
        "acted_nowhere": summary.no_effect or None,
        "layers_not_run": len(summary.unreached),
        "seconds_in_method": or_none(summary.seconds),
    }
