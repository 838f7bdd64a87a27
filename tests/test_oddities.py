"""What single classes need beside the rest: tokens that are not video, skipped kernels, values that are read."""

import dataclasses

import pytest
import torch
from tiny_models import TINY, T, run

from enhance_a_video import enhance, enhancement, families
from enhance_a_video.errors import TokenLayoutError
from enhance_a_video.families import ltx

ALWAYS = {"start": 0.0, "end": 1.0}


def double(mass, moment):
    return torch.full_like(mass, 2.0)


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value for t in tensors(part)] if isinstance(value, (tuple, list)) else []


@pytest.mark.parametrize("name", TINY)
def test_as_many_tokens_are_scaled_as_are_seen_and_no_others(name, monkeypatch):
    tiny = TINY[name]
    model, inputs, outputs, seen = tiny.model(), tiny.inputs(), [], []
    family = families.family_of(model)
    attention, module = next(iter(families.attention_modules(model, family).items()))
    module = families.scaled_module(model, family, attention) or module
    module.register_forward_hook(lambda m, args, output: outputs.append(tensors(output)))
    run(model, inputs)
    plain = outputs[0]
    outputs.clear()
    measure = enhancement.site_mass
    monkeypatch.setattr(enhancement, "site_mass", lambda q, *args, **kw: (seen.append(q), measure(q, *args, **kw))[1])
    with enhance(model, policy=double, layers=[0], **ALWAYS):
        run(model, inputs)
    scaled = 0
    for before, after in zip(plain, outputs[0], strict=True):
        changed = (before != after).any(-1)
        assert torch.allclose(after[changed], 2 * before[changed], rtol=1e-5)
        scaled += int(changed.sum())
    assert scaled == sum(q[:, 0, ..., 0].numel() for q in seen) > 0  # (B, H, T*S, D) or (B, H, T, S, D)


# -------------------------------------------------------------------------------------------------------- LTX
def test_coordinates_are_read_once_for_a_generation(monkeypatch):
    reads, read = [], ltx._run
    monkeypatch.setattr(ltx, "_run", lambda *args: (reads.append(1), read(*args))[1])
    model, inputs = TINY["ltx_conditions"].model(), TINY["ltx_conditions"].inputs()
    with enhance(model, **ALWAYS) as handle:
        for _ in range(3):
            run(model, inputs)
        assert len(reads) == 1
        inputs["video_coords"][:, 0] += 1 - inputs["video_coords"][:, 0]  # all at one time: nothing starts at 0
        with pytest.raises(TokenLayoutError, match="no token of video_coords is at the origin"):
            run(model, inputs)
    assert list(handle.summary().num_frames) == [T] * 3


@pytest.mark.parametrize("name", ["ltx_conditions", "ltx_guides", "ltx2_keyframes_by_place"])
def test_where_the_video_lies_is_the_same_at_any_length(name):
    tiny = TINY[name]
    family = next(f for f in families.families() if f.transformer == tiny.transformer)
    config = {"patch_size": 1, "patch_size_t": 1}
    for frames in (2, 3, 17):
        inputs = tiny.make_inputs(1, frames)
        rows, tokens = family.video(config, inputs), inputs["hidden_states"].shape[1]
        sites = len(range(*rows.indices(tokens))) // frames
        assert family.frames(config, inputs) == frames
        assert rows.start == (2 * sites if name == "ltx_conditions" else 0)


def test_layers_that_spatio_temporal_guidance_skips_are_left_alone():
    model, inputs = TINY["ltx23"].model(), TINY["ltx23"].inputs()
    inputs["spatio_temporal_guidance_blocks"] = [0]
    plain = run(model, inputs)
    with enhance(model, strength=2.0, **ALWAYS) as handle:
        enhanced = run(model, inputs)
    gain = handle.summary().gain[0]
    assert str(gain[0]) == "nan" and gain[1] > 1 and not torch.equal(enhanced, plain)


# ------------------------------------------------------------------------------------------------------ others
def test_vace_without_a_condition_has_no_references():
    tiny = TINY["wan_vace"]
    model, inputs = tiny.model(), tiny.inputs()
    inputs["control_hidden_states"].zero_()
    with enhance(model, **ALWAYS) as handle:
        run(model, inputs)
    assert list(handle.summary().num_frames) == [T]


def test_mochi_would_undo_a_gain_at_its_attention(monkeypatch):
    model, inputs = TINY["mochi"].model(), TINY["mochi"].inputs()
    plain = run(model, inputs)
    row = dataclasses.replace(families.family_of(model), scale_at=None)
    monkeypatch.setitem(families.registry._FAMILIES, row.transformer, row)
    with enhance(model, policy=double, **ALWAYS):
        assert torch.allclose(run(model, inputs), plain, atol=1e-4)
