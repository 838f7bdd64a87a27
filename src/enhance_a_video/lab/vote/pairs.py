"""Finds the pairs of clips in a folder: the same prompt and seed under two labels.

A folder is, in this order: one with a pairs.json, one with the manifest.jsonl of `batch`, one with the study.sqlite of
`study`, what `compare` or `demo` wrote (every seed), a folder of such folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import limits
from ...errors import SettingsError, VideoFileError
from ...generation import files
from ...generation.batch.folder import MANIFEST, read_manifest
from ...generation.events import Progress, Report, silent
from ...generation.media import read_comment
from ...wording import count
from .blinding import Kind, inspect

PAIRS, STUDY = "pairs.json", "study.sqlite"
FIRST, SECOND = "baseline.mp4", "enhanced.mp4"  # what every comparison has


@dataclass(frozen=True)
class Pair:
    """Two clips that differ in one thing. The first label is the reference ("without")."""

    id: str  # of what is in it, so that votes stay with the clips they were given to
    prompt: str | None
    seed: int | None
    labels: tuple[str, str]
    files: tuple[Path, Path]
    kinds: tuple[Kind, Kind]


@dataclass(frozen=True)
class Found:
    """The pairs of a folder, where they were read from, and notes for whoever runs the vote.

    unreadable: why pairs are left out, one sentence for each video that is missing, damaged or cut off.
    """

    pairs: tuple[Pair, ...]
    source: str
    notes: tuple[str, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def trouble(self) -> str:
        """The first of `unreadable`, and how many more there are; "" where there are none."""
        rest = f" And {len(self.unreadable) - 3} more like these." if len(self.unreadable) > 3 else ""
        return " ".join(self.unreadable[:3]) + rest


@dataclass
class _Group:
    """All clips of one prompt and seed, by label."""

    where: str
    prompt: str | None
    seed: int | None
    videos: dict[str, Path]
    settings: dict[str, str]  # label -> as text, where known
    reference: str
    unreadable: tuple[str, ...] = ()  # why videos are not among these, one sentence each


def find_pairs(folder: str | Path, against: str | None = None, *, progress: Report = silent) -> Found:
    """The pairs of a folder: in every prompt and seed each label with the reference.

    Args:
        against: the label that is the reference; by default the plain model's in a batch, else the first one.
        progress: called before each pair is checked.

    Raises:
        SettingsError: no such folder, no pair in it, a label that does not exist, a file that lists pairs wrongly.
        VideoFileError: no pair is left, as videos are missing or cannot be read. Some of them: see `Found.unreadable`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SettingsError(
            f"{folder} is not a folder. Give one that compare, study or batch wrote: see docs/guide/vote.md."
        )
    source, groups, notes = _groups(folder)
    unreadable = dict.fromkeys(text for group in groups for text in group.unreadable)
    chosen = list(_chosen(groups, against))
    if not chosen and not unreadable:
        labels = sorted({label for group in groups for label in group.videos})
        reason = f"no two labels share a prompt and seed (labels: {', '.join(labels)})" if labels else _NOTHING
        raise SettingsError(" ".join([f"There is no pair of videos in {folder}: {reason}.", *notes]))
    pairs: dict[str, Pair] = {}
    for done, (group, two) in enumerate(chosen):
        progress(Progress(done, len(chosen), "pair", "looking at the videos"))
        try:
            pair = _pair(group, two)
        except VideoFileError as error:
            unreadable[str(error)] = None
            continue
        notes += _differences(group, pair) + ([f"{group.where} is there twice."] if pair.id in pairs else [])
        pairs[pair.id] = pair
    found = Found(tuple(pairs.values()), source, (*notes, *_pooled(groups)), tuple(unreadable))
    if not pairs:
        raise VideoFileError(found.trouble)
    return found


_NOTHING = (
    f"it holds no {PAIRS}, no {MANIFEST}, no videos of a {STUDY}, and neither it nor a folder in it holds {FIRST} and "
    f"{SECOND}. compare, demo, study and batch write such folders; docs/guide/vote.md shows how to list your own videos"
)


# ------------------------------------------------------------------------------------------------- kinds of folder


def _groups(folder: Path) -> tuple[str, list[_Group], list[str]]:
    if (folder / PAIRS).exists():
        return PAIRS, _listed(folder), []
    if (folder / MANIFEST).exists():
        return MANIFEST, *_batch(folder)
    if (folder / STUDY).exists():
        return STUDY, *_studied(folder)
    if _is_compared(folder):
        return "the folder itself", _all_seeds(folder), []
    folders = [inner for inner in sorted(folder.iterdir()) if _is_compared(inner)]
    return f"{len(folders)} folders", [group for inner in folders for group in _all_seeds(inner)], []


