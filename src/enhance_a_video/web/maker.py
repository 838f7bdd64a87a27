"""`Maker`: the one thread that makes the queue's clips, one after the other, with the engine of the commands."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EnhanceAVideoError
from ..generation import pipelines, preflight
from ..generation.events import Progress
from ..generation.loading import check_videos, out_of_memory, rows_of
from ..generation.making import Made, brief, make_clips, opened
from ..generation.restore import Restoring, restore_file
from ..lab import report
from ..lab.comparison import Comparison, MeasureSet, Take, compare, general_measures, truth_measures
from ..limits import or_none
from ..settings import Settings
from .form import ENHANCED, PLAIN, Form
from .gallery import Entry, Gallery
from .jobs import Job, Jobs

_PREVIEW_SHARE = 0.1  # of the time that previews may take


@dataclass(frozen=True)
class Status:
    """The state of the work. left: seconds, None where not known. preview: frames that form, uint8 (T, H, W, 3).
    trouble: why the last clip was not made; finished: the id of the newest entry; version grows with every change."""

    busy: bool = False
    doing: str = ""
    done: int = 0
    total: int = 0
    left: float | None = None
    preview: np.ndarray | None = None
    trouble: str = ""
    notes: tuple[str, ...] = ()
    finished: str = ""
    version: int = 0


class Maker:
    """Makes what waits in `jobs` into `gallery` when it is started, until nothing waits or it is stopped.

    The pipeline of the last model stays in memory.
    """

    def __init__(self, jobs: Jobs, gallery: Gallery) -> None:
        self.jobs, self.gallery = jobs, gallery
        self._status, self._lock = Status(), threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loading: _Loading | None = None  # the model in memory, or on its way there

    @property
    def status(self) -> Status:
        return self._status

    def start(self) -> None:
        """Begins, unless it is at work."""
        with self._lock:
            self._stop.clear()
            if self._thread is None or not self._thread.is_alive():
                self._update(busy=True, doing="starting", done=0, total=0, left=None, trouble="", notes=())
                self._thread = threading.Thread(target=self._work, name="enhance-a-video ui", daemon=True)
                self._thread.start()

    def stop(self, wait: float | None = None) -> None:
        """Stops after the step that is being computed; the clip waits in the queue again."""
        self._stop.set()
        thread = self._thread
        if self._status.busy:
            self._update(doing="stopping")
        if wait is not None and thread is not None:
            thread.join(wait)

    def _update(self, **changed: Any) -> None:
        with self._lock:
            self._status = replace(self._status, **changed, version=self._status.version + 1)

    def _work(self) -> None:
        while True:
            with self._lock:  # so that a job added now is taken by this thread or starts another
                job = None if self._stop.is_set() else self._take()
                if job is None:
                    self._update(busy=False, doing="", done=0, total=0, left=None, preview=None)
                    self._thread = None
                    return
            self._one(job)

    def _take(self) -> Job | None:
        try:
            return self.jobs.take()
        except EnhanceAVideoError as error:  # the queue's file cannot be written
            self._update(trouble=sentence(error))
            return None

    def _one(self, job: Job) -> None:
        self._update(doing="starting", done=0, total=0, left=None, preview=None, notes=())
        try:
            entry = self._make(job.form)
            self.jobs.done(job.id)
            self._update(finished=entry.id)
        except KeyboardInterrupt:
            self.jobs.again(job.id)
        except Exception as error:
            self._update(trouble=sentence(error))
            try:
                self.jobs.failed(job.id, sentence(error))
            except EnhanceAVideoError:  # the disk is full: the queue stays as it was, and nothing further can be kept
                self._stop.set()

    def _make(self, form: Form) -> Entry:
        watch = _Watch(self._update, self._stop)
        if form.restores:
            return self._restored(form, watch)
        pipe = self._pipe(form, watch)
        notes = dict.fromkeys(preflight.notices(pipe, form.items()))
        self._update(notes=tuple(notes))
        measures = _measures(pipe, form)
        panels = form.panels()
        how: dict[str, Any] = {"progress": watch, "notice": lambda text: notes.update({text: None})}
        if len(panels) == 1:
            (clip,) = make_clips(pipe, form.items(), **how)
            made: list[Made] = [clip]
            described = _described_alone(clip, measures)
        else:
            takes = compare(pipe, form.prompt, form.seed, panels, measures=measures, **how, **form.options)
            made, described = list(takes), _described(takes, measures)
        self._update(doing="writing", preview=None)
        return self.gallery.keep(form, made, notes=list(notes), **described)

    def _restored(self, form: Form, watch: _Watch) -> Entry:
        """A clip of the gallery restored, as an entry of its own."""
        label, source = self.gallery.clip(form.restores)
        settings = None if form.settings is None else Settings.from_dict(form.settings)
        how = Restoring(noise=form.noise, settings=settings, prompt=form.prompt, seed=form.seed)
        pipe = None if how.light_only else self._pipe(form, watch)
        notes = dict[str, None]()

        def restore(out: Path) -> None:
            restore_file(
                source.clips[label], out, how, model=form.model, pipe=pipe, progress=watch,
                notice=lambda text: notes.update({text: None}),
            )  # fmt: skip
            described["notes"] = list(notes)

        words = ["No model ran: the light was made even."] if pipe is None else ["Restored: left before, right after."]
        described: dict[str, Any] = {"words": words}
        return self.gallery.keep_restored(form, source.clips[label], restore, described)

    def _pipe(self, form: Form, watch: _Watch) -> Any:
        """The pipeline of a form. Loading cannot be broken off, so that a thread of its own does it: when the work is
        stopped meanwhile, it is waited for by the next clip, and used if it is the same model."""
        wanted = (form.model, tuple(sorted(form.load.items())))
        if self._loading and self._loading.wanted != wanted:
            self._loading.wait(watch)  # two large models do not fit
            self._loading = None
        if self._loading is None:
            watch(Progress(0, doing=f"loading {form.model}"))
            self._loading = _Loading(wanted, lambda: _opened(form))
        try:
            return self._loading.wait(watch)
        except Exception:
            self._loading = None
            raise


class _Loading:
    """A model that is being loaded, or was."""

    def __init__(self, wanted: Any, load: Callable[[], Any]) -> None:
        self.wanted = wanted
        self._pipe: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(load,), name="enhance-a-video loads", daemon=True)
        self._thread.start()

    def _run(self, load: Callable[[], Any]) -> None:
        try:
            self._pipe = load()
        except BaseException as error:
            self._error = error

    def wait(self, watch: _Watch) -> Any:
        """The pipeline when it is there. KeyboardInterrupt: the work is stopped meanwhile."""
        while self._thread.is_alive():
            self._thread.join(0.1)
            if watch.stop.is_set():
                raise KeyboardInterrupt
        if self._error is not None:
            raise self._error
        return self._pipe


class _Watch:
    """The report of the engine: stops it, works out the time left, takes previews now and then."""

    def __init__(self, update: Callable[..., None], stop: threading.Event) -> None:
        self.update, self.stop = update, stop
        self.began: float | None = None  # when the first step was done
        self.first = 0
        self.spent = 0.0  # seconds in previews

    def __call__(self, event: Progress) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        now, total = time.monotonic(), event.total or 0
        self.began, self.first = (now, event.done) if self.began is None and event.done else (self.began, self.first)
        left = None
        if self.began is not None and event.done > self.first:
            left = (now - self.began) / (event.done - self.first) * (total - event.done)
        label = event.doing.partition(",")[0]
        words = {PLAIN: "making the plain clip", ENHANCED: "making the enhanced clip"}
        doing = words.get(label, event.doing or words[PLAIN])
        changed: dict[str, Any] = {"doing": doing, "done": event.done, "total": total, "left": left}
        if event.preview and (self.began is None or self.spent <= _PREVIEW_SHARE * (now - self.began)):
            if (frames := event.preview()) is not None:
                changed["preview"] = frames
            self.spent += time.monotonic() - now
        self.update(**changed)


def sentence(error: BaseException) -> str:
    """An error for the page: one sentence, without a traceback and without a hub token."""
    if not isinstance(error, EnhanceAVideoError):
        error = out_of_memory(error) or error
    text = " ".join(str(error).split())
    if not isinstance(error, EnhanceAVideoError):
        text = f"Unexpected {type(error).__name__}: {text or 'no reason given'}. Please report it."
    return re.sub(r"\bhf_\w+", "hf_…", text)


# ----------------------------------------------------------------------------------------------------- in words


def _measures(pipe: Any, form: Form) -> MeasureSet:
    options = pipelines.defaults(pipe) | dict(form.options)
    if form.model == pipelines.EMBEDDED:
        return truth_measures(form.prompt, options.get("height"), options.get("width"))
    return general_measures()


def _described(takes: list[Take], measures: MeasureSet) -> dict[str, Any]:
    """Words, rows and measures of a pair, for the gallery's entry."""
    values = {take.label: {name: [value] for name, value in take.measures.items()} for take in takes}
    made = Comparison(takes[0].item.prompt, (takes[0].seed,), tuple(takes), values, measures)
    rows = [
        {name: str(line.get(name, "")) for name in ("before", "after", "difference", "judgement")}
        | {"measure": line["row"].label}
        for line in report.table(made, ENHANCED)
    ]
    return {
        "words": [report.headline(made, ENHANCED), did(takes[-1]), _counted(made)],
        "rows": rows,
        "measures": {take.label: {name: or_none(value) for name, value in take.measures.items()} for take in takes},
    }


