"""Numbers that no machine can use are refused early and in one way: options, files of prompts, studies, calls."""

import json
import math
import os

import numpy as np
import pytest
import torch

from enhance_a_video import limits
from enhance_a_video.errors import EnhanceAVideoError, PromptError, SettingsError
from enhance_a_video.generation import media, pipelines, requests
from enhance_a_video.generation.requests import ClipRequest
from enhance_a_video.lab.study import read_study
from enhance_a_video.policies import from_dict, read_profile
from enhance_a_video.settings import Settings

PROMPT = "a red ball moves right"
BAD = [float("nan"), float("inf"), -math.inf, True, "0.5", 10**400, -2]


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return command


# ------------------------------------------------------------------------------------------------- one validator


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["strength", "temperature", "odds", "start", "end"])
def test_settings_take_finite_numbers_only(name, value):
    with pytest.raises(SettingsError, match=f"{name}="):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", b"x"), ("layers", slice("a", "b")), ("layers", slice(0, 4, 0)), ("layers", slice(1.5, 2)),
        ("layers", {}), ("layers", {"slice": "x"}), ("layers", {"slice": [1, 2, 3, 4]}), ("scale", ""), ("scale", []),
        ("policy", Settings), ("sites", 0), ("sites", True),
    ],
)  # fmt: skip
def test_other_knobs_of_a_wrong_type(name, value):
    with pytest.raises(SettingsError):
        Settings.from_dict({name: value})


@pytest.mark.parametrize("data", [7, None, []])
def test_settings_and_profiles_from_something_else(data):
    with pytest.raises(SettingsError):
        Settings.from_dict(data)
    with pytest.raises(SettingsError):
        read_profile(data)


@pytest.mark.parametrize("value", [*BAD, 0, 8.0, "8", 10**9, None, [8]])
@pytest.mark.parametrize("name", ["steps", "frames", "height", "width"])
def test_counts_are_whole_and_what_a_machine_can_do(name, value):
    with pytest.raises(SettingsError, match=f"{name}=.*whole number from 1 to"):
        limits.option(name, value)


def test_the_message_names_the_way_out():
    for value, way in ((8.0, "Write 8, without a point"), ("1e3", "write 1000, without quotes"), ("x", "wanted.$")):
        with pytest.raises(SettingsError, match=way):
            limits.option("steps", value)
    limits.option("steps", np.int64(8))


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", '{"a": [0, {"b": NaN}]}', "[" * 100_000])
def test_json_without_nan_infinity_or_endless_nesting(text):
    with pytest.raises(ValueError, match=r"finite|deep"):
        limits.parse_json(text)


# ------------------------------------------------------------------------------------------------------- seeds


def test_seeds_have_64_bits_everywhere(tiny_pipe, tmp_path):
    largest = 2**64 - 1
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"prompt": PROMPT, "seeds": [2**63, largest]}))
    assert requests.read_prompts(file)[0].seeds == (2**63, largest)
    assert pipelines.generate(tiny_pipe, PROMPT, seed=largest, steps=1).shape == (9, 32, 32, 3)
    for seed in (largest + 1, -1, 1.0, True, "7", math.nan):
        with pytest.raises(SettingsError, match="seed="):
            pipelines.generate(tiny_pipe, PROMPT, seed=seed)
        file.write_text(json.dumps({"prompt": PROMPT, "seed": seed}))
        with pytest.raises(PromptError, match="line 1"):
            requests.read_prompts(file)
    assert list(limits.seeds_from(largest, 1)) == [largest]
    with pytest.raises(SettingsError, match="beyond the largest"):
        limits.seeds_from(largest, 2)


def test_two_seeds_of_the_same_noise_are_not_two_samples():
    first, second = (torch.randn(3, generator=torch.Generator().manual_seed(seed)) for seed in (7, 7 + 2**32))
    assert torch.equal(first, second)
    with pytest.raises(SettingsError, match="same noise"):
        limits.seeds([7, 7 + 2**32])


def test_databases_keep_large_seeds(tmp_path):
    from enhance_a_video.lab.study.store import Store

    clip = ClipRequest("p", 2**64 - 2, "s").facts() | {
        "frames": 1, "height": 1, "width": 1, "seconds": 0.0, "enhancement": None,
    }  # fmt: skip
    with Store(tmp_path) as store:
        run = store.begin_run("d", "", "", 1, {})
        store.add(clip, {"jerk": 1.0}, model="m", weights="w", run=run)
        assert store.db.execute("SELECT seed FROM clips").fetchone() == (-2,)


