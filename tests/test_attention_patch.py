"""The attention patch: observes the kernel's inputs, scales what the processor returns, leaves nothing behind."""

import copy
import inspect
import pickle
import sys

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0
from diffusers.models.transformers import transformer_wan
from tiny_models import TINY, H, T, W, run

from enhance_a_video.attention import AttentionPatch, Tokens
from enhance_a_video.errors import TokenLayoutError, UnsupportedModelError
from enhance_a_video.operators import scaled


class Spy:
    """A watch that keeps the calls that it observes and answers a fixed gain."""

    acts_at_kernel = False
    num_frames, samples = T, None

    def __init__(self, place="video only", gain=None, rows=None, scaled_later=False, **tokens):
        self.name, self.tokens, self.scaled_later = "spied layer", Tokens(place, **tokens), scaled_later
        self.query_key, self.answer, self.video, self.seen = None, gain, rows, []

    def rows(self):
        return self.video

    def facts(self):
        return {}

    def observe(self, call):
        self.seen.append((*call.video_query_key(), call.scale))
        return len(self.seen), None

    def gain(self, seen, residual=None):
        return self.answer


@pytest.fixture
def wan():
    return TINY["wan"].model()


def attended(model, inputs, watch, name="blocks.0.attn1"):
    """(output of the module, plain output of the module) with the watch on it."""
    module, outputs = model.get_submodule(name), []
    hook = module.register_forward_hook(lambda m, args, out: outputs.append(out))
    run(model, inputs)
    seam = AttentionPatch(module, watch)
    seam.attach()
    run(model, inputs)
    seam.detach()
    hook.remove()
    return outputs[1], outputs[0]


def test_it_sees_the_kernels_query_and_key(wan, monkeypatch):
    kernel, calls = transformer_wan.dispatch_attention_fn, []

    def tapped(query, key, value, **kwargs):
        calls.append((query, key))
        return kernel(query, key, value, **kwargs)

    monkeypatch.setattr(transformer_wan, "dispatch_attention_fn", tapped)
    spy = Spy()
    attended(wan, TINY["wan"].inputs(), spy)
    (query, key, scale), (q, k) = spy.seen[0], calls[4]  # two layers of self- and cross-attention per plain run
    assert query.shape == (2, 2, T * H * W, 12) and scale is None
    assert torch.equal(query, q.transpose(1, 2)) and torch.equal(key, k.transpose(1, 2))


@pytest.mark.parametrize("name, module, place", [
    ("cogvideox_5b", "transformer_blocks.0.attn1", "text first"),
    ("hunyuan", "transformer_blocks.0.attn", "video first"),
    ("hunyuan", "single_transformer_blocks.1.attn", "video first"),
])  # fmt: skip
def test_text_tokens_are_neither_seen_nor_scaled(name, module, place):
    tiny, spy = TINY[name], Spy(place, torch.tensor([2.0, 3.0]))
    (video, text), (plain_video, plain_text) = attended(tiny.model(), tiny.inputs(), spy, module)
    assert spy.seen[0][0].shape[2] == T * H * W
    assert torch.equal(text, plain_text)
    assert torch.equal(video, plain_video * torch.tensor([2.0, 3.0])[:, None, None])


def test_gain_one_is_bit_equal_in_every_dtype():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(2, 50, 8).to(dtype)
        assert torch.equal(scaled(x, torch.ones(2)), x) and scaled(x, torch.ones(1)).dtype == dtype


def test_the_gain_is_not_rounded_to_bf16():
    x, gain = torch.randn(1, 500, 8).bfloat16(), torch.tensor([1.16017])
    with torch.no_grad():
        assert torch.equal(scaled(x, gain), (x.double() * gain.double()).bfloat16())
    assert torch.equal(scaled(x, gain), (x.double() * gain.double()).bfloat16())


def test_attach_and_detach_change_one_processor_and_no_module(wan):
    module, other = wan.blocks[0].attn1, wan.blocks[1].attn1
    home = dict(vars(transformer_wan))
    processor, original, before = module.processor, type(module.processor), dict(module.processor.__dict__)
    seam = AttentionPatch(module, Spy())
    seam.attach()
    assert module.processor is processor and type(processor) is not original and isinstance(processor, original)
    assert type(processor).__name__ == original.__name__ and type(other.processor) is original
    assert inspect.signature(processor.__call__) == inspect.signature(other.processor.__call__)
    assert dict(vars(transformer_wan)) == home
    seam.detach()
    seam.detach()
    assert type(processor) is original and processor.__dict__ == before and module.processor is processor


