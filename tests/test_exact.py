"""Exact odds equal the softmax with log(odds) added to the logits of other frames, in every layout; gradients too."""

import diffusers
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import attention_backend
from tiny_models import TINY, T, run
from torch._dynamo.testing import CompileCounter

from enhance_a_video import Settings, enhance
from enhance_a_video.errors import SettingsError
from enhance_a_video.operators import AttentionCall, CrossFrame, Exact, Output, kernels, usable
from enhance_a_video.operators.exact import share_of_others
from enhance_a_video.policies import Odds

KAPPA = 2.5
ALWAYS = {"start": 0.0, "end": 1.0}


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def odds(mass):
    return KAPPA / (1 + (KAPPA - 1) * mass)


def frame_of(places, call_length, video, frames):
    """The frame of each token; -1 where it is not video, (L,)."""
    rows = torch.arange(call_length)[video]
    found = torch.full((call_length,), -1)
    found[rows] = torch.arange(len(rows)) // (len(rows) // frames)
    return found


def biased(q, k, v, video, frames, mask=None, scale=None, kappa=KAPPA):
    """Output and share of others of the softmax in fp64 with log(kappa) on the logits of video keys of other frames."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask.double()
    frame = frame_of(None, q.shape[2], video, frames)
    other = (frame[:, None] >= 0) & (frame[None] >= 0) & (frame[:, None] != frame[None])
    share = (logits.softmax(-1) * other).sum(-1)[:, :, frame >= 0]
    return (logits + torch.tensor(kappa).double().log() * other).softmax(-1) @ v, share


LAYOUTS = {  # L, video
    "video alone": (24, slice(None)),
    "text behind": (31, slice(0, 24)),
    "text before": (31, slice(7, 31)),
    "between": (36, slice(5, 29)),
    "indices": (31, torch.cat([torch.arange(0, 12), torch.arange(15, 27)])),
}


@pytest.mark.parametrize("size", [8, 20, 64, 80])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_biased_softmax(layout, size):
    length, video = LAYOUTS[layout]
    q, k, v = (noise(2, 4, length, size, seed=i) for i in range(3))
    call, masses = AttentionCall(q, k, v, num_frames=4, video=video), []

    def gains(mass):
        masses.append(mass)
        return odds(mass)

    found = Exact().attend(call, gains)
    wanted, share = biased(q, k, v, video, 4)
    assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    assert (masses[0] - share).abs().max() <= 2e-6 and masses[0].dtype == torch.float32
    assert (Exact().mass(call) - share).abs().max() <= 2e-6


@pytest.mark.parametrize(
    "kind", ["bool", "bool, of keys", "added", "added, one for all keys", "a query without keys", "no own frame"]
)
def test_masks(kind):
    q, k, v = (noise(2, 2, 28, 16, seed=i) for i in range(3))
    mask = noise(2, 1, 28, 28, seed=5) > -0.5
    mask |= torch.eye(28, dtype=torch.bool)
    if kind == "bool, of keys":
        mask = mask[:, :, :1] | (torch.arange(28) < 24)[None, None, None]
        mask[:, :, :, 25] = False
    if kind == "added":
        mask = noise(28, 28, seed=6)
    if kind == "added, one for all keys":
        mask = noise(2, 1, 28, 1, seed=6)
    if kind == "a query without keys":
        mask[:, :, 3] = False
    if kind == "no own frame":  # nor text: all that these six attend to is in other frames
        mask[:, :, :6, :6] = mask[:, :, :6, 24:] = False
        mask[:, :, :6, 6:9] = True
    call = AttentionCall(q, k, v, num_frames=4, video=slice(0, 24), mask=mask)
    if usable(Exact(), call)[0] != Exact():
        pytest.skip("torch has no kernel for this mask here")
    found, (wanted, _) = Exact().attend(call, odds), biased(q, k, v, slice(0, 24), 4, mask)
    if kind == "a query without keys":
        rows = [i for i in range(28) if i != 3]
        assert found[:, :, rows].isfinite().all()
        found, wanted = found[:, :, rows], wanted[:, :, rows]
    assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()


def test_grouped_heads_a_scale_and_bfloat16():
    q, k, v = noise(1, 6, 24, 16), noise(1, 2, 24, 16, seed=1), noise(1, 2, 24, 16, seed=2)
    call = AttentionCall(q, k, v, num_frames=4, scale=0.4)
    wanted, _ = biased(q, k, v, slice(None), 4, scale=0.4)
    assert (Exact().attend(call, odds) - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    half = AttentionCall(*(x.bfloat16() for x in (q, k, v)), num_frames=4, scale=0.4)
    assert (Exact().attend(half, odds) - wanted).abs().max() <= 0.02 * wanted.abs().max()


def test_temporal_layers():
    """Sequences of one token a frame: (B*S, H, T, D)."""
    q, k, v = (noise(6, 2, 5, 8, seed=i) for i in range(3))
    call = AttentionCall(q, k, v, num_frames=5, samples=2)
    wanted, share = biased(q, k, v, slice(None), 5)
    assert (Exact().attend(call, odds) - wanted).abs().max() <= 2e-6
    assert (Exact().mass(call) - share).abs().max() <= 2e-6


def test_a_share_of_nothing_is_nothing():
    low = float("-inf")
    found = share_of_others(torch.tensor([low, 0.0, 0.0]), torch.tensor([low, low, 0.0]))
    assert found.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("layout", ["video alone", "text behind"])
def test_gradients_are_those_of_the_biased_softmax(layout):
    length, video = LAYOUTS[layout]
    start = [noise(1, 2, length, 16, seed=i) for i in range(3)]
    weight, grads = noise(1, 2, length, 16, seed=9), []
    for attend in (
        lambda q, k, v: Exact().attend(AttentionCall(q, k, v, num_frames=4, video=video), odds),
        lambda q, k, v: biased(q, k, v, video, 4)[0].float(),
    ):
        leaves = [x.clone().requires_grad_() for x in start]
        (attend(*leaves) * weight).sum().backward()
        grads.append([x.grad for x in leaves])
    for found, wanted in zip(*grads, strict=True):
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_gradients_where_a_query_has_no_key_at_all_or_none_of_its_own_frame():
    mask = torch.ones(24, 24, dtype=torch.bool)
    mask[:6, :6], mask[7] = False, False
    rows, start, grads = [i for i in range(24) if i != 7], [noise(1, 2, 24, 16, seed=i) for i in range(3)], []
    for attend in (
        lambda q, k, v: Exact().attend(AttentionCall(q, k, v, num_frames=4, mask=mask), odds),
        lambda q, k, v: biased(q, k, v, slice(None), 4, mask.index_fill(0, torch.tensor(7), True))[0].float(),
    ):
        leaves = [x.clone().requires_grad_() for x in start]
        attend(*leaves)[:, :, rows].square().sum().backward()
        grads.append([x.grad for x in leaves])
    for found, wanted in zip(*grads, strict=True):
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_an_operator_of_torch_that_changed_is_not_used(monkeypatch):
    name = "_scaled_dot_product_flash_attention_for_cpu"
    assert kernels._checked(name) is not None
    monkeypatch.setitem(kernels._SCHEMAS, name, (("query", "key", "other"), ("scale",)))
    monkeypatch.setitem(kernels._OPERATORS, name, kernels._checked(name))
    q = noise(1, 1, 8, 8)
    operator, reasons = usable(Exact(), AttentionCall(q, q, q, num_frames=2))
    assert operator == CrossFrame() and "torch has no kernel here" in reasons[0]


@pytest.mark.parametrize("masked", [False, True])
def test_written_out_where_no_kernel_is(monkeypatch, masked):
    """A frame's own call may be one that no kernel takes, though the whole call is."""
    q, k, v = noise(2, 4, 9, 16), noise(2, 2, 9, 16, seed=1), noise(2, 2, 9, 16, seed=2)
    mask = noise(9, 9, seed=3) > -0.5 if masked else None
    if masked:
        mask[4] = False
    expected = kernels.attention_with_lse(q, k, v, mask)
    monkeypatch.setattr(kernels, "pair_kernel", lambda *tensors: None)
    rows = [i for i in range(9) if not masked or i != 4]
    for found, wanted in zip(kernels.attention_with_lse(q, k, v, mask), expected, strict=True):
        assert torch.allclose(found[:, :, rows], wanted[:, :, rows], atol=1e-5) and not found.isnan().any()
    assert not masked or (kernels.attention_with_lse(q, k, v, mask)[1][:, :, 4] == float("-inf")).all()


