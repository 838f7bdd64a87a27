"""The gain on the cross-frame part alone: against attention written out in float64 in the real classes, as a softmax
whose logits of other frames are raised, undone, compiled, and refused where it cannot be."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_alternatives import MODELS, kernel_written_out
from tiny_models import TINY, H, T, W, noise, run
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import scaled_dot_product_attention

from enhance_a_video import enhance, enhance_attention
from enhance_a_video.attention import Tokens
from enhance_a_video.errors import SettingsError, UnsupportedModelError, WholeOutputWarning
from enhance_a_video.operators import AttentionCall
from enhance_a_video.operators.cross_frame import own_frame, with_scaled_cross_frame
from enhance_a_video.policies import DEFAULT_ODDS, DEFAULT_STRENGTH, GainContext, Odds
from enhance_a_video.settings import Settings

S = H * W


def kernel(query, key, value, mask):
    return scaled_dot_product_attention(query, key, value, mask, enable_gqa=key.shape[1] != query.shape[1])


def call_of(B=2, heads=4, frames=3, sites=5, text=0, first=0, D=8, mask=None, kv_heads=None, rows=None):
    """A kernel's call with random tokens, `text` of them not video, the video from token `first` on."""
    L = frames * sites + text
    torch.manual_seed(0)
    query = torch.randn(B, heads, L, D)
    key, value = torch.randn(2, B, kv_heads or heads, L, D)
    video = slice(first, first + frames * sites) if rows is None else rows
    return AttentionCall(query, key, value, frames, video, mask=mask, kernel=kernel)