def test_one_class_for_all_layers(wan):
    """Otherwise torch.compile would make a graph for every layer."""
    seams = [AttentionPatch(block.attn1, Spy()) for block in wan.blocks]
    for seam in seams:
        seam.attach()
    assert type(wan.blocks[0].attn1.processor) is type(wan.blocks[1].attn1.processor)


def test_namespaces_resolve_by_name(wan):
    """Dynamo's guards read a global from sys.modules."""
    AttentionPatch(wan.blocks[0].attn1, Spy()).attach()
    inner = inspect.getclosurevars(type(wan.blocks[0].attn1.processor).__dict__["__call__"]).nonlocals["inner"]
    namespace = sys.modules[inner.__globals__["__name__"]].__dict__
    assert namespace is inner.__globals__ and namespace is not vars(transformer_wan)
    assert inner.__code__ is transformer_wan.WanAttnProcessor.__call__.__code__


def test_copies_and_pickles_are_plain(wan):
    module = wan.blocks[0].attn1
    module.processor._attention_backend = "native"
    seam = AttentionPatch(module, Spy())
    seam.attach()
    processor = module.processor
    for twin in (copy.deepcopy(processor), copy.copy(processor), pickle.loads(pickle.dumps(processor))):
        assert type(twin) is transformer_wan.WanAttnProcessor and twin.__dict__ == {"_attention_backend": "native"}
    assert type(copy.deepcopy(module).processor) is transformer_wan.WanAttnProcessor


def test_a_shared_processor_keeps_serving_the_others():
    model = TINY["cogvideox_5b"].model()
    shared = CogVideoXAttnProcessor2_0()
    model.set_attn_processor(shared)
    first, second = (block.attn1 for block in model.transformer_blocks)
    seam = AttentionPatch(first, Spy("text first"))
    seam.attach(shared=True)
    assert first.processor is not shared and second.processor is shared and type(shared) is CogVideoXAttnProcessor2_0
    first.processor._attention_backend = "native"  # what is set meanwhile is not lost
    seam.detach()
    assert first.processor is shared and shared._attention_backend == "native"


class ScalesByPosition(transformer_wan.WanAttnProcessor):
    def __call__(self, attn, hidden_states, *args):
        q = attn.to_q(hidden_states).unflatten(2, (attn.heads, -1))
        return dispatch_attention_fn(q, q, q, None, 0.0, False, 0.25).flatten(2, 3)


class ScalesByName(transformer_wan.WanAttnProcessor):
    def __call__(self, attn, hidden_states, *args):
        q = attn.to_q(hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(query=q, key=q, value=q, scale=0.125).transpose(1, 2).flatten(2, 3)


@pytest.mark.parametrize("processor, scale", [(ScalesByPosition, 0.25), (ScalesByName, 0.125)])
def test_the_kernels_own_scale_is_honoured(wan, processor, scale):
    spy = Spy()
    wan.blocks[0].attn1.processor = processor()
    attended(wan, TINY["wan"].inputs(), spy)
    assert spy.seen[0][2] == scale


def test_a_processor_that_skips_its_kernel_is_an_error(wan):
    class Skips(transformer_wan.WanAttnProcessor):
        def __call__(self, attn, hidden_states, *args):
            return hidden_states if hidden_states is not None else dispatch_attention_fn(None, None, None)

    wan.blocks[0].attn1.processor = Skips()
    with pytest.raises(UnsupportedModelError, match="without calling its attention kernel"):
        attended(wan, TINY["wan"].inputs(), Spy())


def test_a_processor_without_a_kernel_is_refused(wan):
    class Opaque:
        def __call__(self, attn, hidden_states, *args):
            return hidden_states

    wan.blocks[0].attn1.processor = Opaque()
    with pytest.raises(UnsupportedModelError, match="Opaque calls neither"):
        AttentionPatch(wan.blocks[0].attn1, Spy()).attach()
    assert type(wan.blocks[0].attn1.processor) is Opaque


def test_cross_attention_is_refused(wan):
    spy = Spy()
    with pytest.raises(TokenLayoutError, match="spied layer: expected self-attention"):
        attended(wan, TINY["wan"].inputs(), spy, "blocks.0.attn2")


def test_layer_skipping_finds_an_enhanced_processor():
    """diffusers finds processors by class; Latte's would be missing."""
    from diffusers.hooks import LayerSkipConfig, apply_layer_skip

    from enhance_a_video import enhance

    model = TINY["latte"].model()
    with enhance(model, strength=2.0, start=0.0, end=1.0):
        enhanced = run(model, TINY["latte"].inputs())
        scores = {"skip_attention": False, "skip_attention_scores": True, "skip_ff": False}
        apply_layer_skip(model, LayerSkipConfig([0], fqn="temporal_transformer_blocks", **scores))
        assert not torch.equal(run(model, TINY["latte"].inputs()), enhanced)