def _all_seeds(folder: Path) -> list[_Group]:
    """What `compare` wrote: the first seed in the folder itself, the others in folders seed-N."""
    numbered = [path for path in folder.glob("seed-*") if path.name[5:].isdecimal() and _is_compared(path)]
    return [_compared(folder), *(_compared(path) for path in sorted(numbered, key=lambda path: int(path.name[5:])))]


def _is_compared(folder: Path) -> bool:
    """Whether one of the videos that every comparison has is there, so that the other is missed."""
    return any((folder / name).exists() for name in (FIRST, SECOND))


def _compared(folder: Path) -> _Group:
    """What `compare` wrote: the labels are in the files. Of one that cannot be read only the reason is kept."""
    names = [FIRST, SECOND, *(path.name for path in sorted(folder.glob("panel-*.mp4")))]
    videos, sources, settings, unreadable = {}, {}, {}, {}
    for path in (folder / name for name in names):
        try:
            comment = _object(read_comment(path))
        except VideoFileError as error:
            unreadable[path.name] = str(error)
            continue
        label = str(comment.get("label", comment.get("panel", path.stem)))
        label = path.stem if label in videos else label
        videos[label] = path
        sources[path.name] = _prompt_and_seed(comment, str(path))
        if comment.get("settings") is not None:
            settings[label] = json.dumps(comment["settings"], sort_keys=True)
    if len(set(sources.values())) > 1:
        raise SettingsError(f"The videos in {folder} are of different prompts or seeds: {sources}. Run compare again.")
    prompt, seed = next(iter(sources.values()), (None, None))
    reference = "" if FIRST in unreadable else next(iter(videos))
    return _Group(str(folder), prompt, seed, videos, settings, reference, tuple(unreadable.values()))


def _listed(folder: Path) -> list[_Group]:
    """pairs.json: {"pairs": [{"prompt": "…", "seed": 0, "videos": {"without": "a.mp4", "with": "b.mp4"}}, …]}"""
    path = folder / PAIRS
    form = 'the form is {"pairs": [...]}: see docs/guide/vote.md.'
    try:
        listed = limits.parse_json(_text(path))
    except ValueError as error:
        raise SettingsError(f"{path} is not JSON ({error}); {form}") from None
    entries = listed.get("pairs") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        raise SettingsError(f"{path} lists no pairs; {form}")
    groups = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}, pair {number}"
        videos = entry.get("videos") if isinstance(entry, dict) else None
        if not isinstance(videos, dict) or len(videos) < 2:
            raise SettingsError(f'{where}: "videos" has to give two labels or more a file each, {{"label": "a.mp4"}}.')
        prompt, seed = _prompt_and_seed(entry, where)
        files = {label: _inside(folder, name, where) for label, name in videos.items()}
        groups.append(_Group(where, prompt, seed, files, {}, next(iter(files))))
    return groups


def _batch(folder: Path) -> tuple[list[_Group], list[str]]:
    """The clips of `batch` that are done and there; the last line of a key counts. See docs/guide/batch.md."""
    with files.explained(folder / MANIFEST, "read"):
        records = {record["key"]: record for record in read_manifest(folder / MANIFEST)}
    done = [record for record in records.values() if record["status"] == "done" and _file(folder, record).is_file()]
    plain = [record["label"] for record in done if record.get("settings") is None]
    reference = next(iter(plain or [record["label"] for record in done]), "")
    groups: dict[str, _Group] = {}
    for record in done:
        key = json.dumps([record["prompt"], record["seed"], record.get("options")], sort_keys=True)
        where, label = f"{folder / MANIFEST}, {record['prompt']!r}, seed {record['seed']}", record["label"]
        group = groups.setdefault(key, _Group(where, record["prompt"], record["seed"], {}, {}, reference))
        if label in group.videos:
            raise SettingsError(
                f"{where}: there are two clips {label!r}, with other settings. List what is to be compared in "
                f"{folder / PAIRS} (docs/guide/vote.md), or make the clips with labels of their own (batch --panel)."
            )
        group.videos[label] = _file(folder, record)
        group.settings[label] = json.dumps(record.get("settings"), sort_keys=True)
    missing = len(records) - len(done)
    alone = sum(reference not in group.videos for group in groups.values())
    notes = [f"Not there, failed or deleted: {count(missing, 'clip')} of the batch."] if missing else []
    return list(groups.values()), notes + _without_reference(alone)