def own_written_out(call, frames):
    """Each frame's attention to itself and to what is not video, token by token in float64: (B, H, T*S, D)."""
    q, k, v = call.query.double(), call.key.double(), call.value.double()
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    rows, L = call.rows, q.shape[2]
    frame = torch.full((L,), -1)
    frame[rows] = torch.arange(frames).repeat_interleave(len(rows) // frames)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if call.mask is not None:
        mask = call.mask[(None,) * (4 - call.mask.ndim)]
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    foreign = (frame[:, None] >= 0) & (frame[None] >= 0) & (frame[:, None] != frame[None])
    return (logits.masked_fill(foreign, -torch.inf).softmax(-1) @ v)[:, :, rows]


def mask_of(kind, B, L):
    keep = torch.rand(B, 1, 1, L, generator=torch.Generator().manual_seed(1)) > 0.2
    keep[..., ::2] = True  # nobody is left without a key
    return {
        "none": None,
        "keys": keep,
        "keys, added": torch.where(keep, 0.0, -30.0),
        "one for all": keep[:1, 0],
        "each query its own": torch.randn(B, 1, L, L, generator=torch.Generator().manual_seed(2)),
        "each head its own": torch.randn(1, 4, L, L, generator=torch.Generator().manual_seed(3)),
    }[kind]


@pytest.mark.parametrize("where", ["alone", "before text", "after text", "among others"])
@pytest.mark.parametrize(
    "kind", ["none", "keys", "keys, added", "one for all", "each query its own", "each head its own"]
)
def test_a_frame_alone_is_what_it_is_written_out(kind, where):
    text, first = {"alone": (0, 0), "before text": (4, 0), "after text": (4, 4), "among others": (4, 0)}[where]
    rows = torch.tensor([i for i in range(19) if i not in (0, 6, 7, 18)]) if where == "among others" else None
    call = call_of(text=text, first=first, mask=mask_of(kind, 2, 15 + text), rows=rows)
    torch.testing.assert_close(own_frame(call).double(), own_written_out(call, 3), atol=2e-5, rtol=1e-4)


def test_keys_with_fewer_heads():
    call = call_of(kv_heads=2)
    torch.testing.assert_close(own_frame(call).double(), own_written_out(call, 3), atol=2e-5, rtol=1e-4)
    temporal = call_of(B=10, kv_heads=2, sites=1)
    torch.testing.assert_close(own_frame(temporal).double(), own_written_out(temporal, 3), atol=2e-5, rtol=1e-4)


@given(factor=st.floats(0.2, 5), frames=st.integers(2, 6), sites=st.integers(1, 4), text=st.sampled_from([0, 3]))
def test_with_each_tokens_own_mass_odds_are_a_softmax_with_raised_logits(factor, frames, sites, text):
    """log(factor) on the logits of other frames' tokens, exactly, for whatever queries and keys."""
    call = call_of(frames=frames, sites=sites, text=text)
    frame = torch.cat([torch.arange(frames).repeat_interleave(sites), torch.full((text,), -1)])
    logits = call.query @ call.key.transpose(-1, -2) / 8**0.5
    attention = logits.softmax(-1)[:, :, call.video]
    foreign = (frame[call.video, None] != frame[None]) & (frame >= 0)  # (T*S, L): text is nobody's frame
    mass = (attention * foreign).sum(-1)  # (B, H, T*S)
    gain = Odds(factor)(mass.flatten(), GainContext(frames, 0.0, torch.tensor(0.5))).view_as(mass)
    raised = logits[:, :, call.video] + torch.where(foreign, torch.tensor(factor).log(), 0.0)
    expected = raised.softmax(-1) @ call.value
    found = with_scaled_cross_frame(call.run(), call, gain)[:, :, call.video]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_weights_still_sum_to_one_and_text_is_left_alone():
    call = call_of(text=4, first=4)
    call.value.fill_(1.0)
    for gain in (0.0, 0.5, 1.0, 3.0):
        torch.testing.assert_close(
            with_scaled_cross_frame(call.run(), call, torch.full((2, 4, 15), gain)), torch.ones(2, 4, 19, 8)
        )
    call = call_of(text=4, first=4)
    gain = torch.ones(2, 4, 15)
    gain[1, 2, 5:] = 2.0
    whole = call.run()
    scaled = with_scaled_cross_frame(whole, call, gain)
    changed = torch.zeros(2, 4, 19, 1, dtype=torch.bool)
    changed[1, 2, 9:] = True
    assert torch.equal(scaled[~changed.expand_as(scaled)], whole[~changed.expand_as(scaled)])  # to the bit
    assert (scaled - whole)[1, 2, 9:].abs().amax(-1).min() > 1e-3
    alone = with_scaled_cross_frame(whole, call, torch.zeros(2, 4, 15))[:, :, 4:]
    torch.testing.assert_close(alone, own_frame(call), atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------- in the real classes


def scaled_written_out(q, k, v, mask, first, gain, samples):
    temporal = len(q) > samples
    video = slice(first, first + (T if temporal else T * S))
    call = AttentionCall(q.double(), k.double(), v.double(), T, video, mask=mask, kernel=kernel)
    whole = kernel(call.query, call.key, call.value, mask)
    whole[:, :, video] += (gain - 1) * (whole[:, :, video] - own_written_out(call, T))
    return whole


@pytest.mark.parametrize("name", MODELS)
def test_in_a_model_it_is_the_attention_written_out_in_float64(name, monkeypatch):
    tiny = TINY[name]
    model, inputs = tiny.model(), tiny.inputs(batch=2)
    plain = run(model, inputs)
    with kernel_written_out(name, partial(scaled_written_out, gain=1.7, samples=2), monkeypatch) as calls:
        expected = run(model, inputs)
    assert len(calls) == tiny.layers
    with enhance(model, policy={"name": "constant", "gain": 1.7}, scale="cross-frame") as handle:
        found = run(model, inputs)
    assert torch.allclose(found, expected, atol=2e-5, rtol=1e-4)
    assert (expected - plain).abs().max() > 20 * (found - expected).abs().max()
    assert handle.summary().gain == pytest.approx(1.7, rel=1e-5) and handle.summary().settings["scale"] == "cross-frame"
    assert torch.equal(run(model, inputs), plain)


REFUSED = {  # variant -> why
    "mochi": "does not compute its attention in one call", "kandinsky_5_nabla": "BlockMask",
    "kandinsky_6_sr": "BlockMask", "wan_animate_2": "BlockMask", "cosmos_3": "its keys",
    "cosmos_3_sound_first": "its keys",
    "sana_wm_refiner_cached": "its keys", "anyflow_far": "its keys",
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_every_class_takes_odds_or_reports_why_not(name):
    model, inputs = TINY[name].model(), TINY[name].inputs()
    first = lambda output: output[0] if isinstance(output, tuple) else output  # noqa: E731
    plain = first(run(model, inputs))
    before = {n: type(getattr(m, "processor", m)) for n, m in model.named_modules()}
    by_name = {"policy": Odds(3.0), "scale": "cross-frame"}
    if name in REFUSED:
        with pytest.raises(UnsupportedModelError, match=REFUSED[name]), enhance(model, **by_name):
            run(model, inputs)
        scaled_whole_instead(model, inputs, plain, REFUSED[name])
    else:
        with enhance(model, odds=1.0):
            assert torch.equal(first(run(model, inputs)), plain)  # to the bit
        with enhance(model, odds=3.0) as handle:
            assert (first(run(model, inputs)) - plain).abs().max() > 1e-4
        summary = handle.summary()
        assert (summary.gain > 1).all() and (summary.gain < 3).all() and not summary.scaled_whole
    assert torch.equal(first(run(model, inputs)), plain)
    assert {n: type(getattr(m, "processor", m)) for n, m in model.named_modules()} == before


def scaled_whole_instead(model, inputs, plain, why):
    """Odds fall back on the default strength, layer by layer, and report it: in a warning and in the summary."""
    with enhance(model, strength=DEFAULT_STRENGTH, start=0.0, end=1.0) as handle:
        expected, gains = run(model, inputs), handle.summary().gain
    with warnings.catch_warnings(record=True) as caught, enhance(model, odds=3.0) as handle:
        warnings.simplefilter("always")
        for _ in range(2):  # what the kernel gets may only show when it is called
            found = run(model, inputs)
    first = lambda output: output[0] if isinstance(output, tuple) else output  # noqa: E731
    summary, printed = handle.summary(), [w for w in caught if w.category is WholeOutputWarning]
    assert len(printed) == 1 and why in str(printed[0].message)
    assert summary.scaled_whole and all(why in reason for reason in summary.scaled_whole.values())
    assert "scaled as a whole" in str(summary)
    if set(summary.scaled_whole) == set(summary.layers):
        assert torch.equal(first(found), first(expected)) and (summary.gain[0] == gains[0]).all()


def test_windows_frames_and_looking_only():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs(timestep=100.0)
    plain = run(model, inputs)
    with enhance(model, odds=3.0, end=0.5) as handle:  # it is over
        assert torch.equal(run(model, inputs), plain)
    assert not handle.summary().active.any() and (handle.summary().gain == 1).all()
    with enhance(model, odds=3.0, observe_only=True) as handle:
        assert torch.equal(run(model, inputs), plain)
    assert (handle.summary().gain > 1).all()
    single = TINY["wan"].inputs(frames=1)
    alone = run(model, single)
    with enhance(model, odds=3.0):
        assert torch.equal(run(model, single), alone)


@pytest.mark.parametrize("name", ["wan", "cogvideox_5b", "hunyuan", "ltx", "latte"])
def test_it_compiles_into_one_graph(name):
    torch._dynamo.reset()
    counter = CompileCounter()
    model, x = TINY[name].model(), TINY[name].inputs()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for odds in (2.0, 3.0):  # another number does not compile again
        with enhance(model, odds=odds, end=0.9):
            torch.testing.assert_close(run(compiled, x), run(model, x), atol=1e-6, rtol=1e-5)
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_settings_have_what_is_scaled():
    chosen = Settings(odds=1.5)
    assert (chosen.scale, chosen.start, chosen.end, chosen.always) == ("cross-frame", 0.0, 1.0, True)
    assert Settings() == Settings(odds=DEFAULT_ODDS) and Settings(scale="output") == Settings(strength=DEFAULT_STRENGTH)
    assert Settings(strength=0.3).scale == Settings(policy=lambda mass, moment: mass).scale == "output"
    assert Settings.from_dict(Settings(odds=1.5).to_dict()) == Settings(odds=1.5)
    for wrong, says in (
        ({"odds": 1.5, "strength": 0.3}, "at most one"),
        ({"odds": 1.5, "scale": "output"}, "leave out"),
        ({"odds": -1}, "a number from 0 to"),
        ({"odds": float("nan")}, "a number from 0 to"),
        ({"scale": "all"}, "is unknown"),
    ):
        with pytest.raises(SettingsError, match=says):
            Settings(**wrong)


@pytest.mark.parametrize("observe_only", [False, True])
def test_the_policy_is_evaluated_once_for_each_layer_and_call(observe_only):
    calls = []

    def counted(mass, moment):
        calls.append(mass.shape)
        return Odds(2.0)(mass, moment)

    model = TINY["wan"].model()
    with enhance(model, policy=counted, scale="cross-frame", observe_only=observe_only) as handle:
        run(model, TINY["wan"].inputs())
        calls.clear()
        run(model, TINY["wan"].inputs())
    assert len(calls) == len(handle.summary().layers)


def test_a_call_that_cannot_be_taken_apart_is_known_before_anything_is_measured(monkeypatch):
    """Under context parallelism the masses of each token would be those of this rank's heads only."""
    from enhance_a_video.operators import cross_frame

    monkeypatch.setattr(cross_frame, "token_mass", lambda *args, **kwargs: pytest.fail("measured token by token"))

    class Causal(nn.Module):
        def forward(self, x):
            y = x[:, None]
            return F.scaled_dot_product_attention(y, y, y, None, 0.0, True)[:, 0]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = Causal()

        def forward(self, x):
            return x + self.attn(x)

    model, x = Model(), noise(1, T * 6, 8)
    row = {"attention": "attn", "tokens": Tokens("video only"), "frames": T}
    with enhance_attention(model, **row, odds=2.0) as handle:
        model(x)
        with pytest.warns(WholeOutputWarning, match="its attention is causal"):
            model(x)
    with enhance_attention(model, **row, strength=0.3, start=0.0, end=1.0) as expected:
        model(x)
    found, wanted = handle.summary(), expected.summary()
    assert (found.mass == wanted.mass).all() and (found.gain == wanted.gain).all() and len(found.mass) == 2
