"""The invisible watermark: put in, found after what a codec, a crop and a resize do, not found where there is none."""

import json

import cv2
import numpy as np
import pytest

from enhance_a_video.embedded import world
from enhance_a_video.errors import UnlabelledWarning
from enhance_a_video.generation import video, watermark
from enhance_a_video.generation.credentials import Claim
from tests import media_files

RECORD = {"prompt": "x", "seed": 0, "settings": None, "options": {}}


@pytest.fixture(scope="module")
def clip():
    """A clip of the embedded world, four times as large: (12, 256, 256, 3)."""
    return video.enlarged(world.render(world.held_out_scene(810))[0][:12], 256)


@pytest.fixture(scope="module")
def marked(clip):
    return np.stack([watermark.marked(frame) for frame in clip])


def test_it_is_found_where_it_is_and_not_where_it_is_not(clip, marked):
    assert watermark.find(marked) == watermark.Watermark(True, 64)
    assert not watermark.find(clip).present
    assert not watermark.find(np.random.default_rng(0).integers(0, 255, clip.shape, dtype=np.uint8)).present


def test_it_costs_little(clip, marked):
    assert np.abs(marked.astype(int) - clip).max() <= 8
    assert -10 * np.log10(np.mean((marked / 255.0 - clip / 255.0) ** 2)) > 42


@pytest.mark.parametrize("crf", [23, 28])
def test_it_survives_a_codec(marked, tmp_path, crf):
    video.write_video(tmp_path / "x.mp4", marked, 12, crf=crf)
    assert watermark.find_in(tmp_path / "x.mp4").present


def test_it_survives_a_crop_and_a_resize(marked):
    found = watermark.find(marked[:, 13:230, 5:250])
    assert found.present and found.bits >= 62
    half = np.stack([cv2.resize(frame, (192, 192), interpolation=cv2.INTER_AREA) for frame in marked])
    found = watermark.find(half)
    assert found.present and found.scale == 0.75


def test_a_clip_that_is_too_small_has_none_and_that_is_a_warning():
    frame = media_files.moving(1, 32, 48)[0]
    with pytest.warns(UnlabelledWarning, match="48x32 is too small"):
        assert watermark.marked(frame) is frame
    assert not watermark.find(frame[None]).present


def test_only_what_claims_to_be_made_here_is_marked_and_only_when_wanted(clip, tmp_path, monkeypatch):
    def found(name, **how):
        return watermark.find_in(video.write_video(tmp_path / name, clip, 12, **how)).present

    assert not found("a.mp4", claim=Claim(RECORD))
    with watermark.marking(True):
        assert found("b.mp4", claim=Claim(RECORD)) and not found("c.mp4")
        assert "watermark" in Claim(RECORD).data()
    with watermark.marking(False):
        assert not watermark.wanted()
    assert not watermark.wanted() and "watermark" not in Claim(RECORD).data()
    monkeypatch.setenv(watermark.ON, "on")
    with watermark.marking(False):
        assert watermark.wanted(), "a variable of the user's stays"


def test_the_commands_mark_and_inspect_finds_it(command, clip, tmp_path):
    source = video.write_video(tmp_path / "in.mp4", clip, 12)
    for words, present in ((("--watermark",), True), ((), False)):
        out = tmp_path / f"{present}.mp4"
        assert command("restore", source, "--noise", 0, "-o", out, *words)[0] == 0
        code, printed, _ = command("inspect", out, "--json")
        assert code == 0 and json.loads(printed)["watermark"]["present"] is present
    printed = command("inspect", tmp_path / "True.mp4")[1]
    assert "Invisible watermark: this program's" in printed and "of 64 bits" in printed
    assert (
        command(
            "generate",
            "-p",
            "A red ball moves left.",
            "--steps",
            1,
            "--frames",
            9,
            "--watermark",
            "-o",
            tmp_path / "g.mp4",
        )[0]
        == 0
    )
    assert json.loads(command("inspect", tmp_path / "g.mp4", "--json")[1])["watermark"]["present"]
