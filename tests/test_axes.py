"""Axes: partitions against loops, odds on several of them against the softmax with their biases, real classes."""

import itertools
import math
import shlex
from dataclasses import replace

import pytest
import torch
from tiny_models import IMAGES, SOUNDS, TINY, run, take
from torch._dynamo.testing import CompileCounter

from enhance_a_video import Settings, enhance
from enhance_a_video.axes import AXES, Far, Near, Prompt, Reference, Sound, Space, Time, axis_named
from enhance_a_video.cli.options import Knobs
from enhance_a_video.enhanced_layer import EnhancedLayer
from enhance_a_video.errors import NoEffectWarning, SettingsError, TokenLayoutError, UnsupportedModelError
from enhance_a_video.generation import again, preflight
from enhance_a_video.models import known_models, row_of
from enhance_a_video.operators import AttentionCall, Biased, Exact, biased
from enhance_a_video.policies import Constant, Odds

T, ROWS, COLUMNS = 4, 3, 5
S = ROWS * COLUMNS
EVERY = (Time(), Near(1), Far(1), Reference(), Prompt(), Space(1))


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layout(text=0, references=0, samples=None, heads=2, key_heads=2, seed=0):
    """A call: references and video in one stream, then text."""
    length = references + T * S + text
    if samples is not None:
        q, k, v = (noise(samples * S, heads, T, 8, seed=seed + i) for i in range(3))
        return AttentionCall(q, k, v, num_frames=T, samples=samples)
    q, k, v = (noise(2, n, length, 8, seed=seed + i) for i, n in enumerate((heads, key_heads, key_heads)))
    video, stream = slice(references, references + T * S), slice(0, references + T * S)
    return AttentionCall(q, k, v, num_frames=T, video=video, stream=stream, columns=COLUMNS)


