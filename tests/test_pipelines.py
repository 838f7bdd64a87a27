"""Loading, generating and comparing with a tiny real WanPipeline."""

import json
import math

import numpy as np
import pytest
import torch

from enhance_a_video import Settings, embedded
from enhance_a_video.embedded import world
from enhance_a_video.errors import EnhanceAVideoError, SettingsError, UnsupportedModelError
from enhance_a_video.generation import loading, pipelines
from enhance_a_video.generation.making import brief
from enhance_a_video.generation.measures import Measure
from enhance_a_video.generation.pipelines import defaults, describe, generate, load
from enhance_a_video.lab.comparison import MeasureSet, compare, compare_seeds, general_measures, truth_measures

PROMPT = "a red ball moves right over the grass"
STRONG = Settings(strength=1.0, start=0.0, end=1.0)


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    return load(tiny_folder)


# ------------------------------------------------------------------------------------------------------ loading


def test_load_a_folder(pipe):
    assert type(pipe).__name__ == "WanPipeline"
    assert pipe.transformer.dtype == torch.float32
    assert defaults(pipe)["frames"] == 9
    about = describe(pipe)
    assert about["transformer"] == "transformer (WanTransformer3DModel)"
    assert about["device"] == "cpu"


def test_half_precision_keeps_the_wan_vae_in_float32(tiny_folder):
    pipe = load(tiny_folder, dtype="bfloat16", vae_tiling=True)
    assert (pipe.transformer.dtype, pipe.vae.dtype, pipe.vae.use_tiling) == (torch.bfloat16, torch.float32, True)
    assert generate(pipe, PROMPT).shape == (9, 32, 32, 3)


def test_embedded_is_the_packaged_folder(tiny_folder, monkeypatch):
    monkeypatch.setattr(embedded, "model_folder", lambda: tiny_folder)
    assert type(load()).__name__ == "WanPipeline"


def test_embedded_model_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "model_folder", lambda: tmp_path)
    with pytest.raises(SettingsError, match="embedded model is missing"):
        load()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": "./nowhere"}, "no folder"),
        ({"model": "nowhere"}, "no folder"),
        ({"model": "nobody/nothing"}, "neither a folder here nor in the local cache"),
        ({"device": "cuda:0"}, "not available"),
        ({"device": "toaster"}, "not available"),
        ({"device": "cpu:x"}, "not available"),
        ({"device": "cpu:7"}, "not available"),
        ({"device": 7}, "not available"),
        ({"model": None}, "hub id or a folder"),
        ({"dtype": "int3"}, "bfloat16"),
        ({"offload": "maybe"}, "sequential"),
        ({"offload": "model"}, "on the CPU"),
    ],
)
def test_load_explains(tiny_folder, arguments, says):
    if arguments.get("device") == "cuda:0" and torch.cuda.is_available():
        pytest.skip("cuda is available here")
    if arguments.get("offload") == "model":
        arguments = {**arguments, "device": "cpu"}
    with pytest.raises(SettingsError, match=says):
        load(**{"model": tiny_folder, **arguments})


def test_load_explains_folders_that_are_no_pipeline(tmp_path):
    with pytest.raises(SettingsError, match="is empty"):
        load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="no model_index"):
        load(tmp_path)
    with pytest.raises(SettingsError, match="is a file"):
        load(tmp_path / "file")
    (tmp_path / "model_index.json").write_text("{broken")
    with pytest.raises(SettingsError, match="not valid JSON"):
        load(tmp_path)


def test_an_image_pipeline_is_refused_before_its_weights_are_read(tmp_path):
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedModelError, match=r"StableDiffusionPipeline.*UNet2D.*WanTransformer3DModel"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [("GatedRepoError", "licence"), ("RepositoryNotFoundError", "no model"), ("TimeoutError", "no network")],
)
def test_why_a_hub_model_did_not_come(name, says):
    error = OSError("x does not appear to have a file named model_index.json")
    error.__cause__ = type(name, (Exception,), {})()
    assert says in loading.why_not("a/b", error)


