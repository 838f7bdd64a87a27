"""One way to make clips: the pipeline run with the method around it, and one record of how each clip was made."""

from __future__ import annotations

import contextlib
import json
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..alternatives import Change
from ..axes import Time
from ..enhancement import Enhancement
from ..errors import NoEffectWarning, SettingsError
from ..limits import or_none
from ..models import find
from ..record import Summary
from ..settings import Settings
from . import pipelines, preflight, video
from .content import Content, check_wanted, look, noted
from .credentials import Claim
from .events import Progress, Report, silent
from .files import refuse_existing, write_into
from .loading import check_axes, makes_pictures, rows_of
from .pipelines import Notice, defaults, describe, generate, quiet
from .requests import ClipRequest


@dataclass(frozen=True)
class Made:
    """A clip that was made.

    frames: uint8 (T, H, W, 3). summary: None for the plain model. seconds: of one clip, where several were made in one
    call. notes: what was not done as requested. content: of the content check, where that is on. about: the pipeline,
    its device and versions (`pipelines.describe`).
    """

    item: ClipRequest
    frames: np.ndarray
    summary: Summary | None
    seconds: float
    fps: float
    notes: tuple[str, ...] = ()
    content: Content | None = None
    about: dict[str, str] | None = None

    @property
    def label(self) -> str:
        return self.item.label

    @property
    def seed(self) -> int:
        return self.item.seed

    @property
    def settings(self) -> Change | None:
        return self.item.settings

    def record(self) -> dict[str, Any]:
        """How the clip was made, JSON-able: for the comment of an mp4, a manifest and a study's database."""
        return {
            **self.item.facts(),
            "fps": self.fps,
            "frames": len(self.frames),
            "height": self.frames.shape[1],
            "width": self.frames.shape[2],
            "seconds": round(self.seconds, 3),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "enhancement": brief(self.summary),
            "warnings": list(self.notes),
            **({} if self.content is None else {"content_check": self.content.to_dict()}),
            "about": {**(self.about or {}), "host": platform.node()},
        }


def make_clips(
    pipe: Any,
    items: Sequence[ClipRequest],
    calls: Sequence[dict[str, Any]] | None = None,
    progress: Report | None = None,
    *,
    observe: bool = False,
    notice: Notice = lambda text: None,
) -> list[Made]:
    """Clips that differ in prompt and seed only, in one call of the pipeline.

    Args:
        calls: for each item the arguments of `pipelines.generate`, pictures opened; by default ClipRequest.call.
        progress: called after each step.
        observe: as in `generate_with`.
        notice: called with each sentence of the clips' notes, when it comes.

    Raises:
        SettingsError, EnhanceAVideoError: as `pipelines.generate` and `enhance`.
    """
    first, notes = items[0], dict[str, None]()

    def note(text: str) -> None:
        notes[text] = None
        notice(text)

    started = time.perf_counter()
    calls = [item.call() for item in items] if calls is None else calls
    options = calls[0] | {"seed": [call["seed"] for call in calls]}
    videos, summary = generate_with(
        pipe, [item.prompt for item in items], first.settings, observe=observe, progress=progress,
        notice=note, **options,
    )  # fmt: skip
    same: dict[str, Any] = {
        "summary": summary, "seconds": (time.perf_counter() - started) / len(items), "notes": tuple(notes),
        "fps": options.get("fps") or defaults(pipe)["fps"], "about": describe(pipe),
    }  # fmt: skip
    clips = [Made(item, frames, **same) for item, frames in zip(items, videos, strict=True)]
    return [noted(made, look(made.frames), notice) for made in clips] if check_wanted() else clips


def opened(model: str, load: dict[str, Any], progress: Report = silent) -> Any:
    """The pipeline of a command, loaded without the chatter of the libraries. Errors as `pipelines.load`."""
    quiet()
    progress(Progress(0, doing=f"loading {model}"))
    return pipelines.load(model, **load)


def make_file(
    out: Path,
    item: ClipRequest,
    *,
    model: str,
    load: dict[str, Any],
    force: bool,
    notice: Notice,
    progress: Report = silent,
) -> Made:
    """One clip in one mp4, or a picture in one PNG, that carries its record. Checked before the model is loaded.

    Args:
        model, load: as `pipelines.load` takes them.
        force: overwrite a file that is there.
        notice: called with a sentence about what is not done as requested, before the work where it is known then.

    Raises:
        OutputExistsError, VideoFileError: of `out`. SettingsError, EnhanceAVideoError: as loading and generating.
    """
    video.check_target(out, item.options.get("fps", 1))
    refuse_existing([out], force=force)
    rows = rows_of(model)
    check_axes(rows, [item.settings])
    if makes_pictures(rows) and out.suffix.lower() != ".png":
        raise SettingsError(f"{model} makes pictures, which are written as .png; got {str(out)!r}.")
    pipe = opened(model, load, progress)
    if out.suffix.lower() == ".png" and preflight.frames_of(pipe, item) != 1:
        raise SettingsError(f"{out} can hold a single picture. Add --frames 1, or name it {out.stem}.mp4.")
    notes = preflight.notices(pipe, [item])
    for text in notes:
        notice(text)
    (made,) = make_clips(pipe, [item], progress=progress, notice=notice)
    made = replace(made, notes=tuple(dict.fromkeys([*notes, *made.notes])))
    record = {**made.record(), "model": model}
    write_into(
        out.parent,
        lambda folder: video.write_clip(
            folder / out.name, made.frames, made.fps, force=force, comment=json.dumps(record), claim=Claim(record)
        ),
    )
    return made


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
    if settings is None and not (observe and _has_frames(pipe)):
        return generate(pipe, prompt, notice=notice, **options), None
    own = Settings(observe_only=True, start=0.0, end=1.0) if settings is None else settings
    own = replace(own, attention_maps=(observe and own.axes == (Time(),)) or own.attention_maps)
    with _noticed(notice), Enhancement(pipe, own) as handle:
        frames, summary = generate(pipe, prompt, notice=notice, **options), handle.summary()
    return frames, summary


def _has_frames(pipe: Any) -> bool:
    """Whether a pipeline's denoisers have the axis "time": those of pictures have not."""
    return all("time" in row.axes for row in map(find, pipe.components.values()) if row is not None)


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
        "latent_frames": int(summary.num_frames.max()) if len(summary.num_frames) else None,
        "calls": summary.calls_made,
        "active_calls": int(summary.active.sum()),
        "mean_gain": float(gains.mean()) if gains.size else None,
        "highest_gain": float(gains.max()) if gains.size else None,
        "progress_source": summary.progress_source,
        "acted_nowhere": summary.no_effect or None,
        "layers_not_run": len(summary.unreached),
        "seconds_in_method": or_none(summary.seconds),
    }