def kind_of(call, token):
    """("video", frame, row, column), ("reference",) or ("prompt",) of a token, by its place."""
    start, stop, _ = call.video.indices(call.query.shape[2])
    if start <= token < stop:
        frame, site = divmod(token - start, (stop - start) // T)
        return "video", frame, *divmod(site, COLUMNS)
    return ("reference",) if token < start else ("prompt",)


def is_other(axis, query, key, references):
    """The definitions again, token by token."""
    if query[0] != "video":
        return False
    if isinstance(axis, Prompt):
        return key[0] == "prompt"
    if isinstance(axis, Reference):
        return key[0] == "reference" if references else key[0] == "video" and key[1] == 0 and query[1] > 0
    if key[0] != "video":
        return False
    apart = abs(query[1] - key[1])
    if isinstance(axis, Space):
        return apart == 0 and max(abs(query[2] - key[2]), abs(query[3] - key[3])) > axis.reach
    least, most = {Time: (1, T), Near: (1, getattr(axis, "frames", 0)), Far: (getattr(axis, "frames", 0) + 1, T)}[
        type(axis)
    ]
    return least <= apart <= most


def partition(axis, call, references=0):
    kinds = [kind_of(call, token) for token in range(call.query.shape[2])]
    return torch.tensor([[is_other(axis, q, k, references) for k in kinds] for q in kinds])


def reference(call, odds, references=0):
    """The softmax in fp64 with log(odds) on the others of each axis, and the shares of the first axis before it."""
    q, k, v = (x.double() for x in (call.query, call.key, call.value))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    logits = q @ k.mT * q.shape[-1] ** -0.5
    if call.mask is not None:
        logits = logits.masked_fill(~call.mask, -math.inf)
    others = {axis: partition(axis, call, references) for axis in odds}
    bias = sum(math.log(amount) * others[axis] for axis, amount in odds.items())
    return (logits + bias).softmax(-1) @ v, (logits.softmax(-1) * others[next(iter(odds))]).sum(-1)


@pytest.mark.parametrize("axis", EVERY, ids=str)
@pytest.mark.parametrize("text, references", [(0, 0), (7, 0), (7, 6)])
def test_each_partition_is_what_its_definition_says(axis, text, references):
    call = layout(text, references)
    assert torch.equal(axis.others(call.places), partition(axis, call, references))
    rows = torch.tensor([3, 20, 41])
    assert torch.equal(axis.others(call.places.of(rows)), partition(axis, call, references)[rows])


PAIRS = [
    {Time(): 2.0}, {Prompt(): 1.5}, {Space(1): 0.5}, {Reference(): 3.0}, {Time(): 2.0, Prompt(): 1.5},
    {Near(1): 1.5, Far(1): 0.7, Prompt(): 2.0}, {Space(1): 1.3, Time(): 0.5, Reference(): 2.0},
]  # fmt: skip


@pytest.mark.parametrize("odds", PAIRS, ids=lambda odds: "+".join(map(str, odds)))
@pytest.mark.parametrize("references, key_heads, masked", [(0, 2, False), (6, 2, True), (0, 1, False)])
@pytest.mark.parametrize("mask_bytes", [2**26, 900])  # 900: a query or two at a time
def test_axes_at_once_are_the_softmax_with_the_sum_of_their_biases(
    odds, references, key_heads, masked, mask_bytes, monkeypatch
):
    monkeypatch.setattr(biased, "MASK_BYTES", mask_bytes)
    call = layout(7, references, key_heads=key_heads)
    if masked:
        call = replace(
            call, mask=torch.arange(call.key.shape[2])[None, None, None] < torch.tensor([70, 73])[:, None, None, None]
        )
    amounts = torch.tensor(list(odds.values()))[:, None]
    found = Biased(tuple(odds)).finish(call, None, lambda shares: amounts)
    wanted, share = reference(call, odds, references)
    assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    every = replace(call, query=call.query)
    monkeypatch.setattr(biased, "_MEASURED", 10**6)
    mass = biased.shares(every, tuple(odds))
    assert (mass[0] - share[:, :, call.video].mean((1, 2))).abs().max() <= 2e-6


@pytest.mark.parametrize("axis", EVERY[1:], ids=str)
def test_a_policy_on_any_axis_is_exact_too(axis):
    call = layout(7)
    odds = Odds(2.5)
    found = Exact(None, axis).attend(call, lambda mass: odds(mass.flatten(), None).view_as(mass))
    wanted, share = reference(call, {axis: 2.5})
    assert (found - wanted).abs().max() <= 3e-6 * wanted.abs().max()
    assert (Exact(None, axis).mass(call) - share[:, :, call.video]).abs().max() <= 2e-6


@pytest.mark.parametrize("cached", [0, 4])
def test_sound_beside_video_in_one_sequence_against_loops(cached):
    """[text as cached keys |] sound 5, video, sound 3."""
    sound, video = [*range(5), *range(5 + T * S, 8 + T * S)], range(5, 5 + T * S)
    length = T * S + 8
    q = noise(2, 2, length, 8, seed=1)
    k, v = (noise(2, 2, cached + length, 8, seed=n) for n in (2, 3))
    call = AttentionCall(
        q, k, v, num_frames=T, video=slice(5, 5 + T * S), video_keys=slice(cached + 5, cached + 5 + T * S),
        stream=slice(cached, None), sound=torch.tensor(sound),
    )  # fmt: skip
    other = torch.zeros(length, cached + length, dtype=torch.bool)
    for i, j in itertools.product(range(length), range(length)):
        other[i, cached + j] = (i in video and j in sound) or (i in sound and j in video)
    assert torch.equal(Sound().others(call.places), other)
    assert not Reference().others(call.places)[:, [cached + n for n in sound]].any()
    logits = q.double() @ k.double().mT * 8**-0.5
    wanted = (logits + math.log(3.0) * other).softmax(-1) @ v.double()
    found = Biased((Sound(),)).finish(call, None, lambda shares: torch.full((1, 1), 3.0))
    assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()


@pytest.mark.parametrize("name", ["cosmos_3", "cosmos_3_sound_first", "minimax_h3"])
def test_more_sound_is_heard_by_the_video_and_the_other_way_round(name):
    tiny = TINY[name]
    model, inputs = tiny.model(), tiny.inputs(batch=1)

    def both():
        with torch.no_grad():
            found = model(**inputs, return_dict=False)
        return [torch.cat([x.flatten() for x in (y if isinstance(y, list) else [y])]) for y in found if y is not None]

    plain = both()
    with enhance(model, axis="sound", odds=4.0) as handle:
        louder = both()
    assert len(plain) == 2 and all((a - b).abs().max() > 1e-4 for a, b in zip(plain, louder, strict=True))
    assert ((handle.summary().mass > 0) & (handle.summary().mass < 0.5)).all()
    assert all(torch.equal(a, b) for a, b in zip(plain, both(), strict=True))


def test_a_call_without_sound_is_said_to_change_nothing():
    tiny = TINY["cosmos_3"]
    model, inputs = tiny.model(), tiny.inputs(batch=1)
    inputs = {name: value for name, value in inputs.items() if not name.startswith("sound")}
    inputs["sequence_length"] -= 3  # its tokens of sound were the last
    inputs["position_ids"] = inputs["position_ids"][:, :-3]
    plain = run(model, inputs)
    with (
        pytest.warns(NoEffectWarning, match="no others to attend to on this axis"),
        enhance(model, axis="sound", odds=4.0) as handle,
    ):
        assert torch.equal(run(model, inputs), plain)
    assert "no others" in handle.summary().no_effect


def test_temporal_layers_have_the_axes_of_frames():
    call = layout(samples=3)
    amounts = torch.tensor([[2.0], [0.5]])
    found = biased.with_bias(call, (Near(1), Far(1)), amounts)
    frame = torch.arange(T)
    apart = (frame[:, None] - frame).abs()
    bias = math.log(2.0) * (apart == 1) + math.log(0.5) * (apart > 1)
    logits = call.query @ call.key.mT * 8**-0.5
    assert torch.allclose(found, (logits + bias).softmax(-1) @ call.value, atol=1e-6)
    each = torch.tensor([[2.0, 1.0, 3.0]])  # an amount for each video
    alone = torch.cat(
        [
            biased.with_bias(
                replace(
                    call, **{n: getattr(call, n)[i * S : (i + 1) * S] for n in ("query", "key", "value")}, samples=1
                ),
                (Time(),),
                each[:, i : i + 1],
            )
            for i in range(3)
        ]
    )
    assert torch.allclose(biased.with_bias(call, (Time(),), each), alone, atol=1e-6)
    assert biased.shares(call, (Time(),)).shape == (1, 3)


# ---------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize("given, axes", [
    ({}, (Time(),)),
    ({"axis": "prompt", "odds": 1.5}, (Prompt(),)),
    ({"odds": {"time": 2, "near:3": 1.5}}, (Time(), Near(3))),
    ({"axis": "far:1", "policy": {"name": "constant", "gain": 1.2}}, (Far(1),)),
])  # fmt: skip
def test_settings_survive_json(given, axes):
    settings = Settings(**given)
    assert settings.axes == axes
    assert Settings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize("given, message", [
    ({"axis": "depth"}, "axis 'depth' is unknown: give 'time', 'near'"),
    ({"axis": "near:x"}, "axis 'near:x': give 'near:2', with a whole number"),
    ({"axis": "near:0"}, "the number of axis 'near'"),
    ({"axis": "prompt:2"}, "axis 'prompt:2': give 'prompt', without a number"),
    ({"axis": "prompt", "strength": 0.5}, "strength acts on the axis of time alone"),
    ({"axis": "prompt", "scale": "output"}, "scale='output' acts on the axis of time alone"),
    ({"axis": "prompt", "attention_maps": True}, "attention_maps acts on the axis of time alone"),
    ({"axis": "time", "odds": {"time": 2}}, "were given together"),
    ({"odds": {}}, "name an axis"),
    ({"odds": {"near": 2, "near:2": 3}}, "name an axis twice"),
    ({"odds": {"time": -1}}, "odds of time"),
])  # fmt: skip
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(SettingsError, match=message):
        Settings(**given)


