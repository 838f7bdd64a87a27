"""enhance_attention(): models that are not in diffusers, each with its own way to compute attention."""

import copy
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from other_models import JointModel, OpenSoraLike, TemporalUNet, WanLike, kernels, query_and_key, wan_like
from other_models.wan_like import rope_apply
from torch import nn
from torch._dynamo.testing import CompileCounter

from enhance_a_video import enhance, enhance_attention
from enhance_a_video.attention import Tokens
from enhance_a_video.attention.query_key import Kernel, Outputs
from enhance_a_video.enhancement import enhancement_of
from enhance_a_video.errors import (
    AlreadyEnhancedError,
    NoLayersError,
    SettingsError,
    TokenLayoutError,
    UnsupportedModelError,
)
from enhance_a_video.models import FrameCount, SelfAttention
from enhance_a_video.progress import Flow

T, H, W = 4, 4, 6
ALWAYS = {"start": 0.0, "end": 1.0}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clip(letters, loud=3.0, size=(H, W)):
    """A video (4, T, H, W) whose frames are named by letters: equal letters are equal frames."""
    return torch.stack([loud * noise(4, *size, seed=ord(letter)) for letter in letters], 1)


def built(model):
    torch.manual_seed(0)
    return model().eval().requires_grad_(False)


def anatomy(model):
    """Everything of every module that an enhancement could touch."""
    found = {}
    for name, module in model.named_modules():
        found[f"{name}|class"] = type(module)
        for key, value in vars(module).items():
            found[f"{name}|{key}"] = dict(value) if isinstance(value, dict) else id(value)
    return found


# --------------------------------------------------------------- the original Wan's way: a function of their own
PADDED = T * H * W + 5


def wan(turned=False):
    model = built(WanLike)
    if turned:  # key = query projections: a token attends to tokens like itself
        for block in model.blocks:
            block.self_attn.k.load_state_dict(block.self_attn.q.state_dict())
    return model


def wan_inputs(*videos):
    videos = videos or (noise(4, T, 2 * H, 2 * W), noise(4, T, 2 * H, 2 * W, seed=1))
    B = len(videos)
    return {"x": list(videos), "t": torch.full((B,), 900.0), "context": noise(B, 5, 24, seed=2), "seq_len": PADDED}


def run_wan(model, inputs):
    with torch.no_grad():
        return torch.stack(model(**inputs))


def wan_frames(arguments):
    return arguments["x"][0].shape[1]


WAN = {
    "attention": r"^blocks\.\d+\.self_attn$",
    "tokens": Tokens("video only"),
    "frames": wan_frames,
    "query_key": Kernel("flash_attention", "B L H D"),
    "video": lambda arguments: slice(0, wan_frames(arguments) * H * W),  # the rest is padding
}


def by_hand(q, k, frames):
    """The paper's eq. 5, written as it stands; q, k (B, H, T*S, D) -> mass (B,)"""
    q, k = (x.unflatten(2, (frames, -1)).transpose(2, 3) for x in (q, k))  # (B, H, S, T, D)
    attention = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    off_diagonal = attention.sum((-2, -1)) - attention.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (off_diagonal / frames).mean((1, 2))


def test_a_function_of_their_own_is_seen_and_the_output_scaled(monkeypatch):
    """Against the formula by hand, on q and k taken at the function, and the modules scaled by hooks."""
    model, inputs = wan(), wan_inputs()
    plain = run_wan(model, inputs)
    with enhance_attention(model, **WAN, strength=2.0, sites=None, **ALWAYS) as handle:
        ours = run_wan(model, inputs)
    seen, masses = [], []

    def tapped(q, k, v, **kwargs):
        seen[:] = [x[:, : T * H * W].transpose(1, 2) for x in (q, k)]
        return kernels.flash_attention(q, k, v, **kwargs)

    def scale(module, args, output):
        masses.append(by_hand(*seen, T))
        output = output.clone()
        output[:, : T * H * W] *= (3.0 * masses[-1]).clamp(min=1)[:, None, None]
        return output

    monkeypatch.setattr(wan_like, "flash_attention", tapped)
    for block in model.blocks:
        block.self_attn.register_forward_hook(scale)
    theirs = run_wan(model, inputs)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) and (ours - plain).norm() > 0.05 * plain.norm()
    assert torch.allclose(torch.tensor(handle.summary().mass).mean(0), torch.stack(masses).mean(1), atol=1e-5)


