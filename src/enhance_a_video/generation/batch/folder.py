"""The folder of a batch: its clips and manifest. Only the main process writes, under a lock: a clip, then its line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ... import limits
from ...errors import SettingsError, VideoFileError
from .. import files, video
from ..requests import ClipRequest

MANIFEST = "manifest.jsonl"
_KEY = re.compile(r"_([0-9a-f]{16})\.mp4$")
_DRAFT = re.compile(r"^\..*_[0-9a-f]{16}-.{8}\.mp4$")  # what a kill leaves of files.atomic


class Folder:
    """What has been made. A context: entering it takes the lock, reads the manifest and mends what a kill left.

    Args:
        path: made if it is not there; files that are not of a batch are left alone.
        model, dtype: what this run generates with, as `pipelines.load` takes them.

    Raises (on entering):
        SettingsError: another run is writing here; the clips in it are of another model or dtype; a damaged manifest.
        VideoFileError: it cannot be written.
    """

    def __init__(self, path: str | Path, model: str, dtype: str):
        self.path, self.source = Path(path), {"model": model, "dtype": dtype}
        self.manifest = self.path / MANIFEST
        self.records: dict[str, dict[str, Any]] = {}  # key -> its last line
        self._held = ExitStack()

    def __enter__(self) -> Folder:
        files.refuse_existing([self.manifest], force=True)
        busy = SettingsError(
            f"Another batch is writing to {self.path}: wait for it, stop it, or choose another folder."
        )
        with ExitStack() as stack:
            stack.enter_context(files.only_one(self.path / ".batch.lock", busy))
            with files.explained(self.path):
                for path in self.path.iterdir():
                    if _DRAFT.match(path.name):
                        _tidy(path)
            with files.explained(self.manifest):
                self.records = {record["key"]: record for record in read_manifest(self.manifest, mend=True)}
            self._check_source()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _check_source(self) -> None:
        for record in self.records.values():
            found = {name: record.get(name) for name in self.source}
            if record["status"] == "done" and found != self.source:
                raise SettingsError(
                    f"{self.path} holds clips of model {found['model']} in dtype {found['dtype']}, and this run is for "
                    f"{self.source['model']} in {self.source['dtype']}. One folder is for one model: choose another."
                )

    # ------------------------------------------------------------------------------------------- what is there

    def status(self, item: ClipRequest) -> str:
        """done (line and file are there), failed, or open."""
        record = self.records.get(item.key, {"status": "open"})
        if record["status"] == "done" and not (self.path / record["file"]).is_file():
            return "open"
        return record["status"]

    def adopt(self, items: Iterable[ClipRequest]) -> int:
        """Clips that were written just before a kill, with no line yet, get the line that lies in the file itself."""
        there = {found[1]: path for path in self.path.glob("*.mp4") if (found := _KEY.search(path.name))}
        adopted = 0
        for item in items:
            path = there.get(item.key)
            record = _record_in(path) if path and self.status(item) != "done" else None
            if path and record and record.get("key") == item.key and self.source.items() <= record.items():
                self._append({**record, "file": path.name})
                adopted += 1
        return adopted

    # ---------------------------------------------------------------------------------------------- adding to it

    def facts(self, item: ClipRequest) -> dict[str, Any]:
        """What is known of a clip before it is made: the first half of its record."""
        return {**item.facts(), "status": "open", "file": file_name(item), **self.source}

    def keep(self, clip: bytes, record: dict[str, Any]) -> None:
        """Writes a clip and, when it is safely on the disk, its line.

        Raises:
            VideoFileError: the disk refuses; the message names where the clip is kept instead, if it could be.
        """

        files.write_into(self.path, lambda folder: files.write_bytes(folder / record["file"], clip, force=True))
        self._append(record)

    def fail(self, item: ClipRequest, error: str) -> dict[str, Any]:
        """Records that a clip could not be made, and why."""
        record = {**self.facts(item), "status": "failed", "error": error}
        del record["file"]
        self._append(record)
        return record

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        with files.explained(self.manifest):
            with self.manifest.open("ab") as file:
                file.write(line.encode())
            files.sync(self.manifest)
        self.records[record["key"]] = record


def file_name(item: ClipRequest) -> str:
    """A name to recognise the clip by, with its key, so that no two clips share one."""
    words = [_slug(item.prompt, 40), f"seed-{item.seed}", _slug(item.label, 24), item.key]
    return "_".join(word for word in words if word) + ".mp4"


def _slug(text: str, length: int) -> str:
    """Letters, digits and dashes, so short that the whole name fits where names have at most 143 bytes (eCryptfs)."""
    cut = re.sub(r"[\W_]+", "-", text.lower())[:length].encode()[: length * 3 // 2]
    return cut.decode("utf-8", "ignore").strip("-")


def read_manifest(manifest: Path, *, mend: bool = False) -> list[dict[str, Any]]:
    """The records of a manifest, in its order, without a last line that a kill tore; [] where there is none.

    Each has its key and status, "failed" or "done"; those that are done have a file, a prompt, a seed and a label.

    Args:
        mend: cut the torn line off the file too, and complete one that lacks only its end: for whoever holds the lock.

    Raises:
        SettingsError: a line is no record. OSError: the file cannot be read.
    """
    if not manifest.exists():
        return []
    data = limits.ordinary(manifest).read_bytes()
    whole, _, tail = data.rpartition(b"\n")
    if tail and not mend:
        whole = data if _parsed(tail) else whole
    elif tail:
        with manifest.open("r+b") as file:
            if _parsed(tail):
                whole = data
                file.seek(0, os.SEEK_END)
                file.write(b"\n")
            else:
                file.truncate(len(data) - len(tail))
        files.sync(manifest)
    records = []
    for number, line in enumerate(whole.split(b"\n"), 1):
        record = _parsed(line)
        if record is None and line.strip():
            raise SettingsError(
                f"{manifest}, line {number} is not a record of a batch. Repair the line, or take it out "
                "(its clip is then found again by its file, or made again)."
            )
        records += [record] if record else []
    return records


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = limits.parse_json(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("status") not in ("failed", "done"):
        return None
    needed = {"key": str} | (_OF_A_CLIP if record["status"] == "done" else {})
    good = all(isinstance(record.get(name), kind) for name, kind in needed.items())
    return record if good and not isinstance(record.get("seed"), bool) else None


_OF_A_CLIP = {"file": str, "prompt": str, "seed": int, "label": str}


def _record_in(path: Path) -> dict[str, Any] | None:
    """The record that a clip carries in its comment, if the clip is complete."""
    try:
        record = _parsed(video.read_comment(path).encode())
        return record if record and len(video.read_video(path)[0]) == record["frames"] else None
    except VideoFileError:
        return None


def _tidy(draft: Path) -> None:
    """What a kill or a refusal left of a clip: a whole one gets its name, anything else goes."""
    name = draft.with_name(draft.name[1 : -len("-12345678.mp4")] + ".mp4")
    with suppress(OSError):
        if _record_in(draft) and not name.exists():
            draft.rename(name)
        else:
            draft.unlink(missing_ok=True)