def test_an_axis_that_a_model_lacks_is_refused_with_those_it_has():
    with pytest.raises(SettingsError, match="Latte has no axis 'prompt'; it has: time, near, far, reference"):
        enhance(TINY["latte"].model(), axis="prompt")


# ------------------------------------------------------------------------------------------- real classes
EVERY_CLASS = {**TINY, **IMAGES, **SOUNDS}


def axes_of(name):
    return next(row.axes for row in known_models() if row.transformer == EVERY_CLASS[name].transformer)


NO_BIAS = (
    "kandinsky_5_nabla",
    "kandinsky_6_sr",
    "mochi",
    "anyflow_far",
    "wan_animate_2",
)  # kernels or masks of their own
CASES = [(name, axis) for name in EVERY_CLASS for axis in axes_of(name) if name not in NO_BIAS and axis != "time"]


@pytest.mark.parametrize("name", NO_BIAS)
def test_a_class_whose_attention_takes_no_bias_is_refused_by_name(name):
    tiny = TINY[name]
    model, inputs = tiny.model(), tiny.inputs(batch=1)
    plain = run(model, inputs)
    with (
        pytest.raises(UnsupportedModelError, match="Leave the layer out with layers"),
        enhance(model, axis="near", odds=2.0),
    ):
        run(model, inputs)
    assert torch.equal(run(model, inputs), plain)


