"""A plan lists every clip once, and its keys are the same tomorrow and different for every other clip."""

import inspect
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from enhance_a_video.errors import PromptError, SettingsError
from enhance_a_video.generation import pipelines
from enhance_a_video.generation.requests import OPTIONS, ClipRequest, Prompt, expand, located, read_prompts
from enhance_a_video.settings import Settings

ITEM = ClipRequest(
    "a red ball", 3, "enhanced", Settings(strength=0.5), {"steps": 4, "extra": {"max_sequence_length": 32}}
)


def test_every_option_of_generate_may_stand_in_a_prompts_file():
    own = ("pipe", "prompt", "seed", "latents", "progress", "notice", "options")
    assert tuple(inspect.signature(pipelines.generate).parameters) == own
    assert OPTIONS == (
        "negative",
        "steps",
        "guidance",
        "frames",
        "height",
        "width",
        "fps",
        "seconds",
        "image",
        "extra",
        "guider",
    )
    for name in OPTIONS:
        assert f"{name}:" in pipelines.generate.__doc__ or f" {name}," in pipelines.generate.__doc__, name


# ------------------------------------------------------------------------------------------------------------- keys


def test_a_key_is_the_same_in_another_process():
    program = (
        "from enhance_a_video.generation.requests import ClipRequest\nfrom enhance_a_video.settings import Settings\n"
        "print(ClipRequest('a red ball', 3, 'x', Settings(strength=0.5),"
        " {'extra': {'max_sequence_length': 32}, 'steps': 4}).key)"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ITEM.key
    assert len(ITEM.key) == 16


def test_anything_that_changes_the_clip_changes_the_key():
    others = [
        replace(ITEM, prompt="a red ball "),
        replace(ITEM, seed=4),
        replace(ITEM, settings=None),
        replace(ITEM, settings=Settings(strength=0.6)),
        replace(ITEM, settings=Settings(strength=0.5, end=1.0)),
        replace(ITEM, settings=Settings(strength=0.5, layers=[0])),
        replace(ITEM, settings=Settings(strength=0.5, layers=slice(0, 1))),
        replace(ITEM, settings=Settings(strength=0.5, observe_only=True)),
        replace(ITEM, options={}),
        replace(ITEM, options={**ITEM.options, "steps": 5}),
        replace(ITEM, options={**ITEM.options, "negative": "blur"}),
        replace(ITEM, options={**ITEM.options, "extra": {"max_sequence_length": 64}}),
    ]
    keys = {item.key for item in [ITEM, *others]}
    assert len(keys) == 1 + len(others)


def test_what_changes_nothing_in_the_clip_does_not_change_the_key():
    same = [
        replace(ITEM, label="other"),
        replace(ITEM, settings=Settings(strength=0.5, attention_maps=True)),
        replace(ITEM, options={"extra": {"max_sequence_length": 32.0}, "steps": 4, "negative": None}),
    ]
    assert {item.key for item in same} == {ITEM.key}


def test_a_picture_counts_by_what_is_in_it(tmp_path):
    grey, white = (Image.fromarray(np.full((4, 6, 3), value, np.uint8)) for value in (128, 255))
    path = tmp_path / "first.png"
    grey.save(path)
    named, opened = ClipRequest("x", 0, "", options={"image": path}), ClipRequest("x", 0, "", options={"image": grey})
    assert named.key == opened.key
    assert named.call()["image"].size == (6, 4) and named.call()["seed"] == 0
    white.save(path)
    assert ClipRequest("x", 0, "", options={"image": path}).key not in (named.key, ClipRequest("x", 0, "").key)


def test_what_has_no_stable_text_is_refused():
    with pytest.raises(SettingsError, match="no stable name"):
        _ = ClipRequest("x", 0, "", Settings(policy=lambda mass, moment: mass)).key
    with pytest.raises(SettingsError, match="cannot be part of a plan"):
        _ = ClipRequest("x", 0, "", options={"extra": {"thing": object()}}).key


# ------------------------------------------------------------------------------------------------------------ expand


def test_expand_is_the_whole_product_in_order():
    panels = [("without", None), ("enhanced", Settings())]
    items = expand([Prompt("a"), Prompt("b", seeds=(7,))], [0, 1], panels)
    assert [(item.prompt, item.seed, item.label) for item in items] == [
        ("a", 0, "without"), ("a", 0, "enhanced"), ("a", 1, "without"), ("a", 1, "enhanced"),
        ("b", 7, "without"), ("b", 7, "enhanced"),
    ]  # fmt: skip
    assert len({item.key for item in items}) == 6


def test_options_of_a_prompt_come_before_the_common_ones():
    prompts = [Prompt("a", {"steps": 9, "extra": {"y": 3}}), Prompt("b")]
    a, b = expand(prompts, [0], [("x", None)], {"steps": 2, "fps": 8, "extra": {"x": 1, "y": 2}})
    assert a.options == {"steps": 9, "fps": 8, "extra": {"x": 1, "y": 3}}
    assert b.options == {"steps": 2, "fps": 8, "extra": {"x": 1, "y": 2}}


def test_a_clip_that_comes_twice_is_listed_once():
    assert len(expand([Prompt("a"), Prompt("a"), Prompt("a", {"steps": 2})], [0, 1, 0], [("x", None)])) == 4


@pytest.mark.parametrize(
    ("prompts", "seeds", "panels", "says"),
    [
        ([], [0], [("x", None)], "0 prompts"),
        ([Prompt("a")], [0], [], "0 panels"),
        ([Prompt("a")], [], [("x", None)], "No seeds"),
        ([Prompt("a")], [0], [("x", None), ("x", Settings())], "called 'x'"),
        ([Prompt("a")], [0], [("x", Settings()), ("y", Settings())], "same settings"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(prompts, seeds, panels, says):
    with pytest.raises(SettingsError, match=says):
        expand(prompts, seeds, panels)


# ------------------------------------------------------------------------------------------------------------- files


def test_plain_text_is_a_prompt_a_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text('\ufeffa cat\r\n\n  a dog, "quoted"  \n', encoding="utf-8")
    assert read_prompts(path) == [Prompt("a cat"), Prompt('a dog, "quoted"')]


def test_jsonl_brings_options_and_seeds(tmp_path):
    (tmp_path / "cat.png").touch()
    rows = [
        {"prompt": "a", "seed": 5, "steps": 2, "guidance": 3.5, "negative": "blur", "extra": {"max_area": 1}},
        {"prompt": "b", "seeds": [1, 2], "image": "cat.png"},
        {"prompt": " c\u2028d ", "steps": None},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8")
    a, b, c = read_prompts(path)
    assert a == Prompt("a", {"steps": 2, "guidance": 3.5, "negative": "blur", "extra": {"max_area": 1}}, (5,))
    assert b == Prompt("b", {"image": tmp_path / "cat.png"}, (1, 2))
    assert c == Prompt("c\u2028d")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a cat", "line 2 is not JSON"),
        ('"a cat"', '"prompt" is wanted'),
        ('{"prompt": " "}', "the prompt is empty"),
        ('{"prompt": "a", "step": 4}', "step is unknown. Known: prompt, seed"),
        ('{"prompt": "a", "steps": 0}', "a whole number from 1 to 10"),
        ('{"prompt": "a", "steps": "4"}', "a whole number from 1 to 10"),
        ('{"prompt": "a", "frames": true}', "a whole number from 1 to 10"),
        ('{"prompt": "a", "guidance": "high"}', "a number from 0 to"),
        ('{"prompt": "a", "extra": 3}', "an object is wanted"),
        ('{"prompt": "a", "image": "none.png"}', "no picture"),
        ('{"prompt": "a", "seed": 1, "seeds": [1]}', "together"),
        ('{"prompt": "a", "seeds": []}', "a list of whole numbers"),
        ('{"prompt": "a", "seeds": 3}', "a list of whole numbers"),
        ('{"prompt": "a", "seed": -1}', "whole number from 0 to"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(PromptError, match="line 2") as refused:
        read_prompts(path)
    assert says in str(refused.value)


def test_files_without_prompts_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, says in (("empty.txt", "no prompt"), ("binary.txt", "not UTF-8"), ("none.txt", "No such file")):
        with pytest.raises(PromptError, match=says):
            read_prompts(tmp_path / name)


# ------------------------------------------------------------------------------- further arguments of a pipeline's call


@pytest.mark.parametrize(
    ("extra", "way"),
    [
        ({"num_inference_steps": 4}, "--steps"),
        ({"negative_prompt": "blur"}, "--negative"),
        ({"video_length": 8}, "--frames"),
        ({"num_videos_per_prompt": 2}, "several seeds"),
        ({"output_type": "latent"}, "Leave it out"),
        ({"return_dict": False}, "Leave it out"),
        ({"generator": 3}, "--seed"),
        ({"callback_on_step_end": "f"}, "Leave it out"),
        ({"latents": [0.0]}, "tensor"),
        ({"prompt_embeds": 1}, "tensor"),
        ({3: 1}, "quotes"),
    ],
)
def test_what_the_command_decides_is_not_set_behind_its_back(tmp_path, extra, way):
    from enhance_a_video.lab.study.definition import parse_study

    name = next(iter(extra))
    with pytest.raises(SettingsError, match=way):
        parse_study({"prompts": ["a", "b"], "settings": {"p": None, "d": {}}, "options": {"extra": extra}})
    if isinstance(name, str):
        (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a", "extra": extra}))
        with pytest.raises(PromptError, match=f"line 1: extra: {name}.*{way}"):
            read_prompts(tmp_path / "p.jsonl")


def test_a_picture_among_the_further_arguments_is_named_by_its_file(tmp_path):
    from PIL import Image

    Image.new("RGB", (6, 4), "red").save(tmp_path / "end.png")
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a", "extra": {"last_image": "end.png", "n": 1}}))
    (prompt,) = read_prompts(tmp_path / "p.jsonl")
    (item,) = expand([prompt], [0], [("plain", None)])
    assert item.call()["extra"]["last_image"].size == (6, 4) and item.call()["extra"]["n"] == 1
    key = item.key
    Image.new("RGB", (6, 4), "blue").save(tmp_path / "end.png")
    (again,) = expand([prompt], [0], [("plain", None)])
    assert again.key != key  # another picture, another clip
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a", "extra": {"last_image": "start.png"}}))
    with pytest.raises(PromptError, match=r"last_image: there is no picture .*start.png"):
        read_prompts(tmp_path / "p.jsonl")


PICTURES = ("last_image", "image_2", "control_image", "reference_images", "image_reference", "ip_adapter_image")
OTHERS = ("image_guidance_scale", "image_embeds", "num_images_per_prompt", "images_kwargs")


@pytest.mark.parametrize(
    ("name", "picture"), [*((name, True) for name in PICTURES), *((name, False) for name in OTHERS)]
)
def test_which_arguments_take_pictures(tmp_path, name, picture):
    options = {"extra": {name: str(tmp_path)}}
    if picture:
        with pytest.raises(SettingsError, match="there is no picture"):
            located(options, tmp_path)
    else:
        assert located(options, tmp_path) == options
