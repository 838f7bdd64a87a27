"""benchmarks/same_numbers.py: it compares studies to the last digit, at two commits of this repository."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import same_numbers  # noqa: E402

CLIP = ("embedded", "a red ball", 3, "default")
CLIPS = {CLIP: {"mean gain": 1.0625, "flicker": 0.1, "truth": None, "warping": math.nan}}


def test_equal_studies_have_no_difference():
    found = same_numbers.compared(CLIPS, copy.deepcopy(CLIPS))
    assert (found.clips, found.numbers, found.lines) == (1, 4, ())


@pytest.mark.parametrize(
    "changed, line",
    [
        ({"flicker": math.nextafter(0.1, 1)}, "flicker 0.1 before, 0.10000000000000002 after"),
        ({"truth": 0.0}, "truth None before, 0.0 after"),
        ({"new": 1.0}, "new only after"),
    ],
)
def test_one_digit_is_a_difference(changed, line):
    found = same_numbers.compared(CLIPS, {CLIP: CLIPS[CLIP] | changed})
    assert len(found.lines) == 1 and found.lines[0].endswith(line)


def test_a_missing_clip_is_a_difference():
    assert same_numbers.compared(CLIPS, {}).lines == ("embedded, default, seed 3, 'a red ball': only before",)


def test_numbers_are_read_from_a_studys_database(tmp_path):
    from enhance_a_video.lab.study.store import Store

    with Store(tmp_path) as store, store.transaction() as db:
        db.execute("INSERT INTO runs VALUES (1, 'd', 's', 'c', 'now', NULL, 1, '{}')")
        db.execute(
            "INSERT INTO clips VALUES (7, 'k', '/somewhere/models/joint', 'w', 'a red ball', 3, 'default', NULL, '{}', "
            "9, 32, 32, 3, 1.5, 1.0625, 'now', 1)"
        )
        db.executemany("INSERT INTO measures VALUES (7, ?, ?)", [("flicker", 0.1), ("truth", None)])
    numbers = {"frames": 9, "height": 32, "width": 32, "latent frames": 3, "mean gain": 1.0625}
    expected = {("joint", "a red ball", 3, "default"): numbers | {"flicker": 0.1, "truth": None}}
    assert same_numbers.clips_of(tmp_path / "study.sqlite") == expected


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_a_commit_is_a_worktree_for_a_while(tmp_path):
    folder = tmp_path / "tree"
    with same_numbers.tree("HEAD", folder) as files:
        assert files == folder and (folder / same_numbers.STUDY).exists()
    assert not folder.exists()
    listed = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(folder) not in listed
    with same_numbers.tree(None, folder) as files:
        assert files == ROOT
