"""`score`: any files, in pieces, with the measures of the whole; and VBench called as a program of its own."""

import json
import os
import sys
import textwrap
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from media_files import animation, moving, sound, write

from enhance_a_video.embedded import world
from enhance_a_video.errors import ExternalToolError, MissingExtraError, SettingsError
from enhance_a_video.generation import media, video
from enhance_a_video.lab import score
from enhance_a_video.lab.metrics import MEASURES, OVERLAP, measure, measure_pieces
from enhance_a_video.lab.metrics.damage import DAMAGES


@pytest.fixture
def run(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return run


def clip(number: int = 0) -> np.ndarray:
    return world.render(world.sample_scene(np.random.default_rng(number)))[0]


@pytest.fixture
def files(tmp_path):
    """A clean clip and the same one flickering, as mp4."""
    clean = clip()
    video.write_video(tmp_path / "clean.mp4", clean, 12)
    video.write_video(tmp_path / "flicker.mp4", DAMAGES["flicker"](clean / 255.0, 1.0), 12)
    return tmp_path


# ------------------------------------------------------------------------------------------------------ in pieces


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("room", [1, 5, 8, 32, 33, 1000])
def test_pieces_of_a_file_are_its_frames(files, overlap, room):
    whole, _ = video.read_video(files / "clean.mp4")
    with media.open_video(files / "clean.mp4") as opened:
        pieces = list(media.in_pieces(opened, overlap, megapixels=room * 64 * 64 / 1e6))
    assert (np.concatenate([pieces[0], *(piece[overlap:] for piece in pieces[1:])]) == whole).all()
    for before, after in pairwise(pieces):
        assert len(after) > overlap and (before[len(before) - overlap :] == after[:overlap]).all()
    assert max(map(len, pieces)) <= max(room, 4 + overlap)
    assert opened.declared == opened.frames == len(whole) == 33


def test_memory_does_not_grow_with_length(tmp_path):
    """What is traced are NumPy's buffers: those of the frames and all that is computed from them."""
    peaks = []
    for times in (1, 4):
        video.write_video(tmp_path / f"{times}.mp4", np.tile(clip(), (times, 1, 1, 1)), 12)
        tracemalloc.start()
        with media.open_video(tmp_path / f"{times}.mp4") as opened:
            pieces = media.in_pieces(opened, OVERLAP, megapixels=8 * 64 * 64 / 1e6)
            measure_pieces(pieces, ["temporal_flicker", "warping_error", "tone_drift"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# -------------------------------------------------------------------------------------------------------- the command


def test_json_is_the_files_and_what_the_measures_are(run, files):
    code, out, err = run("score", "clean.mp4", "flicker.mp4", "--json")
    assert code == 0, err
    data = json.loads(out)
    assert set(data) == {"command", "files", "measures"}
    facts = {"path": "clean.mp4", "frames": 33, "duration": 2.75, "fps": 12.0, "width": 64, "height": 64}
    assert [set(row) for row in data["files"]] == [{*facts, "measures"}] * 2
    assert {name: data["files"][0][name] for name in facts} == facts
    assert [row["path"] for row in data["files"]] == ["clean.mp4", "flicker.mp4"]
    assert list(data["measures"]) == list(MEASURES) == list(data["files"][0]["measures"])
    assert data["measures"]["temporal_flicker"]["better"] == "higher"
    assert all(set(row) == {"name", "label", "better", "unit", "source", "needs"} for row in data["measures"].values())
    for row in data["files"]:
        assert row["measures"] == pytest.approx(measure(video.read_video(row["path"])[0]))
    clean, flicker = (row["measures"] for row in data["files"])
    assert clean["temporal_flicker"] > flicker["temporal_flicker"] + 0.01
    assert clean["warping_error"] < flicker["warping_error"]


def test_a_table_with_the_direction_that_is_better(run, files):
    code, out, _ = run("score", "clean.mp4", "flicker.mp4", "--measures", "temporal_flicker, warping_error,motion")
    assert code == 0
    lines = {line.split("  ")[1].strip(): line for line in out.splitlines() if line.startswith("  ")}
    assert all(text in out for text in ("Frames", "33", "Length", "2.75", "Frame rate", "64x64"))
    assert "↑" in lines["Steadiness (VBench)"] and "↓" in lines["Warping error"]
    assert not {"↑", "↓"} & set(lines["Motion"])
    assert "clean.mp4" in out and "flicker.mp4" in out and "Sharpness" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_help_teaches(run):
    code, out, _ = run("score", "--help")
    assert code == 0 and "enhance-a-video score" in out and "--json" in out and "--vbench" in out


def test_what_cannot_be_read_does_not_stop_the_others(run, files):
    (files / "text.mp4").write_text("hello")
    code, out, err = run("score", "text.mp4", "clean.mp4", "missing.mp4", "--json", "--measures", "motion")
    assert code == 1
    first, second, third = json.loads(out)["files"]
    assert first["measures"] == third["measures"] == {} and second["measures"]["motion"] > 0
    assert "text.mp4" in first["error"] and "missing.mp4" in third["error"] and "error" not in second
    assert "text.mp4 cannot be read" in err and "missing.mp4" in err and "Traceback" not in err
    code, out, err = run("score", "missing.mp4")
    assert code == 1 and not out.strip() and "There is no video at missing.mp4" in err


def test_short_files_have_what_they_can_show(run, tmp_path):
    video.write_video(tmp_path / "two.mp4", clip()[:2], 12)
    video.write_png(tmp_path / "one.png", clip()[0])
    code, out, _ = run("score", "two.mp4", "one.png", "--json")
    assert code == 0
    two, one = (row["measures"] for row in json.loads(out)["files"])
    assert {name for name, value in two.items() if value is None} == {"motion_smoothness"}
    assert {name for name, value in one.items() if value is not None} == {"sharpness", "contrast", "saturation"}
    assert "–" in run("score", "one.png")[1]
    code, _, err = run("score", "two.mp4", "--measures", "motion_smoothness")
    assert code == 1 and "two.mp4" in err and "at least 3" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["score"], 2, "FILE"),
        (["score", "clean.mp4", "--measures", "beauty"], 2, "temporal_flicker"),
        (["score", "clean.mp4", "--measures", " , "], 2, "names nothing"),
        (["score", "clean.mp4", "--vbench", "color"], 2, "subject_consistency"),
        (["score", "clean.mp4", "--vbench-python", "python"], 2, "--vbench"),
        (["score", "clean.mp4", "--vbench", "temporal_flickering", "--vbench-python", "./nowhere"], 2, "./nowhere"),
        (["score", "clean.mp4", "--vbench", "temporal_flickering", "--vbench-python", "true"], 2, "not a Python"),
        (["score", "clean.mp4", "--vbench", "temporal_flickering", "--vbench-python", "/bin/false"], 2, "/bin/false"),
    ],
)
def test_errors_name_the_way_out(run, files, words, code, says):
    got, out, err = run(*words)
    assert got == code and says in " ".join(err.split()) and "Traceback" not in err and not out


