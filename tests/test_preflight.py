"""Reports before the work of what will not be done as requested: prompts, frames, settings without an effect."""

import copy
import errno
import json
import logging
import os
import re
import sys
import warnings
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

import enhance_a_video.lab.tune as tuning
from enhance_a_video import embedded
from enhance_a_video.alternatives import LogitTemperature
from enhance_a_video.embedded import world
from enhance_a_video.errors import PromptError, SettingsError
from enhance_a_video.generation import making, pipelines, preflight, video
from enhance_a_video.generation.prompts import checked_prompt
from enhance_a_video.generation.requests import ClipRequest, Prompt, expand, overridden, read_prompts, repeats
from enhance_a_video.generation.shape import _DOWN, _NEAREST, _PATCHED, made_frames
from enhance_a_video.lab.study import parse_study
from enhance_a_video.policies import Constant
from enhance_a_video.progress import progress_at_steps, progress_of
from enhance_a_video.settings import Settings

ROOT = Path(__file__).parent.parent
INSIDE = "A red ball moves to the left over a green meadow."
OUTSIDE = "a cat walks on the grass"
EMPTY = ["", "  ", "\n\t", "\u200b", "\u00a0"]
WORLD_MODELS = ["embedded", str(ROOT / "models" / "joint"), str(ROOT / "models" / "temporal")]


@pytest.fixture(scope="module")
def outlines():
    """The models of the embedded world without their weights."""
    return {model: preflight.outline(model) for model in WORLD_MODELS}


def notes(pipe, prompt=INSIDE, settings=None, label="", **options) -> str:
    """Without the sentence about short clips of the packaged model, which has a test of its own."""
    found = preflight.notices(pipe, [ClipRequest(prompt, 0, label, settings, options)])
    return "\n".join(text for text in found if "begin with wrong colours" not in text)


# ------------------------------------------------------------------------------------------------ empty prompts


@pytest.mark.parametrize("text", [*EMPTY, None, 3, "\udcff"])
def test_what_is_no_prompt(text):
    with pytest.raises(PromptError, match=r"^The prompt"):
        checked_prompt(text)
    with pytest.raises(PromptError, match=r"^here: the prompt"):
        checked_prompt(text, "here")


@pytest.mark.parametrize("text", EMPTY)
def test_an_empty_prompt_is_refused_wherever_one_comes_in(text, tmp_path):
    for make in (
        lambda: Prompt(text),
        lambda: ClipRequest(text, 0, "plain"),
        lambda: pipelines.generate(preflight.outline("embedded"), text),
        lambda: pipelines.generate(preflight.outline("embedded"), [INSIDE, text], seed=[0, 1]),
        lambda: parse_study({"prompts": [INSIDE, text], "settings": {"plain": None, "default": {}}}),
    ):
        with pytest.raises(PromptError, match="empty"):
            make()
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": INSIDE}) + "\n" + json.dumps({"prompt": text}), encoding="utf-8")
    with pytest.raises(PromptError, match=r"prompts\.jsonl, line 2: the prompt is empty"):
        read_prompts(file)
    (tmp_path / "prompts.txt").write_text(text or "\n", encoding="utf-8")
    with pytest.raises(PromptError):
        read_prompts(tmp_path / "prompts.txt")


@pytest.mark.parametrize("words", [["generate", "-o", "x.mp4"], ["compare"], ["demo"]])
def test_the_commands_refuse_an_empty_prompt_before_they_load(run, monkeypatch, words):
    monkeypatch.setattr(pipelines, "load", lambda *a, **k: pytest.fail("loaded"))
    code, _, err = run(*words, "-p", " ")
    assert code == 2 and "prompt is empty" in err and not list(Path().rglob("*"))


# --------------------------------------------------------------------------------------------- the world's words


@pytest.mark.parametrize("model", WORLD_MODELS)
def test_a_prompt_outside_the_world_of_a_model_is_reported_whatever_its_name(outlines, model):
    assert outlines[model] is not None
    found = notes(outlines[model], OUTSIDE)
    assert "'cat', 'walks', 'on', 'grass'" in found and "'a'" not in found
    assert "found 0 objects" in found and "a red ball" in found.lower() and "--model" in found
    assert not notes(outlines[model], INSIDE)


