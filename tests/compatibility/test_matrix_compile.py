"""torch.compile: the graphs are counted, and run eagerly after tracing so that equality is to the bit; one cell goes
through inductor. The timesteps lie inside and outside the window, so a gain that was frozen into a graph would show.
"""

import dataclasses

import pytest
import torch
from cells import cells
from common import FAMILIES, acts, run
from diffusers import LTXVideoTransformer3DModel
from tiny_models.cogvideox import cog
from tiny_models.hunyuan import hunyuan
from tiny_models.ltx import LTX
from tiny_models.wan import wan
from torch._dynamo.testing import CompileCounter

from enhance_a_video import enhance

TIMESTEPS = (990.0, 900.0, 500.0, 100.0)  # of which the last lies outside the window


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def counter():
    return CompileCounter()


def steps(model, family):
    return torch.stack([run(model, family.tiny.inputs(timestep=t)) for t in TIMESTEPS])


@cells("whole model, `fullgraph=True`, compiled first")
def test_whole(column, counter):
    """Compiled, run plain, then enhanced twice with another strength and window: the eager enhanced output to the bit
    in every step, and two graphs in all, one without and one with: nothing is compiled again for a step, a layer, a
    strength or a window. (`temperature` is another formula than `strength`, and one graph more.)"""
    family = FAMILIES[column]
    model = family.tiny.model()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    plain = steps(compiled, family)
    for chosen in ({"strength": 2.0, "end": 0.7}, {"strength": 0.7, "start": 0.1, "end": 0.8}):
        with enhance(compiled, **chosen):
            enhanced = steps(compiled, family)
            assert torch.equal(enhanced, steps(model, family))
        assert acts(enhanced, plain)
    assert torch.equal(steps(compiled, family), plain)
    assert counter.frame_count == 2


@cells("whole model, enhanced first")
def test_enhanced_first(column, counter):
    """Enhanced, then compiled with `model.compile(fullgraph=True)`: the eager enhanced output to the bit, one graph;
    and after `remove()` the plain one, with a second graph."""
    family = FAMILIES[column]
    model, eager = family.tiny.model(), family.tiny.model()
    plain = steps(eager, family)
    with enhance(model, strength=2.0, end=0.7), enhance(eager, strength=2.0, end=0.7):
        model.compile(fullgraph=True, backend=counter)
        enhanced = steps(model, family)
        assert torch.equal(enhanced, steps(eager, family)) and acts(enhanced, plain)
        assert counter.frame_count == 1
    assert torch.equal(steps(model, family), plain) and counter.frame_count == 2


DEEP = {  # more layers than dynamo's limit of 8 recompilations
    "Wan": lambda: wan(num_layers=10),
    "CogVideoX": lambda: cog(num_layers=10, use_rotary_positional_embeddings=True),
    "HunyuanVideo": lambda: hunyuan(num_layers=9, num_single_layers=9),
    "LTX-Video": lambda: LTXVideoTransformer3DModel(**{**LTX, "num_layers": 10}),
}


@cells("regional, `fullgraph=True`")
def test_regional(column, counter, remark):
    """`compile_repeated_blocks(fullgraph=True)` on ten layers (HunyuanVideo: nine and nine), then enhanced, changed
    and removed: the eager output to the bit, and the blocks get as many graphs with the method as they had
    without."""
    family = FAMILIES[column]
    tiny = dataclasses.replace(family.tiny, build=DEEP[column])
    model, eager = tiny.model(), tiny.model()
    if column == "CogVideoX":
        for block in model.transformer_blocks:
            block.compile(fullgraph=True, backend=counter)
        remark("each block compiled by hand: diffusers declares no repeated blocks for this class")
    else:
        model.compile_repeated_blocks(fullgraph=True, backend=counter)
    plain = steps(model, family)
    without = counter.frame_count
    other = 2 if column == "HunyuanVideo" else 0  # it compiles its patch embedding and its text refiner, too
    for chosen in ({"strength": 2.0, "end": 0.7}, {"strength": 0.7, "end": 0.6}):
        with enhance(model, **chosen), enhance(eager, **chosen):
            enhanced = steps(model, family)
            assert torch.equal(enhanced, steps(eager, family)) and acts(enhanced, plain)
    assert torch.equal(steps(model, family), plain)
    assert counter.frame_count - without == without - other


@cells("inductor", "Wan")
def test_inductor(column):
    """A one-layer model through the default backend, inside and outside the window: eager to 1e-5, undone after."""
    torch.manual_seed(0)
    model = wan(num_layers=1).eval().requires_grad_(False)
    family = FAMILIES[column]
    eager = [run(model, family.tiny.inputs(timestep=t)) for t in (900.0, 100.0)]
    compiled = torch.compile(model, fullgraph=True)
    with enhance(model, strength=2.0, end=0.5):
        for t, plain in zip((900.0, 100.0), eager, strict=True):
            expected = run(model, family.tiny.inputs(timestep=t))
            assert (run(compiled, family.tiny.inputs(timestep=t)) - expected).norm() <= 1e-5 * expected.norm()
            assert torch.equal(expected, plain) == (t == 100.0)
    assert torch.equal(run(model, family.tiny.inputs(timestep=900.0)), eager[0])
