"""The node's patch on small fakes of ComfyUI's extension points (fakes.py); test_real.py runs it on the real code."""

import math
from dataclasses import replace
from functools import partial, wraps
from types import SimpleNamespace

import pytest
import torch

from ..attention import COMFYUIS, Attention
from ..choice import STRENGTH, TEMPERATURE, Choice, blocks_of
from ..layouts import LAYOUTS, ModelCall, layout_of, patch_size
from ..patch import Patch
from .fakes import HunyuanVideo, Model, Patcher, WanModel, attention

MODELS = [WanModel, HunyuanVideo]
every_model = pytest.mark.parametrize("kind", MODELS)
NOISE = torch.randn(2, 4, 5, 6, 8, generator=torch.Generator().manual_seed(1))  # T = 5, S = 12
TEXT = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(2))


def enhanced(kind: type, choice: Choice | None = None, of: Patcher | None = None):
    base = of or Patcher(Model(kind()))
    patch = Patch(layout_of(base.model.diffusion_model), choice or Choice(), print)
    return patch.attach(base), patch


@every_model
@pytest.mark.parametrize("choice", [Choice(), Choice(TEMPERATURE, 30.0), Choice(STRENGTH, 2.0)], ids=str)
def test_it_acts_and_leaves_the_model_as_it_was(kind, choice):
    base = Patcher(Model(kind()))
    plain = base.sample(NOISE, TEXT)
    model, patch = enhanced(kind, choice, base)
    assert not torch.equal(model.sample(NOISE, TEXT), plain)
    assert [sorted(step.layers) for step in patch.record.steps] == [["block 0", "block 1"]] * 2
    assert "acted in 2 layers" in patch.record.sentence()
    assert torch.equal(base.sample(NOISE, TEXT), plain) and base.wrappers == {}
    assert base.model_options == {"transformer_options": {}}


@every_model
@pytest.mark.parametrize("choice", [Choice(), Choice(TEMPERATURE, 30.0)], ids=str)
def test_each_sample_has_a_gain_of_its_own(kind, choice):
    model, _ = enhanced(kind, choice)
    together = model.sample(NOISE, TEXT)
    apart = torch.cat([model.sample(NOISE[i : i + 1], TEXT[i : i + 1]) for i in range(2)])
    assert (together - apart).norm() <= 1e-5 * together.norm()


@every_model
def test_static_frames_have_the_largest_mass(kind):
    """Frames that are all alike attend to each other evenly: the mass is 1 - 1/T to the last digit."""
    model, patch = enhanced(kind)
    model.sample(NOISE[:, :, :1].expand(-1, -1, 5, -1, -1).contiguous(), TEXT, sigmas=(1.0,))
    for mass, gain in patch.record.steps[0].layers.values():
        assert torch.allclose(mass, torch.tensor(0.8), atol=1e-6)
        assert torch.allclose(gain, torch.tensor(2 / 1.8), atol=1e-6)


@every_model
def test_observing_changes_nothing(kind):
    base = Patcher(Model(kind()))
    model, patch = enhanced(kind, Choice(observe_only=True), base)
    assert torch.equal(model.sample(NOISE, TEXT), base.sample(NOISE, TEXT))
    assert "observed 2 layers" in patch.record.sentence() and not patch.record.summary().no_effect


def test_two_settings_of_one_model_and_two_nodes_in_a_row():
    base = Patcher(Model(WanModel()))
    two, four = enhanced(WanModel, Choice(value=2.0), base)[0], enhanced(WanModel, Choice(value=4.0), base)[0]
    a, b = two.sample(NOISE, TEXT), four.sample(NOISE, TEXT)
    assert not torch.equal(a, b) and torch.equal(two.sample(NOISE, TEXT), a)
    both, patch = enhanced(WanModel, Choice(value=2.0), two)
    assert not torch.equal(both.sample(NOISE, TEXT), a) and len(patch.record.steps[0].layers) == 2


