"""Each command end to end on the tiny folder: files, JSON, exit codes, and nothing left behind by a failure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from enhance_a_video import cli, embedded
from enhance_a_video.generation import making, video
from enhance_a_video.lab.vote import find_pairs
from enhance_a_video.models import known_models
from enhance_a_video.policies import DEFAULT_ODDS

PROMPT = "a red ball moves right"
OUTPUTS = {"baseline.mp4", "enhanced.mp4", "side_by_side.mp4", "strip.png", "steadiness.png", "report.html"}


def names(folder) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


# --------------------------------------------------------------------------------------------------------- demo


def test_demo(run, tiny_folder):
    code, out, err = run("demo", "--model", tiny_folder, "--out", "d", "--seeds", 1, "--steps", 2)
    assert code == 0, err
    assert names("d") == OUTPUTS
    assert all(name in out for name in OUTPUTS)
    assert "Steadiness" in out and "On this one clip" in out
    frames, fps = video.read_video("d/baseline.mp4")
    assert frames.shape == (9, 256, 256, 3) and fps == 8  # 32 pixels enlarged eightfold
    both, _ = video.read_video("d/side_by_side.mp4")
    assert both.shape[2] > 2 * 256
    page = Path("d/report.html").read_text()
    assert page.count("data:video/mp4") == 2 and "a red ball moves right over the grass" in page


def test_demo_json_is_one_object(run, tiny_folder):
    code, out, _ = run(
        "demo", "--model", tiny_folder, "--json", "--seed", 5, "--seeds", 1, "--steps", 2, "--strength", 1.5
    )
    assert code == 0
    data = json.loads(out)
    assert {
        "command",
        "model",
        "prompt",
        "seeds",
        "panels",
        "measures",
        "differences",
        "note",
        "about",
        "files",
        "pairs",
        "warnings",
    } == set(data)
    assert data["command"] == "demo" and data["seeds"] == [5]
    assert data["panels"][1]["settings"]["strength"] == 1.5
    assert data["panels"][1]["enhancement"]["layers"] == 2
    assert set(data["differences"]["with Enhance-A-Video"]) == {row["name"] for row in data["measures"]}
    assert {Path(path).name for path in data["files"].values()} == OUTPUTS
    assert all(Path(path).is_file() for path in data["files"].values())


def test_demo_with_the_embedded_truth(run, tmp_path, tiny_folder, monkeypatch):
    import shutil

    from enhance_a_video.lab.study.definition import held_out_prompt

    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    known = json.loads((folder / "defaults.json").read_text())
    prompt = held_out_prompt(625)
    (folder / "defaults.json").write_text(json.dumps(known | {"height": 64, "width": 64, "steps": 2}))
    monkeypatch.setattr(embedded, "model_folder", lambda: folder)
    code, out, _ = run("demo", "--json", "-o", "truth", "--steps", 1)
    assert code == 0
    data = json.loads(out)
    assert data["prompt"] == prompt
    assert data["seeds"] == [0, 1, 2] and data["about"]["steps"] == "1"
    assert "on this small model the default changes an average clip little" in data["note"]
    assert next(row["name"] for row in data["measures"] if row["needs"] == "truth") == "colour_right"
    assert "Against the truth" in Path("truth/report.html").read_text()

    code, out, _ = run("demo", "--prompt", "a cat on a mat", "-o", "none", "--seeds", 1, "--steps", 1)
    assert code == 0 and "outside the embedded model's world" in " ".join(out.split())


def test_the_numbers_that_the_demo_calls_usual_are_those_of_the_results():
    from enhance_a_video.cli.clips import USUAL

    page = Path(__file__).parent.parent / "docs" / "results" / "index.md"
    text = page.read_text(encoding="utf-8").replace("**", "")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = {line.split("|")[1].strip(): line for line in reversed(lines)}  # the first table of the page that has them
    packaged, joint = (rows["pooled, sd"].split("|")[place].strip() for place in (11, 8))
    assert f"{packaged.split()[0]} sd {packaged.split(maxsplit=1)[1]}" in USUAL
    assert f"{joint.split()[0]} sd {joint.split(maxsplit=1)[1]}" in USUAL
    assert all(f"{rows['Warping error'].split('|')[place].strip()} %" in USUAL for place in (11, 8))


def test_existing_outputs_are_refused_before_anything_is_loaded(run, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "strip.png").write_bytes(b"precious")
    code, out, err = run("demo", "--model", "./nowhere", "--out", "d")
    assert code == 2 and "strip.png" in err and "--force" in err and not out
    assert names("d") == {"strip.png"}


def test_force_overwrites(run, tiny_folder, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"old")
    words = ("generate", "--model", tiny_folder, "-p", PROMPT, "-o", "x.mp4", "--steps", 1)
    code, _, err = run(*words)
    assert code == 2 and "Already there" in err
    assert (tmp_path / "x.mp4").read_bytes() == b"old"
    assert run(*words, "--force")[0] == 0
    assert len(video.read_video("x.mp4")[0]) == 9


# ----------------------------------------------------------------------------------------------------- generate


def test_generate_takes_every_option(run, tiny_folder):
    options = {
        "--prompt": PROMPT, "--out": "sub/x.mp4", "--strength": 1.0, "--start": 0.0, "--end": 0.4, "--negative": "blue",
        "--seed": 4, "--steps": 2, "--width": 48, "--height": 32, "--frames": 5, "--fps": 12, "--guidance": 3.0,
        "--dtype": "float32", "--device": "cpu", "--offload": "none", "--set": "max_sequence_length=64",
    }  # fmt: skip
    words = [word for pair in options.items() for word in pair]
    code, out, err = run("generate", "--model", tiny_folder, "--vae-tiling", "--json", *words)
    assert code == 0, err
    data = json.loads(out)
    assert (data["frames"], data["height"], data["width"], data["fps"], data["seed"]) == (5, 32, 48, 12, 4)
    assert (data["settings"]["strength"], data["settings"]["end"]) == (1.0, 0.4)
    assert data["enhancement"]["active_calls"] < data["enhancement"]["calls"] == 4
    frames, fps = video.read_video("sub/x.mp4")
    assert frames.shape == (5, 32, 48, 3) and fps == 12


def test_generate_enhances_by_default_and_reports_what_it_did(run, tiny_folder):
    code, out, _ = run("generate", "--model", tiny_folder, "-p", PROMPT, "-o", "x.mp4")
    assert code == 0
    assert "blocks.0.attn1" in out and "Written: x.mp4" in out


def test_odds_by_command(run, tiny_folder):
    common = ("generate", "--model", tiny_folder, "-p", PROMPT, "--steps", 2, "--json")
    plain = json.loads(run(*common, "-o", "a.mp4", "--no-enhance")[1])
    one, four, default = (
        json.loads(run(*common, "-o", f"{name}.mp4", *words)[1])
        for name, words in (("b", ("--odds", 1)), ("c", ("--odds", 4)), ("d", ()))
    )
    assert plain["settings"] is None and (four["settings"]["odds"], four["settings"]["scale"]) == (4.0, "cross-frame")
    assert default["settings"]["odds"] == DEFAULT_ODDS and one["enhancement"]["highest_gain"] == 1
    assert 1 < default["enhancement"]["mean_gain"] < four["enhancement"]["mean_gain"] < 4
    a, b, c = (video.read_video(f"{name}.mp4")[0] for name in "abc")
    assert (a == b).all() and (a != c).any()


def test_no_enhance_is_the_plain_model(run, tiny_folder):
    common = ("generate", "--model", tiny_folder, "-p", PROMPT, "--json")
    plain = json.loads(run(*common, "-o", "a.mp4", "--no-enhance")[1])
    assert plain["settings"] is None and plain["enhancement"] is None
    assert run(*common, "-o", "b.mp4", "--strength", 0.0, "--start", 0, "--end", 1)[0] == 0  # clips at 1 everywhere
    assert run(*common, "-o", "c.mp4", "--strength", 3.0, "--start", 0, "--end", 1)[0] == 0
    a, b, c = (video.read_video(f"{name}.mp4")[0] for name in "abc")
    assert (a == b).all() and (a != c).any()


# ------------------------------------------------------------------------------------------------------ compare


def test_compare_seeds_and_panels(run, tiny_folder):
    code, out, err = run(
        "compare", "--model", tiny_folder, "-p", PROMPT, "-o", "c", "--seeds", 3, "--steps", 2, "--json",
        "--strength", 0.5, "--panel", "paper: temperature=4,start=0,end=1", "--panel", "layers=blocks.1",
    )  # fmt: skip
    assert code == 0, err
    data = json.loads(out)
    assert names("c") == OUTPUTS | {"panel-3.mp4", "panel-4.mp4", "seed-1", "seed-2"}
    assert [panel["label"] for panel in data["panels"]] == [
        "without",
        "with Enhance-A-Video",
        "paper",
        "layers=blocks.1",
    ]
    assert data["panels"][2]["settings"]["temperature"] == 4
    assert data["panels"][3]["enhancement"]["layers"] == 1
    pair = data["differences"]["paper"]["temporal_flicker"]
    assert pair["pairs"] == 3 and pair["low"] <= pair["difference"] <= pair["high"]
    page = Path("c/report.html").read_text()
    assert "95 % interval" in page and "Over 3 seeds" in page


def test_compare_on_two_axes(run, tiny_folder):
    options = ("--axis", "time=2", "--axis", "space:1=1.5", "--seeds", 1, "--steps", 1, "--json")
    code, out, err = run("compare", "--model", tiny_folder, "-p", PROMPT, "-o", "c", *options)
    assert code == 0, err
    settings = json.loads(out)["panels"][1]["settings"]
    assert settings["odds"] == {"time": 2, "space:1": 1.5} and settings["scale"] == "exact"
    assert "&#39;space:1&#39;: 1.5" in Path("c/report.html").read_text()


def test_compare_prints_a_table_with_intervals(run, tiny_folder):
    code, out, _ = run("compare", "--model", tiny_folder, "-p", PROMPT, "--seeds", 2, "--steps", 1)
    assert code == 0
    assert "95 %" in out and "±" in out and "Over 2 seeds" in out
    assert names("enhance-a-video-compare") == OUTPUTS | {"seed-1"}
    assert str(Path("enhance-a-video-compare", "seed-1")) in out


def test_compare_keeps_the_videos_of_every_seed_and_vote_finds_their_pairs(run, tiny_folder):
    words = ["compare", "--model", tiny_folder, "-p", PROMPT, "-o", "c", "--seed", 4, "--seeds", 3, "--steps", 1]
    code, out, err = run(*words, "--json", "--panel", "mild: odds=1.5")
    assert code == 0, err
    pairs = json.loads(out)["pairs"]
    assert [pair["seed"] for pair in pairs] == [4, 5, 6]
    files = [path for pair in pairs for path in (*pair["videos"].values(), pair["side_by_side"])]
    assert len(set(files)) == 12 and {str(path) for path in Path("c").rglob("*.mp4")} == set(files)
    page = Path("c/report.html").read_text()
    assert all(f'href="{Path(path).relative_to("c").as_posix()}"' in page for path in files)
    for pair in pairs:  # the file is that seed's and that panel's
        for label, path in pair["videos"].items():
            facts = json.loads(video.read_comment(path))
            assert (facts["seed"], facts["label"]) == (pair["seed"], label)
    found = find_pairs("c").pairs
    labels = ("without", "with Enhance-A-Video"), ("without", "mild")
    assert [(pair.seed, pair.labels) for pair in found] == [(seed, two) for seed in (4, 5, 6) for two in labels]


def test_compare_never_overwrites_a_further_seeds_videos(run, tiny_folder):
    (Path("c") / "seed-1").mkdir(parents=True)
    Path("c/seed-1/enhanced.mp4").write_bytes(b"mine")
    words = ["compare", "--model", tiny_folder, "-p", PROMPT, "-o", "c", "--seeds", 2, "--steps", 1]
    code, _, err = run(*words)
    assert code == 2 and "Already there" in err and "enhanced.mp4" in err
    assert Path("c/seed-1/enhanced.mp4").read_bytes() == b"mine" and names("c") == {"seed-1"}


def test_compare_that_is_stopped_keeps_the_seeds_it_made(run, tiny_folder, monkeypatch):
    made = making.generate_with

    def stops(pipe, prompt, settings, **options):
        if options["seed"] == [2]:
            raise KeyboardInterrupt
        return made(pipe, prompt, settings, **options)

    monkeypatch.setattr(making, "generate_with", stops)
    code, _, err = run("compare", "--model", tiny_folder, "-p", PROMPT, "-o", "c", "--seeds", 3, "--steps", 1)
    assert code == 130 and "Stopped" in err
    assert {pair.seed for pair in find_pairs("c").pairs} == {0, 1}


# -------------------------------------------------------------------------------------------- models, help, errors


def test_models(run):
    code, out, _ = run("models")
    assert code == 0 and "Wan-AI/Wan2.1-T2V-1.3B-Diffusers" in out
    data = json.loads(run("models", "--json")[1])
    assert {row["transformer"] for row in data["models"]} == {row.transformer for row in known_models()}


def test_help_teaches(run):
    code, out, _ = run("--help")
    assert code == 0 and "enhance-a-video demo" in out
    for command in ("demo", "generate", "compare", "models"):
        code, text, _ = run(command, "--help")
        assert code == 0 and "--json" in text
        assert command in out
    assert "enhance-a-video generate" in run("generate", "--help")[1]


def test_version(run):
    from importlib.metadata import version

    assert run("--version")[1].strip() == version("enhance-a-video")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["generate", "-p", "x", "-o", "x.mp4", "-m", "./nowhere"], 2, "no folder"),
        (["generate", "-p", "x", "-o", "x.avi"], 2, ".mp4"),
        (["generate", "-p", "x", "-o", "x.mp4", "--fps", "0"], 2, "from 0.01 to 1,000"),
        (["generate", "-p", "x", "-o", "x.mp4", "--strength", "-1"], 2, "strength"),
        (
            ["generate", "-p", "x", "-o", "x.mp4", "--strength", "1", "--temperature", "4"],
            2,
            "strength and temperature",
        ),
        (["generate", "-p", "x", "-o", "x.mp4", "--start", "0.6", "--end", "0.5"], 2, "empty"),
        (["generate", "-p", "x", "-o", "x.mp4", "--no-enhance", "--strength", "1"], 2, "--no-enhance"),
        (["generate", "-p", "x", "-o", "x.mp4", "--set", "steps"], 2, "NAME=VALUE"),
        (["generate", "-p", "x", "-o", "x.mp4", "--image", "none.png"], 2, "no picture"),
        (["generate", "-p", "x", "-o", "file/x.mp4"], 1, "file"),
        (["generate", "-o", "x.mp4"], 2, "--prompt"),
        (["compare", "-p", "x", "--panel", "loud: volume=11"], 2, "volume"),
        (["compare", "-p", "x", "--panel", "with Enhance-A-Video: strength=1"], 2, "a label of its own"),
        (["compare", "-p", "x", "--seeds", "0"], 2, "seeds"),
        (["compare", "-p", "x", "--frames", "1"], 2, "give more than one"),
        (["dance"], 2, "dance"),
    ],
)
def test_errors_are_one_message_and_an_exit_code(run, tmp_path, tiny_folder, monkeypatch, words, code, says):
    monkeypatch.setattr(embedded, "model_folder", lambda: tiny_folder)
    (tmp_path / "file").touch()
    got, out, err = run(*words)
    assert got == code
    assert says in " ".join(err.split()) and "Traceback" not in err
    assert not out
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize(
    ("words", "code", "name", "says"),
    [
        (["generate"], 2, "MissingParameter", "--prompt"),
        (["generate", "--sharpness", "1"], 2, "NoSuchOption", "--sharpness"),
        (["compare", "-p", "x", "--seeds", "many"], 2, "BadParameter", "--seeds"),
        (["generate", "-p", "x", "-o"], 2, "", "-o"),
        (["dance"], 2, "", "dance"),
        (["generate", "-p", "x", "-o", "x.avi"], 2, "SettingsError", ".mp4"),
        (["batch", "none.txt", "-o", "clips"], 2, "PromptError", "none.txt"),
        (["study", "none.yaml"], 2, "SettingsError", "none.yaml"),
    ],
)
def test_with_json_every_refusal_is_json_too(run, words, code, name, says):
    got, out, err = run(words[0], "--json", *words[1:])
    data = json.loads(out)
    assert got == code and set(data) == {"command", "error"} and data["command"] == words[0]
    assert data["error"]["class"] == name or not name
    assert says in data["error"]["message"] and data["error"]["message"] in err
    assert run(*words)[1] == ""  # and nothing on stdout without it


def test_an_unexpected_error_is_a_sentence_and_its_traceback_a_file(run, tiny_folder, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise KeyError("latents")

    monkeypatch.setattr("enhance_a_video.generation.making.generate_with", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run("generate", "-m", tiny_folder, "-p", PROMPT, "-o", "x.mp4", "--json")
    error = json.loads(out)["error"]
    assert code == 1 and error["class"] == "KeyError" and "Traceback" not in err + out
    (log,) = tmp_path.glob("enhance-a-video-*.txt")
    assert log.name in error["message"] and "in broken" in log.read_text()


def test_ctrl_c_is_json_too(run, tiny_folder, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("enhance_a_video.generation.making.generate_with", stopped)
    code, out, err = run("generate", "-m", tiny_folder, "-p", PROMPT, "-o", "x.mp4", "--json")
    assert code == 130 and json.loads(out)["error"]["class"] == "KeyboardInterrupt" and "Stopped" in err


def test_debug_shows_the_error_itself(monkeypatch):
    from enhance_a_video.errors import SettingsError

    with pytest.raises(SettingsError):
        cli.main(["generate", "-p", "x", "-o", "x.avi", "--debug"])


def test_a_failure_midway_leaves_no_partial_file(run, tiny_folder, monkeypatch):
    def full(*args):
        args[0].write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video, "_encode", full)
    code, out, err = run("generate", "--model", tiny_folder, "-p", PROMPT, "-o", "d/x.mp4", "--steps", 1)
    assert code == 1 and "no space left" in err and not out
    assert names("d") == set()


def test_console_script(tiny_folder, tmp_path):
    script = Path(sys.executable).with_name("enhance-a-video")
    words = ["generate", "-m", tiny_folder, "-p", PROMPT, "-o", "x.mp4", "--steps", "1", "--json"]
    done = subprocess.run([script, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 9
    assert names(tmp_path) == {"x.mp4"}
    failed = subprocess.run([script, *words], capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 2 and "Already there" in failed.stderr
    assert json.loads(failed.stdout)["error"]["class"] == "OutputExistsError"
