"""The node's patch on real ComfyUI code: every native family through comfy.sample.sample (real.py has the set-up)."""

import dataclasses
import functools
import math
import shutil
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from . import real

real.start()

from .. import patch as patch_module  # noqa: E402
from ..attention import Attention  # noqa: E402
from ..choice import TEMPERATURE, Choice  # noqa: E402
from ..layouts import layout_of  # noqa: E402
from ..patch import KEY, OVERRIDE, Patch  # noqa: E402
from . import families  # noqa: E402
from .families import FAMILIES  # noqa: E402

ODDS_2 = Choice()
PAPER = Choice(TEMPERATURE, 20.0)  # far above the authors' 4, so that five frames pass the clip
NAMED = {family.name: family for family in FAMILIES}
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)


@functools.cache
def model(name: str) -> Any:
    return real.model(NAMED[name])


def enhanced(family: real.Family, choice: Choice = ODDS_2, of: Any = None) -> tuple[Any, Patch]:
    base = model(family.name) if of is None else of
    patch = Patch(layout_of(base.model.diffusion_model), choice, print)
    return patch.attach(base), patch


class Seen:
    """The attention calls on which a patch acted, with what it received and made of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.calls: list[tuple[Any, slice, int, Any]] = []
        act = patch_module.enhanced

        def watched(call: Any, rows: slice, num_frames: int, *rest: Any) -> Any:
            done = act(call, rows, num_frames, *rest)
            self.calls.append((call, rows, num_frames, done))
            return done

        monkeypatch.setattr(patch_module, "enhanced", watched)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


def video_of(noise: Any) -> Tensor:
    return noise.unbind()[0] if getattr(noise, "is_nested", False) else noise


def brute_force_mass(query: Tensor, key: Tensor, scale: float | None) -> Tensor:
    """(B, H, T, S, D) -> (B,): one softmax at a time, in float64."""
    B, H, T, S, D = query.shape
    own = torch.zeros(B, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for s in range(S):
                logits = query[b, h, :, s].double() @ key[b, h, :, s].double().T * (scale or D**-0.5)
                own[b] += logits.softmax(-1).diagonal().sum()
    return 1 - own / (H * T * S)


# ---------------------------------------------------------------------------------------------- where the video is
@every_family
def test_a_planted_frame_is_found_where_the_layout_has_it(family, seen):
    """Latents that differ in one frame alone differ in that frame's queries of the first layer, and in no others."""
    (T, S), frame = family.grid, 3
    model_, _ = enhanced(family)
    a, b = real.noise(family), real.noise(family)
    per_token = (family.latent[1] - family.first) // T  # latent frames in one token
    begin = family.first + frame * per_token
    video_of(b)[:, :, begin : begin + per_token] += 1.0
    queries = []
    for noise in (a, b):
        seen.calls.clear()
        real.sample(model_, family, noise, steps=1, cfg=1.0)
        call, rows, num_frames, _ = seen.calls[0]
        queries.append(call.tensors()[0])
    changed = (queries[0] != queries[1]).any(-1).any(1)[0].nonzero().flatten().tolist()
    assert num_frames == T and rows.stop - rows.start == T * S
    assert changed == list(range(rows.start + frame * S, rows.start + (frame + 1) * S))


def test_a_reference_in_front_of_hunyuanvideo_is_no_frame(seen):
    """One sample a call: ComfyUI's own code fails on a batch of them."""
    family = dataclasses.replace(NAMED["HunyuanVideo"], conditions=lambda: {"ref_latent": families.reference()})
    test_a_planted_frame_is_found_where_the_layout_has_it(family, seen)


@every_family
def test_every_layer_acts_once_in_every_call(family):
    model_, patch = enhanced(family)
    real.sample(model_, family, real.noise(family), steps=3)
    assert [len(step.layers) for step in patch.record.steps] == [family.layers] * len(patch.record.steps)
    assert "acted in" in patch.record.sentence(), patch.record.sentence()