def test_a_tuning_takes_any_seed():
    pytest.importorskip("optuna")
    import optuna

    from enhance_a_video.lab.tune.learn import Recipe, start_of
    from enhance_a_video.lab.tune.search import _sampler
    from enhance_a_video.lab.tune.space import SPACES

    assert start_of(Recipe(seed=2**64 - 1), next(iter(SPACES.values()))).isfinite().all()
    _sampler(optuna, "tpe", (2**64 - 1) * 1_000_003 % 2**32)


# ---------------------------------------------------------------------------------------------- files and commands


@pytest.mark.parametrize(
    "line",
    ['{"prompt": "x", "guidance": NaN}', '{"prompt": "x", "fps": 1e999}', '{"prompt": "x", "steps": 8.0}',
     '{"prompt": "x", "frames": true}', '{"prompt": "x", "width": 1000000000}', '{"prompt": "x", "guidance": "6"}',
     '{"prompt": "x", "extra": {"shift": Infinity}}', '{"prompt": "x", "seeds": [18446744073709551616]}'],
)  # fmt: skip
def test_a_bad_number_stops_a_batch_before_it_begins(run, tmp_path, line):
    (tmp_path / "p.jsonl").write_text('{"prompt": "fine"}\n' + line)
    code, out, err = run("batch", "p.jsonl", "-o", "clips", "--json")
    assert code == 2 and "line 2" in json.loads(out)["error"]["message"] and "Traceback" not in err
    assert not (tmp_path / "clips").exists()


def test_an_item_with_nan_has_no_key():
    with pytest.raises(SettingsError, match="finite"):
        _ = ClipRequest("x", 0, "a", None, {"guidance": math.nan}).key