def test_every_sentence_of_the_world_is_inside(outlines):
    for number in range(200):
        text = world.caption(world.held_out_scene(number), np.random.default_rng(number))
        assert not notes(outlines["embedded"], text), text


def test_words_beside_a_sentence_that_is_known(outlines):
    found = notes(outlines["embedded"], "A red ball moves to the left over a green field, beautifully!")
    assert "'field'" in found and "'beautifully'" in found and "'!'" not in found and "found 0" not in found


def test_known_words_that_make_no_sentence(outlines):
    found = notes(outlines["embedded"], "red ball")
    assert "no known motion for the red ball" in found and "not the sentence" in found


def test_unknown_words_of_a_negative_prompt(outlines):
    assert "negative prompt the model has no token for 'blur'" in notes(outlines["embedded"], negative="blur, red")


def test_any_tokenizers_unknown_words_are_reported_without_the_worlds(tiny_folder):
    found = notes(preflight.outline(tiny_folder), "a red cat")
    assert "'cat'" in found and "This world" not in found


def test_a_prompt_that_is_cut(outlines):
    found = notes(outlines["embedded"], " and ".join([INSIDE[:-1]] * 4))
    assert "longer than the 32 tokens" in found and "has no effect" in found
    assert "longer" not in notes(outlines["embedded"], " and ".join([INSIDE[:-1]] * 2))


# ------------------------------------------------------------------------------------------------ frames, sizes


@pytest.mark.parametrize(("requested", "made"), [(34, 33), (36, 37), (6, 5), (2, 1)])
def test_frames_that_are_rounded_are_reported_and_made_so(outlines, requested, made):
    assert f"{requested} frames cannot be made, {made} will be" in notes(outlines["embedded"], frames=requested)
    assert made_frames(outlines["embedded"], requested) == made
    assert not notes(outlines["embedded"], frames=made)


def test_a_size_that_is_rounded(tiny_pipe):
    tiny_pipe.transformer.register_to_config(patch_size=(1, 4, 4))  # a token is 32 pixels wide
    assert "48x64 pixels cannot be made, 32x64 will be" in notes(tiny_pipe, height=64, width=48)
    assert "pixels" not in notes(tiny_pipe, height=64, width=32)
    assert "pixels" not in notes(tiny_pipe, height=33, width=32)  # the pipeline refuses it


def test_the_tables_rules_are_those_of_diffusers():
    """Each class rounds in its own code as in the table."""
    sources = Path(diffusers.__file__).parent.joinpath("pipelines").rglob("pipeline_*.py")
    checked = set()
    for text in (path.read_text(encoding="utf-8") for path in sources):
        nearest = re.search(r"num_frames // self\.\w+ \* self\.\w+ \+ 1", text)
        down = re.search(r"\(num_frames - 1\) // self\.\w+ \+ 1", text)
        for name in re.findall(r"^class (\w+Pipeline)\b", text, re.MULTILINE):
            if "num_frames" not in text or "Upsample" in name:
                continue
            assert bool(nearest) == name.startswith(_NEAREST), name
            assert name.startswith(_PATCHED) == ("h_multiple_of" in text) or diffusers.__version__ < "0.37", name
            if name.startswith(_DOWN):
                assert down and not nearest, name
            checked |= {name} if name.startswith((*_NEAREST, *_DOWN)) else set()
    assert {"WanPipeline", "HunyuanVideoPipeline", "LTXPipeline", "CogVideoXPipeline"} <= checked


def test_another_number_of_frames_than_requested_is_reported_afterwards(tiny_folder, monkeypatch):
    pipe, found = pipelines.load(tiny_folder, device="cpu"), []
    monkeypatch.setattr(pipelines, "made_frames", lambda *a: None)  # as for a pipeline whose rule is not known
    pipelines.generate(pipe, "a red ball", steps=1, frames=6, notice=found.append)
    assert "frames: 6 requested, 5 made." in found