# --------------------------------------------------------------------------------------------------- generating


def test_generate_uses_the_folders_defaults_and_repeats_itself(pipe):
    seen = []
    first = generate(pipe, PROMPT, seed=1, progress=lambda step: seen.append((step.done, step.total)))
    assert first.shape == (9, 32, 32, 3) and first.dtype == np.uint8
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (generate(pipe, PROMPT, seed=1) == first).all()
    assert (generate(pipe, PROMPT, seed=2) != first).any()


def test_options_reach_the_pipeline(pipe):
    assert generate(pipe, PROMPT, frames=5, height=48, width=64, steps=1).shape == (5, 48, 64, 3)
    plain = generate(pipe, PROMPT, steps=2)
    assert (generate(pipe, PROMPT, steps=2, negative="blue sky") != plain).any()
    assert (generate(pipe, PROMPT, steps=2, guidance=9.0) != plain).any()
    assert (generate(pipe, PROMPT, steps=2, extra={"max_sequence_length": 16}) != plain).any()
    assert generate(pipe, PROMPT, frames=1, steps=1).shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"height": 30}, "divisible by 16"),
        ({"steps": 0}, "from 1 to 10,000"),
        ({"image": object()}, "takes no 'image'"),
        ({"extra": {"sharpness": 3}}, "takes no sharpness"),
        ({"negative": "blur", "guidance": 1.0}, "does nothing"),
    ],
)
def test_generate_explains(pipe, options, says):
    with pytest.raises(SettingsError, match=says):
        generate(pipe, PROMPT, **options)


class _Fake:
    """A pipeline of another shape."""

    def __init__(self, frames=None, error=None):
        self.frames_, self.error = frames, error

    def __call__(
        self, prompt, image, generator=None, output_type="np", frame_rate=25, negative_prompt=None, true_cfg_scale=1.0
    ):
        self.frame_rate = frame_rate
        if self.error:
            raise self.error
        return type("Output", (), {"frames": [self.frames_]})()


def test_other_pipelines_are_refused_with_what_they_need():
    good = np.full((2, 4, 4, 3), 0.5)
    fake = _Fake(good)
    assert (generate(fake, PROMPT, image="x", fps=12) == 128).all()
    assert fake.frame_rate == 12
    with pytest.raises(SettingsError, match="starts from a picture"):
        generate(fake, PROMPT)
    with pytest.raises(SettingsError, match="true_cfg_scale is 1"):
        generate(fake, PROMPT, image="x", negative="blur")


def test_nan_and_memory_are_explained():
    with pytest.raises(SettingsError, match="bfloat16"):
        generate(_Fake(np.full((2, 4, 4, 3), np.nan)), PROMPT, image="x")
    with pytest.raises(EnhanceAVideoError, match="--offload model"):
        generate(_Fake(error=torch.cuda.OutOfMemoryError("CUDA out of memory. Tried ...")), PROMPT, image="x")


# ---------------------------------------------------------------------------------------------------- comparing


def test_compare_starts_from_the_same_noise_and_leaves_the_model_as_it_was(pipe):
    plain = generate(pipe, PROMPT, seed=3)
    seen = []
    takes = compare(
        pipe,
        PROMPT,
        3,
        [("without", None), ("with", STRONG), ("again", None)],
        observe=True,
        progress=lambda step: seen.append((step.doing, step.done, step.total)),
    )
    assert (takes[0].frames == plain).all()  # observing changes nothing
    assert (takes[1].frames != plain).any()
    assert (takes[2].frames == plain).all()
    assert seen[0] == ("without, seed 3", 1, 9) and seen[-1] == ("again, seed 3, decoding", 9, 9)
    summary = takes[1].summary
    assert summary.active.all() and np.nanmax(summary.gain) > 1
    assert summary.attention_maps.shape[2:] == (3, 3)
    assert brief(summary)["active_calls"] == 6  # 3 steps, with and without the prompt
    assert brief(None) is None


