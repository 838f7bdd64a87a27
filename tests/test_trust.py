"""The trust region on real classes: the stream of a block changes by no more than the bound, and nothing is left."""

import copy
import pickle

import pytest
import torch
from other_models import JointModel, OpenSoraLike, query_and_key
from other_models.open_sora_like import Block
from tiny_models import TINY, T, noise, run, take
from torch import nn
from torch._dynamo.testing import CompileCounter

from enhance_a_video import enhance, enhance_attention
from enhance_a_video.attention import Tokens
from enhance_a_video.errors import UnsupportedModelError
from enhance_a_video.models import attention_modules, row_of, scaled_module
from enhance_a_video.policies import Constant, Strength, Trust, Window

BOUND = 0.05
TIGHT = Trust(Constant(3.0), BOUND)  # every layer would like more


@pytest.fixture
def wan():
    return TINY["wan"].model()


def tensors(values):
    return [value for value in values if isinstance(value, torch.Tensor)]


class Around:
    """While it lasts: what `module` puts out, and what entered the module that was running around it."""

    def __init__(self, model, module):
        self.model, self.module = model, module

    def __enter__(self):
        self.running, self.outputs, self.entered, self.hooks = [], [], [], []
        for m in self.model.modules():
            self.hooks.append(m.register_forward_pre_hook(self.enter, with_kwargs=True))
            self.hooks.append(m.register_forward_hook(self.leave))
        return self

    def enter(self, module, args, kwargs):
        self.running.append((module, tensors([*args, *kwargs.values()])))

    def leave(self, module, args, output):
        self.running.pop()
        if module is self.module:
            self.outputs.append(output)
            self.entered.append(next(given for m, given in reversed(self.running) if not isinstance(m, nn.Sequential)))

    def __exit__(self, *exc):
        for hook in self.hooks:
            hook.remove()

    def changes(self, samples, part=0):
        """rms(what the last run put out more than the first) / rms(stream), for each sample, of the rows that are
        video: those that changed."""
        ends = self.outputs[0], self.outputs[-1]  # between them a described model's layers are tried (probe.py)
        before, after = (out[part] if isinstance(out, tuple) else out for out in ends)
        changed, stream = after - before, self.entered[0][part]
        assert torch.equal(stream, self.entered[-1][part])
        found = []
        for more, entered in zip(changed.chunk(samples), stream.chunk(samples), strict=True):
            more = more[(more != 0).any(-1)]
            found.append(float(more.pow(2).mean().sqrt() / entered.pow(2).mean().sqrt()))
        return found


@pytest.mark.parametrize("name", TINY)
def test_the_stream_of_a_block_changes_by_the_bound(name):
    """The last layer alone is scaled, so that what enters it is the same without and with."""
    tiny = TINY[name]
    model, inputs = tiny.model(), tiny.inputs()
    layer, (attention, axis) = list(attention_modules(model, row_of(model).axes).items())[-1]
    module = scaled_module(model, axis, layer) or attention
    with Around(model, module) as around:
        run(model, inputs)
        with enhance(model, policy=TIGHT, layers=[-1]):
            run(model, inputs)
    part = axis.tokens.argument or 0
    assert around.changes(2 if tiny.batches else 1, part) == pytest.approx([BOUND] * (1 + tiny.batches), rel=1e-3)


def test_a_wide_region_changes_nothing_and_an_empty_one_everything(wan):
    inputs = TINY["wan"].inputs()
    plain = run(wan, inputs)
    with enhance(wan, policy=Strength(2.0)) as alone:
        enhanced = run(wan, inputs)
    with enhance(wan, policy=Trust(Strength(2.0), 1e6)) as wide:
        assert torch.equal(run(wan, inputs), enhanced)
    with enhance(wan, policy=Trust(Strength(2.0), 0.0)):
        assert torch.equal(run(wan, inputs), plain)
    for column in ("gain", "mass", "clipped"):
        assert (getattr(wide.summary(), column) == getattr(alone.summary(), column)).all()


@pytest.mark.parametrize("name", ["wan", "latte", "hunyuan", "mochi"])
def test_a_batch_of_two_is_two_batches_of_one(name):
    model, inputs = TINY[name].model(), TINY[name].inputs(batch=2)
    quiet = {k: v * torch.tensor([1.0, 0.2]).view(2, *[1] * (v.ndim - 1)) if k == "hidden_states" else v
             for k, v in inputs.items()}  # fmt: skip
    with enhance(model, policy=TIGHT):
        both = run(model, quiet)
        alone = torch.cat([run(model, take(quiet, slice(b, b + 1))) for b in range(2)])
    assert torch.allclose(both, alone, rtol=1e-5, atol=1e-5)