def test_what_the_pipeline_itself_warns_of_is_passed_on(tiny_folder):
    pipe, found = pipelines.load(tiny_folder, device="cpu"), []
    pipelines.quiet()
    before = logging.getLogger("diffusers.pipelines").level
    prepare = pipe.prepare_latents

    def warns(*arguments, **named):
        logging.getLogger("diffusers.pipelines.wan.pipeline_wan").warning("guidance is ignored")
        return prepare(*arguments, **named)

    pipe.prepare_latents = warns
    pipelines.generate(pipe, "a red ball", steps=1, notice=found.append)
    assert found == ["pipeline_wan: guidance is ignored"]
    assert logging.getLogger("diffusers.pipelines").level == before


# ------------------------------------------------------------------------------------ settings without an effect


def test_one_frame_leaves_the_method_nothing_to_do(outlines):
    for frames in (1, 2):
        found = notes(outlines["embedded"], settings=Settings(), frames=frames)
        assert "1 frame: the method acts between frames and will do nothing. Request 5 frames" in found
    assert "the method" not in notes(outlines["embedded"], frames=1)  # the plain model's
    assert not notes(outlines["embedded"], settings=Settings(), frames=5)
    assert "Request 2 frames" in notes(outlines[WORLD_MODELS[2]], settings=Settings(), frames=1)  # no temporal VAE


def test_a_window_in_which_no_step_falls(outlines):
    narrow = Settings(start=0.6, end=0.9)
    assert "None of the 2 steps lies between start=0.6 and end=0.9" in notes(
        outlines["embedded"], settings=narrow, steps=2
    )
    assert not notes(outlines["embedded"], settings=narrow, steps=4)
    assert not notes(outlines["embedded"], settings=Settings(start=0.95), steps=20)


@pytest.mark.parametrize("model", WORLD_MODELS)
def test_progress_at_steps_is_what_the_calls_find(model, outlines):
    pipe = outlines[model]
    family = next(filter(None, map(preflight.find, pipe.components.values())))
    places = progress_at_steps(pipe.scheduler, family.noise, 8)
    assert places.shape == (8,) and bool((places.diff() > 0).all())
    own = copy.deepcopy(pipe.scheduler)
    own.set_timesteps(8)
    found = [progress_of(step, family.noise, own)[0] for step in own.timesteps]  # as the pipeline's call does it
    assert torch.allclose(places, torch.stack(found), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (Settings(odds=1), "odds=1"),
        (Settings(strength=0), "strength=0"),
        (Settings(temperature=-1), "temperature=-1"),
        (Settings(policy=Constant(1.0)), "constant gain of 1"),
        (Settings(observe_only=True), "observe_only"),
        (LogitTemperature(tau=1), "tau=1"),
    ],
)
def test_settings_that_change_nothing(outlines, settings, word):
    found = notes(outlines["embedded"], settings=settings, label="x")
    assert found.startswith("x: ") and word in found and "plain model" in found


def test_one_step_leaves_noise(outlines):
    assert "1 step" in notes(outlines["embedded"], steps=1) and "1 step" not in notes(outlines["embedded"], steps=2)


def test_what_the_pipeline_does_not_take_is_refused_before_the_weights_are_read(outlines):
    with pytest.raises(SettingsError, match="negative prompt does nothing"):
        notes(outlines["embedded"], negative="red", guidance=1.0)
    with pytest.raises(SettingsError, match="takes no 'image'"):
        notes(outlines["embedded"], image=Path("x.png"))


def test_nothing_that_acted_is_reported_afterwards(tiny_folder):
    pipe, found = pipelines.load(tiny_folder, device="cpu"), []
    settings = Settings(start=0.97, end=0.98)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a notice takes the place of the library's own warning
        _, summary = making.generate_with(pipe, "a red ball", settings, steps=1, notice=found.append)
    assert not summary.active.any() and "acted nowhere: no call was in the window" in found[-1]
    making.generate_with(pipe, "a red ball", None, observe=True, steps=1, notice=(again := []).append)
    assert not again


def test_an_outline_of_what_is_no_model(tmp_path):
    assert preflight.outline(tmp_path) is None
    assert preflight.notices_about(tmp_path, [ClipRequest(INSIDE, 0, "")]) == []


# ------------------------------------------------------------------------------------------------- prompts files