def _counted(made: Comparison) -> str:
    """The report's verdict without its advice, which names a command."""
    return report.verdict(made, ENHANCED).partition(" One pair of clips")[0] + " Several seeds show what is usual."


def _described_alone(clip: Made, measures: MeasureSet) -> dict[str, Any]:
    found = {row.name: value for row in measures.rows for value in [measures.measure(clip.frames).get(row.name)]}
    known = {name: or_none(value) for name, value in found.items() if value is not None}
    return {"words": ["The plain model's clip; nothing was enhanced."], "measures": {clip.label: known}}


def did(made: Made) -> str:
    """The effect of the method in a clip, in a sentence: gain and mass."""
    summary, numbers = made.summary, brief(made.summary)
    if summary is None or numbers is None:
        return "The method was not present."
    if numbers["acted_nowhere"]:
        return f"The method changed nothing: {numbers['acted_nowhere']}."
    mass = float(np.nanmean(summary.mass)) if np.isfinite(summary.mass).any() else None
    shares = f" Frames took {100 * mass:.0f} % of their attention from other frames (the mass)." if mass else ""
    if numbers["mean_gain"] is None:
        return f"The method was present and acted in no step.{shares}"
    return (
        f"The method acted in {numbers['active_calls']} of {numbers['calls']} passes of {numbers['layers']} layers, "
        f"with a gain of {numbers['mean_gain']:.2f} on average and {numbers['highest_gain']:.2f} at most.{shares}"
    )


def _opened(form: Form) -> Any:
    """The pipeline of a form. Errors as `pipelines.load`, and for one that makes no videos."""
    check_videos(form.model, rows_of(form.model))
    return opened(form.model, dict(form.load))