def test_one_gain_for_a_batch_is_bounded_over_the_batch(wan):
    with Around(wan, wan.blocks[1].attn1) as around:
        run(wan, TINY["wan"].inputs())
        with enhance(wan, policy=TIGHT, layers=[1], per_sample=False):
            run(wan, TINY["wan"].inputs())
    assert around.changes(1) == pytest.approx([BOUND], rel=1e-4)
    assert around.changes(2) != pytest.approx([BOUND] * 2, rel=1e-4)


def test_clipped_sites_are_those_of_the_policy_inside(wan):
    inputs = {**TINY["wan"].inputs(), "hidden_states": 3 * noise(2, 4, T, 8, 12)}
    found = []
    for policy in (Strength(0.35), Trust(Strength(0.35), 0.01)):
        with enhance(wan, policy=policy, sites=None) as handle:
            run(wan, inputs)
        found.append(handle.summary().clipped[0, 0])
    assert 0 < found[0] < 1 and found[0] == found[1]


def test_observing_changes_no_bit_and_outside_its_window_neither(wan):
    inputs = TINY["wan"].inputs()
    plain = run(wan, inputs)
    with enhance(wan, policy=TIGHT, observe_only=True) as handle:
        assert torch.equal(run(wan, inputs), plain)
    assert (handle.summary().gain > 1).all() and (handle.summary().gain < 3).all()
    with enhance(wan, policy=Window(TIGHT, 0.0, 0.1)):
        assert torch.equal(run(wan, TINY["wan"].inputs(timestep=500.0)), plain)


def test_half_precision_and_double(wan):
    for dtype in (torch.bfloat16, torch.float64):
        inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in TINY["wan"].inputs().items()}
        with enhance(wan.to(dtype), policy=TIGHT) as handle:
            assert run(wan, inputs).dtype == dtype
        assert (handle.summary().gain > 1).all() and (handle.summary().gain < 3).all()


# ------------------------------------------------------------------------------------------------- what it leaves
def state(model):
    return {
        name: (type(m), {k: dict(v) if isinstance(v, dict) else id(v) for k, v in vars(m).items()})
        for name, m in model.named_modules()
    }


@pytest.mark.parametrize("name", ["wan", "cogvideox_5b", "hunyuan", "mochi", "latte", "animatediff", "sana_wm"])
def test_undo_leaves_nothing_and_copies_are_plain(name):
    model, inputs = TINY[name].model(), TINY[name].inputs()
    plain, before = run(model, inputs), state(model)
    handle = enhance(model, policy=TIGHT)
    enhanced = run(model, inputs)
    assert not torch.equal(enhanced, plain)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(run(twin, inputs), plain)
        assert [type(m) for m in twin.modules()] == [kind for kind, _ in before.values()]
    assert torch.equal(run(model, inputs), enhanced)
    handle.remove()
    assert state(model) == before and torch.equal(run(model, inputs), plain)


def test_who_does_not_ask_watches_no_block(wan):
    kinds = {name: type(m) for name, m in wan.named_modules() if name}  # the model's own is another while enhanced
    with enhance(wan, policy=Window(Strength(2.0))):
        assert {name: type(m) for name, m in wan.named_modules() if name} == kinds
    with enhance(wan, policy=Window(TIGHT), layers=[1]):
        assert [name for name, m in wan.named_modules() if name and type(m) is not kinds[name]] == ["blocks.1"]
        assert isinstance(wan.blocks[1], kinds["blocks.1"]) and type(wan.blocks[1]).__name__ == "WanTransformerBlock"


@pytest.mark.parametrize("cache_first", [True, False])
def test_step_caches_in_either_order(wan, cache_first):
    from diffusers import FirstBlockCacheConfig

    inputs = TINY["wan"].inputs()
    plain = run(wan, inputs)
    with enhance(wan, policy=TIGHT):
        expected = run(wan, inputs)
    never = FirstBlockCacheConfig(threshold=0.0)  # its hooks stand in for the blocks' forward, and skip nothing
    if cache_first:
        wan.enable_cache(never)
    handle = enhance(wan, policy=TIGHT)
    if not cache_first:
        wan.enable_cache(never)
    assert "forward" in vars(wan.blocks[0])
    with wan.cache_context("cond"):
        assert torch.equal(run(wan, inputs), expected)
    handle.remove()
    wan.disable_cache()
    assert torch.equal(run(wan, inputs), plain)