def _studied(folder: Path) -> tuple[list[_Group], list[str]]:
    """The clips of a study whose videos were kept; of two with one label, the later one. See docs/guide/study.md."""
    from ..study.run import WORLD, video_path
    from ..study.store import made_clips

    clips = [clip for clip in made_clips(folder / STUDY) if clip["weights"] != WORLD]
    kept = [(clip, video_path(folder, clip["key"], clip["weights"])) for clip in clips]
    there = [(clip, path) for clip, path in kept if path.is_file()]
    plain = [clip["setting"] for clip, _ in there if clip["settings"] is None]
    reference = next(iter(plain or [clip["setting"] for clip, _ in there]), "")
    groups: dict[tuple[Any, ...], _Group] = {}
    replaced = 0
    for clip, path in there:
        key = tuple(clip[name] for name in ("model", "weights", "options", "prompt", "seed"))
        where, label = f"{folder / STUDY}, {clip['prompt']!r}, seed {clip['seed']}", clip["setting"]
        group = groups.setdefault(key, _Group(where, clip["prompt"], clip["seed"], {}, {}, reference))
        replaced += label in group.videos
        group.videos[label] = path
        group.settings[label] = clip["settings"] or "null"
    missing = len(kept) - len(there)
    reason = "the study did not keep them (videos: {keep: false} in its file), or they were deleted"
    notes = [f"There is no video of {count(missing, 'clip')} of the study: {reason}."] if missing else []
    later = "a later run used the same label for other settings"
    notes += [f"Left out, as {later}: {count(replaced, 'clip')}."] if replaced else []
    alone = sum(reference not in group.videos for group in groups.values())
    return list(groups.values()), notes + _without_reference(alone)


def _without_reference(number: int) -> list[str]:
    return [f"Without a clip of the reference: {count(number, 'prompt and seed', 'prompts and seeds')}."] * bool(number)


def _file(folder: Path, record: dict[str, Any]) -> Path:
    return _inside(folder, record["file"], f"{folder / MANIFEST}, key {record['key']}")


def _prompt_and_seed(entry: dict[str, Any], where: str) -> tuple[str | None, int | None]:
    prompt, seed = entry.get("prompt"), entry.get("seed")
    if not isinstance(prompt, str | None):
        raise SettingsError(f"{where}: a prompt is text; found {prompt!r}.")
    return (prompt or "").strip() or None, None if seed is None else limits.seed(seed, f"{where}: seed")


def _inside(folder: Path, name: Any, where: str) -> Path:
    """The path of a file that a list in `folder` names. SettingsError for one that leads out of the folder."""
    relative = Path(name) if isinstance(name, str) and name else None
    if relative is None or relative.is_absolute() or ".." in relative.parts:
        raise SettingsError(f"{where}: {name!r} has to be the name of a file in {folder}, relative to it.")
    return folder / relative


def _text(path: Path, errors: str = "strict") -> str:
    try:
        return limits.ordinary(path).read_text(encoding="utf-8-sig", errors=errors)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}.") from error


def _object(text: str) -> dict[str, Any]:
    """The JSON object that a text is, {} where it is none."""
    try:
        data = limits.parse_json(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


# ------------------------------------------------------------------------------------------------- groups to pairs


def _chosen(groups: Sequence[_Group], against: str | None) -> Iterator[tuple[_Group, tuple[str, str]]]:
    """(group, (reference, other)) for each pair."""
    known = {label for group in groups for label in group.videos}
    if against is not None and groups and against not in known:
        raise SettingsError(f"No video has the label {against!r}. There are: {', '.join(sorted(known))}.")
    for group in groups:
        reference = group.reference if against is None else against
        if reference in group.videos:
            yield from ((group, (reference, other)) for other in group.videos if other != reference)


def _pair(group: _Group, labels: tuple[str, str]) -> Pair:
    first, second = (group.videos[label] for label in labels)
    kinds = inspect(first), inspect(second)
    content = json.dumps([group.prompt, group.seed, labels, _digest(first), _digest(second)])
    name = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Pair(name, group.prompt, group.seed, labels, (first, second), kinds)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise VideoFileError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def _differences(group: _Group, pair: Pair) -> list[str]:
    """Whatever would show a voter which clip is which, as a sentence."""
    first, second = pair.kinds
    named = {
        "size": (f"{first.width}x{first.height}", f"{second.width}x{second.height}"),
        "frames per second": (f"{first.rate:g}", f"{second.rate:g}"),
        "length": (count(first.frames, "frame"), count(second.frames, "frame")),
    }
    unlike = [f"{name} ({one} and {other})" for name, (one, other) in named.items() if one != other]
    if not unlike:
        return []
    return [f"{group.where}: {' and '.join(pair.labels)} differ in {', '.join(unlike)}: voters can tell them apart."]


def _pooled(groups: Iterable[_Group]) -> list[str]:
    """Labels that stand for several settings: their votes are counted as one."""
    known: dict[str, set[str]] = {}
    for group in groups:
        for label, text in group.settings.items():
            known.setdefault(label, set()).add(text)
    return [
        f"{label!r} stands for {len(texts)} different settings; their votes are counted together."
        for label, texts in known.items()
        if len(texts) > 1
    ]
