"""Each row against the installed diffusers, the errors for what has no row, and rows of one's own."""

import dataclasses

import diffusers
import pytest
import torch
from tiny_models import TINY, run, with_attention
from tiny_models.base import absent
from torch import nn

from enhance_a_video import enhance, models
from enhance_a_video.errors import NoLayersError, SettingsError, TokenLayoutError, UnsupportedModelError
from enhance_a_video.models import FrameCount, chosen, denoisers, row_of


@pytest.mark.parametrize("row", models.known_models(), ids=lambda f: f.name)
def test_every_row_names_a_class_of_diffusers(row):
    if absent(row.transformer):
        pytest.skip(absent(row.transformer))
    transformer = getattr(diffusers, row.transformer)
    assert issubclass(transformer, nn.Module) and row.checkpoints
    assert dataclasses.is_dataclass(row) and type(row).__dataclass_params__.frozen


@pytest.mark.parametrize("name", TINY)
def test_every_variant_matches_its_layers_and_counts_its_frames(name):
    tiny = TINY[name]
    model = tiny.model()
    layers = models.attention_modules(model, row_of(model).self_attention)
    assert len(layers) == tiny.layers
    for frames in tiny.frames:
        with enhance(model, start=0.0, end=1.0) as handle:
            run(model, tiny.inputs(frames=frames))
        assert list(handle.summary().num_frames) == [frames]


def test_a_subclass_is_found_by_its_base_class():
    class Mine(diffusers.WanTransformer3DModel):
        pass

    assert row_of(object.__new__(Mine)).transformer == "WanTransformer3DModel"


def test_an_unknown_class_is_refused_with_what_is_supported_and_what_is_near():
    class WanTransformer4DModel(nn.Module):
        pass

    with pytest.raises(UnsupportedModelError, match=r"nearest name is WanTransformer3DModel.*Supported: .*LTXVideo"):
        enhance(WanTransformer4DModel())
    with pytest.raises(UnsupportedModelError, match="neither a pipeline with components nor a torch module"):
        enhance("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")


def test_a_pipeline_without_a_video_transformer_is_refused_with_what_was_found():
    class Pipeline:
        components = {"text_encoder": nn.Linear(2, 2), "tokenizer": None}  # noqa: RUF012

    with pytest.raises(UnsupportedModelError, match=r"text_encoder \(Linear\).*Supported: .*WanTransformer3DModel"):
        enhance(Pipeline())


def test_a_pipeline_of_which_one_denoiser_is_unknown_is_refused_whole():
    class Pipeline:
        components = {"transformer": TINY["wan"].model(), "transformer_2": nn.Linear(2, 2)}  # noqa: RUF012

    with pytest.raises(UnsupportedModelError, match="Linear is not a supported"):
        enhance(Pipeline())
    assert not Pipeline.components["transformer"]._forward_pre_hooks


def test_a_transformer_used_twice_is_enhanced_once():
    class Pipeline:
        components = {"transformer": TINY["wan"].model()}  # noqa: RUF012

    Pipeline.components["transformer_2"] = Pipeline.components["transformer"]
    assert list(denoisers(Pipeline())) == ["transformer"]


def test_no_matching_layer_is_refused_with_what_was_searched_and_found():
    model = TINY["wan"].model()
    model.layers = model.blocks
    del model.blocks
    with pytest.raises(NoLayersError, match=r"attn1\$ \. .*layers.0.attn1, layers.0.attn2"):
        enhance(model)


NAMES = [f"blocks.{i}.attn1" for i in range(12)]


@pytest.mark.parametrize("layers, kept", [
    (None, range(12)), ([0, -1, 5], [0, 5, 11]), (slice(2, 8, 3), [2, 5]), (r"\.1\d?\.", [1, 10, 11]),
])  # fmt: skip
def test_layers_are_chosen_by_index_slice_or_expression(layers, kept):
    assert chosen(NAMES, layers, "transformer") == [NAMES[i] for i in kept]


@pytest.mark.parametrize("layers, message", [
    ([12], "has 12 layers, 0 to 11"), (slice(12, 14), "selects none of the 12"), ("attn2", r"blocks\.11\.attn1"),
])  # fmt: skip
def test_layers_that_select_nothing_are_an_error(layers, message):
    with pytest.raises(NoLayersError, match=message):
        chosen(NAMES, layers, "transformer")


def test_frame_count_reads_tensors_numbers_and_patches():
    video = torch.zeros(1, 2, 9, 4, 4)
    assert FrameCount("x", dim=2)({}, {"x": video}) == 9
    assert FrameCount("x", dim=2, patch="p")({"p": (3, 2, 2)}, {"x": video}) == 3
    assert FrameCount("x", dim=2, patch="p")({"p": None}, {"x": video}) == 9
    assert FrameCount("n", patch="p")({"p": 2}, {"n": 8}) == 4


@pytest.mark.parametrize("name, given", [("ltx", "num_frames"), ("ltx2", "num_frames, height and width nor")])
def test_a_call_without_the_frames_names_what_is_missing(name, given):
    model, inputs = TINY[name].model(), TINY[name].inputs()
    for argument in ("num_frames", "height", "width"):
        del inputs[argument]
    with enhance(model), pytest.raises(TokenLayoutError, match=f"give '{given}'|gave neither {given}"):
        run(model, inputs)


def test_a_row_of_ones_own(monkeypatch):
    class MyVideoModel(diffusers.WanTransformer3DModel):
        pass

    monkeypatch.setattr(models.registry, "_MODELS", dict(models.registry._MODELS))
    row = dataclasses.replace(models.find(TINY["wan"].model()), name="mine", transformer="MyVideoModel")
    row = with_attention(row, names=r"\.1\.attn1$")
    models.register(row)
    torch.manual_seed(0)
    config = {k: v for k, v in TINY["wan"].model().config.items() if not k.startswith("_")}
    assert repr(enhance(MyVideoModel(**config))) == "<Enhancement of 1 layers of MyVideoModel>"
    with pytest.raises(SettingsError, match="MyVideoModel is registered already"):
        models.register(row)
    with pytest.raises(SettingsError, match="names="):
        models.register(dataclasses.replace(with_attention(row, names="("), transformer="Other"))