def test_which_operator_stands_in():
    q, other = noise(1, 2, 8, 8), lambda q, k, v, mask: v
    assert usable(Exact(), AttentionCall(q, q, q, num_frames=2, kernel=other))[0] == CrossFrame()
    assert usable(Exact(), AttentionCall(q, q, q, num_frames=2, kernel=other, kernel_is_torchs=True))[0] == Exact()
    assert usable(Exact(), AttentionCall(q, q, q, num_frames=2, causal=True))[0] == Output()


# ------------------------------------------------------------------------------------------------------ in a model


@pytest.mark.parametrize("name", ["wan", "hunyuan", "cogvideox", "ltx", "latte", "kandinsky_5", "cosmos", "mochi"])
def test_in_real_classes(name):
    """The model with odds is the model whose attention is the biased softmax, layer by layer."""
    if name not in TINY:
        pytest.skip(f"{name} is no tiny model here")
    model, inputs = TINY[name].model(), TINY[name].inputs()
    plain = run(model, inputs)
    with enhance(model, odds=KAPPA, scale="exact", **ALWAYS) as handle:
        ours = run(model, inputs)
    summary = handle.summary()
    if name == "mochi":  # its processor computes attention sample by sample
        assert set(summary.operators.values()) == {"output"} and summary.scaled_whole
        return
    assert set(summary.operators.values()) == {"exact"} and not summary.fallbacks
    assert not torch.equal(ours, plain) and torch.equal(run(model, inputs), plain)
    with enhance(model, odds=1.0, scale="exact", **ALWAYS):
        assert torch.equal(run(model, inputs), plain)