def fractions(model, axis, inputs, monkeypatch):
    """The mass of each layer where every query attends to all keys alike, and what counting says, call by call."""
    calls, observe = [], EnhancedLayer.observe

    def even(self, call):
        calls.append((call, self.axes[0]))
        return observe(self, replace(call, query=torch.zeros_like(call.query)))

    monkeypatch.setattr(EnhancedLayer, "observe", even)
    monkeypatch.setattr(biased, "_MEASURED", 10**6)
    with enhance(model, axis=axis, odds=2.0, observe_only=True) as handle:
        run(model, inputs)
    return handle.summary().mass, calls


@pytest.mark.parametrize("name, axis", CASES)
def test_every_class_on_every_axis_it_has(name, axis, monkeypatch):
    tiny = EVERY_CLASS[name]
    model, inputs = tiny.model(), tiny.inputs(batch=2 if tiny.batches else 1)
    plain = run(model, inputs)
    before = {n: (type(m), type(getattr(m, "processor", None))) for n, m in model.named_modules()}
    outputs = {}
    for odds in (1.0, 5.0):
        with enhance(model, axis=axis, odds=odds) as handle:
            outputs[odds] = run(model, inputs)
        outputs[odds, "mass"] = handle.summary().mass
    assert torch.allclose(outputs[1.0], plain, atol=2e-5)
    mass = outputs[1.0, "mass"]
    if not (mass == 1).all():  # cross-attention to a prompt without padding
        assert (outputs[5.0] - plain).abs().max() > 1e-5
        assert ((mass > 0) & (mass < 1)).all()
    if tiny.batches:
        with enhance(model, axis=axis, odds=5.0):
            alone = [run(model, take(inputs, slice(i, i + 1))) for i in range(2)]
        assert torch.allclose(torch.cat(alone), outputs[5.0], atol=2e-5)
    assert before == {n: (type(m), type(getattr(m, "processor", None))) for n, m in model.named_modules()}
    assert torch.equal(run(model, inputs), plain)


@pytest.mark.parametrize("name, axis", CASES)
def test_planted_even_attention_has_the_mass_that_counting_gives(name, axis, monkeypatch):
    tiny = EVERY_CLASS[name]
    found, calls = fractions(tiny.model(), axis, tiny.inputs(batch=1), monkeypatch)
    counted = []
    for call, kind in calls:
        others = kind.others(call.places)
        others = others[..., call.rows, :].double()
        weights = torch.ones_like(others)
        if call.mask is not None:
            seen = call.mask if call.mask.dtype == torch.bool else call.mask == 0
            weights = seen.expand(*seen.shape[:-2], call.query.shape[2], -1)[0, 0][call.rows].double()
            weights = weights.expand_as(others)
        counted.append(float(((others * weights).sum(-1) / weights.sum(-1)).mean()))
    assert found[0].tolist() == pytest.approx(counted[: len(found[0])], abs=1e-4)


def test_padding_of_a_cross_attended_prompt_is_its_own_group():
    tiny = TINY["wan"]
    model, inputs = tiny.model(), tiny.inputs(batch=2)
    inputs["encoder_hidden_states"][0, 10:] = 0
    inputs["encoder_hidden_states"][1, 3:] = 0
    plain, shares = run(model, inputs), {}
    for odds in (1.0, 8.0):
        with enhance(model, axis="prompt", odds=odds) as handle:
            out = run(model, inputs)
        shares[odds] = handle.summary().mass[0]
    assert (out - plain).abs().max() > 1e-4
    words = inputs["encoder_hidden_states"].shape[1]
    assert shares[1.0][0] == pytest.approx((10 + 3) / 2 / words, abs=0.1)


