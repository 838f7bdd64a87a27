"""enhance() on the real classes: it acts where it should, equals the paper's formula, and leaves nothing behind."""

import copy
import dataclasses
import gc
import pickle
import threading
import warnings

import diffusers
import pytest
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0
from diffusers.models.transformers import transformer_hunyuan_video, transformer_wan
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TINY, T, noise, run, take, with_attention

from enhance_a_video import Settings, Strength, enhance, models
from enhance_a_video.attention.observer import ENTRY
from enhance_a_video.enhancement import enhancement_of
from enhance_a_video.errors import (
    AlreadyEnhancedError,
    EnhancementLostWarning,
    NoLayersError,
    SettingsError,
    TokenLayoutError,
)

ALWAYS = {"start": 0.0, "end": 1.0}


@pytest.fixture(params=TINY)
def tiny(request):
    return TINY[request.param]


@pytest.fixture
def wan():
    return TINY["wan"].model()


# ------------------------------------------------------------------------------------------------ it acts
def test_it_acts_and_is_gone_after_remove(tiny):
    model, inputs = tiny.model(), tiny.inputs()
    plain = run(model, inputs)
    handle = enhance(model, strength=2.0, **ALWAYS)
    enhanced = run(model, inputs)
    handle.remove()
    assert (enhanced - plain).norm() > 0.01 * plain.norm()
    assert torch.equal(run(model, inputs), plain)
    assert handle.summary().gain.shape == (1, tiny.layers) and (handle.summary().gain > 1).all()


def test_observing_changes_no_bit(tiny):
    model, inputs = tiny.model(), tiny.inputs()
    plain = run(model, inputs)
    with enhance(model, strength=2.0, observe_only=True, attention_maps=True, **ALWAYS) as handle:
        assert torch.equal(run(model, inputs), plain)
    assert (handle.summary().gain > 1).all()


def test_one_frame_is_left_alone(tiny):
    if 1 not in tiny.frames:
        pytest.skip(f"{tiny.name} cannot do one frame")
    model, inputs = tiny.model(), tiny.inputs(frames=1)
    plain = run(model, inputs)
    with enhance(model, strength=2.0, **ALWAYS) as handle:
        assert torch.equal(run(model, inputs), plain)
    assert list(handle.summary().num_frames) == [1] and "-" in str(handle.summary())


def test_outside_the_window_no_bit_changes(tiny):
    model = tiny.model()
    if models.row_of(model).noise is None:
        pytest.skip("a bare transformer of this class does not say where in the denoising it is")
    inside, outside = tiny.inputs(timestep=995.0), tiny.inputs(timestep=20.0)
    plain = [run(model, x) for x in (inside, outside)]
    with enhance(model, strength=2.0, start=0.0, end=0.5) as handle:
        enhanced = [run(model, x) for x in (inside, outside)]
    assert not torch.equal(enhanced[0], plain[0]) and torch.equal(enhanced[1], plain[1])
    summary = handle.summary()
    assert list(summary.active) == [True, False] and summary.progress_source == "timestep"
    assert (summary.gain[1] == 1).all() and (summary.mass[1] > 0).all()


def test_the_end_of_the_window_reaches_the_last_step(wan):
    with enhance(wan, start=0.5, end=1.0) as handle:
        run(wan, TINY["wan"].inputs(timestep=0.0))
    assert handle.summary().active.all()


def test_a_batch_of_two_is_two_batches_of_one(tiny):
    if not tiny.batches:
        pytest.skip(f"{tiny.name} has no batch dimension")
    model, inputs = tiny.model(), tiny.inputs(batch=2)
    with enhance(model, strength=2.0, **ALWAYS):
        both = run(model, inputs)
        alone = torch.cat([run(model, take(inputs, slice(b, b + 1))) for b in range(2)])
    assert torch.allclose(both, alone, rtol=1e-5, atol=1e-5)


def test_the_batch_mean_is_not(wan):
    inputs = TINY["wan"].inputs(batch=2)
    with enhance(wan, strength=2.0, per_sample=False, **ALWAYS):
        both = run(wan, inputs)
        alone = torch.cat([run(wan, take(inputs, slice(b, b + 1))) for b in range(2)])
    assert not torch.allclose(both, alone, rtol=1e-4, atol=1e-4)


def test_frames_are_counted_at_each_call(wan):
    with enhance(wan, strength=2.0, **ALWAYS) as handle:
        for frames in (4, 1, 7, 4):
            run(wan, TINY["wan"].inputs(frames=frames))
    assert list(handle.summary().num_frames) == [4, 1, 7, 4]