# --------------------------------------------------------------------------------------------------------------- VBench

# A stand-in for the package: constructor, evaluate() and the form of its results as in vbench 0.1.5, so that the
# call and the way back are tested. What it "measures" is the size of the file. VBench itself: docs/guide/vbench.md.
STAND_IN = """
    import json, os
    class VBench(object):
        def __init__(self, device, full_info_dir, output_path):
            self.device, self.full_info_dir, self.output_path = device, full_info_dir, output_path
            os.makedirs(self.output_path, exist_ok=True)
        def evaluate(self, videos_path, name, prompt_list=[], dimension_list=None, local=False, read_frame=False,
                     mode="vbench_standard", **kwargs):
            assert mode == "custom_input" and set(prompt_list) == set(os.listdir(videos_path))
            print("prompts:", sorted(prompt_list.values()))
            if "temporal_style" in dimension_list:
                raise RuntimeError("no weights for ViCLIP")
            files = [os.path.join(videos_path, name) for name in sorted(os.listdir(videos_path), reverse=True)]
            rows = [{"video_path": path, "video_results": os.path.getsize(path)} for path in files]
            found = {dimension: [0.5, rows] for dimension in dimension_list}
            with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as f:
                json.dump(found, f)
"""


@pytest.fixture
def stand_in(tmp_path_factory, monkeypatch):
    """Puts the stand-in (and a torch that loads at once) where this Python, started as a program, finds it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "vbench").mkdir()
    (folder / "vbench" / "__init__.py").write_text(textwrap.dedent(STAND_IN))
    (folder / "torch.py").write_text("class cuda: is_available = staticmethod(lambda: False)\ndevice = str\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_without_vbench_the_way_to_it_is_reported(run, files):
    code, out, err = run("score", "clean.mp4", "--vbench", "subject_consistency")
    assert code == 2 and "vbench-env/bin/pip install" in err and not out
    with pytest.raises(MissingExtraError):
        score.check_vbench(["subject_consistency"])
    with pytest.raises(SettingsError):
        score.check_vbench([])


def test_vbench_is_called_and_its_numbers_come_back_to_their_files(run, files, stand_in):
    (files / "sub").mkdir()
    video.write_video(files / "sub" / "clean.mp4", clip(3), 12)  # the same name, another file
    words = ["clean.mp4", "missing.mp4", "sub/clean.mp4", "--measures", "motion", "--vbench-python", sys.executable]
    code, out, err = run("score", *words, "--json", "--vbench", "imaging_quality,subject_consistency")
    assert code == 1 and "missing.mp4" in err
    data = json.loads(out)
    for row in (data["files"][0], data["files"][2]):
        size = (files / row["path"]).stat().st_size
        assert row["measures"]["vbench_subject_consistency"] == size
        assert row["measures"]["vbench_imaging_quality"] == pytest.approx(size / 100)
        assert row["measures"]["motion"] > 0
    assert data["files"][1]["measures"] == {}
    assert list(data["measures"]) == ["motion", "vbench_imaging_quality", "vbench_subject_consistency"]
    assert data["measures"]["vbench_subject_consistency"]["better"] == "higher"


def test_when_vbench_stops_our_own_measures_stay(run, files, stand_in):
    code, out, err = run("score", "clean.mp4", "--measures", "motion", "--vbench", "temporal_style")
    assert code == 1 and "Motion" in out and "no weights for ViCLIP" in err
    data = json.loads(run("score", "clean.mp4", "--measures", "motion", "--vbench", "temporal_style", "--json")[1])
    assert data["command"] == "score" and data["files"][0]["measures"]["motion"] > 0
    assert data["error"]["class"] == "ExternalToolError" and "no weights for ViCLIP" in data["error"]["message"]
    with pytest.raises(ExternalToolError, match="exit code 1"):
        score.add_vbench(score.score_files([files / "clean.mp4"], ["motion"]), ["temporal_style"])


def test_prompts_for_vbench(run, files, stand_in):
    """What we wrote into the file, else the file's name without the number that VBench's names end with."""
    video.write_video(files / "x.mp4", clip(), 12, comment=json.dumps({"prompt": "a red ball", "seed": 1}))
    video.write_video(files / "a blue star-3.mp4", clip(), 12, comment="not of ours")
    lines: list[str] = []
    scores = score.score_files([files / "x.mp4", files / "a blue star-3.mp4"], ["motion"])
    score.add_vbench(scores, ["overall_consistency"], progress=lambda step: lines.append(step.doing))
    assert "prompts: ['a blue star', 'a red ball']" in lines


# --------------------------------------------------------------------------- files of every kind, one bad among many


def test_a_file_that_is_cut_off_is_measured_as_far_as_it_goes(run, files):
    path = write(files / "cut.webm", moving(24), "libvpx")
    path.write_bytes(path.read_bytes()[:-500])
    code, out, err = run("score", "cut.webm", "clean.mp4", "--json", "--measures", "motion")
    cut, clean = json.loads(out)["files"]
    assert code == 1 and "cut.webm is cut off after" in err and cut["error"] in err.replace("\n", " ")
    assert 4 < cut["frames"] < 24 and cut["duration"] == pytest.approx(cut["frames"] / 12)
    assert cut["measures"]["motion"] > 0 and clean["measures"]["motion"] > 0 and "error" not in clean
    code, out, err = run("score", "cut.webm", "--measures", "motion")
    assert code == 1 and f"Frames {cut['frames']}" in " ".join(out.split()) and "cut off" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_no_file_loses_the_others(run, files):
    """Empty, a folder, sound only, gone, and names that FFmpeg takes for a protocol or an option."""
    (files / "empty.mp4").touch()
    (files / "folder.mp4").mkdir()
    sound(files / "sound.mp3")
    animation(files / "moving.webp", moving(3), [100, 100, 100])
    (files / "clean.mp4").rename("12:30:45.mp4")
    (files / "flicker.mp4").rename("-x%d.mp4")
    bad = ["empty.mp4", "folder.mp4", "sound.mp3", "gone.mp4"]
    code, out, err = run(
        "score", "--json", "--measures", "contrast", "--", *bad, "12:30:45.mp4", "-x%d.mp4", "moving.webp"
    )
    rows = json.loads(out)["files"]
    assert code == 1 and [row["path"] for row in rows if "error" in row] == bad
    assert all(row["measures"] == {} and row["frames"] is row["width"] is None for row in rows[:4])
    assert [row["frames"] for row in rows[4:]] == [33, 33, 3]
    assert [row["duration"] for row in rows[4:]] == pytest.approx([2.75, 2.75, 0.3])
    assert err.count("Error:") == 4 and "Traceback" not in err


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_strips_and_points_are_measured(size):
    """Flow needs a picture of some size, and enlarging a strip to it took minutes."""
    assert np.isfinite(list(measure(moving(3, *size, detail=1)).values())).all()


def test_a_file_that_does_not_fit_in_memory_is_reported(files, monkeypatch):
    def full(pieces, names):
        list(pieces)
        raise MemoryError

    monkeypatch.setattr(score, "measure_pieces", full)
    (one,) = score.score_files([files / "clean.mp4"])
    assert "clean.mp4 does not fit in memory" in one.error and one.frames == 33


@pytest.mark.parametrize("paths", ["a.mp4", []])
def test_files_are_a_list(paths):
    with pytest.raises(SettingsError, match="one or more video files"):
        score.score_files(paths)


def test_a_program_that_leaves_no_results(tmp_path):
    clip = write(tmp_path / "a.mp4", moving())
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho vbench True\n")
    program.chmod(0o755)
    with pytest.raises(ExternalToolError, match="without results"):
        score.add_vbench(score.score_files([clip]), ["subject_consistency"], python=str(program))