# --------------------------------------------------------------------------------------------------- torch.compile
@pytest.fixture
def counter():
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["wan", "hunyuan", "latte", "mochi"])
def test_one_graph_equal_to_eager(name, counter):
    model, x = TINY[name].model(), TINY[name].inputs()
    with enhance(model, policy=TIGHT):
        expected = run(model, x)
        compiled = torch.compile(model, fullgraph=True, backend=counter)
        assert torch.allclose(run(compiled, x), expected, atol=1e-6)
    assert counter.frame_count == 1


@pytest.mark.parametrize("whole", [True, False])
def test_switched_on_and_off_after_compiling(whole, counter, wan):
    x = TINY["wan"].inputs()
    policies = [None, Strength(2.0), Trust(Strength(2.0), 0.05), Trust(Strength(1.5), 0.02)]
    expected = []
    for policy in policies:
        handle = enhance(wan, policy=policy) if policy else None
        expected.append(run(wan, x))
        if handle:
            handle.remove()
    model = torch.compile(wan, fullgraph=True, backend=counter) if whole else wan
    if not whole:
        wan.compile_repeated_blocks(fullgraph=True, backend=counter)
    for _ in range(2):
        for policy, output in zip(policies, expected, strict=True):
            handle = enhance(wan, policy=policy) if policy else None
            assert torch.equal(run(model, x), output)
            if handle:
                handle.remove()
    assert counter.frame_count == 3  # plain, a strength, a trust region: the numbers in them are tensors


# ------------------------------------------------------------------------------------- models not in diffusers
OPEN_SORA = {"attention": r"^temporal_blocks\.\d+\.attn$", "frames": T, "tokens": Tokens("temporal"),
             "query_key": query_and_key, "start": 0.0, "end": 1.0}  # fmt: skip


def test_a_described_model():
    torch.manual_seed(0)
    model, x = OpenSoraLike().requires_grad_(False), {"x": noise(2, 4, T, 4, 6), "timestep": torch.ones(2)}
    with Around(model, model.temporal_blocks[1].attn) as around:
        model(**x)
        with enhance_attention(model, policy=TIGHT, **{**OPEN_SORA, "attention": [model.temporal_blocks[1].attn]}):
            model(**x)
    assert around.changes(2) == pytest.approx([BOUND] * 2, rel=1e-4)


def test_a_block_that_is_its_own_attention():
    """What is scaled is its projection, and the block around that is the layer itself."""
    from enhance_a_video.attention.query_key import Kernel

    torch.manual_seed(0)
    model = JointModel().requires_grad_(False)
    x = {"video": noise(2, 4 * T, 16), "text": noise(2, 5, 16), "frames": T}
    kinds = [type(m) for m in model.modules()]
    with Around(model, model.double_blocks[1].video_proj) as around:
        model(**x)
        with enhance_attention(
            model, attention=r"^double_blocks\.1$", frames="frames", tokens=Tokens("video first"), policy=TIGHT,
            query_key=Kernel("kernels.flash_attention"), scale_at=".video_proj",
        ):  # fmt: skip
            model(**x)
    assert around.changes(2) == pytest.approx([BOUND] * 2, rel=1e-4)
    assert [type(m) for m in model.modules()] == kinds


def test_no_block_is_refused_before_anything_changes():
    model = Block(16, 2, temporal=True, turn=False)
    before = state(model)
    with pytest.raises(UnsupportedModelError, match="attn is in no block"):
        enhance_attention(model, policy=TIGHT, **{**OPEN_SORA, "attention": "^attn$"})
    assert state(model) == before


class Bypassing(OpenSoraLike):
    """Calls the attention of a block and not the block."""

    def forward(self, x, timestep):
        sites = x.flatten(3).permute(0, 3, 2, 1).flatten(0, 1)  # (B*S, T, C)
        return self.temporal_blocks[0].attn(self.embed(sites))


def test_an_attention_outside_of_its_block_is_an_error():
    model = Bypassing()
    with (
        enhance_attention(model, policy=TIGHT, **OPEN_SORA),
        pytest.raises(UnsupportedModelError, match=r"temporal_blocks\.0\.attn ran outside of its block"),
    ):
        model(noise(2, 4, T, 4, 6), torch.ones(2))