def test_wan_is_the_model_with_biased_logits(monkeypatch):
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    with enhance(model, odds=KAPPA, scale="exact", **ALWAYS) as handle:
        ours = run(model, inputs)
    shares = []

    class Biased:
        """The processor's kernel, written out."""

        def __init__(self, original):
            self.original = original

        def __call__(self, query, key, value, attn_mask=None, **rest):
            if query.shape[1] != key.shape[1]:  # cross-attention to text
                return self.original(query, key, value, attn_mask=attn_mask, **rest)
            q, k, v = (x.transpose(1, 2) for x in (query, key, value))
            output, share = biased(q, k, v, slice(None), T)
            shares.append(share.mean())
            return output.to(query.dtype).transpose(1, 2)

    home = diffusers.models.transformers.transformer_wan
    monkeypatch.setattr(home, "dispatch_attention_fn", Biased(home.dispatch_attention_fn))
    theirs = run(model, inputs)
    assert (ours - theirs).abs().max() <= 2e-5 * theirs.abs().max()
    assert torch.allclose(torch.tensor(handle.summary().mass[0]), torch.stack(shares).float(), atol=1e-5)


def test_another_backend_falls_back_and_the_summary_names_it():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    with attention_backend("_native_math"), enhance(model, odds=KAPPA, scale="exact", **ALWAYS) as handle:
        run(model, inputs)
    summary = handle.summary()
    assert set(summary.operators.values()) == {"cross-frame"} and len(summary.fallbacks) == len(summary.layers)
    assert "cross-frame in place of exact" in str(summary) and "log-sum-exp is not known" in str(summary)


def test_outside_its_window_it_is_the_plain_model():
    model = TINY["wan"].model()
    inputs = TINY["wan"].inputs()
    plain = run(model, inputs)
    with enhance(model, odds=KAPPA, scale="exact", start=0.0, end=0.01) as handle:
        late = TINY["wan"].inputs(timestep=20.0)
        out = run(model, late)
    assert torch.equal(out, run(model, late)) and not handle.summary().active.any()
    assert torch.equal(run(model, inputs), plain)


def test_it_compiles_to_one_graph():
    torch._dynamo.reset()
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    with torch.no_grad(), enhance(model, odds=KAPPA, scale="exact", **ALWAYS):
        expected = run(model, inputs)
        counter = CompileCounter()
        compiled = torch.compile(model, fullgraph=True, backend=counter)
        found = run(compiled, inputs)
        run(compiled, TINY["wan"].inputs(timestep=300.0))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5) and counter.frame_count == 1
    torch._dynamo.reset()


def test_an_enhanced_model_can_be_fine_tuned():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    weight = model.blocks[0].attn1.to_k.weight.requires_grad_()
    with enhance(model, odds=KAPPA, scale="exact", **ALWAYS) as handle:
        for _ in range(2):  # the record keeps nothing of a graph
            model(**inputs)[0].square().mean().backward()
    assert weight.grad.isfinite().all() and weight.grad.abs().max() > 0 and handle.summary().calls_made == 2


def test_settings_and_policies_take_it():
    settings = Settings(odds=2, scale="exact")
    assert settings.operator == Exact(CrossFrame(Output())) and Settings.from_dict(settings.to_dict()) == settings
    assert Settings(policy=Odds(2.0), scale="exact").operator == Exact(CrossFrame(None))
    with pytest.raises(SettingsError, match="'output', 'cross-frame' or 'exact'"):
        Settings(odds=2, scale="precise")


def test_the_kernels_log_sum_exp_is_that_of_the_logits():
    q, k, v = (noise(2, 3, 10, 16, seed=i) for i in range(3))
    out, lse = kernels.attention_with_lse(q, k, v)
    logits = (q @ k.mT) * 16**-0.5
    assert torch.allclose(lse, logits.logsumexp(-1), atol=1e-5)
    assert torch.allclose(out, F.scaled_dot_product_attention(q, k, v), atol=1e-6)