def test_repeats_in_a_prompts_file():
    prompts = [Prompt("a"), Prompt("b", seeds=(1, 1)), Prompt("a"), Prompt("a", {"steps": 3}), Prompt("a", seeds=(2,))]
    first, second = repeats(prompts)
    assert "'a' is there 2 times" in first and "seeds of 'b'" in second
    assert len(expand(prompts, [0], [("plain", None)])) == 4


def test_options_that_every_line_overrides():
    given = ["steps", "guidance", "seed", "extra"]
    every = [Prompt("a", {"steps": 3}, (0,)), Prompt("b", {"steps": 4, "guidance": 1}, (1,))]
    assert [text.split()[0] for text in overridden(every, given)] == ["--steps", "--seed"]
    assert not overridden([*every, Prompt("c")], given)


# --------------------------------------------------------------------------------------------------- the commands


def test_generate_with_the_embedded_model_reports_before_the_work(run, monkeypatch):
    def begins(*arguments, **named):
        print("WORK", file=sys.stderr)
        return pipelines.generate(*arguments, **named)

    monkeypatch.setattr(making, "generate", begins)
    code, out, err = run("generate", "-p", OUTSIDE, "-o", "x.mp4", "--steps", 1, "--frames", 6, "--json")
    assert code == 0, err
    data = json.loads(out)
    assert data["frames"] == 5 and any("'cat'" in text for text in data["warnings"])
    assert any("6 frames cannot be made, 5 will be" in text for text in data["warnings"])
    assert err.index("'cat'") < err.index("WORK") and err.index("5 will be") < err.index("WORK")
    record = json.loads(video.read_comment("x.mp4"))
    assert record["frames"] == 5 and record["warnings"] == data["warnings"]


def test_generate_of_one_frame(run, tiny_folder):
    code, _, err = run("generate", "-m", tiny_folder, "-p", "a red ball", "-o", "x.mp4", "--steps", 1, "--frames", 2)
    assert code == 0 and "2 frames cannot be made, 1 will be" in err and "method acts between frames" in err


def test_compare_refuses_two_frames_that_become_one(run, tiny_folder):
    code, _, err = run("compare", "-m", tiny_folder, "-p", "a red ball", "--steps", 1, "--frames", 2)
    assert code == 2 and "of 2 frames this model makes 1" in err and "5 or more" in err


def test_compare_and_demo_report_and_list(run, tiny_folder, monkeypatch):
    monkeypatch.setattr(embedded, "model_folder", lambda: tiny_folder)
    words = ["compare", "-p", "a red cat", "--steps", 1, "--frames", 6, "--panel", "same: observe_only=true"]
    code, out, err = run(*words, "--json")
    assert code == 0, err
    found = "\n".join(json.loads(out)["warnings"])
    assert "'cat'" in found and "6 frames cannot be made, 5 will be" in found and "same: observe_only" in found
    assert err.count("6 frames cannot be made") == 1
    code, out, err = run("demo", "-p", "a red cat", "--json")
    assert code == 0 and any("'cat'" in text for text in json.loads(out)["warnings"])


def test_batch_reports_before_workers_start_and_in_the_manifest(run, tiny_folder):
    Path("p.txt").write_text("a red cat\na red ball\na red cat\n")
    words = ["batch", "p.txt", "-o", "clips", "-m", tiny_folder, "--steps", 1, "--frames", 6, "--json"]
    code, out, err = run(*words)
    assert code == 0, err
    data = json.loads(out)
    assert data["made"] == 2 and err.index("'cat'") < err.index("1 of 2 clips")
    found = "\n".join(data["warnings"])
    assert "'a red cat' is there 2 times" in found and "'cat'" in found and "5 will be" in found
    lines = [json.loads(line) for line in Path("clips/manifest.jsonl").read_text().splitlines()]
    by_prompt = {line["prompt"]: line for line in lines}
    assert by_prompt["a red cat"]["frames"] == 5 and len(by_prompt["a red cat"]["warnings"]) == 3
    assert not any("'cat'" in text for text in by_prompt["a red ball"]["warnings"])


