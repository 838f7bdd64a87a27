"""What is wrong with a model's folder or name: the message names the file or the near name, before weights are read."""

import json
import shutil

import pytest

from enhance_a_video.errors import EnhanceAVideoError, SettingsError, UnsupportedModelError
from enhance_a_video.generation import loading
from enhance_a_video.generation.pipelines import generate, load


@pytest.fixture
def folder(tiny_folder, tmp_path, monkeypatch):
    """A copy of a good pipeline's folder that a test may break; its weights may not be read."""
    import diffusers

    def read(*_, **__):
        pytest.fail("the weights were read")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", read)
    return shutil.copytree(tiny_folder, tmp_path / "model")


def write(folder, name, text):
    (folder / name).write_text(text)


def cut(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])


def change_index(folder, **parts):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
BROKEN = {
    "unknown pipeline": (
        lambda d: change_index(d, _class_name="WanDreamPipeline"),
        "class WanDreamPipeline",
    ),
    "mistyped pipeline": (lambda d: change_index(d, _class_name="WanPipelin"), "Did you mean WanPipeline"),
    "unknown part": (lambda d: change_index(d, vae=["diffusers", "AutoencoderDream"]), "class AutoencoderDream"),
    "sound": (
        lambda d: change_index(d, transformer=["diffusers", "StableAudioDiTModel"]),
        "which makes sound; of those, StableAudioPipeline",
    ),
    "no class": (lambda d: change_index(d, _class_name=5), "names no pipeline class"),
    "index": (lambda d: write(d, "model_index.json", ""), "model_index.json is not valid JSON"),
    "no index": (lambda d: (d / "model_index.json").unlink(), "has no model_index.json"),
    "part gone": (lambda d: shutil.rmtree(d / "vae"), "lacks the part vae"),
    "weights cut off": (lambda d: cut(d, WEIGHTS), f"{WEIGHTS} is cut off"),
    "encoder cut off": (
        lambda d: cut(d, "text_encoder/model.safetensors"),
        "model.safetensors is cut off",
    ),
    "weights gone": (lambda d: (d / WEIGHTS).unlink(), "transformer has a config.json and no weights"),
    "a pointer": (lambda d: write(d, WEIGHTS, "version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "config gone": (lambda d: (d / "vae/config.json").unlink(), "vae has weights and no config.json"),
    "config": (lambda d: write(d, "transformer/config.json", "{"), "transformer/config.json is not valid JSON"),
    "tokenizer": (lambda d: write(d, "tokenizer/tokenizer.json", "{"), "tokenizer/tokenizer.json is not valid JSON"),
    "no vocabulary": (lambda d: (d / "tokenizer/tokenizer.json").unlink(), "tokenizer lacks its vocabulary"),
    "shard gone": (
        lambda d: write(d, "transformer/x.index.json", '{"weight_map": {"a": "part-2.safetensors"}}'),
        "lacks part-2.safetensors",
    ),
    "defaults": (lambda d: write(d, "defaults.json", "{"), "defaults.json is not valid JSON"),
    "defaults, a list": (lambda d: write(d, "defaults.json", "[]"), "an object is wanted"),
    "defaults, a name": (lambda d: write(d, "defaults.json", '{"stepz": 3}'), "'stepz' is unknown. Did you mean steps"),
    "defaults, a number": (lambda d: write(d, "defaults.json", '{"fps": NaN}'), "fps is nan"),
    "defaults, a type": (lambda d: write(d, "defaults.json", '{"prompt": 3}'), "prompt=3, but text is wanted"),
    "defaults, extra": (lambda d: write(d, "defaults.json", '{"extra": {"output_type": "pt"}}'), "output_type"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_named_by_its_file(folder, case):
    change, says = BROKEN[case]
    change(folder)
    with pytest.raises((SettingsError, UnsupportedModelError), match=says):
        load(folder)


def test_what_is_no_folder_of_a_pipeline(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    alone = shutil.copytree(folder / "transformer", tmp_path / "alone" / "transformer")
    for model, says in {
        empty: "is empty",
        folder / "transformer": rf"one part of the pipeline in {folder}",
        alone: "single WanTransformer3DModel",
        tmp_path: "Did you mean",
        folder / WEIGHTS: "file of weights.*from_single_file",
        folder / "model_index.json": rf"give its folder, {folder}",
        "": "empty name",
    }.items():
        with pytest.raises(SettingsError, match=says):
            load(model)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("embeded", "embedded"),
        ("modle", "model"),
        ("Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        ("Wan-AI/Wan2.1-T2V-1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
    ],
)
def test_a_mistyped_model_names_the_nearest(folder, tmp_path, monkeypatch, name, near):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=rf"Did you mean {near}\?"):
        load(name)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "main",
        ),
        (MemoryError(), "main"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "GPU"),
        (RuntimeError("MPS backend out of memory"), "GPU"),
    ],
)
def test_which_memory_ran_out(tiny_pipe, monkeypatch, error, says):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(type(tiny_pipe), "encode_prompt", full)
    with pytest.raises(EnhanceAVideoError, match=f"Out of {says}"):
        generate(tiny_pipe, "a red ball")
    assert loading.out_of_memory(RuntimeError("shapes do not match")) is None


@pytest.mark.parametrize(
    "words", [("batch", "p.txt", "-o", "out"), ("tune", "-o", "out", "--first", 0), ("study", "s.yaml")]
)
def test_a_model_that_is_none_is_refused_before_workers_start(command, tmp_path, monkeypatch, words):
    from enhance_a_video.generation.workers import local

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local.LocalCrew, "start", lambda *_: pytest.fail("a worker was started"))
    (tmp_path / "p.txt").write_text("a cat")
    (tmp_path / "s.yaml").write_text("model: nonsense\nprompts: [a, b]\nsettings: {plain: null, default: {}}")
    code, _, err = command(*words, *(() if words[0] == "study" else ("-m", "nonsense")))
    assert code == 2 and "no folder nonsense" in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_weights_that_are_in_no_file(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 5}))
    with pytest.raises(SettingsError, match=r"transformer lack weights.*config\.json"):
        load(folder)


def test_weights_that_no_part_has_a_place_for_are_named(tiny_folder, tmp_path, recwarn):
    load(tiny_folder)
    assert not [w for w in recwarn if "have no place" in str(w.message)]
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 1}))
    with pytest.warns(UserWarning, match=r"no place in it and are left out \(the first: blocks\.1\."):
        load(folder)


def test_extra_of_a_folder_that_its_pipeline_does_not_take(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "defaults.json").write_text(json.dumps({"extra": {"clean_capton": True}}))
    with pytest.raises(SettingsError, match=r"defaults\.json: extra has clean_capton, which WanPipeline does not take"):
        generate(load(folder), "a red ball", steps=1)


def test_what_was_given_besides_is_named_where_the_pipeline_refuses(tiny_pipe):
    with pytest.raises(SettingsError, match="max_sequence_length='abc'"):
        generate(tiny_pipe, "a red ball", steps=1, extra={"max_sequence_length": "abc"})