def test_two_axes_in_one_call_their_record_and_undo():
    tiny = TINY["hunyuan"]
    model, inputs = tiny.model(), tiny.inputs(batch=2)
    plain = run(model, inputs)
    with enhance(model, odds={"time": 2, "prompt": 1.5}) as handle:
        both = run(model, inputs)
    summary = handle.summary()
    assert [n.partition(" ")[2] for n in summary.layers[:2]] == ["(time)", "(prompt)"]
    assert len(summary.layers) == 2 * tiny.layers and set(summary.operators.values()) == {"biased"}
    assert torch.isfinite(torch.tensor(summary.mass)).all() and not summary.no_effect
    assert "time" in str(summary) and summary.mass_means == "share of attention for the others"
    with enhance(model, odds={"prompt": 1.5, "time": 2}):
        assert torch.allclose(run(model, inputs), both, atol=1e-6)
    assert (both - plain).abs().max() > 1e-4 and torch.equal(run(model, inputs), plain)


def test_time_among_other_axes_is_exact_odds():
    tiny = TINY["wan"]
    model, inputs = tiny.model(), tiny.inputs()
    with enhance(model, odds=2.0, scale="exact"):
        exact = run(model, inputs)
    with enhance(model, odds={"time": 2.0, "reference": 1.0}):
        assert torch.allclose(run(model, inputs), exact, atol=1e-5)


@pytest.mark.parametrize("name", SOUNDS)
def test_a_step_of_sound_is_a_frame_of_one_token(name):
    tiny = SOUNDS[name]
    model, inputs = tiny.model(), tiny.inputs(batch=2)
    plain = run(model, inputs)
    with enhance(model, odds=2.0) as estimate:
        assert (run(model, inputs) - plain).abs().max() > 1e-4
    assert estimate.summary().num_frames.tolist() == [23] and not estimate.summary().no_effect
    with enhance(model, odds=2.0, scale="exact"):
        exact = run(model, inputs)
    with enhance(model, odds={"time": 2.0, "reference": 1.0}):
        assert torch.allclose(run(model, inputs), exact, atol=1e-5)
    with enhance(model, odds={"near:3": 2.0, "far:3": 2.0}):  # together they are all other steps
        assert torch.allclose(run(model, inputs), exact, atol=1e-5)


def test_prompts_of_different_lengths_in_one_call_of_lumina_are_refused():
    tiny = IMAGES["lumina2"]
    model, inputs = tiny.model(), tiny.inputs(batch=2)
    inputs["encoder_attention_mask"][1, 3:] = False
    with pytest.raises(TokenLayoutError, match="make one prompt a call"), enhance(model, axis="prompt", odds=2.0):
        run(model, inputs)


def test_the_window_and_one_frame():
    tiny = TINY["wan"]
    model, inputs = tiny.model(), tiny.inputs(timestep=900.0)
    plain = run(model, inputs)
    with enhance(model, axis="space:1", odds=4.0, start=0.9) as handle:
        assert torch.equal(run(model, inputs), plain)
    assert "no call was in the window" in handle.summary().no_effect
    single = tiny.inputs(frames=1)
    alone = run(model, single)
    with enhance(model, axis="space:1", odds=4.0) as handle:
        assert (run(model, single) - alone).abs().max() > 1e-5
    assert not handle.summary().no_effect
    with pytest.warns(UserWarning, match="one latent frame"), enhance(model, axis="near", odds=4.0):
        assert torch.equal(run(model, single), alone)


def test_a_policy_of_ones_own_on_another_axis():
    tiny = TINY["hunyuan"]
    model, inputs = tiny.model(), tiny.inputs()
    with enhance(model, axis="prompt", odds=2.0):
        odds = run(model, inputs)
    with enhance(model, axis="prompt", policy=Odds(2.0)):
        assert torch.allclose(run(model, inputs), odds, atol=1e-5)
    with enhance(model, axis="prompt", policy=Constant(1.1)) as handle:
        assert (run(model, inputs) - odds).abs().max() > 1e-5
    assert set(handle.summary().operators.values()) == {"exact"}