@every_family
@pytest.mark.parametrize("choice", [ODDS_2, PAPER], ids=["odds", "temperature"])
@pytest.mark.parametrize("static", [True, False], ids=["static", "unrelated"])
def test_the_mass_is_that_of_brute_force(family, choice, static, seen):
    """With odds the true share of attention for other frames, with a temperature the paper's cross-frame mass."""
    model_, _ = enhanced(family, choice, tied(family.name))
    real.sample(model_, family, planted(family, static), steps=1)
    T, S = family.grid
    assert len(seen.calls) >= family.layers
    for call, rows, num_frames, done in seen.calls:
        query, key, _ = (x[:, :, rows].unflatten(2, (T, S)) for x in call.tensors())
        mass = true_share(call, rows, (T, S)) if done.operator == "exact" else brute_force_mass(query, key, call.scale)
        assert torch.allclose(done.mass.double(), mass, atol=1e-4)
        assert (done.operator == "exact") == (choice is ODDS_2)
        assert num_frames == T and 0 < float(done.mass.min()) < 1


def dense(call: Any, rows: slice, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """All logits (B, H, L, L) and values in float64, and which keys belong to other frames of a query's video."""
    query, key, value = (x.double() for x in call.tensors())
    logits = query @ key.transpose(-1, -2) * (call.scale or query.shape[-1] ** -0.5)
    mask = call.mask_by_heads()
    frame = torch.full((query.shape[2],), -1)
    frame[rows] = torch.arange(grid[0]).repeat_interleave(grid[1])
    others = (frame[:, None] >= 0) & (frame[None] >= 0) & (frame[:, None] != frame[None])
    return logits if mask is None else logits + mask, others, value


def true_share(call: Any, rows: slice, grid: tuple[int, int]) -> Tensor:
    """(B,): the video tokens' mean share of attention for other frames, in float64."""
    logits, others, _ = dense(call, rows, grid)
    return (logits.softmax(-1) * others).sum(-1)[:, :, rows].mean((1, 2))


def planted(family: real.Family, static: bool) -> Any:
    """Noise whose frames are all alike, or have nothing to do with each other."""
    noise = real.noise(family)
    if static:
        video = video_of(noise)
        video[:] = video[:, :, :1]
    return noise


@functools.cache
def tied(name: str) -> Any:
    """The family's model with keys like queries."""
    made = real.model(NAMED[name])
    width = NAMED[name].width
    real.tie(made.model.diffusion_model, width)
    return made


@every_family
def test_static_frames_have_a_larger_mass_than_unrelated_ones(family, seen, monkeypatch):
    """By the estimate, with keys like queries. With frames and sites mixed up it would be the other way round."""
    monkeypatch.setattr(Attention, "is_torchs", False)
    masses = []
    for static in (True, False):
        seen.calls.clear()
        model_, _ = enhanced(family, of=tied(family.name))
        real.sample(model_, family, planted(family, static), steps=1, cfg=1.0)
        masses.append(float(seen.calls[0][3].mass))
    assert masses[0] > masses[1] + 0.15, masses


# ------------------------------------------------------------------------------------------------------ what it does
@every_family
def test_odds_are_moved_from_the_own_frame_to_the_others(family, seen):
    """Against the dense softmax in float64 with log 2 added to the logits of all other frames."""
    model_, _ = enhanced(family)
    real.sample(model_, family, real.noise(family), steps=1, cfg=1.0)
    for call, rows, _, done in seen.calls:
        logits, others, value = dense(call, rows, family.grid)
        wanted = (logits + math.log(2.0) * others).softmax(-1) @ value
        assert done.operator == "exact"
        assert torch.allclose(call.output_by_heads(done.output).double(), wanted, atol=2e-4)


@every_family
def test_odds_by_the_estimate_where_the_function_is_not_torchs(family, seen, monkeypatch):
    """Against dense attention maps in float64: own + gain * (all - own) in the video's rows, all in the others."""
    monkeypatch.setattr(Attention, "is_torchs", False)
    model_, _ = enhanced(family)
    real.sample(model_, family, real.noise(family), steps=1, cfg=1.0)
    T, S = family.grid
    for call, rows, _, done in seen.calls:
        logits, others, value = dense(call, rows, (T, S))
        plain = logits.softmax(-1) @ value
        own = logits.masked_fill(others, -torch.inf).softmax(-1) @ value
        q, k = (x.double()[:, :, rows].unflatten(2, (T, S)) for x in call.tensors()[:2])
        site = torch.einsum("bhtsd,bhusd->bhstu", q, k) * (call.scale or q.shape[-1] ** -0.5)
        mass = 1 - site.softmax(-1).diagonal(dim1=-2, dim2=-1).transpose(-1, -2).flatten(2)  # (B, H, T*S)
        gain = torch.ones(plain.shape[:3], dtype=torch.float64)
        gain[:, :, rows] = 2 / (1 + mass)
        wanted = own + gain[..., None] * (plain - own)
        assert done.operator == "cross-frame"
        assert torch.allclose(call.output_by_heads(done.output).double(), wanted, atol=2e-4)


@every_family
def test_in_bfloat16_as_real_weights_run(family, seen):
    """The same share and the same softmax, to the rounding of bf16; the output in the model's dtype."""
    model_, patch = enhanced(family, of=real.model(family, torch.bfloat16))
    out = real.sample(model_, family, real.noise(family), steps=1, cfg=1.0)
    assert out.isfinite().all() and all(len(step.layers) == family.layers for step in patch.record.steps)
    for call, rows, _, done in seen.calls:
        logits, others, value = dense(call, rows, family.grid)
        wanted = (logits + math.log(2.0) * others).softmax(-1) @ value
        made = call.output_by_heads(done.output)
        assert made.dtype == call.query.dtype == torch.bfloat16 and done.operator == "exact"
        assert torch.allclose(done.mass.double(), true_share(call, rows, family.grid), atol=1e-3)
        assert (made.double() - wanted).norm() <= 1e-2 * wanted.norm()


@pytest.mark.parametrize("name", ["pytorch", "sub_quad", "split", "basic"])
def test_comfyuis_own_functions_are_known_and_named(name, monkeypatch):
    """Under its torch function the shares are exact; under its others estimated, and the line names them."""
    import comfy.ldm.modules.attention as attention
    import comfy.ldm.wan.model as wan

    monkeypatch.setattr(wan, "optimized_attention", getattr(attention, f"attention_{name}"))
    family = NAMED["Wan T2V"]
    model_, patch = enhanced(family)
    real.sample(model_, family, real.noise(family), steps=1)
    exact, line = name == "pytorch", patch.record.sentence()
    how = "(exact shares)" if exact else f"(estimated shares: ComfyUI's attention_{name} does not give the"
    assert how in line, line
    assert [step.operators for step in patch.record.steps] == [{"exact" if exact else "cross-frame"}]


@every_family
def test_a_temperature_multiplies_the_videos_rows_alone(family, seen):
    model_, _ = enhanced(family, PAPER)
    real.sample(model_, family, real.noise(family), steps=1)
    for call, rows, num_frames, done in seen.calls:
        plain, made = call.output_by_heads(call()), call.output_by_heads(done.output)
        wanted = ((20.0 + num_frames) * done.mass / (num_frames - 1)).clamp(min=1)
        assert torch.allclose(done.gain, wanted, atol=1e-6) and float(done.gain.max()) > 1
        scaled = plain[:, :, rows] * done.gain.view(-1, 1, 1, 1)
        assert torch.allclose(made[:, :, rows], scaled, atol=1e-6)
        outside = torch.ones(plain.shape[2], dtype=torch.bool)
        outside[rows] = False
        assert torch.equal(made[:, :, outside], plain[:, :, outside])


@every_family
def test_it_changes_the_video_and_leaves_the_model_as_it_was(family):
    base = model(family.name)
    options = repr(base.model_options), repr(base.wrappers), repr(base.object_patches)
    weights = {name: id(p) for name, p in base.model.named_parameters()}
    plain = real.sample(base, family, real.noise(family))
    model_, _ = enhanced(family)
    assert not torch.equal(real.sample(model_, family, real.noise(family)), plain)
    watching, _ = enhanced(family, Choice(observe_only=True))
    assert torch.equal(real.sample(watching, family, real.noise(family)), plain)
    assert torch.equal(real.sample(base, family, real.noise(family)), plain)
    assert (repr(base.model_options), repr(base.wrappers), repr(base.object_patches)) == options
    assert {name: id(p) for name, p in base.model.named_parameters()} == weights


@every_family
@pytest.mark.parametrize("choice", [ODDS_2, PAPER], ids=["odds", "temperature"])
def test_conditional_and_unconditional_together_or_one_by_one(family, choice, seen, monkeypatch):
    model_, patch = enhanced(family, choice)
    together = real.sample(model_, family, real.noise(family))
    samples = {step.samples for step in patch.record.steps}
    with monkeypatch.context() as limited:
        limited.setattr(model_.model, "memory_required", lambda *args, **kwargs: 1e30)
        apart = real.sample(model_, family, real.noise(family))
    assert {step.samples for step in patch.record.steps} == {1}
    assert (together - apart).norm() <= 1e-5 * together.norm(), (samples, float((together - apart).norm()))


@every_family
def test_the_positive_prompt_alone_is_changed_in_one_call_or_in_two(family, monkeypatch):
    model_, patch = enhanced(family, Choice(conditional=True))
    together = real.sample(model_, family, real.noise(family))
    both = real.sample(enhanced(family)[0], family, real.noise(family))
    assert {gain.shape for step in patch.record.steps for _, gain in step.layers.values()} == {(1,)}
    with monkeypatch.context() as limited:
        limited.setattr(model_.model, "memory_required", lambda *args, **kwargs: 1e30)
        apart = real.sample(model_, family, real.noise(family))
    assert [bool(step.layers) for step in patch.record.steps].count(True) == 2  # one of two calls in each step
    assert (together - apart).norm() <= 1e-5 * together.norm() and not torch.equal(both, together)


@every_family
def test_two_settings_in_one_workflow(family):
    """Two clones of one model, sampled in turn, do what each does alone."""
    first, _ = enhanced(family, ODDS_2)
    second, _ = enhanced(family, PAPER)
    a, b = (real.sample(m, family, real.noise(family)) for m in (first, second))
    assert not torch.equal(a, b)
    assert torch.equal(real.sample(first, family, real.noise(family)), a)
    assert torch.equal(real.sample(second, family, real.noise(family)), b)


@every_family
@pytest.mark.parametrize("order", ["before", "after"])
def test_an_override_of_another_node_is_called_too(family, order, monkeypatch):
    """Set on the model before ours or on the clone after it: it computes every attention, ours included. What it is
    behind its name is not known, so odds go by the estimate."""
    monkeypatch.setattr(Attention, "is_torchs", False)
    base, calls = model(family.name), []
    alone = real.sample(enhanced(family)[0], family, real.noise(family))

    def others_override(function: Any, *args: Any, **kwargs: Any) -> Tensor:
        calls.append(function)
        return function(*args, **kwargs)

    both = base.clone() if order == "before" else enhanced(family)[0]
    both.model_options["transformer_options"][OVERRIDE] = others_override
    both = enhanced(family, of=both)[0] if order == "before" else both
    assert torch.equal(real.sample(both, family, real.noise(family)), alone)
    assert calls and both.model_options["transformer_options"][OVERRIDE] is others_override
    line = both.get_wrappers("apply_model", KEY)[0].__self__.record.sentence()
    assert "the override others_override of another node does not give the exact ones" in line, line


@every_family
def test_it_acts_in_its_window_alone(family, seen):
    model_, patch = enhanced(family, Choice(start=0.2, end=0.6))
    real.sample(model_, family, real.noise(family), steps=10, cfg=1.0)
    active = [step.active for step in patch.record.steps]
    progress = patch.record.summary().progress
    assert 0 < sum(active) < 10 and len(seen.calls) == family.layers * sum(active)
    assert active == [0.2 <= round(float(p), 4) < 0.6 for p in progress]


@pytest.mark.parametrize("name", ["Wan T2V", "HunyuanVideo", "LTX-2", "CogVideoX"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_under_comfyuis_compile_wrapper(name, order):
    """The attention in our hands is left out of the graph, whatever the order of the nodes."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    family = NAMED[name]
    wanted = real.sample(enhanced(family)[0], family, real.noise(family))
    base = real.model(family)
    made = base if order == "before" else enhanced(family, of=base)[0]
    set_torch_compile_wrapper(made, backend="eager")
    patch = None
    if order == "before":
        made, patch = enhanced(family, of=made)
    assert (real.sample(made, family, real.noise(family)) - wanted).norm() <= 1e-5 * wanted.norm()
    assert patch is None or all(len(step.layers) == family.layers for step in patch.record.steps)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiled_by_inductor():
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    family = NAMED["Wan T2V"]
    wanted = real.sample(enhanced(family)[0], family, real.noise(family))
    made, patch = enhanced(family, of=real.model(family))
    set_torch_compile_wrapper(made, backend="inductor")
    assert (real.sample(made, family, real.noise(family)) - wanted).norm() <= 1e-5 * wanted.norm()
    assert all(len(step.layers) == family.layers for step in patch.record.steps)


# ------------------------------------------------------------------------------------------------- context windows
def in_windows(model_: Any) -> None:
    """What the node Context Windows (Manual) sets: windows of 4 frames that overlap by one."""
    import comfy.context_windows as windows

    model_.model_options["context_handler"] = windows.IndexListContextHandler(
        context_schedule=windows.get_matching_context_schedule("standard_static"),
        fuse_method=windows.get_matching_fuse_method("pyramid"),
        context_length=4,
        context_overlap=1,
        context_stride=1,
        closed_loop=False,
        dim=2,
    )


WITHOUT_WINDOWS = {"LTX-Video, a guide frame": IndexError, "MiniMax-H3": NotImplementedError}  # ComfyUI's own errors


@every_family
def test_the_frames_of_a_context_window_are_counted(family):
    """The frame count is that of each window: 4 frames, and 4 behind one that ComfyUI puts in front of them."""
    model_, patch = enhanced(family)
    in_windows(model_)
    if error := WITHOUT_WINDOWS.get(family.name):
        with pytest.raises(error):
            real.sample(model_, family, real.noise(family), steps=1, cfg=1.0)
        return
    real.sample(model_, family, real.noise(family), steps=1, cfg=1.0)
    counted = [step.num_frames for step in patch.record.steps]
    halved = family.name == "CogVideoX 1.5"  # a token is two latent frames
    assert counted == ([2, 3, 3] if halved else [4 - family.first, 5]), counted
    assert all(len(step.layers) == family.layers for step in patch.record.steps)


# ------------------------------------------------------------------------------------------ what is warned about
@pytest.mark.parametrize(
    "name, conditions, why",
    [
        ("LTX-Video, a guide frame", lambda: families.guided(0.5), "a guide with a strength below 1"),
        ("Wan Animate 2", lambda: {"pose_video_latent": families.reference(5)}, "a pose is applied"),
    ],
)
def test_attention_in_parts_is_left_alone_and_reported(name, conditions, why):
    family = dataclasses.replace(NAMED[name], conditions=conditions)
    plain = real.sample(model(name), family, real.noise(family))
    model_, patch = enhanced(family)
    assert torch.equal(real.sample(model_, family, real.noise(family)), plain)
    sentence = patch.record.sentence()
    assert sentence.startswith("Warning") and why in sentence, sentence


@pytest.mark.parametrize("frames", [1, 3])
def test_a_causal_model_with_its_own_sampler_is_left_alone_and_reported(frames):
    """ComfyUI's SamplerARVideo: a few frames at a time, with the keys and values of those before."""
    import comfy.sample
    import comfy.samplers

    family = NAMED["Wan causal, with a plain sampler"]
    sampler = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": frames})

    def sampled(model_: Any) -> Tensor:
        sigmas = comfy.samplers.calculate_sigmas(model_.get_model_object("model_sampling"), "simple", 2)
        text = real.conditioning(family, 2)
        return comfy.sample.sample_custom(
            model_, real.noise(family), 1.0, sampler, sigmas, text, text, real.latent(family), disable_pbar=True, seed=0
        )

    model_, patch = enhanced(family)
    assert torch.equal(sampled(model_), sampled(model(family.name)))
    sentence = patch.record.sentence()
    assert sentence.startswith("Warning: nothing was done to Wan causal") and "a few frames at a time" in sentence


# -------------------------------------------------------------------------------------------- what loads the model
@pytest.mark.parametrize("order", ["before", "behind"])
def test_a_lora_before_and_behind(order):
    import comfy.sd

    family = NAMED["Wan T2V"]
    base, generator = real.model(family), torch.Generator().manual_seed(3)
    name, random = "diffusion_model.blocks.0.self_attn.q", functools.partial(torch.randn, generator=generator)
    lora = {f"{name}.lora_A.weight": random(4, 48), f"{name}.lora_B.weight": random(48, 4)}

    def with_lora(model_: Any) -> Any:
        return comfy.sd.load_lora_for_models(model_, None, lora, 1.0, 0.0)[0]

    made = enhanced(family, of=with_lora(base))[0] if order == "before" else with_lora(enhanced(family, of=base)[0])
    record = made.get_wrappers("apply_model", KEY)[0].__self__
    out = real.sample(made, family, real.noise(family))
    assert all(len(step.layers) == family.layers for step in record.record.steps)
    without = real.sample(enhanced(family, of=base)[0], family, real.noise(family))
    only = real.sample(with_lora(base), family, real.noise(family))
    assert (out - without).norm() > 1e-3 * out.norm() and (out - only).norm() > 1e-3 * out.norm()


def test_a_model_of_a_loaders_own_class_stays_of_that_class():
    """As ComfyUI-GGUF keeps its models: a class of its own with a clone of its own."""
    import comfy.model_patcher

    class Loaded(comfy.model_patcher.ModelPatcher):
        def clone(self, *args: Any, **kwargs: Any) -> Any:
            other = super().clone(*args, **kwargs)
            other.__class__ = Loaded
            return other

    family = NAMED["Wan T2V"]
    base = Loaded(model(family.name).model, torch.device("cpu"), torch.device("cpu"))
    made, _ = enhanced(family, of=base)
    assert type(made) is Loaded and made is not base
    wanted = real.sample(enhanced(family)[0], family, real.noise(family))
    assert torch.equal(real.sample(made, family, real.noise(family)), wanted)


# ------------------------------------------------------------------------------------------------- the node itself
def test_a_model_that_is_no_video_model_is_warned_about(caplog, monkeypatch):
    from ..enhance_node import EnhanceAVideo

    class Flux(torch.nn.Module):
        pass

    monkeypatch.setattr(EnhanceAVideo, "hidden", types.SimpleNamespace(unique_id=None), raising=False)
    base = types.SimpleNamespace(get_model_object=lambda name: Flux())
    out = EnhanceAVideo.execute(base, {"gain": "odds", "odds": 2.0}, 0.0, 1.0)
    assert out.result == (base,) and "it is not among Wan" in caplog.text


def test_seedvr2_gives_its_attention_no_override_and_is_warned_about(caplog, monkeypatch):
    """Its attention runs, and never through the override. Should this fail one day, its row can be written."""
    import comfy.ldm.modules.attention as attention

    from ..enhance_node import EnhanceAVideo

    base, through, all_calls = real.model(families.SEEDVR2), [], []
    every = attention.optimized_attention
    monkeypatch.setattr(attention, "optimized_attention", lambda *a, **k: (all_calls.append(1), every(*a, **k))[1])
    watched = base.clone()
    watched.model_options["transformer_options"][OVERRIDE] = lambda f, *a, **k: (through.append(1), f(*a, **k))[1]
    real.sample(watched, families.SEEDVR2, real.noise(families.SEEDVR2), cfg=1.0)
    assert all_calls and not through
    monkeypatch.setattr(EnhanceAVideo, "hidden", types.SimpleNamespace(unique_id=None), raising=False)
    out = EnhanceAVideo.execute(base, {"gain": "odds", "odds": 2.0}, 0.0, 1.0)
    assert out.result == (base,) and "nothing will be done to NaDiT: ComfyUI gives its attention" in caplog.text


def test_two_nodes_in_a_row_are_named(caplog, monkeypatch):
    from ..enhance_node import EnhanceAVideo

    caplog.set_level("INFO")
    monkeypatch.setattr(EnhanceAVideo, "hidden", types.SimpleNamespace(unique_id=None), raising=False)
    once = EnhanceAVideo.execute(model("Wan T2V"), {"gain": "odds", "odds": 2.0}, 0.0, 1.0).result[0]
    assert "both gains" not in caplog.text
    EnhanceAVideo.execute(once, {"gain": "odds", "odds": 2.0}, 0.0, 1.0)
    assert "both gains" in caplog.text
