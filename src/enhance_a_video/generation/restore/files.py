"""Restores a video file into another: windows are kept on disk as they are made, so that a stopped run goes on.

restored = restore_file("in.mp4", "out.mp4", Restoring(noise=0.25))
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ...errors import OutputExistsError, SettingsError, VideoFileError
from ...record import Summary
from .. import video
from ..content import Content, check_wanted, look_at_file, noted
from ..credentials import Claim
from ..events import Progress, Report, silent
from ..files import atomic, explained, only_one, refuse_existing, write_into, write_text
from ..loading import check_videos, rows_of
from ..making import brief, opened
from ..media import VideoSource, open_video, scan
from ..pipelines import Notice, describe
from .engine import Plan, Restoring, method, plan, restore_window, size_note, stepping
from .light import LightMeter, lit
from .windows import Window, blended


@dataclass(frozen=True)
class Restored:
    """A file that was restored.

    plan: None where no model ran. made: windows of it that were made in this run; the others are of an earlier one that
    was stopped. content: of the content check, where that is on; it looks at the written file, whose comment lacks it.
    """

    out: Path
    source: VideoSource
    how: Restoring
    model: str
    plan: Plan | None
    made: int
    summary: Summary | None
    seconds: float
    notes: tuple[str, ...]
    about: dict[str, str]
    content: Content | None = None

    def record(self) -> dict[str, Any]:
        """How the file was made, JSON-able: what the comment of the mp4 holds."""
        return {
            "restored": {
                "file": self.source.path.name, "sha256": self.source.sha256, "comment": self.source.comment or None,
            },
            **self.how.facts(),
            **({"model": self.model, **_planned(self.plan)} if self.plan else {}),
            "fps": self.source.fps, "frames": self.source.frames,
            "height": self.source.height, "width": self.source.width, "sound": list(self.source.sound),
            "seconds": round(self.seconds, 3),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "enhancement": brief(self.summary),
            "warnings": list(self.notes),
            **({} if self.content is None else {"content_check": self.content.to_dict()}),
            "about": {**self.about, "host": platform.node()},
        }  # fmt: skip


def _planned(made: Plan) -> dict[str, Any]:
    start = made.start
    return {
        "starts": {
            "step": start.total - start.steps + 1, "of": start.total, "timestep": start.timestep,
            "noise_share": round(start.noise, 4),
        },
        "windows": {"count": len(made.spans), "frames": made.frames, "height": made.height, "width": made.width},
    }  # fmt: skip


def restore_file(
    source: str | Path,
    out: str | Path,
    how: Restoring | None = None,
    *,
    model: str = "embedded",
    load: dict[str, Any] | None = None,
    pipe: Any = None,
    force: bool = False,
    progress: Report = silent,
    notice: Notice = lambda text: None,
) -> Restored:
    """Restores a video file. Sound, frame times, length, size and metadata are the source's.

    What is finished of a run that was stopped is in a hidden folder beside `out`; the same call goes on from there, and
    the folder goes when the file is written.

    Args:
        out: an mp4, written whole or not at all; not the source itself.
        model, load: as `pipelines.load` takes them; not used with noise=0, which runs no model.
        pipe: the model, where it is loaded already.
        notice: called with a sentence about what is not kept or not done as requested.

    Raises:
        VideoFileError: of the source or of `out`. OutputExistsError: `out` is there and force was not given, or another
            run works on it. UnsupportedModelError, SettingsError: as `engine.plan` and `pipelines.load`.
    """
    how, source, out = how or Restoring(), Path(source), Path(out)
    notes = dict[str, None]()

    def note(text: str) -> None:
        notes[text] = None
        notice(text)

    video.check_video_target(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise SettingsError(f"{out} is the video to be restored: give --out another name.")
    refuse_existing([out], force=force)
    progress(Progress(0, doing=f"reading {source.name}"))
    meter = LightMeter()
    scanned = scan(source, meter.add)
    for text in scanned.notes:
        note(text)
    started = perf_counter()
    if how.light_only:
        progress(Progress(0, doing="making the light even"))
        about = {"enhance-a-video": version("enhance-a-video")}
        frames = _evened(scanned, meter.gains())
        restored = Restored(out, scanned, how, model, None, 0, None, perf_counter() - started, tuple(notes), about)
        return _written(restored, frames, force, note)
    if pipe is None:
        check_videos(model, rows_of(model))
        pipe = opened(model, load or {}, progress)
    if mismatch := size_note(pipe, scanned.height, scanned.width):
        note(mismatch)
    made = plan(pipe, how, scanned.frames, scanned.height, scanned.width)
    key = {**how.facts(), "model": model, "load": load or {}, "source": scanned.sha256, "about": describe(pipe)}
    folder = out.with_name(f".{out.stem[:100]}.restoring")
    with _Store.at(folder, key, note) as store:
        there = store.present(len(made.spans))
        gains = meter.gains() if how.even_light else None
        summary = _make(pipe, how, made, scanned, gains, store, progress, note)
        restored = Restored(
            out, scanned, how, model, made, len(made.spans) - there, summary, perf_counter() - started, tuple(notes),
            describe(pipe),
        )  # fmt: skip
        clips = (store.get(number) for number in range(len(made.spans)))
        frames = (np.rint(frame).astype(np.uint8) for frame in blended(made.spans, clips))
        restored = _written(restored, frames, force, note)
        store.remove()
    return restored


def _make(
    pipe: Any,
    how: Restoring,
    made: Plan,
    source: VideoSource,
    gains: np.ndarray | None,
    store: _Store,
    progress: Report,
    note: Notice,
) -> Summary | None:
    """The windows that are not in the store yet, into it. gains: (T, 3), of the light of each frame."""
    missing = [number for number in range(len(made.spans)) if not store.has(number)]
    if not missing:
        return None
    with method(pipe, how) as summary:
        for number, frames in _cut(source, made.spans, set(missing)):
            span = made.spans[number]
            if gains is not None:
                frames = lit(frames, gains[span.first : span.last])
            ready = restore_window(
                pipe, frames, span.first, how, made, notice=note,
                progress=stepping(progress, number, len(made.spans), made.start.steps),
            )  # fmt: skip
            store.put(number, ready)
        return summary()


def _cut(source: VideoSource, spans: tuple[Window, ...], wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(number, frames uint8 (T, H, W, 3)) of the wanted windows, reading the file once with one window in memory."""
    kept: list[np.ndarray] = []
    at, number = 0, 0  # the number in the file of kept[0], and of the window that comes next
    with open_video(source.path) as clip:
        for frame in clip:
            kept.append(frame)
            if at + len(kept) < spans[number].last:
                continue
            if number in wanted:
                yield number, np.stack(kept[spans[number].first - at :])
            number += 1
            if number == len(spans):
                return
            kept, at = kept[spans[number].first - at :], spans[number].first
    raise VideoFileError(f"{source.path} has changed while it was being restored: start again.")


