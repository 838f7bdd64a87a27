"""HTML of the page: the player with a wipe line over one stacked video, results in words, progress; text is escaped.

The player is a custom element (wipe.js): it draws the halves of one video onto one canvas, so that both sides always
show the same frame.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import SettingsError, VideoFileError
from ..generation.again import command_for, record_in
from ..lab.pictures import webp_bytes
from ..wording import count
from .gallery import Entry
from .jobs import FAILED, RUNNING, Job
from .maker import Status

_JUDGED = {"better": "better", "worse": "worse", "more": "more", "less": "less", "same": "same"}


def address(path: Path) -> str:
    """Where the page's server gives a file of the gallery out."""
    return "gradio_api/file=" + quote(str(path))


def player(stacked: Path, labels: Sequence[str], fps: float, about: str) -> str:
    """One stacked video as a player: with two labels a line wipes between them, with one it just plays."""
    first, second = labels[0], labels[1] if len(labels) > 1 else ""
    return (
        f'<wipe-player data-first="{escape(first)}" data-second="{escape(second)}" data-fps="{fps:g}" '
        f'data-about="{escape(about)}" data-src="{escape(address(stacked))}"></wipe-player>'
    )


def result(entry: Entry | None) -> str:
    """A gallery's entry: player, words, downloads, measures."""
    if entry is None:
        return '<p class="ev-empty">Your clip will appear here, plain and enhanced in one player.</p>'
    links = "".join(
        f'<a class="ev-download" download="{escape(path.name)}" href="{escape(address(path))}">'
        f"Download {escape(label)}</a>"
        for label, path in entry.clips.items()
    )
    words = "".join(f"<p>{escape(text)}</p>" for text in entry.words)
    notes = "".join(f'<p class="ev-note">Note: {escape(text)}</p>' for text in entry.notes)
    title = f'<p class="ev-title" data-entry="{escape(entry.id)}">{escape(entry.title)}</p>'
    shown = player(entry.stacked, list(entry.clips), entry.fps, entry.form.prompt)
    text = f"{words}{notes}{_table(entry)}{_commands(entry)}"
    return f'<div class="ev-result">{title}{shown}<div class="ev-links">{links}</div>{text}</div>'


def _table(entry: Entry) -> str:
    if not entry.rows:
        return ""
    lines = "".join(_line(row) for row in entry.rows)
    head = "<tr><th>measure</th><th>plain</th><th>enhanced</th><th></th></tr>"
    return f"<details><summary>All {count(len(entry.rows), 'measure')}</summary><table>{head}{lines}</table></details>"


def _commands(entry: Entry) -> str:
    """How to make the clip again, and how to restore it, on the command line."""
    label, path = list(entry.clips.items())[-1]
    lines = [shlex.join(["enhance-a-video", "restore", str(path)])]
    with suppress(SettingsError, VideoFileError):  # settings that no command has flags for
        lines.insert(0, command_for(_record(entry, path), f"{label}.mp4"))
    shown = "".join(f"<pre>{escape(line)}</pre>" for line in lines)
    return f"<details><summary>On the command line: again, and restored</summary>{shown}</details>"


def _record(entry: Entry, path: Path) -> Mapping[str, Any]:
    if entry.form.restores:
        return record_in(path) or {}
    record = {"prompt": entry.form.prompt, "seed": entry.form.seed, "model": entry.form.model}
    return record | {"settings": entry.form.settings, "options": entry.form.options}


def _line(row: Mapping[str, str]) -> str:
    word = row.get("judgement", "")
    shown = f'<span class="ev-{_JUDGED[word]}">{word}</span>' if word in _JUDGED else escape(word)
    cells = "".join(f"<td>{escape(str(row.get(name, '')))}</td>" for name in ("before", "after"))
    return f"<tr><th>{escape(row.get('measure', ''))}</th>{cells}<td>{shown}</td></tr>"


def compared(one: tuple[str, Entry], other: tuple[str, Entry], stacked: Path, fps: float) -> str:
    """Two clips of the gallery in one player, with the measures that both have. Each: label and entry."""
    titles = [f"{label}: {entry.title}" for label, entry in (one, other)]
    first, second = (entry.measures.get(label, {}) for label, entry in (one, other))
    lines = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th>"
        f"<td>{_number(first[name])}</td><td>{_number(second[name])}</td></tr>"
        for name in first
        if name in second
    )
    head = "<tr><th>measure</th><th>A</th><th>B</th></tr>"
    table = f"<details><summary>Measures</summary><table>{head}{lines}</table></details>" if lines else ""
    text = "".join(f"<p><b>{side}</b> {escape(title)}</p>" for side, title in zip("AB", titles, strict=True))
    return f'<div class="ev-result">{player(stacked, ["A", "B"], fps, " | ".join(titles))}{text}{table}</div>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def progress(now: Status, waiting: int) -> str:
    """The work at the moment: a bar, the time left, the frames that form."""
    if not now.busy:
        trouble = f'<p class="ev-wrong" role="alert">{escape(now.trouble)}</p>' if now.trouble else ""
        return f'<div class="ev-progress">{trouble}</div>' if trouble else ""
    share = now.done / now.total if now.total else 0
    steps = f", step {now.done} of {now.total}" if now.total else ""
    left = f", {_time(now.left)} left" if now.left is not None and now.done < now.total else ""
    more = f"; {count(waiting, 'clip')} {'waits' if waiting == 1 else 'wait'}" if waiting else ""
    text = f"{now.doing[:1].upper()}{now.doing[1:]}{steps}{left}{more}"
    bar = f'<progress max="1" value="{share:.3f}"></progress>' if now.total else "<progress></progress>"
    preview = ""
    if now.preview is not None:
        data = base64.b64encode(webp_bytes(now.preview, 8, limit=200_000)).decode()
        preview = f'<img class="ev-preview" alt="Frames as they form" src="data:image/webp;base64,{data}">'
    notes = "".join(f'<p class="ev-note">Note: {escape(one)}</p>' for one in now.notes)
    return f'<div class="ev-progress" role="status"><p>{escape(text)}</p>{bar}{preview}{notes}</div>'


def _time(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min" if whole < 5400 else f"{whole / 3600:.1f} h"


def message(text: str, wrong: bool = False) -> str:
    """One sentence below the buttons."""
    if not text:
        return ""
    return (
        f'<p class="{"ev-wrong" if wrong else "ev-message"}" role="{"alert" if wrong else "status"}">{escape(text)}</p>'
    )


def label_of(job: Job, number: int) -> str:
    """A job as a line of the queue."""
    form = job.form
    state = {RUNNING: " (being made)", FAILED: f" (failed: {job.trouble})"}.get(job.state, "")
    prompt = re.sub(r"\s+", " ", form.prompt)
    what = f"restore, noise {form.noise:g}" if form.restores else form.effect
    return f"{number}. {prompt[:70]}{'…' * (len(prompt) > 70)} · seed {form.seed} · {what}{state}"
