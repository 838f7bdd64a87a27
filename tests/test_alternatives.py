"""The alternatives to the method, against attention written out in float64 in the real classes."""

import importlib.util
import json
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from tiny_models import TINY, H, T, W, run, with_attention

from enhance_a_video.alternatives import (
    ALTERNATIVES,
    CfiTemperature,
    LogitTemperature,
    MapScaling,
    alternative_from_dict,
)
from enhance_a_video.attention import Tokens
from enhance_a_video.attention.query_key import Outputs
from enhance_a_video.enhancement import Enhancement
from enhance_a_video.errors import AlreadyEnhancedError, NoLayersError, SettingsError, UnsupportedModelError
from enhance_a_video.models import row_of
from enhance_a_video.operators import Logits
from enhance_a_video.settings import Settings

S = H * W
# name -> (the module whose kernel is written out again, the kernel's name in it, how many tokens precede the video)
HOMES = {
    "wan": ("transformers.transformer_wan", "dispatch_attention_fn", 0),
    "motif_video": ("transformers.transformer_motif_video", "dispatch_attention_fn", 0),
    "hunyuan": ("transformers.transformer_hunyuan_video", "dispatch_attention_fn", 0),
    "cogvideox_5b": ("attention_processor", "F", S),
    "latte": ("attention_processor", "F", 0),
}
MODELS = {  # those that the installed diffusers has
    name: (importlib.import_module(f"diffusers.models.{home}"), *rest)
    for name, (home, *rest) in HOMES.items()
    if importlib.util.find_spec(f"diffusers.models.{home}")
}
CHANGES = [LogitTemperature(tau=1.6), CfiTemperature(strength=2.0, sites=None), MapScaling(strength=2.0, sites=None)]


def gain_of(q, k, strength):
    """The method's gain of video queries and keys (B, H, T, S, D), written out: (B,)."""
    q, k = q.transpose(2, 3), k.transpose(2, 3)
    attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)  # (B, H, S, T, T)
    mass = attention.diagonal(dim1=-2, dim2=-1).mul(-1).add(1).mean((1, 2, 3))
    return ((1 + strength) * mass).clamp(min=1)


def written_out(change, q, k, v, mask, first, samples):
    """The whole map in float64: q, k, v (B, H, L, D), video from `first` on; temporal: (B*S, H, T, D)."""
    q, k, v = q.double(), k.double(), v.double()
    temporal = len(q) > samples
    video = slice(first, first + (T if temporal else T * S))
    frame = torch.arange(T).repeat_interleave(1 if temporal else S)
    if isinstance(change, LogitTemperature):
        amount = torch.tensor([change.tau]).double()
    elif temporal:
        q5, k5 = (x.unflatten(0, (samples, -1)).permute(0, 2, 3, 1, 4) for x in (q, k))
        amount = gain_of(q5, k5, change.strength).repeat_interleave(len(q) // samples)
    else:
        amount = gain_of(*(x[:, :, video].unflatten(2, (T, S)) for x in (q, k)), change.strength)
    assert (amount > 1.05).all()
    both = torch.zeros(q.shape[2], q.shape[2], dtype=torch.bool)
    both[video, video] = True
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if not isinstance(change, MapScaling):
        logits = torch.where(both, logits / amount.view(-1, 1, 1, 1), logits)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    attention = logits.softmax(-1)
    if isinstance(change, MapScaling):
        both[video, video] = frame[:, None] != frame[None]
        attention = torch.where(both, attention * amount.view(-1, 1, 1, 1), attention)
    return attention @ v


@contextmanager
def kernel_written_out(name, computed, monkeypatch):
    """The layers' kernel replaced in diffusers' module itself, for the calls that are the family's layers': by
    computed(q, k, v, mask, first token of the video)."""
    home, kernel, first = MODELS[name]
    original, calls = getattr(home, kernel), []
    layer_tokens = {"latte": T, "wan": T * S}.get(name)

    def is_layer(q, k):  # cross-attention has other keys, Latte's spatial blocks another length
        return q.shape == k.shape and (layer_tokens in (None, q.shape[2])) and q.shape[2] >= T

    def dispatched(query, key, value, attn_mask=None, **kwargs):
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        if not is_layer(q, k):
            return original(query, key, value, attn_mask=attn_mask, **kwargs)
        calls.append(q.shape)
        return computed(q, k, v, attn_mask, first).transpose(1, 2).to(query.dtype)

    class Functional:
        def __getattr__(self, attribute):
            return getattr(original, attribute)

        @staticmethod
        def scaled_dot_product_attention(query, key, value, attn_mask=None, **kwargs):
            if not is_layer(query, key):
                return original.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **kwargs)
            calls.append(query.shape)
            return computed(query, key, value, attn_mask, first).to(query.dtype)

    with monkeypatch.context() as patch:
        patch.setattr(home, kernel, dispatched if kernel != "F" else Functional())
        yield calls


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_attention_written_out_in_float64(name, change, monkeypatch):
    tiny = TINY[name]
    model, inputs = tiny.model(), tiny.inputs(batch=2)
    plain = run(model, inputs)
    with kernel_written_out(name, partial(written_out, change, samples=2), monkeypatch) as calls:
        expected = run(model, inputs)
    assert len(calls) == tiny.layers
    with Enhancement(model, change) as handle:
        found = run(model, inputs)
    assert torch.allclose(found, expected, atol=2e-5, rtol=1e-4)
    assert (expected - plain).abs().max() > 20 * (found - expected).abs().max()  # and not the plain attention
    summary = handle.summary()
    assert summary.settings == change.to_dict()
    if isinstance(change, LogitTemperature):
        assert summary.gain == pytest.approx(1.6)  # the number it works with
    assert torch.equal(run(model, inputs), plain)