@pytest.mark.parametrize(
    "words",
    [("--guidance", "nan"), ("--guidance", "inf"), ("--guidance", "-5"), ("--fps", "nan"), ("--strength", "nan"),
     ("--odds", "inf"), ("--start", "nan"), ("--width", 10**9), ("--height", 0), ("--frames", -1), ("--steps", 10**9),
     ("--seed", 2**64), ("--seed", -1), ("--set", "flow_shift=NaN"), ("--set", "shift=1e999")],
)  # fmt: skip
def test_the_command_line_refuses_such_numbers_at_once(run, words, monkeypatch):
    monkeypatch.setattr(pipelines, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    code, out, _ = run("generate", "-p", "x", "-o", "x.mp4", "--json", *words)
    assert code == 2 and words[0] in json.loads(out)["error"]["message"].replace("strength=", "--strength=").replace(
        "odds=", "--odds="
    ).replace("start=", "--start=")


@pytest.mark.parametrize(
    "words",
    [("compare", "-p", "x", "--seeds", 10**9), ("compare", "-p", "x", "--seed", 2**64 - 1, "--seeds", 2),
     ("batch", "p.txt", "-o", "c", "--seeds", 10**9), ("batch", "p.txt", "-o", "c", "--seeds", 10**6, "--plain"),
     ("batch", "p.txt", "-o", "c", "--workers", 10**9), ("tune", "--workers", 10**9), ("tune", "--groups", 10**9),
     ("batch", "p.txt", "-o", "c", "--seed", 2**64 - 1, "--seeds", 2)],
)  # fmt: skip
def test_counts_that_no_machine_has_are_refused_at_once(run, tmp_path, tiny_folder, monkeypatch, words):
    from enhance_a_video import embedded

    monkeypatch.setattr(embedded, "model_folder", lambda: tiny_folder)
    (tmp_path / "p.txt").write_text("x")
    code, _, err = run(*words)
    assert code == 2 and "Traceback" not in err


@pytest.mark.parametrize(
    ("seeds", "options"),
    [(["x"], {}), ([-1], {}), ([2**64], {}), ([0], {"steps": "x"}), ([0], {"steps": 0}), ([0], {"stepz": 1})],
)
def test_a_plan_checks_seeds_and_options(seeds, options):
    with pytest.raises(SettingsError):
        requests.expand([requests.Prompt("a")], seeds, [("plain", None)], options)


@pytest.mark.parametrize(
    "words", [("--panel", "a: odds=3,odds=4"), ("--panel", ":odds=3"), ("--panel", "a: odds=3", "--panel", "b: odds=3")]
)
def test_a_panel_is_one_thing_with_one_name(run, words):
    assert run("compare", "-p", "x", *words)[0] == 2


def test_a_value_that_a_pipeline_cannot_use_is_named(tiny_pipe):
    with pytest.raises(SettingsError, match="attention_kwargs"):
        pipelines.generate(tiny_pipe, PROMPT, steps=1, extra={"attention_kwargs": 1})
    with pytest.raises(SettingsError, match="extra=7"):
        pipelines.generate(tiny_pipe, PROMPT, extra=7)
    with pytest.raises(SettingsError, match="not a pipeline"):
        pipelines.generate(None, PROMPT)


def test_a_video_larger_than_the_memory_is_refused_before_the_first_step(tiny_pipe):
    with pytest.raises(SettingsError, match="GiB as finished pictures"):
        pipelines.generate(tiny_pipe, PROMPT, frames=100_000, height=16_384, width=16_384)


STUDY = "prompts: [a, b]\nsettings: {plain: null, default: {}}\n"


@pytest.mark.parametrize(
    "more",
    ["options: {guidance: .nan}", "options: {steps: 1e3}", "options: {steps: true}", "options: {frames: [5, 9.0]}",
     "seeds: 1000000000", "seeds: [0, 4294967296]", "seeds: [18446744073709551616]", "power: {effect: .inf}",
     "load: {batch: 1000000000}", "options: {extra: {shift: .inf}}", "seeds: &a [*a]"],
)  # fmt: skip
def test_a_study_with_such_numbers_is_refused(tmp_path, more):
    from enhance_a_video.lab.study.definition import read_study

    (tmp_path / "s.yaml").write_text(STUDY + more)
    with pytest.raises(SettingsError):
        read_study(tmp_path / "s.yaml")


@pytest.mark.parametrize("knobs", ["strength: .nan", "sites: 8.0", "policy: {name: constant, gain: .inf}"])
def test_the_settings_of_a_study_too(tmp_path, knobs):
    from enhance_a_video.lab.study.definition import read_study

    (tmp_path / "s.yaml").write_text(f"prompts: [a, b]\nsettings: {{plain: null, other: {{{knobs}}}}}")
    with pytest.raises(SettingsError):
        read_study(tmp_path / "s.yaml")


@pytest.mark.parametrize("text", ['{"name": "constant", "gain": NaN}', '{"name": "constant", "gain": 1e999}'])
def test_a_profile_with_such_numbers_is_refused(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(SettingsError, match="finite"):
        read_profile(tmp_path / "p.json")


def test_numbers_of_a_policy_are_bounded():
    with pytest.raises(SettingsError, match="1,000,000"):
        from_dict({"name": "constant", "gain": 1e300})


# -------------------------------------------------------------------------------------- files that may never end


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
@pytest.mark.parametrize(
    "read",
    [requests.read_prompts, read_study, read_profile, media.read_video, media.read_comment, media.open_picture],
    ids=lambda read: read.__name__,
)
def test_a_pipe_or_a_device_is_not_read(tmp_path, read, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EnhanceAVideoError, match="not a file"):
        read(tmp_path / name)


def test_the_shells_own_pipes_are_read():
    read, write = os.pipe()
    os.write(write, b"a red ball")
    os.close(write)
    try:
        assert [prompt.text for prompt in requests.read_prompts(f"/dev/fd/{read}")] == ["a red ball"]
    finally:
        os.close(read)


@pytest.mark.parametrize(
    "wrong",
    [
        {"negative": 7},
        {"negative": []},
        {"extra": []},
        {"progress": 7},
        {"notice": "x"},
        {"prompt": None},
        {"prompt": 7},
    ],
)
def test_an_argument_of_generate_of_another_type_is_refused(tiny_pipe, wrong):
    with pytest.raises((SettingsError, PromptError), match=next(iter(wrong))):
        pipelines.generate(tiny_pipe, wrong.pop("prompt", "a bar"), **wrong)


def test_frames_that_are_rounded_are_a_warning_where_nobody_takes_notices(tiny_pipe):
    with pytest.warns(UserWarning, match="frames: 6 requested, 5 made"):
        pipelines.generate(tiny_pipe, "a bar", steps=1, frames=6, height=32, width=32)


def test_a_message_shows_no_address():
    with pytest.raises(SettingsError, match="layers=an object of the class object"):
        Settings(layers=object())
    with pytest.raises(SettingsError, match="is no Prompt"):
        requests.expand(["a"], [0], [("a", None)])