@every_model
def test_an_override_that_is_there_computes_every_attention(kind):
    calls = []

    def others_override(function, *args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    base = Patcher(Model(kind()))
    alone = enhanced(kind, of=base)[0].sample(NOISE, TEXT, sigmas=(1.0,))
    base.model_options["transformer_options"]["optimized_attention_override"] = others_override
    assert torch.equal(enhanced(kind, of=base)[0].sample(NOISE, TEXT, sigmas=(1.0,)), alone)
    assert len(calls) == (2 + 2 + 2 if kind is WanModel else 1 + 2 + 2)  # self, cross or refiner, own frames


def test_only_chosen_blocks_in_the_window():
    model, patch = enhanced(WanModel, Choice(start=0.2, end=0.6, blocks=blocks_of("1")))
    model.sample(NOISE, TEXT, sigmas=(1.0, 0.75, 0.5, 0.25))
    assert [list(step.layers) for step in patch.record.steps] == [[], ["block 1"], ["block 1"], []]
    progress = patch.record.summary().progress.tolist()
    assert progress == pytest.approx([0.0, 0.25, 0.5, 0.75], abs=1e-5)


def test_as_many_text_tokens_as_video_tokens():
    """Cross-attention to 60 tokens has the shape of the self-attention of 60; it is left alone."""
    model, patch = enhanced(WanModel)
    model.sample(NOISE, torch.randn(2, 60, 16), sigmas=(1.0,))
    assert len(patch.record.steps[0].layers) == 2
    frames = {tuple(mass.shape) for mass, _ in patch.record.steps[0].layers.values()}
    assert frames == {(2,)}


# ------------------------------------------------------------------------------------------------ nothing in silence
def test_what_was_not_done_is_reported():
    report: list[str] = []
    network = WanModel()
    network.patch_size = (1, 2, 1)  # not what the network does: nothing can fit
    base = Patcher(Model(network))
    model = Patch(layout_of(network), Choice(), report.append).attach(base)
    assert torch.equal(model.sample(NOISE, TEXT), base.sample(NOISE, TEXT))
    assert report[0].startswith("Warning") and "no self-attention over 5 frames of 24 tokens was found" in report[0]


def test_no_block_of_that_number():
    model, patch = enhanced(WanModel, Choice(blocks=blocks_of("7-9")))
    model.sample(NOISE, TEXT)
    assert "blocks 0 to 1, and none of those was chosen" in patch.record.sentence()


def test_a_single_frame_and_a_window_without_a_call():
    model, patch = enhanced(WanModel)
    model.sample(NOISE[:, :, :1], TEXT)
    assert "one frame only" in patch.record.sentence()
    model, patch = enhanced(WanModel, Choice(start=0.9))
    model.sample(NOISE, TEXT)
    assert "outside of the window" in patch.record.sentence()


def test_a_run_that_fails_reports_nothing_of_its_own():
    said = []
    base = Patcher(Model(WanModel()))
    model = Patch(layout_of(base.model.diffusion_model), Choice(), said.append).attach(base)
    with pytest.raises(RuntimeError, match="unflatten"):
        model.sample(NOISE, TEXT[:, :, :5])
    assert said == []
    model.sample(NOISE, TEXT)
    assert len(said) == 1 and "acted in 2 layers" in said[0]


def test_a_cache_that_skips_calls_is_no_failure():
    model, patch = enhanced(WanModel)
    wrappers = model.wrappers["apply_model"]

    def skip_second(executor, x, t, *args, **kwargs):
        return torch.zeros_like(x) if float(t[0]) < 0.9 else executor(x, t, *args, **kwargs)

    wrappers["cache"] = [skip_second]
    model.sample(NOISE, TEXT)
    assert [step.skipped for step in patch.record.steps] == [False, True]
    assert patch.record.sentence().startswith("odds 2 acted in 2 layers, 1 of 2 calls")
    wrappers["cache"] = [lambda executor, x, *args, **kwargs: torch.zeros_like(x)]
    model.sample(NOISE, TEXT)
    assert "accepts an override" in patch.record.sentence()


def test_calls_in_which_it_could_not_act_are_counted_beside_the_others():
    model, patch = enhanced(WanModel)
    model.sample(NOISE, TEXT)
    patch.record.steps[1].problem, patch.record.steps[1].layers = "a pose is applied", {}
    sentence = patch.record.sentence()
    assert sentence.startswith(
        "Warning: nothing was done to Wan 2.1 and 2.2 in 1 of 2 calls, because a pose is applied. "
    )
    assert "In the others odds 2 acted in 2 layers, 1 of 2 calls" in sentence
    patch.record.steps[0].problem, patch.record.steps[0].layers = "a pose is applied", {}
    assert (
        patch.record.sentence()
        == "Warning: nothing was done to Wan 2.1 and 2.2 in any call, because a pose is applied."
    )


def test_a_norm_behind_the_layers_is_reported():
    assert next(row for row in LAYOUTS if row.name == "Mochi").norm_behind
    base = Patcher(Model(WanModel()))
    layout = next(row for row in LAYOUTS if row.name == "Mochi")
    for choice, undone in ((Choice(TEMPERATURE, 4.0), True), (Choice(), False)):
        assert Patch(layout, choice, print).record.undone is undone
    assert base.wrappers == {}


# ---------------------------------------------------------------------------------------------------------- settings
def test_settings_are_checked_before_the_work():
    assert blocks_of(" 10-12, 3 ") == {3, 10, 11, 12} and blocks_of("") is None
    for text in ("a", "3-1", "1;2", "-1", "99999"):
        with pytest.raises(ValueError, match="counted from 0"):
            blocks_of(text)
    with pytest.raises(ValueError, match="must be smaller"):
        Choice(start=0.5, end=0.5)
    with pytest.raises(ValueError):
        Choice(TEMPERATURE, -3.0)


# ----------------------------------------------------------------------------------------------------------- layouts
def test_rows_are_found_by_class_or_base_class():
    class Derived(WanModel):
        pass

    assert layout_of(Derived()).name == "Wan 2.1 and 2.2" and layout_of(torch.nn.Linear(1, 1)) is None
    assert len({row.model for row in LAYOUTS}) == len(LAYOUTS)


@pytest.mark.parametrize(
    "attributes, patch",
    [
        ({"patch_size": [1, 2, 2]}, (1, 2, 2)),
        ({"patch_size": 2}, (1, 2, 2)),
        ({"patch_size": 2, "patch_size_t": 2}, (2, 2, 2)),
        ({"patch_size": 2, "patch_size_t": None}, (1, 2, 2)),
        ({"patch_spatial": 2, "patch_temporal": 1}, (1, 2, 2)),
        ({"patchifier": SimpleNamespace(patch_size=(1, 1, 1))}, (1, 1, 1)),
    ],
)
def test_patch_sizes(attributes, patch):
    assert patch_size(SimpleNamespace(**attributes)) == patch


def _call(arguments=None, options=None, frames=6):
    return ModelCall(SimpleNamespace(patch_size=(1, 2, 2)), (1, 16, frames, 7, 8), arguments or {}, options or {})


def _row(name):
    return next(row for row in LAYOUTS if row.model == name)


def test_reference_images_in_front_of_vace_are_no_video():
    context = torch.rand(1, 1, 96, 6, 7, 8) + 0.1
    context[:, :, 16:, :2] = 0.0
    video = _row("VaceWanModel").video(_call({"vace_context": context}))
    assert (video.num_frames, video.sites, video.rows(96)) == (4, 16, slice(32, 96))  # 7 rows are padded to 8
    assert _row("VaceWanModel").video(_call()).num_frames == 6


@pytest.mark.parametrize(
    "window, frames",
    [
        (None, 5),
        (SimpleNamespace(index_list=[0, 1, 2, 3, 4, 5]), 5),
        (SimpleNamespace(index_list=[4, 5, 6, 7, 8, 9], causal_anchor_index=-1), 6),
        (SimpleNamespace(index_list=[1, 2, 3, 4, 5], causal_anchor_index=0), 5),
        (SimpleNamespace(index_list=[4, 5, 6, 7, 8], causal_anchor_index=3), 6),
    ],
)
def test_the_reference_frame_of_animate_in_context_windows(window, frames):
    options = {} if window is None else {"context_window": window}
    assert _row("AnimateWanModel").video(_call(options=options)).num_frames == frames


def test_guide_frames_of_ltx_are_no_video():
    video = _row("LTXVModel").video(_call({"keyframe_idxs": torch.zeros(1, 3, 32, 2)}))
    assert (video.num_frames, video.rows(96)) == (4, slice(0, 64))


def test_a_model_that_is_made_a_few_frames_at_a_time_is_left_alone_and_reported():
    class CausalWanModel(WanModel):
        pass

    base = Patcher(Model(CausalWanModel()))
    model, patch = enhanced(CausalWanModel, of=base)
    model.model_options["transformer_options"]["ar_state"] = {"start_frame": 0}
    assert torch.equal(model.sample(NOISE, TEXT), base.sample(NOISE, TEXT))
    sentence = patch.record.sentence()
    assert sentence.startswith("Warning") and "a few frames at a time" in sentence, sentence
    assert enhanced(CausalWanModel)[1].layout.name == "Wan causal"


# ----------------------------------------------------------------------------------- ComfyUI's attention arguments
@pytest.mark.parametrize("by_heads", [False, True])
@pytest.mark.parametrize("out_by_heads", [False, True])
@pytest.mark.parametrize("mask", [None, torch.randn(9, 9), torch.randn(2, 1, 9), torch.randn(2, 3, 9, 9)])
def test_any_call_comes_back_as_it_went_in(by_heads, out_by_heads, mask):
    q, k, v = torch.randn(3, 2, 3, 9, 4)
    given = (q, k, v) if by_heads else tuple(x.transpose(1, 2).flatten(2) for x in (q, k, v))
    options = {"skip_reshape": by_heads, "skip_output_reshape": out_by_heads}
    call = Attention(attention, *given, 3, mask, options)
    assert all(torch.equal(a, b) for a, b in zip(call.tensors(), (q, k, v), strict=True))
    assert (call.length, call.keys, call.width) == (9, 9, 12)
    whole = call.kernel(*call.tensors(), call.mask_by_heads())
    assert torch.allclose(call.as_returned(whole), call(), atol=1e-6)
    assert torch.allclose(call.output_by_heads(call()), whole, atol=1e-6)


def test_fewer_heads_of_keys():
    q, k, v = torch.randn(2, 4, 6, 8), *torch.randn(2, 2, 2, 6, 8)
    call = Attention(attention, q, k, v, 4, None, {"skip_reshape": True, "enable_gqa": True})
    assert torch.allclose(call.kernel(*call.tensors(), None), call.output_by_heads(call()), atol=1e-6)
    assert not math.isnan(float(call().sum()))


@every_model
@pytest.mark.parametrize("choice", [Choice(), Choice(TEMPERATURE, 30.0)], ids=str)
def test_only_the_samples_with_the_prompt_are_changed(kind, choice):
    """Two samples in a batch, as ComfyUI runs prompt and negative prompt: 0 and 1 in cond_or_uncond."""
    base = Patcher(Model(kind()))
    base.model_options["transformer_options"]["cond_or_uncond"] = [1, 0]
    plain, both = base.sample(NOISE, TEXT, (1.0,)), enhanced(kind, choice, base)[0].sample(NOISE, TEXT, (1.0,))
    model, patch = enhanced(kind, replace(choice, conditional=True), base)
    alone = model.sample(NOISE, TEXT, (1.0,))
    assert torch.allclose(alone[0], plain[0], atol=1e-6) and torch.allclose(alone[1], both[1], atol=1e-6)
    assert not torch.allclose(both[0], plain[0], atol=1e-6)
    assert all(gain.shape == (1,) for _, gain in patch.record.steps[0].layers.values())
    assert "with the prompt alone" in patch.record.sentence()


def test_a_call_of_the_negative_prompt_alone_is_left_as_it_is():
    base = Patcher(Model(WanModel()))
    base.model_options["transformer_options"]["cond_or_uncond"] = [1]
    model, patch = enhanced(WanModel, Choice(conditional=True), base)
    assert torch.equal(model.sample(NOISE, TEXT), base.sample(NOISE, TEXT)) and patch.record.steps[0].skipped


def test_unknown_samples_are_all_changed_and_this_is_in_the_sentence():
    model, patch = enhanced(WanModel, Choice(conditional=True))
    assert torch.equal(model.sample(NOISE, TEXT), enhanced(WanModel)[0].sample(NOISE, TEXT))
    assert "which samples are the prompt's is not known" in patch.record.sentence()


def as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes' function as if it were written where ComfyUI's own is."""
    monkeypatch.setattr(attention, "__code__", attention.__code__.replace(co_name="attention_pytorch"))
    monkeypatch.setitem(attention.__globals__, "__name__", COMFYUIS)


def test_a_function_is_known_by_its_own_code_and_not_by_a_name_that_it_took_over(monkeypatch):
    as_torchs(monkeypatch)

    @wraps(attention)
    def in_its_place(*args, **kwargs):
        return attention(*args, **kwargs)

    assert in_its_place.__name__ == attention.__name__
    calls = {f: Attention(f, NOISE, NOISE, NOISE, 2, None, {}) for f in (attention, in_its_place)}
    assert [call.is_torchs for call in calls.values()] == [True, False]
    assert [call.made_by for call in calls.values()] == ["ComfyUI's attention_pytorch", f"in_its_place of {__name__}"]
    behind = replace(calls[attention], function=partial(in_its_place, attention))
    assert not behind.is_torchs and behind.made_by == "the override in_its_place of another node"
    assert not replace(behind, function=Model(None)).is_torchs


@every_model
def test_the_sentence_names_the_function_whose_shares_are_estimated(kind):
    model, patch = enhanced(kind)
    model.sample(NOISE, TEXT, (1.0,))
    where = attention.__module__
    assert f"(estimated shares: attention of {where} does not give the exact ones)" in patch.record.sentence()


@every_model
def test_exact_shares_where_the_function_is_torchs(kind, monkeypatch):
    """By brute force: odds of 2 are the softmax with log 2 added to the logits of all other frames."""
    _, patch = (model := enhanced(kind, Choice(value=2.0)))
    model[0].sample(NOISE, TEXT, (1.0,))
    assert "estimated shares" in patch.record.sentence()
    as_torchs(monkeypatch)
    model, patch = enhanced(kind, Choice(value=2.0))
    model.sample(NOISE, TEXT, (1.0,))
    assert "exact shares" in patch.record.sentence()

    from ..gains import enhanced as one_attention

    q, k, v = (torch.randn(2, 5 * 12, 16, generator=torch.Generator().manual_seed(n)) for n in range(3))
    call = Attention(attention, q, k, v, 2, None, {})
    done = one_attention(call, slice(0, 60), 5, Choice(value=2.0))
    query, key, value = (x.double().unflatten(2, (2, 8)).transpose(1, 2) for x in (q, k, v))
    frame = torch.arange(60) // 12
    bias = math.log(2.0) * (frame[:, None] != frame)
    expected = ((query @ key.mT * 8**-0.5 + bias).softmax(-1) @ value).transpose(1, 2).flatten(2)
    assert (done.output.double() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("torchs", [True, False])
@pytest.mark.parametrize("choice", [Choice(), Choice(TEMPERATURE, 30.0)], ids=str)
@pytest.mark.parametrize("mask", [None, torch.randn(9, 9), torch.randn(3, 9, 9), torch.randn(1, 2, 9, 9)])
def test_some_samples_of_a_call_are_changed_and_measured_as_if_alone(monkeypatch, torchs, choice, mask):
    """The others come out as the function returns them; and the work is theirs that are changed."""
    from ..gains import enhanced as one_attention

    if torchs:
        as_torchs(monkeypatch)
    q, k, v = (torch.randn(3, 9, 8, generator=torch.Generator().manual_seed(n)) for n in range(3))
    call = Attention(attention, q, k, v, 2, mask, {})
    done = one_attention(call, slice(1, 9), 4, choice, (0, 2))
    plain = call()
    assert torch.allclose(done.output[1], plain[1], atol=1e-6) and done.mass.shape == done.gain.shape == (2,)
    for i, sample in enumerate((0, 2)):
        alone = one_attention(call.of((sample,)), slice(1, 9), 4, choice)
        assert torch.allclose(done.output[sample], alone.output[0], atol=1e-6)
        assert torch.allclose(done.gain[i], alone.gain[0]) and not torch.equal(done.output[sample], plain[sample])