def test_another_kernel_than_torchs_is_refused_by_name():
    call = layout()
    other = replace(call, kernel=lambda q, k, v, mask: v)
    assert "not known to take a bias" in Biased((Space(1),)).why_not(other)
    assert "values of its attention are not known" in Biased((Space(1),)).why_not(replace(call, value=None))
    with pytest.raises(UnsupportedModelError, match="is causal"):
        biased_call = replace(call, causal=True)
        from enhance_a_video.operators import usable

        usable(Biased((Space(1),)), biased_call)


@pytest.mark.parametrize("name", ["wan", "hunyuan"])
def test_one_graph(name):
    tiny = TINY[name]
    model, inputs = tiny.model(), tiny.inputs()
    with enhance(model, odds={"time": 2, "space:1": 1.5}):
        eager = run(model, inputs)
        counter = CompileCounter()
        compiled = torch.compile(model, backend=counter, fullgraph=True)
        assert torch.allclose(run(compiled, inputs), eager, atol=1e-5)
        assert counter.frame_count == 1
    torch._dynamo.reset()


def test_gradients_are_those_of_the_biased_softmax():
    call = layout(7)
    leaves = [x.double().requires_grad_() for x in (call.query, call.key, call.value)]
    found = biased.with_bias(
        replace(call, query=leaves[0], key=leaves[1], value=leaves[2]), (Time(), Prompt()), torch.tensor([[2.0], [0.5]])
    )
    ours = torch.autograd.grad(found.square().sum(), leaves)
    again = [x.detach().clone().requires_grad_() for x in leaves]
    wanted, _ = reference(replace(call, query=again[0], key=again[1], value=again[2]), {Time(): 2.0, Prompt(): 0.5})
    for a, b in zip(ours, torch.autograd.grad(wanted.square().sum(), again), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_axis_is_described():
    assert all(
        kind.__doc__ and kind.purpose and kind.needs in ("frames", "grid", "prompt", "sound") for kind in AXES.values()
    )
    assert [str(axis_named(n)) for n in ("near", "space:3", "time")] == ["near:2", "space:3", "time"]
    assert row_of(TINY["wan"].model()).axes == ("time", "near", "far", "reference", "prompt", "space")


# --------------------------------------------------------------------------------------------- command line
@pytest.mark.parametrize("texts, others, wanted", [
    (["time=2", "prompt=1.5"], {}, {"odds": {"time": 2, "prompt": 1.5}}),
    (["near:3"], {"odds": 1.5}, {"axis": "near:3", "odds": 1.5}),
    (["prompt"], {}, {"axis": "prompt"}),
    (None, {"odds": 3.0}, {"odds": 3.0}),
])  # fmt: skip
def test_the_options_of_a_command_and_the_command_that_makes_the_clip_again(texts, others, wanted):
    settings = Knobs(axis=texts, **others).settings()
    assert settings == Settings(**wanted)
    record = {"prompt": "x", "seed": 0, "settings": settings.to_dict()}
    words = shlex.split(again.command_for(record, "x.mp4"))
    flags = [word for flag, word in itertools.pairwise(words) if flag == "--axis"]
    number = [float(word) for flag, word in itertools.pairwise(words) if flag == "--odds"]
    assert Knobs(axis=flags or None, odds=number[0] if number else None).settings() == settings


@pytest.mark.parametrize("texts, odds, message", [
    (["prompt", "time=2"], None, "--axis prompt beside --axis NAME=ODDS"),
    (["time=2"], 3.0, "--odds 3 beside --axis NAME=ODDS: give every axis its odds"),
    (["time=2", "time=3"], None, "--axis gives time twice"),
])  # fmt: skip
def test_options_that_contradict_each_other(texts, odds, message):
    with pytest.raises(SettingsError, match=message):
        Knobs(axis=texts, odds=odds).settings()


def test_odds_of_one_on_every_axis_change_nothing_which_is_said_before_the_work():
    assert preflight._idle(Settings(odds={"time": 1, "prompt": 1})) == "odds={'time': 1, 'prompt': 1} change nothing"
    assert not preflight._idle(Settings(odds={"time": 1, "prompt": 2}))