def test_it_works_under_inference_mode_and_with_gradients(wan):
    with enhance(wan, strength=2.0, **ALWAYS):
        with torch.inference_mode():
            first = run(wan, TINY["wan"].inputs())
        assert torch.equal(run(wan, TINY["wan"].inputs()), first)
        inputs = TINY["wan"].inputs()
        inputs["hidden_states"].requires_grad_(True)
        wan(**inputs, return_dict=False)[0].sum().backward()
    assert inputs["hidden_states"].grad.abs().sum() > 0


def test_half_precision(wan):
    inputs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in TINY["wan"].inputs().items()}
    with enhance(wan.bfloat16(), strength=2.0, **ALWAYS) as handle:
        assert run(wan, inputs).dtype == torch.bfloat16
    assert (handle.summary().gain > 1).all()


# ------------------------------------------------------------------------------- the paper, written again
def paper(model, monkeypatch, tau):
    """Eq. 5-7 by plain forward hooks: q, k caught at the process-wide kernel, mask and off-diagonal sum in float64."""
    caught, frames = [], {}

    def catching(kernel, transposed):
        def call(query, key, *args, **kwargs):
            caught[:] = [x.transpose(1, 2) if transposed else x for x in (query, key)]
            return kernel(query, key, *args, **kwargs)

        return call

    for module in (transformer_wan, transformer_hunyuan_video):
        monkeypatch.setattr(module, "dispatch_attention_fn", catching(module.dispatch_attention_fn, True))
    monkeypatch.setattr(F, "scaled_dot_product_attention", catching(F.scaled_dot_product_attention, False))

    def count(module, args, kwargs):
        frames["n"] = frames["of"](kwargs["hidden_states"])

    def scale(module, args, kwargs, output):
        n = frames["n"]
        video = output[0] if isinstance(output, tuple) else output
        length = video.shape[1]
        text_first = isinstance(model, diffusers.CogVideoXTransformer3DModel)
        rows = slice(-length, None) if text_first else slice(0, length)
        q, k = (x[:, :, rows].double().unflatten(2, (n, -1)).transpose(2, 3) for x in caught)  # (B, H, S, T, D)
        attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        off_diagonal = attention.masked_fill(torch.eye(n, dtype=torch.bool), 0.0)
        intensity = off_diagonal.sum((-1, -2)).mean() / (n * n - n)
        gain = (intensity * (n + tau)).clamp(min=1.0).float()
        return (video * gain, *output[1:]) if isinstance(output, tuple) else video * gain

    frames["of"] = lambda x: x.shape[1 if isinstance(model, diffusers.CogVideoXTransformer3DModel) else 2]
    model.register_forward_pre_hook(count, with_kwargs=True)
    for name, module in model.named_modules():
        if name.endswith((".attn1", ".attn")) and "refiner" not in name:
            module.register_forward_hook(scale, with_kwargs=True)


