"""torch.compile: one graph, the eager numbers, no recompilation for a step, a layer or another strength."""

import math
import warnings

import pytest
import torch
from tiny_models import TINY, T, run
from tiny_models.wan import wan
from torch._dynamo.testing import CompileCounter

from enhance_a_video import enhance
from enhance_a_video.errors import EnhancementLostWarning
from enhance_a_video.policies import OddsGrid, OddsNetwork

ALWAYS = {"start": 0.0, "end": 1.0}


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def counter():
    return CompileCounter()  # counts graphs, runs them eagerly


def inputs(timestep=500.0, **kwargs):
    return TINY["wan"].inputs(timestep=timestep, **kwargs)


def test_one_graph_equal_to_eager(counter):
    model = TINY["wan"].model()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with enhance(model, strength=2.0, start=0.0, end=0.5) as handle:
        for t in (990.0, 900.0, 500.0, 100.0):
            assert torch.equal(run(compiled, inputs(t)), run(model, inputs(t)))
    assert counter.frame_count == 1
    s = handle.summary()
    assert len(s.gain) == 8 and (s.gain[0] > 1).all() and math.isnan(s.seconds)
    for column in (s.gain, s.mass, s.clipped, s.progress, s.active):
        assert (column[0::2] == column[1::2]).all()


@pytest.mark.parametrize("name", ["cogvideox_5b", "hunyuan", "ltx", "hunyuan_framepack", "latte", "mochi"])
def test_the_other_families_compile_too(name, counter):
    model, x = TINY[name].model(), TINY[name].inputs()
    with enhance(model, strength=2.0, start=0.0, end=0.5):
        expected = run(model, x)
        assert torch.allclose(run(torch.compile(model, fullgraph=True, backend=counter), x), expected, atol=1e-6)
    assert counter.frame_count == 1


EVERYWHERE = {  # a factor of exp(0.7) at every depth and time
    "grid": OddsGrid(((0.7, 0.7), (0.7, 0.7))),
    "network": OddsNetwork(((0.0,) * 8,), (0.0, math.atanh(0.7 / 1.4))),
}


@pytest.mark.parametrize("policy", EVERYWHERE.values(), ids=EVERYWHERE)
def test_searched_and_learned_odds_act_as_odds_and_compile(policy, counter):
    model = TINY["wan"].model()
    with enhance(model, odds=math.exp(0.7)):
        expected = run(model, inputs())
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with enhance(model, policy=policy) as handle:
        assert torch.allclose(run(model, inputs()), expected, atol=1e-6)
        assert torch.equal(run(compiled, inputs(900.0)), run(model, inputs(900.0)))
        assert torch.allclose(run(compiled, inputs()), expected, atol=1e-6)
    assert counter.frame_count == 1 and handle.summary().settings["scale"] == "cross-frame"


def test_switching_on_and_off_around_compilation(counter):
    model = TINY["wan"].model()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    plain = run(compiled, inputs())
    for _ in range(2):
        for chosen in ({"strength": 1.0, "end": 0.5}, {"strength": 3.0, "end": 0.9}, {"strength": 2.0, **ALWAYS}):
            with enhance(compiled, **chosen) as handle:  # the wrapper or the model, it is the same
                assert handle.summary().models == ["WanTransformer3DModel"]
                assert torch.equal(run(compiled, inputs()), run(model, inputs()))
            assert torch.equal(run(compiled, inputs()), plain)
    assert counter.frame_count == 2  # one without, one with: settings are tensors


def test_repeated_blocks_share_one_graph(counter):
    def twelve():
        torch.manual_seed(0)
        return wan(num_layers=12).eval().requires_grad_(False)

    model, reference = twelve(), twelve()
    model.compile_repeated_blocks(fullgraph=True, backend=counter)
    for chosen in ({"strength": 2.0, "end": 0.5}, {"strength": 4.0, "end": 0.7}):
        with enhance(model, **chosen) as handle, enhance(reference, **chosen) as expected:
            for t in (900.0, 500.0, 100.0):
                assert torch.equal(run(model, inputs(t)), run(reference, inputs(t)))
        assert (handle.summary().gain == expected.summary().gain).all() and handle.summary().gain.shape == (3, 12)
        assert torch.equal(run(model, inputs()), run(reference, inputs()))
    assert counter.frame_count == 2


def test_model_compile_in_place(counter):
    model, reference = TINY["wan"].model(), TINY["wan"].model()
    model.compile(fullgraph=True, backend=counter)
    with enhance(model, strength=2.0, **ALWAYS), enhance(reference, strength=2.0, **ALWAYS):
        assert torch.equal(run(model, inputs()), run(reference, inputs()))
    assert torch.equal(run(model, inputs()), run(reference, inputs())) and counter.frame_count == 2


def test_inside_a_larger_graph(counter):
    model, x = TINY["wan"].model(), inputs()

    @torch.compile(fullgraph=True, backend=counter)
    def step(latents, timestep):
        return latents - 0.1 * run(model, {**x, "hidden_states": latents, "timestep": timestep})

    with enhance(model, strength=2.0, start=0.0, end=0.5) as handle:
        for t in (990.0, 900.0, 100.0):
            expected = x["hidden_states"] - 0.1 * run(model, inputs(t))
            assert torch.allclose(step(x["hidden_states"], torch.full((2,), t)), expected, atol=1e-6)
    s = handle.summary()
    assert counter.frame_count == 1 and list(s.active) == [True] * 4 + [False] * 2
    assert (s.gain[0::2] == s.gain[1::2]).all()


def test_one_frame_and_other_frame_counts():
    model = TINY["wan"].model()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    with enhance(model, strength=2.0, **ALWAYS) as handle:
        for frames in (T, 1):
            assert torch.equal(run(compiled, inputs(frames=frames)), run(model, inputs(frames=frames)))
    assert list(handle.summary().num_frames) == [T, T, 1, 1]


@pytest.mark.parametrize("whole", [True, False])
def test_a_replaced_processor_is_noticed(whole, counter):
    model = TINY["wan"].model()
    call = torch.compile(lambda **x: model(**x), backend=counter) if whole else torch.compile(model, backend=counter)
    with enhance(model, strength=2.0, **ALWAYS), torch.no_grad():
        expected = call(**inputs(), return_dict=False)[0]
        model.set_attn_processor(type(TINY["wan"].model().blocks[0].attn1.processor)())
        with pytest.warns(EnhancementLostWarning):
            assert torch.equal(call(**inputs(), return_dict=False)[0], expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error", EnhancementLostWarning)
            call(**inputs(), return_dict=False)
