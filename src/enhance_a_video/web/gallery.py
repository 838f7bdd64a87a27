"""`Gallery`: the clips that the page made, a folder each, written whole or not at all, found again after a restart."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from .. import limits
from ..errors import SettingsError, VideoFileError
from ..generation import files, video
from ..generation.credentials import Claim
from ..generation.making import Made
from .form import Form

_ENTRY, _STACKED, _POSTER = "entry.json", "stacked.mp4", "poster.png"
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
_Write = Callable[[Path, str], tuple[dict[str, str], list[np.ndarray], float]]  # names of clips, frames, fps
_SHOWN = 384  # the shorter side of what the player and the gallery show, at least


@dataclass(frozen=True)
class Entry:
    """One press of the button: the form, its clips by label, and the page's text about them.

    clips: label -> file. stacked: the clips above each other, for the player. words: sentences. measures: label ->
    name -> number. rows: lines of the table of measures.
    """

    id: str
    folder: Path
    form: Form
    clips: Mapping[str, Path]
    fps: float
    words: tuple[str, ...] = ()
    rows: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    made: str = ""
    measures: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def stacked(self) -> Path:
        return self.folder / _STACKED

    @property
    def poster(self) -> Path:
        return self.folder / _POSTER

    @property
    def title(self) -> str:
        what = f"restored, noise {self.form.noise:g}" if self.form.restores else self.form.effect
        short = self.form.prompt if len(self.form.prompt) <= 60 else self.form.prompt[:57] + "…"
        return f"{short} · seed {self.form.seed} · {what}"


class Gallery:
    """A folder of entries. `keep` makes one; nothing outside of the folder is read, written or removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files.refuse_existing([folder / ".writable"])  # makes the folder; VideoFileError where it cannot be written
        for draft in folder.glob(".draft-*"):  # what a kill left
            shutil.rmtree(draft, ignore_errors=True)

    def keep(self, form: Form, made: Sequence[Made], **described: Any) -> Entry:
        """Writes the clips of a form as a new entry. described: words, rows, notes, measures of the Entry.

        Raises:
            VideoFileError: the disk is full or does not take it; nothing is left then.
        """

        def write(draft: Path, id: str) -> tuple[dict[str, str], list[np.ndarray], float]:
            names = {one.label: f"{id}-{one.label}.mp4" for one in made}
            for one in made:
                record = {**one.record(), "model": form.model}
                video.write_video(
                    draft / names[one.label], one.frames, one.fps, comment=json.dumps(record), claim=Claim(record)
                )
            return names, [one.frames for one in made], made[0].fps

        return self._kept(form, made[-1].item.key[:8], write, described)

    def keep_restored(
        self, form: Form, source: Path, restore: Callable[[Path], Any], described: Mapping[str, Any]
    ) -> Entry:
        """A new entry of a clip of the gallery and of what `restore` writes into the path that it is called with.
        Errors as `keep`, and those of `restore`."""

        def write(draft: Path, id: str) -> tuple[dict[str, str], list[np.ndarray], float]:
            names = {label: f"{id}-{label}.mp4" for label in ("before", "restored")}
            with files.explained(draft):
                shutil.copyfile(source, draft / names["before"])
            restore(draft / names["restored"])
            clips = [video.read_video(draft / name) for name in names.values()]
            return names, [frames for frames, _ in clips], clips[0][1] or 8

        return self._kept(form, secrets.token_hex(4), write, described)

    def _kept(self, form: Form, key: str, write: _Write, described: Mapping[str, Any]) -> Entry:
        now = datetime.now(timezone.utc)
        id = f"{now:%Y%m%d-%H%M%S}-{key}"
        with files.explained(self.folder):
            draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.folder))
        try:
            names, clips, fps = write(draft, id)
            video.write_video(draft / _STACKED, stacked(clips), fps)
            middle = clips[-1][len(clips[-1]) // 2]
            video.write_png(draft / _POSTER, video.enlarged(middle[None], _SHOWN)[0])
            data = {
                "form": form.to_dict(), "clips": names, "fps": fps, "made": now.isoformat(timespec="seconds"),
                **described,
            }  # fmt: skip
            files.write_text(draft / _ENTRY, json.dumps(data, indent=1))
            with files.explained(self.folder):
                shutil.rmtree(self.folder / id, ignore_errors=True)  # the same clip within the same second
                draft.chmod(0o755)
                draft.rename(self.folder / id)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return self.entry(id)

    def entries(self) -> list[Entry]:
        """All that can be read, the newest first; a damaged one is left out."""
        found = []
        for path in sorted(self.folder.iterdir(), reverse=True):
            if _ID.fullmatch(path.name):
                with suppress(SettingsError, VideoFileError):
                    found.append(self.entry(path.name))
        return found

    def entry(self, id: str) -> Entry:
        """The entry with this id. SettingsError: there is none, or it is damaged."""
        folder = self._folder(id)
        try:
            with files.explained(folder / _ENTRY, "read"):
                data = limits.parse_json((folder / _ENTRY).read_text(encoding="utf-8"))
            clips = {str(label): folder / Path(name).name for label, name in data["clips"].items()}
            return Entry(
                id, folder, Form.from_dict(data["form"]), clips, float(data["fps"]), tuple(data.get("words", ())),
                tuple(data.get("rows", ())), tuple(data.get("notes", ())), str(data.get("made", "")),
                data.get("measures", {}),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(f"{id} in the gallery is damaged ({error}).") from None

    def clip(self, chosen: str) -> tuple[str, Entry]:
        """Label and entry of "ID/LABEL". SettingsError: there is none."""
        id, _, label = str(chosen).partition("/")
        entry = self.entry(id)
        if label not in entry.clips:
            raise SettingsError("This clip is no longer in the gallery.")
        return label, entry

    def remove(self, id: str) -> None:
        """Deletes an entry. SettingsError: there is none; VideoFileError: it cannot be deleted."""
        folder = self._folder(id)
        with files.explained(folder, "delete"):
            shutil.rmtree(folder)

    def beside(self, first: Path, second: Path) -> tuple[Path, float]:
        """Two clips of the gallery above each other in one file, the second at the size and length of the first, for
        the player. Returns the file and its frames per second."""
        out = self.folder / f"compared-{first.stem}-{second.stem}.mp4"
        one, fps = video.read_video(first)
        if not out.exists():
            other, _ = video.read_video(second)
            video.write_video(out, stacked([one, other]), fps or 8, force=True)
            for old in sorted(self.folder.glob("compared-*.mp4"), key=lambda path: path.stat().st_mtime)[:-20]:
                old.unlink(missing_ok=True)
        return out, fps or 8

    def _folder(self, id: str) -> Path:
        if not (isinstance(id, str) and _ID.fullmatch(id) and (self.folder / id).is_dir()):
            raise SettingsError("This clip is no longer in the gallery.")
        return self.folder / id


def stacked(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Clips (T, H, W, 3) above each other, enlarged to a size one can watch: uint8 (T, n*H, W, 3).

    All get the height and width of the first, made even, and the length of the shortest.
    """
    import cv2

    first = video.even(video.enlarged(video.to_uint8(clips[0]), _SHOWN))
    height, width = first.shape[1:3]
    length = min(map(len, clips))
    others = [
        np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LANCZOS4) for frame in clip[:length]])
        for clip in map(video.to_uint8, clips[1:])
    ]
    return np.concatenate([first[:length], *others], axis=1)