@pytest.mark.parametrize("name", ["wan", "wan_i2v", "cogvideox_2b", "cogvideox_5b", "hunyuan"])
@pytest.mark.parametrize("tau", [0.5, 4.0, 20.0])
def test_it_equals_the_papers_formula(name, tau, monkeypatch):
    tiny = TINY[name]
    inputs = tiny.inputs(batch=2, frames=5)
    model = tiny.model()
    with enhance(model, temperature=tau, sites=None, per_sample=False, **ALWAYS):
        ours = run(model, inputs)
    paper(model, monkeypatch, tau)
    theirs = run(model, inputs)
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm() and (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@settings(max_examples=20, deadline=None)
@given(g=st.floats(0, 6), frames=st.integers(2, 6), batch=st.integers(1, 3), sites=st.none() | st.integers(1, 30))
def test_the_gain_keeps_its_bounds(g, frames, batch, sites):
    model = TINY["wan"].model()
    with enhance(model, strength=g, sites=sites, **ALWAYS) as handle:
        run(model, TINY["wan"].inputs(batch=batch, frames=frames))
    summary = handle.summary()
    assert (summary.gain >= 1).all() and (summary.gain <= max(1, (1 + g) * (1 + 1e-6))).all()
    assert (summary.mass >= 0).all() and (summary.mass <= 1).all()


# ----------------------------------------------------------------------------------------------- undo
def anatomy(model):
    """Everything of every module that enhance() could touch, processors included."""
    found = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            found[f"{name}|{key}"] = dict(value) if isinstance(value, dict) else id(value)
        processor = getattr(module, "processor", None)
        if processor is not None:
            found[f"{name}|processor"] = (id(processor), type(processor), dict(vars(processor)))
    return found


def test_undo_leaves_nothing(tiny):
    model = tiny.model()
    run(model, tiny.inputs())  # some classes keep their rotary tables
    before, state, config = anatomy(model), list(model.state_dict()), dict(model.config)
    home = dict(vars(transformer_wan)), F.scaled_dot_product_attention
    handle = enhance(model, strength=2.0, attention_maps=True, **ALWAYS)
    assert anatomy(model) != before and list(model.state_dict()) == state and dict(model.config) == config
    run(model, tiny.inputs())
    handle.remove()
    assert anatomy(model) == before
    handle.remove()
    assert anatomy(model) == before and list(model.state_dict()) == state
    assert (dict(vars(transformer_wan)), F.scaled_dot_product_attention) == home


def test_it_can_be_put_on_again(wan):
    before = anatomy(wan)
    for _ in range(3):
        with enhance(wan, strength=1.0, **ALWAYS):
            run(wan, TINY["wan"].inputs())
    assert anatomy(wan) == before


def test_other_hooks_and_processor_settings_stay(wan):
    calls = []
    mine = wan.register_forward_pre_hook(lambda *args: calls.append(1))
    wan.blocks[0].attn1.processor._attention_backend = None
    before = anatomy(wan)
    with enhance(wan):
        wan.set_attention_backend("native")
        run(wan, TINY["wan"].inputs())
        wan.reset_attention_backend()
    assert anatomy(wan).keys() == before.keys() and calls == [1] and mine.id in wan._forward_pre_hooks


def test_an_exception_in_the_scope_undoes(wan):
    before = anatomy(wan)
    with pytest.raises(RuntimeError, match="boom"), enhance(wan):
        raise RuntimeError("boom")
    assert anatomy(wan) == before


def test_an_exception_in_the_forward_leaves_it_usable(wan):
    inputs = TINY["wan"].inputs()
    with enhance(wan, strength=2.0, **ALWAYS):
        good = run(wan, inputs)
        with pytest.raises(RuntimeError):
            run(wan, {**inputs, "encoder_hidden_states": noise(2, 7, 5)})
        assert torch.equal(run(wan, inputs), good)


def test_a_failed_enhance_changes_nothing(wan):
    class Opaque:
        def __call__(self, attn, hidden_states, *args):
            return hidden_states

    wan.blocks[1].attn1.processor = Opaque()
    before = anatomy(wan)
    with pytest.raises(TypeError, match="Opaque"):
        enhance(wan)
    assert anatomy(wan) == before


def test_a_deep_copy_is_plain_and_both_live_on(tiny):
    model, inputs = tiny.model(), tiny.inputs()
    plain = run(model, inputs)
    handle = enhance(model, strength=2.0, **ALWAYS)
    enhanced = run(model, inputs)
    twin = copy.deepcopy(model)
    assert torch.equal(run(twin, inputs), plain) and enhancement_of(twin) is None
    assert not twin._forward_pre_hooks and not twin._forward_pre_hooks_with_kwargs
    assert torch.equal(run(model, inputs), enhanced)
    own = enhance(twin, strength=2.0, **ALWAYS)
    handle.remove()
    assert torch.equal(run(model, inputs), plain) and torch.equal(run(twin, inputs), enhanced)
    own.remove()
    assert torch.equal(run(twin, inputs), plain) and len(handle.summary().gain) == 2


def test_a_deep_copy_can_be_enhanced_at_once(wan):
    enhance(wan)
    twin = copy.deepcopy(wan)
    assert type(twin) is WanTransformer3DModel and ENTRY not in vars(twin)
    with enhance(twin):
        assert type(twin) is not WanTransformer3DModel and ENTRY in vars(twin)
    assert type(twin) is WanTransformer3DModel and ENTRY not in vars(twin)


def test_pickling_and_saving_leak_nothing(wan, tmp_path):
    plain = run(wan, TINY["wan"].inputs())
    enhance(wan, strength=2.0, **ALWAYS)
    assert torch.equal(run(pickle.loads(pickle.dumps(wan)), TINY["wan"].inputs()), plain)
    wan.save_pretrained(tmp_path)
    again = diffusers.WanTransformer3DModel.from_pretrained(tmp_path)
    assert torch.equal(run(again, TINY["wan"].inputs()), plain)
    assert not any(b"enhance" in p.read_bytes() for p in tmp_path.iterdir())


# ----------------------------------------------------------------------------------------- replacement
def test_fused_projections_are_followed():
    tiny = TINY["cogvideox_5b"]
    model, inputs = tiny.model(), tiny.inputs()
    before = anatomy(model)
    model.fuse_qkv_projections()
    plain = run(model, inputs)
    model.unfuse_qkv_projections()
    handle = enhance(model, strength=2.0, **ALWAYS)
    expected = run(model, inputs)
    model.fuse_qkv_projections()
    with pytest.warns(
        EnhancementLostWarning, match="2 attention processors or layers were replaced.*2 of them were enhanced"
    ):
        fused = run(model, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(run(model, inputs), fused)
    assert torch.allclose(fused, expected, rtol=1e-4, atol=1e-5)
    handle.remove()
    processors = {id(block.attn1.processor) for block in model.transformer_blocks}
    assert len(processors) == 1 and torch.equal(run(model, inputs), plain)
    model.unfuse_qkv_projections()
    assert {k: v for k, v in anatomy(model).items() if "|processor" in k} == {
        k: v for k, v in before.items() if "|processor" in k
    }


def test_unfusing_while_enhanced_is_followed_too():
    tiny = TINY["cogvideox_5b"]
    model, inputs = tiny.model(), tiny.inputs()
    with enhance(model, strength=2.0, **ALWAYS):
        expected = run(model, inputs)
        for change in (model.fuse_qkv_projections, model.unfuse_qkv_projections):
            change()
            with pytest.warns(EnhancementLostWarning):
                assert torch.allclose(run(model, inputs), expected, rtol=1e-4, atol=1e-5)
    assert all(type(b.attn1.processor) is CogVideoXAttnProcessor2_0 for b in model.transformer_blocks)


def test_a_set_processor_is_followed_and_restored(wan):
    inputs = TINY["wan"].inputs()
    handle = enhance(wan, strength=2.0, **ALWAYS)
    enhanced = run(wan, inputs)
    wan.set_attn_processor(transformer_wan.WanAttnProcessor())
    with pytest.warns(EnhancementLostWarning):
        assert torch.equal(run(wan, inputs), enhanced)
    handle.remove()
    processors = {id(m.processor): type(m.processor) for m in wan.modules() if hasattr(m, "processor")}
    assert list(processors.values()) == [transformer_wan.WanAttnProcessor]


def test_a_processor_that_cannot_be_followed_is_reported_once(wan):
    class Opaque:
        def __call__(self, attn, hidden_states, *args):
            return hidden_states

    with enhance(wan, strength=2.0, **ALWAYS) as handle:
        wan.blocks[1].attn1.processor = Opaque()
        with pytest.warns(EnhancementLostWarning, match=r"blocks\.1\.attn1 cannot be"):
            run(wan, TINY["wan"].inputs())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(wan, TINY["wan"].inputs())
    assert type(wan.blocks[1].attn1.processor) is Opaque
    assert str(handle.summary().gain[1, 1]) == "nan" and handle.summary().gain[1, 0] > 1


def test_fused_projections_of_wan_need_no_following(wan):
    wan.fuse_qkv_projections()
    plain = run(wan, TINY["wan"].inputs())
    with warnings.catch_warnings(), enhance(wan, strength=2.0, **ALWAYS) as handle:
        warnings.simplefilter("error")
        assert not torch.equal(run(wan, TINY["wan"].inputs()), plain)
    assert (handle.summary().gain > 1).all()


# ------------------------------------------------------------------------------------------ no cross-talk
def test_two_models_in_one_process_do_not_mix():
    models = [TINY["wan"].model(), TINY["wan"].model()]
    inputs = TINY["wan"].inputs()
    alone = []
    for model, g in zip(models, (1.0, 4.0), strict=True):
        with enhance(model, strength=g, **ALWAYS):
            alone.append(run(model, inputs))
    with enhance(models[0], strength=1.0, **ALWAYS), enhance(models[1], strength=4.0, **ALWAYS):
        together = [run(model, inputs) for model in models]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_threads_do_not_mix():
    """One model from several threads with different frame counts, beside another model with other settings."""
    model, other = TINY["wan"].model(), TINY["wan"].model()
    jobs = [(m, TINY["wan"].inputs(frames=f)) for m in (model, other) for f in (2, 3, 5, 6)]
    with enhance(model, strength=1.0, **ALWAYS), enhance(other, strength=4.0, **ALWAYS):
        alone = [run(m, x) for m, x in jobs]
        wrong = []

        def work(m, x, expected):
            wrong.extend(1 for _ in range(8) if not torch.allclose(run(m, x), expected, rtol=1e-5, atol=1e-6))

        threads = [threading.Thread(target=work, args=(*job, y)) for job, y in zip(jobs, alone, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


# ------------------------------------------------------------------------------------ arguments and errors
def test_an_enhanced_model_is_not_enhanced_twice(wan):
    handle = enhance(wan, layers=[0])
    with pytest.raises(AlreadyEnhancedError, match="enhancement_of"):
        enhance(wan, layers=[1])
    del handle
    gc.collect()
    enhancement_of(wan).remove()
    assert enhancement_of(wan) is None
    enhance(wan).remove()


@pytest.mark.parametrize("layers, touched", [([1], [1]), (slice(0, 1), [0]), (r"blocks\.1\.", [1]), ([-2], [0])])
def test_only_chosen_layers_act(wan, layers, touched):
    with enhance(wan, layers=layers, **ALWAYS) as handle:
        run(wan, TINY["wan"].inputs())
    assert handle.summary().layers == [f"blocks.{i}.attn1" for i in touched]


def test_layers_that_do_not_exist(wan):
    with pytest.raises(NoLayersError, match="has 2 layers, 0 to 1"):
        enhance(wan, layers=[2])


@pytest.mark.parametrize("arguments, message", [
    ({"strength": 1.0, "temperature": 4.0}, "strength and temperature were given together"),
    ({"policy": Strength(1.0), "temperature": 4.0}, "at most one"),
    ({"strength": float("nan")}, "a number from 0 to"), ({"strength": -0.1}, "a number from 0 to"),
    ({"temperature": float("inf")}, "a number from"), ({"strength": "0.5"}, "a number from"),
    ({"start": 0.5, "end": 0.5}, "window is empty"), ({"end": 1.5}, "a number from 0 to 1"),
    ({"sites": 0}, "a whole number from 1 on"), ({"policy": 3}, "give a function"),
    ({"layers": "("}, "not a regular expression"), ({"layers": [1.5]}, "indices"),
    ({"layers": []}, "indices"), ({"per_sample": 1}, "True or False"),
])  # fmt: skip
def test_bad_arguments_are_reported(wan, arguments, message):
    before = anatomy(wan)
    with pytest.raises(SettingsError, match=message):
        enhance(wan, **arguments)
    assert anatomy(wan) == before


def test_tokens_that_do_not_divide_into_frames(wan, monkeypatch):
    row = with_attention(models.row_of(wan), frames=lambda config, arguments: 5)
    monkeypatch.setitem(models.registry._MODELS, "WanTransformer3DModel", row)
    with enhance(wan), pytest.raises(TokenLayoutError, match="96 video tokens do not divide into 5 frames"):
        run(wan, TINY["wan"].inputs())


def test_a_window_needs_a_place(wan, monkeypatch):
    row = dataclasses.replace(models.row_of(wan), noise=None)
    monkeypatch.setitem(models.registry._MODELS, "WanTransformer3DModel", row)
    with enhance(wan, **ALWAYS) as handle:
        run(wan, TINY["wan"].inputs())
    assert handle.summary().progress_source == "unknown" and handle.summary().active.all()
    with enhance(wan, start=0.0, end=0.5), pytest.raises(SettingsError, match="act in every call"):
        run(wan, TINY["wan"].inputs())


@pytest.mark.parametrize("chosen", [
    Settings(), Settings(strength=0.3, layers=slice(1, None)), Settings(temperature=4.0, layers=[1, -1], sites=None),
    Settings(layers=r"\.3\.", start=0.1, end=1.0, per_sample=False, observe_only=True),
])  # fmt: skip
def test_settings_survive_json(chosen):
    import json

    assert Settings.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


def test_settings_refuse_what_they_do_not_know():
    with pytest.raises(SettingsError, match=r"unknown settings .'wieght'"):
        Settings.from_dict({"wieght": 4})
    with pytest.raises(SettingsError, match="A function cannot be read from JSON"):
        Settings.from_dict(Settings(policy=lambda mass, moment: mass).to_dict())


def test_a_policy_of_ones_own_gets_layer_and_moment(wan):
    seen = []

    def policy(mass, moment):
        seen.append((float(moment.layer), float(moment.progress), moment.num_frames))
        return 1 + moment.layer * mass

    with enhance(wan, policy=policy, layers=[1], **ALWAYS) as handle:
        run(wan, TINY["wan"].inputs(timestep=1000.0))
    # The first call is the one by which enhance() tries it.
    assert set(seen[1:]) == {(1.0, 0.0, T)} and handle.summary().gain[0, 0] > 1