def test_compare_seeds_gives_paired_intervals(pipe):
    result = compare_seeds(pipe, PROMPT, [0, 1, 2], [("without", None), ("with", STRONG), ("none", None)], steps=2)
    assert [take.seed for take in result.takes] == [0, 0, 0]
    differences = result.differences()
    assert set(differences) == {"with", "none"}
    assert all(pair.pairs == 3 and math.isfinite(pair.low) for pair in differences["with"].values())
    assert all(pair.difference == 0 for pair in differences["none"].values())
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [panel["label"] for panel in data["panels"]] == ["without", "with", "none"]
    assert data["panels"][0]["settings"] is None and data["panels"][1]["settings"]["strength"] == 1.0
    assert len(data["panels"][1]["measures"]["motion"]) == 3


def test_measures_that_are_not_there_are_left_out(pipe):
    judge = MeasureSet((Measure("never", "Never", "higher", "1"),), lambda frames: {"never": float("nan")})
    result = compare_seeds(pipe, PROMPT, [0], [("a", None), ("b", None)], measures=judge, steps=1)
    assert result.differences() == {"b": {}}
    assert result.to_dict()["panels"][0]["measures"] == {"never": [None]}


@pytest.mark.parametrize("panels", [[("a", None)], [("a", None), ("a", STRONG)], []])
def test_panels_need_different_labels(pipe, panels):
    with pytest.raises(SettingsError, match="different labels"):
        compare(pipe, PROMPT, 0, panels)


def test_the_truth_is_measured_where_the_world_has_it():
    scene = world.sample_scene(np.random.default_rng(0))
    frames, _ = world.render(scene)
    judge = truth_measures(world.caption(scene), 64, 64)
    values = judge.measure(frames)
    assert {row.name for row in judge.rows} == set(values)
    assert any(row.truth for row in judge.rows) and not judge.note
    assert values["attributes_right"] > 0.6  # it really painted the prompt


@pytest.mark.parametrize(("prompt", "size", "says"), [("a cat on a mat", 64, "outside"), (None, 128, "64x64")])
def test_outside_the_world_there_is_no_truth(prompt, size, says):
    prompt = prompt or world.caption(world.sample_scene(np.random.default_rng(0)))
    judge = truth_measures(prompt, size, size)
    assert says in judge.note
    assert judge.rows == general_measures().rows


# ------------------------------------------------------------------------------------------------------ threads


@pytest.fixture
def two_threads(monkeypatch):
    """A process in which torch itself chose two threads and the user set none."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pipelines, "_TORCH_THREADS", 2)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def threads_while_generating(pipe):
    found = []
    generate(pipe, PROMPT, steps=1, progress=lambda step: found.append(torch.get_num_threads()))
    return found


def test_a_small_model_runs_on_one_thread_and_gives_the_others_back(pipe, two_threads):
    assert threads_while_generating(pipe) == [1]
    assert torch.get_num_threads() == 2


def test_threads_are_given_back_after_an_error(pipe, two_threads):
    with pytest.raises(SettingsError, match="refuses this"):
        generate(pipe, PROMPT, height=33)
    assert torch.get_num_threads() == 2


def test_a_large_model_keeps_torchs_threads(pipe, two_threads, monkeypatch):
    monkeypatch.setattr(pipelines, "_SMALL", 1000)
    assert threads_while_generating(pipe) == [2]


def test_threads_that_the_user_chose_are_kept(pipe, two_threads, monkeypatch):
    torch.set_num_threads(3)
    assert threads_while_generating(pipe) == [3]
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_while_generating(pipe) == [2]


def test_a_batch_worker_sets_its_share_of_threads_for_a_large_model_only(tiny_folder, two_threads, monkeypatch):
    from enhance_a_video.generation.workers.worker import Worker

    assert Worker(str(tiny_folder), {}, threads=3).load()[0] == "ready"
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(pipelines, "_SMALL", 1000)
    assert Worker(str(tiny_folder), {}, threads=3).load()[0] == "ready"
    assert torch.get_num_threads() == 3
