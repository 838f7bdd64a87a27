"""One way to make clips: the pipeline run with the method around it, and one record of how each clip was made."""

from __future__ import annotations

import contextlib
import json
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from ..models import Model
from ..record import Summary
from ..settings import Settings
from ..wording import count
from . import pipelines, preflight, video, watermark
from .content import Content, check_wanted, look, noted
from .credentials import Claim
from .events import Progress, Report, silent
from .files import refuse_existing, write_into
from .loading import check_axes, makes, rows_in, rows_of
from .pipelines import Notice, describe, generate, quiet
from .requests import ClipRequest, check_kind


@dataclass(frozen=True)
class Made:
    """A clip that was made.

    frames: uint8 (T, H, W, 3), or of a sound float (N, C), with `fps` samples a second. summary: None for the plain
    model. seconds: of one clip, where several were made in one call. notes: what was not done as requested. content: of
    the content check, where that is on. about: the pipeline, its device and versions (`pipelines.describe`).
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

    @property
    def is_sound(self) -> bool:
        return self.frames.ndim == 2

    def shape(self) -> dict[str, Any]:
        """How long and large it is, as the record has it."""
        length, *rest = self.frames.shape
        if self.is_sound:
            return {"samples": length, "channels": rest[0], "sampling_rate": int(self.fps)}
        return {"fps": self.fps, "frames": length, "height": rest[0], "width": rest[1]}

    @property
    def text(self) -> str:
        """Its shape for people."""
        if self.is_sound:
            return f"{len(self.frames) / self.fps:.2f} s, {count(self.frames.shape[1], 'channel')}, {self.fps:g} Hz"
        size = f"{self.frames.shape[2]}x{self.frames.shape[1]}"
        return size if len(self.frames) == 1 else f"{count(len(self.frames), 'frame')}, {size}, {self.fps:g} fps"

    def record(self) -> dict[str, Any]:
        """How the clip was made, JSON-able: for the comment of an mp4, a manifest and a study's database."""
        return {
            **self.item.facts(),
            **self.shape(),
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
        "fps": pipelines.rate(pipe, options.get("fps")), "about": describe(pipe),
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
    """One clip in one mp4, a picture in one PNG or a sound in one WAV, that carries its record.

    Checked before the model is loaded.

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
    check_rows(model, rows, item.options)
    check_axes(rows, [item.settings])
    if rows and out.suffix.lower() not in _ENDINGS[rows[0].makes]:
        what, ending = rows[0].makes, _ENDINGS[rows[0].makes][0]
        raise SettingsError(
            f"{model} makes {what}, which are written as {ending}; got {str(out)!r}. Name it {out.stem}{ending}."
        )
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


_ENDINGS = {"videos": (".mp4", ".png"), "pictures": (".png",), "sounds": (".wav",)}


def check_rows(model: str | Path, rows: Sequence[Model], options: Mapping[str, Any]) -> None:
    """SettingsError for options that a pipeline with these denoisers does not have, before its weights are read."""
    for row in rows:
        check_kind(str(model), row.makes, options)
    flags = {"--watermark": watermark.wanted(), "--content-check": check_wanted()}
    if makes("sounds", rows) and (given := [flag for flag, wanted in flags.items() if wanted]):
        raise SettingsError(f"{model} makes sounds, and {', '.join(given)} is for pictures and videos: leave it out.")


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
    maps = observe and own.axes == (Time(),) and _has_frames(pipe)  # of a sound a map has its length squared
    own = replace(own, attention_maps=maps or own.attention_maps)
    with _noticed(notice), Enhancement(pipe, own) as handle:
        frames, summary = generate(pipe, prompt, notice=notice, **options), handle.summary()
    return frames, summary


def _has_frames(pipe: Any) -> bool:
    """Whether a pipeline's denoisers have the axis "time" of frames: those of pictures and sound have not."""
    return all("time" in row.axes and row.makes == "videos" for row in rows_in(pipe))


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