def _evened(source: VideoSource, gains: np.ndarray) -> Iterator[np.ndarray]:
    """The source's frames, uint8 (H, W, 3), one by one, multiplied by their gains (T, 3)."""
    with open_video(source.path) as clip:
        for frame, gain in zip(clip, gains, strict=True):
            yield lit(frame[None], gain[None])[0]


def _written(restored: Restored, frames: Iterable[np.ndarray], force: bool, note: Notice) -> Restored:
    """Writes the finished file, of frames uint8 (H, W, 3), and looks at it where the content check is on."""
    out = restored.out

    def into(folder: Path) -> Path:
        record = restored.record()
        return video.write_video_like(
            folder / out.name, frames, restored.source, force=force, comment=json.dumps(record),
            claim=Claim(record, restored.source.path),
        )  # fmt: skip

    write_into(out.parent, into)
    if not check_wanted():
        return restored
    return noted(restored, look_at_file(out, restored.source.frames), note)


class _Store:
    """Finished windows in a folder, for one job: another job's are thrown away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def at(cls, folder: Path, key: dict[str, Any], note: Notice) -> Any:
        return _opened(cls(folder), folder, json.dumps(key, sort_keys=True, default=str), note)

    def _file(self, number: int) -> Path:
        return self._folder / f"window-{number:06d}.npy"

    def has(self, number: int) -> bool:
        return self._file(number).is_file()

    def present(self, total: int) -> int:
        return sum(map(self.has, range(total)))

    def put(self, number: int, frames: np.ndarray) -> None:
        with atomic(self._file(number), force=True) as draft:
            np.save(draft, frames, allow_pickle=False)

    def get(self, number: int) -> np.ndarray:
        with explained(self._file(number), "read"):
            return np.load(self._file(number), allow_pickle=False)

    def remove(self) -> None:
        with suppress(OSError):
            shutil.rmtree(self._folder)


def _opened(store: _Store, folder: Path, key: str, note: Notice) -> Any:
    """The store while no other run uses it; emptied where it belongs to another job."""
    from contextlib import contextmanager

    @contextmanager
    def hold() -> Iterator[_Store]:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        busy = OutputExistsError(f"Another run is restoring into {folder.parent}: wait for it, or give another --out.")
        with only_one(folder / "lock", busy):
            job = folder / "job.json"
            before = job.read_text(encoding="utf-8") if job.exists() else None
            if before is not None and before != key:
                note("What an earlier run with other settings, or of another file, had finished is thrown away.")
                for old in folder.glob("window-*.npy"):
                    old.unlink()
            if before != key:
                write_text(job, key, force=True)
            yield store

    return hold()
