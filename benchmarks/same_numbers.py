"""Checks whether two commits give the same numbers to the last digit: every measure of every clip of the small study.

    python benchmarks/same_numbers.py 69bddd0                        # that commit and the working tree
    python benchmarks/same_numbers.py 69bddd0 HEAD --prompts 40      # two commits, all prompts of make study-small

For a change that may move code but no number. Both run one after the other on this machine, on one thread and with one
worker, as the order of additions depends on both; the numbers of different machines may differ in their last digits.
Times are not compared. Exits 1 where a number differs or a clip of one study is missing in the other.
"""

from __future__ import annotations

import argparse
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
STUDY = "studies/small.yaml"

Clips = dict[tuple[str, str, int, str], dict[str, float | None]]  # model, prompt, seed, setting -> name -> number


@dataclass(frozen=True)
class Difference:
    """The counts that two studies have in common, and where they differ: lines of text."""

    clips: int
    numbers: int
    lines: tuple[str, ...]


@contextmanager
def tree(commit: str | None, folder: Path) -> Iterator[Path]:
    """The files of a commit, in a worktree of their own; without one this working tree."""
    if commit is None:
        yield ROOT
        return
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, commit], cwd=ROOT, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def run(tree: Path, out: Path, prompts: int) -> None:
    """The small study of `tree` with its first prompts, by its own code, into `out`."""
    study = yaml.safe_load((tree / STUDY).read_text(encoding="utf-8"))
    study["prompts"]["embedded"]["count"] = prompts
    study["model"] = [str((tree / STUDY).parent / name) if "/" in name else name for name in study["model"]]
    study.pop("videos", None)
    out.mkdir(parents=True)
    file = out / "small.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "enhance_a_video.cli", "study", file, "--out", out / "study", "--workers", "1"]
    subprocess.run(command, cwd=tree, env=environment, check=True, stdout=sys.stderr)


def clips_of(study: Path) -> Clips:
    """Every number of a study's database but times."""
    found: Clips = {}
    with closing(sqlite3.connect(f"file:{study}?mode=ro", uri=True)) as db:
        columns = "id, model, prompt, seed, setting, frames, height, width, latent_frames, mean_gain"
        for clip, model, prompt, seed, setting, *about in db.execute(f"SELECT {columns} FROM clips"):
            names = ("frames", "height", "width", "latent frames", "mean gain")
            measured = db.execute("SELECT measure, value FROM measures WHERE clip = ?", (clip,))
            found[Path(model).name, prompt, seed, setting] = dict(zip(names, about, strict=True)) | dict(measured)
    return found


def compared(before: Clips, after: Clips) -> Difference:
    """Numbers are the same if they are equal as 64-bit floats, or nothing was measured in both."""
    lines = [f"{_name(clip)}: only {'before' if clip in before else 'after'}" for clip in before.keys() ^ after.keys()]
    both = before.keys() & after.keys()
    numbers = 0
    for clip in sorted(both):
        one, two = before[clip], after[clip]
        lines += [
            f"{_name(clip)}: {name} only {'before' if name in one else 'after'}" for name in one.keys() ^ two.keys()
        ]
        for name in sorted(one.keys() & two.keys()):
            numbers += 1
            if one[name] != two[name] and not (_nothing(one[name]) and _nothing(two[name])):
                lines.append(f"{_name(clip)}: {name} {one[name]!r} before, {two[name]!r} after")
    return Difference(len(both), numbers, tuple(lines))


def _nothing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _name(clip: tuple[str, str, int, str]) -> str:
    model, prompt, seed, setting = clip
    return f"{model}, {setting}, seed {seed}, {prompt!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", help="another; the working tree without it")
    parser.add_argument("--prompts", type=int, default=2, help="of each model; make study-small has 40")
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        for when, commit in (("before", given.before), ("after", given.after)):
            out = Path(name, when)
            with tree(commit, Path(name, f"tree-{when}")) as files:
                run(files, out, given.prompts)
            found.append(clips_of(out / "study" / "study.sqlite"))
    difference = compared(*found)
    print(*difference.lines, sep="\n", end="\n" if difference.lines else "")
    print(
        f"{given.before} and {given.after or 'the working tree'}: {difference.clips} clips, {difference.numbers:,} "
        f"numbers, {len(difference.lines)} different"
    )
    sys.exit(bool(difference.lines) or not difference.clips)


if __name__ == "__main__":
    main()