@pytest.mark.parametrize("change", [LogitTemperature(tau=1.0), CfiTemperature(strength=0.0), MapScaling(strength=0.0)])
@pytest.mark.parametrize("name", MODELS)
def test_one_changes_nothing_but_rounding(name, change):
    """strength 0 is a gain of 1: s = max(1, mass), and the mass is at most 1."""
    model, inputs = TINY[name].model(), TINY[name].inputs()
    plain = run(model, inputs)
    with Enhancement(model, change):
        assert torch.allclose(run(model, inputs), plain, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_outside_its_window_it_is_plain_to_the_bit(change):
    model = TINY["cogvideox_5b"].model()
    early, late = (TINY["cogvideox_5b"].inputs(timestep=t) for t in (900.0, 100.0))
    plain = run(model, early), run(model, late)
    with Enhancement(model, alternative_from_dict({**change.to_dict(), "start": 0.5})) as handle:
        assert torch.equal(run(model, early), plain[0])
        assert not torch.allclose(run(model, late), plain[1], atol=1e-5)
    assert handle.summary().active.tolist() == [False, True]


def test_only_the_layers_that_are_chosen():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    outputs = []
    hook = model.get_submodule("blocks.0.attn1").register_forward_hook(lambda m, args, out: outputs.append(out))
    run(model, inputs)
    with Enhancement(model, LogitTemperature(tau=2.0, layers=[1])) as handle:
        changed = run(model, inputs)
    hook.remove()
    assert handle.summary().layers == ["blocks.1.attn1"]
    assert torch.equal(*outputs) and not torch.allclose(changed, run(model, inputs), atol=1e-5)
    with pytest.raises(NoLayersError):
        Enhancement(model, LogitTemperature(layers=[7]))


@pytest.mark.parametrize("name", MODELS)
def test_it_is_undone_fully(name):
    model = TINY[name].model()
    before = {n: (type(m), type(getattr(m, "processor", None))) for n, m in model.named_modules()}
    hooks = len(model._forward_pre_hooks)
    with Enhancement(model, MapScaling()):
        assert any(type(m.processor) is not before[n][1] for n, m in model.named_modules() if hasattr(m, "processor"))
        with pytest.raises(AlreadyEnhancedError):
            Enhancement(model, Settings())
    assert {n: (type(m), type(getattr(m, "processor", None))) for n, m in model.named_modules()} == before
    assert len(model._forward_pre_hooks) == hooks
    assert not any("_enhance_a_video" in vars(m) for m in model.modules())


def test_a_single_frame_is_left_alone():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs(frames=1)
    plain = run(model, inputs)
    with Enhancement(model, MapScaling(strength=3.0)):
        assert torch.equal(run(model, inputs), plain)


def test_reference_frames_are_not_video(monkeypatch):
    """They lie in front of the video in the same stream: neither their queries nor their keys are touched."""
    tiny = TINY["wan_vace_references"]
    model, inputs = tiny.model(), tiny.inputs()
    seen = []

    class Spied(Logits):
        def finish(self, call, begun, gains):
            seen.append((call.rows, call.query.shape[2]))
            return super().finish(call, begun, gains)

    monkeypatch.setattr(LogitTemperature, "operator", Spied())
    with Enhancement(model, LogitTemperature(tau=2.0)):
        run(model, inputs)
    rows, length = seen[0]
    assert length == (2 + T) * S and rows.tolist() == list(range(2 * S, (2 + T) * S))


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("changes", [
    {"query_key": Outputs("norm_q", "norm_k", "B L (H D)", heads=2)},
    {"tokens": Tokens("video only", call=None)},
], ids=["seen at the norms", "a call for each sample"])  # fmt: skip
def test_attention_that_is_not_one_call_of_a_known_kernel_is_refused(changes):
    model = TINY["wan"].model()
    with pytest.raises(UnsupportedModelError, match="one call of a known kernel"):
        Enhancement(model, LogitTemperature(), with_attention(row_of(model), **changes))
    assert not any("_enhance_a_video" in vars(m) for m in model.modules())


def test_a_mask_that_is_no_tensor_is_refused():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    attention = model.blocks[0].attn1
    attention.register_forward_pre_hook(lambda m, args: (args[0], args[1], object(), *args[3:]))
    with Enhancement(model, MapScaling()), pytest.raises(UnsupportedModelError, match="mask is a object"):
        run(model, inputs)


def test_a_compiled_model_is_refused():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with Enhancement(model, LogitTemperature()), pytest.raises(Exception, match=r"compiled|Unsupported"):
        run(compiled, inputs)
    torch._dynamo.reset()


@pytest.mark.parametrize("data, message", [
    ({"alternative": "logit_temprature"}, "Did you mean 'logit_temperature'"),
    ({"alternative": "map_scaling", "tau": 1.1}, "unknown settings .'tau'. of map_scaling"),
    ({"alternative": "logit_temperature", "tau": 0}, "tau=0"),
    ({"alternative": "logit_temperature", "tau": "hot"}, "tau='hot'"),
    ({"alternative": "map_scaling", "strength": 0.5, "temperature": 4}, "strength and temperature"),
    ({"alternative": "cfi_temperature", "strength": -1}, "a number from 0 to"),
    ({"alternative": "logit_temperature", "start": 0.9, "end": 0.1}, "window is empty"),
    ({"alternative": "logit_temperature", "layers": "("}, "regular expression"),
])  # fmt: skip
def test_what_does_not_fit_is_reported(data, message):
    with pytest.raises(SettingsError, match=message):
        alternative_from_dict(data)


@pytest.mark.parametrize("kind", ALTERNATIVES.values())
@pytest.mark.parametrize("layers", [None, [0, -1], slice(1, None, 2), "blocks"])
def test_json_and_back(kind, layers):
    change = kind(start=0.1, end=0.6, layers=layers)
    assert alternative_from_dict(json.loads(json.dumps(change.to_dict()))) == change


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_whole_pipeline(tiny_pipe, change):
    from enhance_a_video.generation.pipelines import generate

    options = {"steps": 2, "frames": 9, "height": 32, "width": 32, "seed": 0}
    plain = generate(tiny_pipe, "a red ball moves right", **options)
    with Enhancement(tiny_pipe, alternative_from_dict({**change.to_dict(), "attention_maps": True})) as handle:
        changed = generate(tiny_pipe, "a red ball moves right", **options)
    summary = handle.summary()
    assert (changed != plain).any() and summary.active.all() and summary.attention_maps is not None
    assert (generate(tiny_pipe, "a red ball moves right", **options) == plain).all()