@pytest.mark.parametrize("letters, least, most", [("AAAA", 0.5, 0.76), ("ABCD", 0.0, 0.25)])
def test_still_and_unrelated_frames(letters, least, most):
    model = wan(turned=True)
    with enhance_attention(model, **WAN, sites=None, **ALWAYS) as handle:
        run_wan(model, wan_inputs(clip(letters, size=(2 * H, 2 * W))))
    assert least <= handle.summary().mass[0, 0] <= most


def test_a_wrong_axis_is_seen_in_the_masses():
    """Sites first instead of frames: what the masses of the planted clips are for."""

    def first_sites(module, args, kwargs):
        x, _, grid = args
        q, k = (norm(y(x)).unflatten(2, (2, -1)) for norm, y in ((module.norm_q, module.q), (module.norm_k, module.k)))
        q, k = (rope_apply(y, grid)[:, : T * H * W].transpose(1, 2) for y in (q, k))
        return tuple(y.unflatten(2, (H * W, T)).transpose(2, 3).flatten(2, 3) for y in (q, k))

    wrong = {**WAN, "query_key": first_sites, "tokens": Tokens("video only", argument=None), "video": None}
    model, masses = wan(turned=True), []
    for letters in ("AAAA", "ABCD"):
        with enhance_attention(model, **wrong, sites=None, **ALWAYS) as handle:
            run_wan(model, wan_inputs(clip(letters, size=(2 * H, 2 * W))))
        masses.append(handle.summary().mass[0, 0])
    assert masses[0] < 0.5 and abs(masses[0] - masses[1]) < 0.2


