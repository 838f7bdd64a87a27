"""`generate` and `compare` with a model that makes pictures, and with one frame of a video model: PNG files."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models.flux_pipeline import save_flux_pipeline

from enhance_a_video.embedded import checker, world
from enhance_a_video.errors import SettingsError
from enhance_a_video.generation import again, pipelines, video
from enhance_a_video.generation.credentials import read_credentials
from enhance_a_video.generation.making import make_clips
from enhance_a_video.generation.media import open_picture
from enhance_a_video.generation.requests import ClipRequest
from enhance_a_video.settings import Settings

PROMPT = "a red ball moves right over the grass"


@pytest.fixture(scope="session")
def flux(tmp_path_factory, tiny_folder):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("flux") / "model"
    return save_flux_pipeline(folder, AutoTokenizer.from_pretrained(tiny_folder / "tokenizer"))


def pixels(path):
    return np.asarray(open_picture(path))


def test_generate_writes_a_picture_that_says_how_to_make_it_again(run, flux):
    words = ("generate", "-m", flux, "-p", PROMPT, "--seed", 3)
    code, out, err = run(*words, "--axis", "space:1=1.5", "-o", "a.png")
    assert code == 0, err
    assert "Written: a.png" in out and "48x32" in out and "fps" not in out
    assert read_credentials("a.png").valid
    record = again.record_in("a.png")
    assert record["frames"] == 1 and record["settings"]["odds"] == {"space:1": 1.5}
    again_words = again.command_for(record, "b.png").split("'")
    assert again_words[1] == PROMPT  # the rest has no spaces
    code, _, err = run(*again_words[0].split()[1:], PROMPT, *again_words[2].split())
    assert code == 0, err
    assert run(*words, "--no-enhance", "-o", "plain.png")[0] == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    assert not np.array_equal(pixels("a.png"), pixels("plain.png"))
    code, out, _ = run("inspect", "a.png", "--json")
    assert code == 0 and json.loads(out)["record"]["seed"] == 3


def test_one_frame_of_a_video_model_is_a_picture(run, tiny_folder):
    words = ("generate", "-m", tiny_folder, "-p", PROMPT, "-o", "x.png")
    code, _, err = run(*words)
    assert code == 2 and "Add --frames 1, or name it x.mp4" in err
    code, _, err = run(*words, "--frames", 1, "--axis", "space:1=2")
    assert code == 0, err
    assert pixels("x.png").shape == (32, 32, 3)


def test_compare_of_pictures(run, flux):
    code, out, err = run("compare", "-m", flux, "-p", PROMPT, "--axis", "prompt=2", "--seeds", 2, "-o", "c")
    assert code == 0, err
    own = {"baseline.png", "enhanced.png", "side_by_side.png"}
    assert {path.name for path in Path("c").iterdir()} == {*own, "report.html", "seed-1"}
    assert {path.name for path in Path("c/seed-1").iterdir()} == own
    page = Path("c/report.html").read_text()
    assert page.count('<img src="data:image/png') == 4 and "<video" not in page and 'data-do="wipe"' in page
    assert "Sharpness" in out and "Motion" not in out and "good direction" in out


def test_compare_of_one_frame_needs_an_axis_within_it(run, tiny_folder):
    words = ("compare", "-m", tiny_folder, "-p", PROMPT, "--frames", 1, "-o", "c")
    code, _, err = run(*words)
    assert code == 2 and "give more than one" in err
    assert run(*words, "--axis", "space:1=2")[0] == 0
    assert Path("c/enhanced.png").is_file()


def test_what_is_refused_before_weights_are_read(run, flux, monkeypatch):
    import diffusers

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("weights read"))
    Path("p.txt").write_text(PROMPT)
    Path("s.yaml").write_text(json.dumps({
        "name": "s", "model": str(flux), "prompts": {"embedded": {"first": 0, "count": 1}}, "seeds": 1,
        "settings": {"plain": None, "space": {"odds": {"space": 1.5}}},
    }))  # fmt: skip
    for words, says in {
        ("generate", "-m", flux, "-p", PROMPT, "-o", "a.png"): "no axis 'time'; it has: prompt, space. Give --axis",
        ("generate", "-m", flux, "-p", PROMPT, "-o", "a.mp4", "--no-enhance"): "makes pictures, which are written as",
        ("generate", "-m", flux, "-p", PROMPT, "-o", "a.gif", "--no-enhance"): "pictures as .png",
        ("compare", "-m", flux, "-p", PROMPT): "no axis 'time'",
        ("batch", "p.txt", "-m", flux, "-o", "b"): "takes models that make videos",
        ("study", "s.yaml", "-o", "s"): "takes models that make videos",
    }.items():
        code, _, err = run(*words)
        assert code == 2 and says in " ".join(err.split()), (words, err)


def test_a_picture_holds_one_frame(tmp_path):
    with pytest.raises(SettingsError, match="a single picture"):
        video.write_clip(tmp_path / "a.png", np.zeros((2, 64, 64, 3), np.uint8), 8)
    assert not list(tmp_path.iterdir())


def test_several_pictures_in_one_call_are_those_of_single_calls(flux):
    pipe = pipelines.load(flux)
    settings = Settings(odds={"prompt": 2.0})
    items = [ClipRequest(PROMPT, seed, "", settings) for seed in (1, 2)]
    both = make_clips(pipe, items)
    alone = make_clips(pipe, items[1:])
    assert both[1].frames.shape == (1, 32, 48, 3)
    assert np.abs(both[1].frames.astype(int) - alone[0].frames).max() <= 1


def test_the_checker_judges_a_single_frame():
    scene = world.held_out_scene(0)
    frames = world.render(scene)[0][:1]
    found = checker.check(frames, scene)
    assert found["attributes_right"] == 1 and np.isnan(found["motion_right"]) and np.isnan(found["jerk"])