def test_batch_refuses_what_the_pipeline_does_not_take_before_workers_start(run, tiny_folder):
    Path("p.txt").write_text("a red ball\n")
    words = ["batch", "p.txt", "-o", "clips", "-m", tiny_folder, "--negative", "blue", "--guidance", 1]
    code, _, err = run(*words)
    assert code == 2 and "negative prompt does nothing" in err and not Path("clips").exists()


def test_study_reports_before_the_work(run, tiny_folder):
    settings = {"plain": None, "default": {}, "looks": {"observe_only": True}}
    facts = {"model": str(tiny_folder), "prompts": ["a red cat"], "settings": settings, "options": {"frames": 6}}
    Path("s.yaml").write_text(json.dumps(facts))
    code, out, err = run("study", "s.yaml", "--plan", "--json")
    assert code == 0, err
    found = "\n".join(json.loads(out)["warnings"])
    assert "'cat'" in found and "5 will be" in found and "looks: observe_only" in found and "'cat'" in err


def test_a_studys_plan_reports_that_one_frame_leaves_nothing_to_do(run, tiny_folder):
    facts = {"model": str(tiny_folder), "prompts": ["a red cat"], "settings": {"plain": None, "default": {}}}
    Path("s.yaml").write_text(json.dumps(facts | {"options": {"frames": 1}}))
    code, out, err = run("study", "s.yaml", "--plan", "--json")
    assert code == 0, err
    assert any("default: 1 frame: the method acts between frames" in text for text in json.loads(out)["warnings"])
    assert "1 frame: the method acts between frames" in err


def test_a_folder_that_cannot_be_locked_is_in_the_object_of_batch(run, tiny_folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    Path("p.txt").write_text("a red cat\n")
    small = ("--steps", 1, "--frames", 5, "--width", 32, "--height", 32)
    code, out, err = run("batch", "p.txt", "-o", "b", "-m", tiny_folder, *small, "--json")
    assert code == 0, err
    assert any("cannot be locked" in text for text in json.loads(out)["warnings"]) and "cannot be locked" in err


def test_tune_reports_before_the_work(run, tiny_folder, monkeypatch):
    def stopped(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", stopped)
    Path("p.txt").write_text("".join(f"a red cat {n}\n" for n in range(4)))
    words = ["tune", "-m", tiny_folder, "--prompts", "p.txt", "--clips", 2, "--confirm", 2, "--frames", 2]
    code, _, err = run(*words)
    assert code == 130 and "'cat', '0'" in err and "2 frames cannot be made, 1 will be" in err
    assert "acts between frames" in err


def test_options_beside_which_others_do_nothing(run, tiny_folder, monkeypatch):
    def stopped(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", stopped)
    Path("p.txt").write_text("".join(f"a red ball {word}\n" for word in ("moves", "left", "right", "over")))
    words = ["tune", "-m", tiny_folder, "--prompts", "p.txt", "--clips", 2, "--confirm", 2]
    assert "--groups has no effect with --method learn" in run(*words, "--method", "learn", "--groups", 6)[2]
    assert "no effect" not in run(*words, "--groups", 6)[2]
    Path("p.jsonl").write_text('{"prompt": "a red ball", "seed": 3}')
    _, _, err = run("batch", "p.jsonl", "-o", "clips", "-m", tiny_folder, "--steps", 1, "--seeds", 2)
    assert "--seeds has no effect: every line" in err
    assert len(list(Path("clips").glob("*.mp4"))) == 1


def test_panels_with_the_same_settings_are_refused(run, tiny_folder):
    code, _, err = run("compare", "-m", tiny_folder, "-p", "a red ball", "--steps", 1, "--panel", "same: odds=2")
    assert code == 2 and "have the same settings: leave one out" in err and not list(Path().rglob("*.mp4"))


@pytest.mark.parametrize("frames, said", [(9, True), (21, True), (25, False), (None, False)])
def test_short_clips_of_the_packaged_model_begin_with_wrong_colours_which_is_said(frames, said):
    item = ClipRequest("A red ball moves left over a green meadow.", 0, "", None, {"frames": frames})
    assert any("begin with wrong colours" in text for text in preflight.notices_about("embedded", [item])) == said