def test_several_videos_in_a_batch_are_independent():
    model = wan()
    still, moving = clip("AAAA", size=(2 * H, 2 * W)), noise(4, T, 2 * H, 2 * W)
    both = wan_inputs(still, moving)
    with enhance_attention(model, **WAN, strength=3.0, **ALWAYS):
        together = run_wan(model, both)
        alone = [run_wan(model, {**wan_inputs(v), "context": both["context"][i : i + 1]}) for i, v in
                 enumerate((still, moving))]  # fmt: skip
    assert torch.allclose(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_undo_is_complete():
    model, inputs = wan(), wan_inputs()
    before, plain, home, modules = anatomy(model), run_wan(model, inputs), dict(vars(wan_like)), type(model)
    handle = enhance_attention(model, **WAN, strength=2.0, **ALWAYS)
    assert anatomy(model) != before and enhancement_of(model) is handle and dict(vars(wan_like)) == home
    with pytest.raises(AlreadyEnhancedError):
        enhance_attention(model, **WAN, **ALWAYS)
    run_wan(model, inputs)
    for _ in range(2):
        handle.remove()
        assert anatomy(model) == before and type(model) is modules and enhancement_of(model) is None
    assert torch.equal(run_wan(model, inputs), plain)


def test_a_deep_copy_is_plain():
    model, inputs = wan(), wan_inputs()
    plain = run_wan(model, inputs)
    model.blocks[0].self_attn.around = [model.blocks[0]]  # a child with a reference to its parent
    with enhance_attention(model, **WAN, strength=2.0, **ALWAYS):
        twin = copy.deepcopy(model)
        assert torch.equal(run_wan(twin, inputs), plain) and not torch.equal(run_wan(model, inputs), plain)
    assert type(twin.blocks[0].self_attn) is wan_like.SelfAttention
    assert twin.blocks[0].self_attn.around == [twin.blocks[0]]


def test_it_compiles_to_one_graph():
    torch._dynamo.reset()
    model, counter = wan(), CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    noisy = {**WAN, "noise": Flow(5.0), "timestep": "t"}
    with enhance_attention(compiled, **noisy, strength=2.0, end=0.5):
        for t in (950.0, 600.0, 20.0):
            inputs = {**wan_inputs(), "t": torch.full((2,), t)}
            assert torch.allclose(run_wan(compiled, inputs), run_wan(model, inputs), rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 1
    assert torch.equal(run_wan(compiled, wan_inputs()), run_wan(model, wan_inputs())) and counter.frame_count == 2
    torch._dynamo.reset()


def test_the_window_follows_their_own_timestep():
    model, outputs = wan(), []
    noisy = {**WAN, "noise": Flow(5.0), "timestep": "t"}
    with enhance_attention(model, **noisy, strength=2.0, end=0.5) as handle:
        for t in (950.0, 20.0):
            outputs.append(run_wan(model, {**wan_inputs(), "t": torch.full((2,), t)}))
    assert list(handle.summary().active) == [True, False]
    assert torch.equal(outputs[1], run_wan(model, {**wan_inputs(), "t": torch.full((2,), 20.0)}))


def test_one_frame_is_left_alone():
    model, inputs = wan(), wan_inputs(noise(4, 1, 2 * H, 2 * W))
    plain = run_wan(model, inputs)
    with enhance_attention(model, **WAN, strength=2.0, **ALWAYS):
        assert torch.equal(run_wan(model, inputs), plain)


def test_a_pipeline_is_refused_with_the_way_to_its_model():
    with pytest.raises(UnsupportedModelError, match="SimpleNamespace is no torch module"):
        enhance_attention(SimpleNamespace(), **WAN, **ALWAYS)


def test_modules_are_as_good_as_their_names():
    model, inputs = wan(), wan_inputs()
    with enhance_attention(model, **WAN, strength=2.0, layers=[1], **ALWAYS):
        expected = run_wan(model, inputs)
    chosen = {**WAN, "attention": [model.blocks[1].self_attn]}
    with enhance_attention(model, **chosen, strength=2.0, **ALWAYS) as handle:
        assert torch.equal(run_wan(model, inputs), expected)
    assert handle.summary().layers == ["blocks.1.self_attn"] and "1 layers of WanLike" in repr(handle)


# --------------------------------------------------- the way of Open-Sora: frames of one site, attention by hand
SORA = {"attention": r"^temporal_blocks\.\d+\.attn$", "tokens": Tokens("temporal"), "frames": lambda a: a["x"].shape[2]}
NORMS = Outputs("q_norm", "k_norm", "B H L D")


def sora(turn=False, sharp=False):
    model = built(lambda: OpenSoraLike(turn=turn))
    if sharp:  # key = query projections, and large
        for block in model.temporal_blocks:
            for parameter in (block.attn.qkv.weight, block.attn.qkv.bias):
                q, k, _ = parameter.chunk(3)
                k.copy_(q)
            block.attn.q_norm.weight.fill_(3.0)
            block.attn.k_norm.weight.fill_(3.0)
    return model


def run_sora(model, video):
    with torch.no_grad():
        return model(video, torch.full((len(video),), 900.0))


@pytest.mark.parametrize("query_key", [NORMS, query_and_key], ids=["norms", "function"])
def test_attention_by_hand(query_key):
    model, video = sora(), noise(2, 4, T, H, W)
    before, plain, masses = anatomy(model), run_sora(model, video), []
    with enhance_attention(model, **SORA, query_key=query_key, strength=2.0, sites=None, **ALWAYS) as handle:
        ours = run_sora(model, video)
        assert (ours - plain).norm() > 0.02 * plain.norm()
    assert anatomy(model) == before and torch.equal(run_sora(model, video), plain)

    def scale(module, args, output):  # by hand: one gain for a video, not one for a site
        q, k = (x.unflatten(0, (2, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3) for x in query_and_key(module, args, {}))
        masses.append(by_hand(q, k, T))
        return output * (3.0 * masses[-1]).clamp(min=1).repeat_interleave(H * W)[:, None, None]

    for block in model.temporal_blocks:
        block.attn.register_forward_hook(scale)
    assert torch.allclose(ours, run_sora(model, video), rtol=1e-4, atol=1e-5)
    assert torch.allclose(torch.tensor(handle.summary().mass).mean(0), torch.stack(masses).mean(1), atol=1e-5)


def test_norms_are_before_the_rotary_embedding_and_a_function_need_not_be():
    model, video = sora(turn=True), noise(1, 4, T, H, W)
    masses = {}
    for query_key in (NORMS, query_and_key):
        with enhance_attention(model, **SORA, query_key=query_key, sites=None, **ALWAYS) as handle:
            run_sora(model, video)
        masses[query_key] = handle.summary().mass[0, 0]
    seen = []
    model.temporal_blocks[0].attn.register_forward_pre_hook(lambda m, args: seen.append(query_and_key(m, args, {})))
    run_sora(model, video)
    q, k = (x.permute(1, 2, 0, 3).flatten(1, 2)[None] for x in seen[0])  # (1, H, T*S, D)
    assert masses[query_and_key] == pytest.approx(float(by_hand(q, k, T)), abs=1e-6)
    assert abs(masses[NORMS] - masses[query_and_key]) > 1e-3


def test_a_gain_for_each_video_not_for_each_site_or_batch():
    model = sora(sharp=True)
    still, unrelated = clip("AAAA"), clip("ABCD")
    masses = []

    def policy(mass, moment):
        masses.append(mass.clone())
        return (2 * mass).clamp(min=1)

    with enhance_attention(model, **SORA, query_key=NORMS, policy=policy, sites=None, **ALWAYS):
        masses.clear()  # of the policy's trial
        together = run_sora(model, torch.stack([still, unrelated]))
        alone = torch.cat([run_sora(model, video[None]) for video in (still, unrelated)])
    mass = masses[0][:2]  # what the gain of the first layer is made of; behind it each site, for the record
    assert masses[0].shape == (2 + 2 * H * W,) and mass[0] > 0.7 and mass[1] < 0.25
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_spatial_blocks_in_place_of_the_temporal_ones_are_an_error():
    model = sora()
    spatial = {**SORA, "attention": r"^spatial_blocks\.\d+\.attn$"}
    with (
        enhance_attention(model, **spatial, query_key=NORMS, **ALWAYS),
        pytest.raises(TokenLayoutError, match=r"a temporal layer of 4 frames gets .* the kernel got 24"),
    ):
        run_sora(model, noise(2, 4, T, H, W))


def test_modules_that_put_nothing_out_are_an_error():
    model = sora()
    with enhance_attention(model, **SORA, query_key=NORMS, **ALWAYS):
        model.temporal_blocks[1].attn.k_norm = nn.RMSNorm(8)  # replaced since, so that its output is not noted
        with pytest.raises(UnsupportedModelError, match=r"temporal_blocks\.1\.attn.* without running q_norm and"):
            run_sora(model, noise(1, 4, T, H, W))


def test_it_compiles_too():
    torch._dynamo.reset()
    model, video = sora(), noise(2, 4, T, H, W)
    for query_key in (NORMS, query_and_key):
        with enhance_attention(model, **SORA, query_key=query_key, strength=2.0, **ALWAYS):
            compiled = torch.compile(model, fullgraph=True, backend="eager")
            assert torch.allclose(run_sora(compiled, video), run_sora(model, video), rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


# ------------------------------------------- the way of the original HunyuanVideo: a block is its own attention
JOINT = {
    "attention": r"^double_blocks\.\d+$",
    "tokens": Tokens("video first"),
    "frames": "frames",
    "query_key": Kernel("kernels.flash_attention"),
    "scale_at": ".video_proj",
}


def test_a_projection_inside_the_block_is_scaled():
    model, video, text = built(JointModel), noise(2, T * H * W, 16), noise(2, 7, 16, seed=1)
    before, inputs = anatomy(model), []
    with torch.no_grad():
        plain = model(video, text, T)
        with enhance_attention(model, **JOINT, layers=[1], strength=2.0, **ALWAYS) as handle:
            ours = model(video, text, T)
        assert anatomy(model) == before
        model.double_blocks[1].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        model(video, text, T)
    change, changed = plain[0] - inputs[0], ours[0] - inputs[0]  # what the projection adds
    gain = (changed * change).sum((1, 2)) / change.square().sum((1, 2))  # (B,)
    assert torch.allclose(changed, change * gain[:, None, None], rtol=1e-4, atol=1e-5)
    assert torch.equal(ours[1], plain[1])
    assert float(gain.mean()) == pytest.approx(3 * handle.summary().mass[0, 0], rel=1e-4)


SINGLE = SelfAttention(
    names=r"^single_blocks\.\d+$", tokens=Tokens("video first"), query_key=Kernel("kernels.flash_attention"),
    frames=FrameCount("frames"), video=lambda config, a: slice(a["video"].shape[1]), scale_at=".linear2",
)  # fmt: skip


def test_two_kinds_of_blocks_in_one_call():
    """The original HunyuanVideo: blocks of two streams, then blocks over the joint sequence."""
    model, video, text = built(lambda: JointModel(single=2)), noise(2, T * H * W, 16), noise(2, 7, 16, seed=1)
    before, inputs = anatomy(model), []
    model.single_blocks[1].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        plain = model(video, text, T)
        with enhance_attention(model, **JOINT, also=[SINGLE], layers=[-1], strength=2.0, **ALWAYS) as handle:
            ours = model(video, text, T)
        with enhance_attention(model, **JOINT, also=[SINGLE], strength=2.0, **ALWAYS) as every:
            model(video, text, T)
        with enhance_attention(model, **JOINT, also=[SINGLE], layers="double", strength=2.0, **ALWAYS):
            doubles = model(video, text, T)
        with enhance_attention(model, **JOINT, strength=2.0, **ALWAYS):
            assert torch.equal(model(video, text, T)[0], doubles[0])
    assert list(handle.summary().layers) == ["single_blocks.1"]
    assert list(every.summary().layers) == [f"{k}_blocks.{i}" for k in ("double", "single") for i in (0, 1)]
    change, changed = plain[0] - inputs[0][:, : T * H * W], ours[0] - inputs[0][:, : T * H * W]
    gain = (changed * change).sum((1, 2)) / change.square().sum((1, 2))  # (B,)
    assert torch.allclose(changed, change * gain[:, None, None], rtol=1e-4, atol=1e-5)
    assert float(gain.mean()) == pytest.approx(3 * handle.summary().mass[0, 0], rel=1e-4)
    assert torch.equal(ours[1], plain[1])  # text
    model.single_blocks[1]._forward_pre_hooks.clear()
    assert anatomy(model).keys() == before.keys()


@pytest.mark.parametrize("also, error, message", [
    (SINGLE, SettingsError, "give a list of SelfAttention"),
    ([replace(SINGLE, names=r"blocks\.\d+$")], SettingsError, "double_blocks.0 is described twice"),
    ([replace(SINGLE, names="nothing")], NoLayersError, "no module is named like nothing"),
])  # fmt: skip
def test_another_kind_of_blocks_is_checked(also, error, message):
    with pytest.raises(error, match=message):
        enhance_attention(JointModel(single=1), **JOINT, also=also)


def test_kinds_of_blocks_have_the_same_frames():
    model = built(lambda: JointModel(single=1))
    with (
        enhance_attention(model, **JOINT, also=[replace(SINGLE, frames=lambda config, a: 2)], **ALWAYS),
        pytest.raises(TokenLayoutError, match=r"different numbers of frames: 4 .*, 2"),
    ):
        model(noise(1, T * H * W, 16), noise(1, 7, 16), T)


def test_a_projection_that_is_not_behind_the_attention_is_an_error():
    model = built(JointModel)
    with (
        enhance_attention(model, **JOINT, **ALWAYS),
        pytest.raises(UnsupportedModelError, match="ran before query and key were observed"),
    ):
        model(noise(2, T * H * W, 16), noise(2, 7, 16), T, early=True)


def test_it_compiles_with_a_projection_inside():
    torch._dynamo.reset()
    model, arguments = built(JointModel), (noise(2, T * H * W, 16), noise(2, 7, 16, seed=1), T)
    with torch.no_grad(), enhance_attention(model, **JOINT, strength=2.0, **ALWAYS):
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(*arguments)[0], model(*arguments)[0], rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


# ------------------------------------------------------------ a UNet's way: pictures in, a method calls the kernel
UNET = {
    "attention": "^temporal$",
    "tokens": Tokens("temporal", argument=None),
    "frames": T,
    "batch": lambda arguments: len(arguments["noisy"]),
    "query_key": Kernel("torch.nn.functional.scaled_dot_product_attention", "(B H) L D", method="attend", heads=2),
}


def run_unet(model, video):
    with torch.no_grad():
        return model(torch.ones(3, 3), video, sigma=0.1)


def test_a_layer_that_gets_pictures():
    model = built(TemporalUNet)
    q, k = model.temporal.to_qk.weight.chunk(2)
    k.copy_(q.mul_(4))
    still, unrelated = clip("AAAA"), clip("ABCD")
    before, plain = anatomy(model), run_unet(model, torch.stack([still, unrelated]))
    with enhance_attention(model, **UNET, strength=2.0, **ALWAYS) as handle:
        together = run_unet(model, torch.stack([still, unrelated]))
        alone = torch.cat([run_unet(model, video[None]) for video in (still, unrelated)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5) and not torch.allclose(together[0], plain[0])
    mass = handle.summary().mass[:, 0]
    assert mass[1] == pytest.approx(0.75) and mass[2] < 0.3
    assert anatomy(model) == before and torch.equal(run_unet(model, torch.stack([still, unrelated])), plain)


def test_the_temporal_layer_of_diffusers_in_a_unet_of_ones_own():
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.temporal = TransformerTemporalModel(2, 4, in_channels=4, norm_num_groups=2)

        def forward(self, pictures, num_frames):  # (B*T, C, H, W)
            return self.temporal(pictures, num_frames=num_frames, return_dict=False)[0]

    model = built(Mine)
    videos = noise(2, T, 4, H, W)
    description = {
        "attention": r"\.attn[12]$",
        "tokens": Tokens("temporal"),
        "frames": "num_frames",
        "batch": lambda a: len(a["pictures"]) // a["num_frames"],
    }
    with torch.no_grad(), enhance_attention(model, **description, strength=2.0, **ALWAYS) as handle:
        together = model(videos.flatten(0, 1), T)
        alone = torch.cat([model(video, num_frames=T) for video in videos])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5) and handle.summary().gain.shape == (3, 2)
    assert (handle.summary().gain > 1.5).all()


# ------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize("changes, error, message", [
    ({"query_key": Kernel("sage_attention")}, UnsupportedModelError, "no plain function forward that loads sage_atten"),
    ({"query_key": Kernel("flash_attention", method="attend")}, UnsupportedModelError, "no plain function attend"),
    ({"query_key": None}, UnsupportedModelError, "calls neither dispatch_attention_fn nor"),
    ({"query_key": Outputs("norm_q", "norm_x")}, NoLayersError, "no attribute `norm_x`"),
    ({"query_key": Outputs("norm_q", "norm_q")}, UnsupportedModelError, "cannot be distinguished"),
    ({"attention": "("}, SettingsError, "attention="), ({"attention": "nothing"}, NoLayersError, "named like nothing"),
    ({"attention": []}, NoLayersError, "named like"),
    ({"attention": [nn.Linear(1, 1)]}, NoLayersError, "Linear is no module inside this WanLike"),
    ({"start": 0.1}, SettingsError, r"noise=Flow\(shift\)"), ({"strength": -1.0}, SettingsError, "a number from 0 to"),
    ({"scale_at": "nowhere"}, NoLayersError, "no module blocks.0.nowhere"),
    ({"scale_at": ".nowhere"}, NoLayersError, "no module blocks.0.self_attn.nowhere"),
])  # fmt: skip
def test_what_cannot_be_is_reported_and_changes_nothing(changes, error, message):
    model = wan()
    before = anatomy(model)
    with pytest.raises(error, match=message):
        enhance_attention(model, **{**WAN, **ALWAYS, **changes})
    assert anatomy(model) == before


class Ops:
    flash = staticmethod(kernels.flash_attention)


class ThroughAClass(wan_like.SelfAttention):
    def forward(self, x, seq_len, grid):
        q = x.unflatten(2, (self.heads, -1))
        return Ops.flash(q, q, q).flatten(2)


def test_a_kernel_reached_through_a_class_is_refused():
    """Of a module on the way a copy can stand in, of anything else it cannot."""
    model = wan()
    model.blocks[1].self_attn = ThroughAClass(24, 2)
    before = anatomy(model)
    with pytest.raises(
        UnsupportedModelError, match=r"ThroughAClass has no plain function forward that loads Ops\.flash"
    ):
        enhance_attention(model, **{**WAN, "query_key": Kernel("Ops.flash")}, layers=[1], **ALWAYS)
    assert anatomy(model) == before


@pytest.mark.parametrize("changes, message", [
    ({"query_key": Kernel("flash_attention", "B L (H D)", heads=2)}, r"not the layout 'B L \(H D\)'"),
    ({"query_key": Kernel("flash_attention", "B H L D")}, "expected self-attention over"),
    ({"query_key": Kernel("rope_apply")}, "query or key is tuple, which is not the layout"),
    ({"frames": 5}, "96 video tokens do not divide into 5 frames"),
    ({"video": None}, "101 video tokens do not divide into 4 frames"),
    ({"attention": r"cross_attn$"}, "expected self-attention over"),
])  # fmt: skip
def test_a_call_that_does_not_fit_the_description_is_an_error(changes, message):
    model, inputs = wan(), wan_inputs()
    plain = run_wan(model, inputs)
    with enhance_attention(model, **{**WAN, **ALWAYS, **changes}), pytest.raises(TokenLayoutError, match=message):
        run_wan(model, inputs)
    assert torch.equal(run_wan(model, inputs), plain)


@pytest.mark.parametrize("layout, heads, message", [
    ("B L D", None, "give the axes as the letters"), ("B L H X", None, "give the axes"), ("B (L H D)", 2, "give the"),
    ("(B L) H D", None, "only H can share"), ("B L (H D)", None, "their number is needed"),
])  # fmt: skip
def test_a_layout_that_cannot_be_read(layout, heads, message):
    with pytest.raises(SettingsError, match=message):
        Kernel("flash_attention", layout, heads=heads)


@pytest.mark.parametrize("layout", ["B H L D", "B L H D", "L B H D", "B L (H D)", "(B H) L D", "L (H D)", "H L D"])
def test_every_layout_is_viewed_alike(layout):
    sizes = {"B": 1 if "B" not in layout else 2, "H": 3, "L": 5, "D": 4}
    x = noise(*(sizes[c] for c in "BHLD"))
    letters = layout.replace("(", "").replace(")", "").replace(" ", "")
    stored = x.permute(*["BHLD".index(c) for c in letters]) if "B" in letters else x[0].permute(
        *["HLD".index(c) for c in letters]
    )  # fmt: skip
    for i, word in enumerate(layout.replace("(", "").replace(")", "").split()):
        assert stored.shape[i] == sizes[word]
    for first in ("B H)", "H D)"):
        if f"({first}" in layout:
            stored = stored.flatten(letters.index(first[0]), letters.index(first[0]) + 1)
    assert torch.equal(Kernel("f", layout, heads=3).arrange(stored), x)


def test_a_row_may_have_it_as_well(monkeypatch):
    """What enhance_attention() builds for one model, registered for a class."""
    from enhance_a_video import models

    monkeypatch.setattr(models.registry, "_MODELS", dict(models.registry._MODELS))
    model, inputs = wan(), wan_inputs()
    with enhance_attention(model, **WAN, strength=2.0, **ALWAYS):
        expected = run_wan(model, inputs)
    axis = models.SelfAttention(
        names=WAN["attention"], tokens=WAN["tokens"], frames=lambda config, a: wan_frames(a),
        video=lambda config, a: WAN["video"](a), query_key=WAN["query_key"],
    )  # fmt: skip
    models.register(models.Model(
        name="Wan, the original", transformer="WanLike", attention=(axis,), noise=Flow(5.0), timestep="t",
    ))  # fmt: skip
    with enhance(model, strength=2.0, **ALWAYS):
        assert torch.equal(run_wan(model, inputs), expected)


def test_namespaces_of_kernels_resolve_by_name():
    """Dynamo's guards read a global from sys.modules."""
    model = built(TemporalUNet)
    with enhance_attention(model, **UNET, **ALWAYS):
        namespace = type(model.temporal).attend.__globals__
        assert sys.modules[namespace["__name__"]].__dict__ is namespace and namespace["torch"] is not torch
        assert sys.modules[namespace["torch"].__name__] is namespace["torch"] and namespace["torch"].cat is torch.cat


def test_the_example(capsys):
    """examples/any_model.py, of which docs/guide/add-a-model.md shows the call."""
    script = Path(__file__).parent.parent / "examples" / "any_model.py"
    left = runpy.run_path(str(script), run_name="any_model")
    assert "active in 2 of 4" in capsys.readouterr().out and (left["handle"].summary().gain[:2] > 1).all()
    call = script.read_text().split("handle = ")[1].split("\n)\n")[0]
    assert call in (script.parent.parent / "docs" / "guide" / "add-a-model.md").read_text()
