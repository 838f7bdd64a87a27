"""A requested effect is there, or its absence is reported: every way into a model and its layers."""

import copy
import functools
import types
import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers.hooks import HookRegistry
from diffusers.hooks import ModelHook as DiffusersHook
from tiny_models import TINY, noise, run
from torch import nn

from enhance_a_video import enhance, enhance_attention
from enhance_a_video.attention import Tokens
from enhance_a_video.attention.query_key import Kernel, Outputs
from enhance_a_video.errors import (
    EnhancementLostWarning,
    NoEffectWarning,
    SettingsError,
    TokenLayoutError,
    UnsupportedModelError,
)
from enhance_a_video.progress import Flow, Karras, VariancePreserving

T = 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm_q, self.norm_k = nn.Identity(), nn.Identity()

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        q, k = self.norm_q(q), self.norm_k(k)
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def efficient_forward(self, x):
        """Another implementation, which an instance may be switched to."""
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return self.o(F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v).transpose(1, 2).flatten(2))


class Model(nn.Module):
    """forward(x (B, T*S, 16), t (B,)) -> like x."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Attention(), Attention()])

    def forward(self, x, t):
        for block in self.blocks:
            x = x + block(x)
        return x

    def forward_with_cfg(self, x, t):
        return self.forward(x, t) * 2

    def another_forward(self, x, t):
        return self.forward(x, t) if "forward" not in vars(self) else Model.forward(self, x, t)


def built(kind=Model):
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


X, TIME = noise(1, T * 6, 16), torch.tensor([900.0])
ROW = {"attention": r"blocks\.\d+$", "tokens": Tokens("video only"), "frames": T, "start": 0.0, "end": 1.0}
STRONG = {**ROW, "strength": 3.0}


def state(model):
    """Everything that an enhancement could leave behind on a model."""
    return [
        (n, type(m), list(vars(m)), vars(m).get("forward"), vars(m).get("_old_forward"), len(m._forward_pre_hooks))
        for n, m in model.named_modules()
    ]


@pytest.fixture(scope="module")
def expected():
    """The output of the enhanced model, entered by its __call__."""
    model = built()
    plain = model(X, TIME)
    with enhance_attention(model, **STRONG):
        enhanced = model(X, TIME)
    assert (enhanced - plain).norm() > 0.1 * plain.norm()
    return enhanced


# --------------------------------------------------------------------------------------- ways into the model
@pytest.mark.parametrize("enter", [
    lambda m: m.forward(X, TIME), lambda m: m.forward_with_cfg(X, TIME) / 2, lambda m: m.forward(t=TIME, x=X),
    lambda m: functools.partial(m.forward, X)(TIME),
])  # fmt: skip
def test_a_model_may_be_entered_by_its_forward(enter, expected):
    model = built()
    before, plain = state(model), model(X, TIME)
    with enhance_attention(model, **STRONG) as handle:
        assert torch.equal(enter(model), expected)
        assert len(handle.summary().progress) == 1
    assert state(model) == before and torch.equal(enter(model), plain)


def test_a_forward_kept_from_before_and_from_meanwhile(expected):
    """A bound method is of the class as it was: the one from before enters no call, which is reported."""
    model = built()
    plain, kept = model(X, TIME), model.forward
    handle = enhance_attention(model, **STRONG)
    meanwhile = model.forward
    assert torch.equal(meanwhile(X, TIME), expected)
    with pytest.warns(NoEffectWarning, match=r"blocks\.0 ran outside a forward call of Model"):
        assert torch.equal(kept(X, TIME), plain)
    handle.remove()
    assert torch.equal(meanwhile(X, TIME), plain)


def test_blocks_that_are_run_without_their_model_are_reported_once(expected):
    model = built()
    plain = model(X, TIME)
    with enhance_attention(model, **STRONG) as handle:
        assert torch.equal(model(X, TIME), expected)  # its frames must not be taken for those of what follows
        with pytest.warns(NoEffectWarning, match="module that is called once for each prediction") as caught:
            y = X
            for block in model.blocks:
                y = y + block(y)
        assert torch.equal(y, plain) and len(caught) == 1
        assert len(handle.summary().progress) == 1


def test_a_call_that_raises_is_closed():
    class Fails(Model):
        def forward(self, x, t):
            x = super().forward(x, t)
            raise ValueError("mine")

    model = built(Fails)
    with enhance_attention(model, **STRONG):
        with pytest.raises(ValueError, match="mine"):
            model(X, TIME)
        with pytest.warns(NoEffectWarning, match="outside"):
            model.blocks[0](X)


def test_a_model_whose_forward_is_an_attribute_keeps_its_names_and_its_effect(expected):
    """Open-Sora 2 does this; by position its arguments had no names."""
    model = built()
    model.forward = model.another_forward
    before, plain = state(model), model(X, TIME)
    with enhance_attention(model, **{**STRONG, "frames": lambda a: a["x"].shape[1] // 6}):
        assert torch.equal(model(X, TIME), expected) and torch.equal(model.forward(X, TIME), expected)
    assert state(model) == before and torch.equal(model(X, TIME), plain)


def test_a_model_compiled_whole_or_entered_by_its_forward_inside_a_graph(expected):
    torch._dynamo.reset()
    model = built()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with enhance_attention(model, **STRONG):
        assert torch.allclose(compiled(X, TIME), expected, atol=1e-5)
        inside = torch.compile(model.forward_with_cfg, backend="eager")
        assert torch.allclose(inside(X, TIME) / 2, expected, atol=1e-5)
    torch._dynamo.reset()


# --------------------------------------------------------------------------------------- ways into a layer
def switched(layer):
    layer.forward = layer.efficient_forward


def decorated(layer):
    forward = layer.forward
    layer.forward = lambda *args, **kwargs: forward(*args, **kwargs)


def wrapped(layer):
    def decorator(function):
        @functools.wraps(function)
        def inner(*args):
            return function(*args)

        return inner

    layer.forward = decorator(layer.forward)


def partial(layer):
    layer.forward = functools.partial(layer.forward)


def given_to_a_partial(layer):
    layer.forward = functools.partial(lambda function, *args: function(*args), layer.forward)


def accelerated(layer):
    add_hook_to_module(layer, ModelHook())


def hooked_by_diffusers(layer):
    HookRegistry.check_if_exists_or_initialize(layer).register_hook(DiffusersHook(), "test")


class Replaces(DiffusersHook):
    def new_forward(self, module, *args, **kwargs):
        return self.fn_ref.original_forward(*args, **kwargs)


def replaced_by_diffusers(layer):
    HookRegistry.check_if_exists_or_initialize(layer).register_hook(Replaces(), "test")


WAYS = [
    switched, decorated, wrapped, partial, given_to_a_partial, accelerated, hooked_by_diffusers, replaced_by_diffusers,
]  # fmt: skip


def query_and_key(module, args, kwargs):
    return module.qkv(args[0]).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)[:2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "how", [None, Outputs("norm_q", "norm_k"), query_and_key], ids=["kernel", "outputs", "function"]
)
def test_an_instance_with_a_forward_of_its_own_is_followed(way, how, expected):
    model = built()
    plain = model(X, TIME)
    for block in model.blocks:
        way(block)
        if way is not switched:
            way(block.norm_q)
    before = state(model)
    with warnings.catch_warnings(), enhance_attention(model, **STRONG, query_key=how) as handle:
        warnings.simplefilter("error")
        assert torch.allclose(model(X, TIME), expected, atol=1e-5)
        assert not handle.summary().unreached
    assert state(model) == before and torch.equal(model(X, TIME), plain)


@pytest.mark.parametrize("way", [way for way in WAYS if way is not switched])
def test_a_forward_put_on_while_enhanced(way, expected):
    model = built()
    plain = model(X, TIME)
    handle = enhance_attention(model, **STRONG)
    for block in model.blocks:
        way(block)
    way(model)
    assert torch.equal(model(X, TIME), expected)
    handle.remove()
    assert torch.equal(model(X, TIME), plain)
    with enhance_attention(model, **STRONG):  # once more, on what is there now
        assert torch.equal(model(X, TIME), expected)
    assert torch.equal(model(X, TIME), plain)


def test_odds_follow_it_too():
    model, other = built(), built()
    for block in model.blocks:
        accelerated(block)
    with enhance_attention(model, **ROW), enhance_attention(other, **ROW):
        assert torch.equal(model(X, TIME), other(X, TIME))


def test_hooks_that_go_while_enhanced_and_a_switch_that_comes(expected):
    model = built()
    plain = model(X, TIME)
    for block in model.blocks:
        accelerated(block)
    with enhance_attention(model, **STRONG):
        for block in model.blocks:
            remove_hook_from_module(block)
        assert torch.equal(model(X, TIME), expected)
        switched(model.blocks[0])
        with pytest.warns(EnhancementLostWarning, match="enhanced again"):
            assert torch.allclose(model(X, TIME), expected, atol=1e-5)
        model.blocks[0].forward = lambda x: x
        with pytest.warns(EnhancementLostWarning, match="cannot be"):
            model(X, TIME)
        del model.blocks[0].forward
        with pytest.warns(EnhancementLostWarning, match="enhanced again"):
            assert torch.equal(model(X, TIME), expected)
    assert torch.equal(model(X, TIME), plain)


def test_layers_that_are_replaced_or_taken_out_while_enhanced(expected):
    model = built()
    plain = model(X, TIME)
    handle = enhance_attention(model, **STRONG)
    old = model.blocks
    model(X, TIME)
    model.blocks = copy.deepcopy(old)
    with pytest.warns(EnhancementLostWarning, match="2 attention processors or layers were replaced.* 2 of them were"):
        assert torch.equal(model(X, TIME), expected)
    model.blocks = model.blocks[:1]
    with pytest.warns(EnhancementLostWarning, match=r"blocks\.1 cannot be: nothing is left"):
        model(X, TIME)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X, TIME)
    handle.remove()
    model.blocks = old
    assert torch.equal(model(X, TIME), plain) and type(model.blocks[0]) is Attention


def test_a_forward_that_leads_nowhere_is_refused_at_a_kernel_and_followed_elsewhere(expected):
    class Opaque:
        def __init__(self, layer):
            self.hidden = layer

        def __call__(self, x):
            return Attention.forward(self.hidden, x)

    model = built()
    for block in model.blocks:
        block.forward = Opaque(block)
    before = state(model)
    with pytest.raises(UnsupportedModelError, match="does not lead to a method of Attention"):
        enhance_attention(model, **STRONG)
    assert state(model) == before
    with enhance_attention(model, **STRONG, query_key=query_and_key):
        assert torch.allclose(model(X, TIME), expected, atol=1e-5)
    assert state(model) == before


def test_a_deep_copy_of_a_model_with_hooks_is_plain():
    model = built()
    plain = model(X, TIME)
    for block in model.blocks:
        switched(block)
    enhance_attention(model, **STRONG)
    twin = copy.deepcopy(model)
    assert torch.allclose(twin(X, TIME), plain, atol=1e-6) and type(twin) is Model
    with enhance_attention(twin, **STRONG):
        assert (twin(X, TIME) - plain).norm() > 0.1 * plain.norm()
    assert torch.allclose(twin(X, TIME), plain, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in ("sana_wm", "sana_wm_cameras") if n in TINY])
def test_offloading_before_enhance_reaches_layers_without_processors(name):
    from accelerate import cpu_offload

    tiny = TINY[name]
    with enhance(tiny.model(), start=0.0, end=1.0) as handle:
        run(handle._denoisers[0].model, tiny.inputs())
    model = tiny.model()
    plain = run(model, tiny.inputs())
    cpu_offload(model, execution_device=torch.device("cpu"))
    with enhance(model, start=0.0, end=1.0) as offloaded:
        run(model, tiny.inputs())
    assert torch.allclose(torch.tensor(offloaded.summary().gain), torch.tensor(handle.summary().gain), atol=1e-5)
    assert torch.allclose(run(model, tiny.inputs()), plain, atol=1e-6)


# --------------------------------------------------------------------------- nothing came of it: reported
def test_a_layer_that_never_runs_is_reported():
    class Skips(Model):
        def forward(self, x, t):
            return x + self.blocks[0](x)

    model = built(Skips)
    with enhance_attention(model, **STRONG) as handle:
        with pytest.warns(NoEffectWarning, match=r"1 of 2 enhanced layers did not run in a forward call \(blocks\.1\)"):
            model(X, TIME)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(X, TIME)
    assert handle.summary().unreached == ["blocks.1"] and "did not run: 1 of 2 layers" in str(handle.summary())


def test_one_frame_is_reported():
    model = built()
    with (
        enhance_attention(model, **{**STRONG, "frames": 1}) as handle,
        pytest.warns(NoEffectWarning, match="one latent frame"),
    ):
        model(X, TIME)
    assert "one frame only" in handle.summary().no_effect and "acted nowhere" in str(handle.summary())


def test_one_frame_of_a_pipelines_model_is_reported():
    tiny = TINY["wan"]
    model = tiny.model()
    inputs = {**tiny.inputs()}
    inputs["hidden_states"] = inputs["hidden_states"][:, :, :1]
    with enhance(model), pytest.warns(NoEffectWarning, match="one latent frame"):
        run(model, inputs)


def test_a_window_that_was_never_reached_is_reported_at_the_end():
    model = built()
    handle = enhance_attention(model, **{**STRONG, "noise": Flow(1.0), "timestep": "t", "end": 0.5})
    model(X, torch.tensor([300.0]))
    assert "no call was in the window" in handle.summary().no_effect
    with pytest.warns(NoEffectWarning, match="acted nowhere: no call was in the window start=0.0, end=0.5: progress"):
        handle.remove()
    handle.remove()


def test_a_gain_that_is_one_everywhere_is_reported():
    model = built()
    with pytest.warns(NoEffectWarning, match="every gain was 1"), enhance_attention(model, **ROW, odds=1.0):
        model(X, TIME)


def test_nothing_is_reported_where_all_is_well_or_only_observed():
    model = built()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with enhance_attention(model, **STRONG) as handle:
            model(X, TIME)
        assert handle.summary().no_effect == ""
        with enhance_attention(model, **STRONG, observe_only=True) as handle:
            model(X, TIME)
        assert handle.summary().no_effect == ""
        with enhance_attention(model, **STRONG) as handle:
            pass
    assert handle.summary().no_effect == "no forward call of the model was made"


@pytest.mark.parametrize("time, noise_", [(0.9, Flow(1.0)), (0.0, Flow(5.0)), (0.0, VariancePreserving())])
def test_a_timestep_on_another_scale_or_the_other_way_round_is_reported(time, noise_):
    model = built()
    with enhance_attention(model, **{**STRONG, "noise": noise_, "timestep": "t", "end": 0.7}):
        with pytest.warns(NoEffectWarning, match="first forward call is at progress") as caught:
            model(X, torch.tensor([time]))
        assert "top=1.0" in str(caught[0].message)


class NormBehind(Model):
    """As the original Mochi: what the attention returns is normed by a function, so its size does not matter."""

    def forward(self, x, t):
        for block in self.blocks:
            x = x + F.rms_norm(block(x), (16,))
        return x


class NormInBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([self.Block(), self.Block()])

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = Attention()

        def forward(self, x):
            return x + F.rms_norm(self.attn(x), (16,))

    def forward(self, x, t):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("kind, where", [(NormBehind, r"blocks\.\d+$"), (NormInBlock, r"attn$")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_that_takes_every_gain_back_is_reported(kind, where, dtype):
    model = built(kind).to(dtype)
    row = {**STRONG, "attention": where}
    with enhance_attention(model, **row) as handle, pytest.warns(NoEffectWarning, match="a norm behind it takes every"):
        model(X.to(dtype), TIME)
    assert "norm" in handle.summary().no_effect and len(handle.summary().progress) == 1
    with warnings.catch_warnings(), enhance_attention(model, **{**row, "strength": None, "odds": 3.0}) as handle:
        warnings.simplefilter("error")  # the share of other frames survives a norm
        assert (model(X.to(dtype), TIME) - X).norm() > 0
    assert handle.summary().no_effect == ""


def test_odds_act_where_a_kernel_of_torch_is_named_in_another_method():
    class ByMethod(Attention):
        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
            return self.o(self.attend(q, k, v).transpose(1, 2).flatten(2))

        def attend(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v)

    model, other = built(), built()
    for block in other.blocks:
        block.__class__ = ByMethod
    kernel = Kernel("F.scaled_dot_product_attention", "B H L D", method="attend")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with enhance_attention(model, **ROW), enhance_attention(other, **ROW, query_key=kernel):
            assert torch.equal(model(X, TIME), other(X, TIME))


# --------------------------------------------------------------------------------------------- descriptions
SPATIAL = Tokens("video only")


@pytest.mark.parametrize("make, message", [
    (lambda: Tokens("vidoe only"), "Did you mean 'video only'"), (lambda: Tokens(None), "Known: 'video only'"),
    (lambda: Tokens("video only", keys="x"), "keys='x'"), (lambda: Tokens("video only", call=-1), "counted from 0"),
    (lambda: Tokens("video only", argument="x"), "argument='x'"), (lambda: Tokens("video only", skips=1), "skips=1"),
    (lambda: Flow(0), "positive"), (lambda: Flow("5"), "positive"), (lambda: Flow(float("nan")), "positive"),
    (lambda: Flow(5.0, top=-1), "top=-1"), (lambda: Karras(700.0, True), "lowest=True"),
    (lambda: Kernel(7), "name=7"), (lambda: Kernel("f", 7), "layout=7"), (lambda: Kernel("f", heads=0), "heads=0"),
    (lambda: Kernel("f", heads="2"), "heads='2'"), (lambda: Kernel("f", method=3), "method=3"),
    (lambda: Outputs("q", None), "key=None"), (lambda: Outputs("q", "k", scale="1"), "scale='1'"),
])  # fmt: skip
def test_parts_of_a_description_are_checked(make, message):
    with pytest.raises(SettingsError, match=message):
        make()


@pytest.mark.parametrize("changes, message", [
    ({"tokens": "video only"}, r"give an object such as Tokens\('video only'\)"), ({"tokens": Tokens}, "tokens=Tokens"),
    ({"tokens": None}, "tokens=None"), ({"query_key": "flash"}, "Kernel"), ({"query_key": Kernel}, "query_key=Kernel"),
    ({"noise": "flow"}, r"Flow\(shift=5.0\)"), ({"noise": Flow}, "noise=Flow"), ({"noise": lambda t: t}, "noise="),
    ({"scale_at": 7}, "scale_at=7"), ({"video": [0, 1]}, "video="), ({"video": slice("a", None)}, "video="),
    ({"frames": 0}, "frames=0: give a whole number"), ({"frames": None}, "frames=None"),
    ({"frames": 4.0}, "frames=4.0"),
    ({"frames": True}, "frames=True"), ({"frames": torch.tensor(4)}, "frames=a tensor"), ({"frames": int}, "frames="),
    ({"frames": "num_frames"}, "no argument of Model.forward, which has x, t"), ({"batch": 0}, "batch=0"),
    ({"batch": "x"}, "batch='x'"), ({"timestep": "sigma", "noise": Flow(1.0)}, "timestep='sigma' is no argument"),
    ({"noise": Flow(1.0)}, "timestep='timestep' is no argument of Model.forward"), ({"timestep": []}, "timestep="),
    ({"attention": None}, "attention=None"), ({"attention": ["blocks.0"]}, "modules in a list"),
])  # fmt: skip
def test_a_description_of_the_wrong_kind_is_refused_and_changes_nothing(changes, message):
    model = built()
    before = state(model)
    with pytest.raises(SettingsError, match=message):
        enhance_attention(model, **{**STRONG, **changes})
    assert state(model) == before


@pytest.mark.parametrize("changes, message", [
    ({"frames": lambda a: None}, "frames is None"), ({"frames": lambda a: "4"}, "frames is '4'"),
    ({"frames": lambda a: 0}, "frames is 0"), ({"frames": lambda a: torch.tensor(4)}, "frames is a tensor"),
    ({"frames": lambda a: a["no"]}, r"function given as frames=... raised KeyError: 'no'. .* arguments are x, t"),
    ({"frames": lambda: 4}, "frames=... raised TypeError"), ({"video": lambda a: [0]}, r"video is \[0\]"),
    ({"batch": lambda a: "x"}, "batch is 'x'"), ({"timestep": lambda a: a["no"], "noise": Flow(1.0)}, "timestep=..."),
    ({"timestep": lambda a: "late", "noise": Flow(1.0)}, "the timestep is str"), 
    ({"frames": 5}, "do not divide into 5"),
    ({"tokens": Tokens("video only", argument=3)}, "is to be the stream"),
    ({"tokens": Tokens("temporal")}, "a temporal layer of 4 frames gets"),
])  # fmt: skip
def test_a_call_that_does_not_fit_is_a_typed_error(changes, message):
    model = built()
    with enhance_attention(model, **{**STRONG, **changes}), pytest.raises(TokenLayoutError, match=message):
        model(X, TIME)
    assert torch.equal(model(X, TIME), built()(X, TIME))


def test_a_temporal_layer_called_video_only_is_an_error():
    model = built()
    sites = noise(6, T, 16)
    with enhance_attention(model, **STRONG), pytest.raises(TokenLayoutError, match="seems to be a temporal layer"):
        model(sites, TIME)
    temporal = {**STRONG, "tokens": Tokens("temporal")}
    with enhance_attention(model, **temporal, batch=4), pytest.raises(TokenLayoutError, match="give batch="):
        model(sites, TIME)


def test_arguments_in_a_dataclass(expected):
    """LTX-2's own code: no tensor among the arguments, and a noise level that has no name."""

    @dataclass
    class Modality:
        latent: torch.Tensor
        sigma: torch.Tensor

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.m = Model()

        def forward(self, video):
            return self.m(video.latent, video.sigma)

    model = built(Holder)
    row = {**STRONG, "noise": Flow(1.0, top=1.0), "timestep": lambda a: a["video"].sigma, "end": 0.5, "batch": 1}
    with enhance_attention(model, **row) as handle:
        early = model(Modality(X, torch.tensor([0.9])))
        late = model(types.SimpleNamespace(latent=X, sigma=torch.tensor([0.1])))
    assert torch.equal(early, expected) and torch.equal(late, model(Modality(X, TIME)))
    assert handle.summary().active.tolist() == [True, False]
