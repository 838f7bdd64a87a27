"""Rows with rules of their own, beside the tests of all variants: what they leave alone, count otherwise or refuse."""

import copy
import dataclasses
import gc

import diffusers
import pytest
import torch
from test_planted import check_twins
from tiny_models import TINY, H, T, W, noise, run, take, with_attention
from tiny_models.base import TEXT
from tiny_models.cached import BEFORE as CHUNKS
from tiny_models.helios import AUDIO, REFERENCE
from tiny_models.sana import rotary, sana_video

from enhance_a_video import enhance, models
from enhance_a_video.errors import SettingsError, TokenLayoutError, UnsupportedModelError
from enhance_a_video.models import device_reads, ltx, minimax, sana

ALWAYS = {"start": 0.0, "end": 1.0}
SITES = H * W


# ------------------------------------------------------------------------- only the video's tokens are scaled
@pytest.mark.parametrize("name, layer, part, video", [
    ("cosmos_3", "layers.1.self_attn", 1, slice(0, T * SITES)),
    ("cosmos_3_sound_first", "layers.1.self_attn", 1, slice(3, None)),
    ("kandinsky_6_reference", "visual_transformer_blocks.1.video_dec_block.self_attention", None, slice(0, T * SITES)),
    ("helios", "blocks.1.attn1", None, slice(-T * SITES, None)),
    ("helios_first_chunk", "blocks.1.attn1", None, slice(None)),
    ("minimax_h3_reference", "transformer_blocks.1.attn", None, slice(TEXT + REFERENCE + AUDIO, None)),
    ("motif_video", "transformer_blocks.1.attn", 0, slice(None)),
    ("motif_video", "single_transformer_blocks.2.attn", 0, slice(None)),
    ("wan_animate_2", "blocks.1.self_attn", None, slice(SITES, None)),
    ("sana_wm_cameras", "blocks.3.attn", None, slice(None)),
])  # fmt: skip
def test_only_the_video_is_scaled(name, layer, part, video):
    """On one layer, so that its input is the plain model's."""
    model, inputs, outputs = TINY[name].model(), TINY[name].inputs(), []
    model.get_submodule(layer).register_forward_hook(lambda module, args, output: outputs.append(output))
    run(model, inputs)
    one_gain = {"strength": 2.0, "layers": rf"^{layer}(\.attn)?$", "per_sample": False}
    with enhance(model, **one_gain, **ALWAYS) as handle:
        run(model, inputs)
    plain, scaled = (output if isinstance(output, tuple) else (output,) for output in outputs)
    at = part or 0
    factor = torch.ones(plain[at].shape[-2])
    factor[video] = float(handle.summary().gain.item())
    assert factor.max() > 1.5
    assert torch.allclose(scaled[at], plain[at] * factor[:, None], rtol=1e-5)
    assert torch.equal(scaled[at][..., factor == 1, :], plain[at][..., factor == 1, :])
    assert all(torch.equal(a, b) for i, (a, b) in enumerate(zip(scaled, plain, strict=True)) if i != at)


def test_sana_wm_is_enhanced_where_it_has_softmax_layers():
    assert list(models.attention_modules(TINY["sana_wm"].model(), models.find(TINY["sana_wm"].model()).attention)) == [
        "blocks.1.attn.attn", "blocks.3.attn.attn",
    ]  # fmt: skip


# ----------------------------------------------------------------- mistakes that the planted videos must notice
@pytest.mark.parametrize("name, mistake", [
    ("cosmos_3", {"call": 0}), ("cosmos_3", {"argument": 0}), ("cosmos_3", {"keys": "first"}),
    ("sana_wm_refiner_cached", {"keys": "first"}), ("anyflow_far", {"keys": "first"}),
    ("wan_animate_2", {"keys": "last"}), ("motif_video", {"place": "text first"}),
])  # fmt: skip
def test_a_mistake_in_the_tokens_is_noticed(name, mistake, monkeypatch):
    model = TINY[name].sharpened()
    check_twins(model, TINY[name])
    row = models.row_of(model)
    wrong = with_attention(row, tokens=dataclasses.replace(row.attention[0].tokens, **mistake))
    monkeypatch.setitem(models.registry._MODELS, row.transformer, wrong)
    with pytest.raises((AssertionError, TokenLayoutError)):
        check_twins(model, TINY[name])


# ------------------------------------------------------------------------------------------- what is refused
def test_linear_attention_is_refused_with_the_reason():
    if not hasattr(diffusers, "SanaVideoTransformer3DModel"):
        pytest.skip("this diffusers has no SanaVideoTransformer3DModel")
    model = sana_video()
    with pytest.raises(UnsupportedModelError, match=r"SANA-Video.*linear .*no softmax"):
        enhance(model)
    assert not model._forward_pre_hooks


def test_several_vision_items_are_refused():
    model, inputs = TINY["cosmos_3"].model(), TINY["cosmos_3"].inputs()
    inputs["vision_token_shapes"] = [(2, H, W), (T - 2, H, W)]
    with enhance(model), pytest.raises(TokenLayoutError, match="packs 2 vision items"):
        run(model, inputs)


def test_video_in_pieces_of_a_frame_is_refused():
    model, inputs = TINY["minimax_h3_reference"].model(), TINY["minimax_h3_reference"].inputs(frames=1)
    with enhance(model), pytest.raises(TokenLayoutError, match="last is a single frame"):
        run(model, inputs)


def test_a_segment_of_another_size_is_refused():
    model, inputs = TINY["wan_animate_2"].model(), TINY["wan_animate_2"].inputs()
    with enhance(model, **ALWAYS), pytest.raises(TokenLayoutError, match=r"24 tokens in a frame but origin_area.* 48,"):
        run(model, {**inputs, "origin_area": (32 * H, 16 * W)})


def test_far_without_a_cache_is_refused():
    model, inputs = TINY["anyflow_far"].model(), TINY["anyflow_far"].inputs()
    bare = {k: v for k, v in inputs.items() if not k.startswith("kv_cache")}
    with enhance(model), pytest.raises(TokenLayoutError, match="without a cache"):
        run(model, {**bare, "chunk_partition": [T]})


# ----------------------------------------------------------------------------- passes that are left alone
def test_the_pass_that_fills_the_cache_is_left_alone():
    model, inputs = TINY["anyflow_far"].model(), TINY["anyflow_far"].inputs(frames=sum(CHUNKS))
    inputs = {**inputs, "chunk_partition": list(CHUNKS), "kv_cache_flag": {"is_cache_step": True}}

    def filled():
        caches = copy.deepcopy(inputs["kv_cache"])
        with torch.no_grad():
            model(**{**inputs, "kv_cache": caches}, return_dict=False)
        return [tensor for cache in caches for tensor in cache.values()]

    plain = filled()
    assert not torch.equal(plain[0], inputs["kv_cache"][0]["compressed_cache"])
    with enhance(model, strength=2.0, **ALWAYS) as handle:
        assert all(torch.equal(a, b) for a, b in zip(filled(), plain, strict=True))
    assert list(handle.summary().num_frames) == [1]


def test_the_reference_pass_is_left_alone():
    model, inputs = TINY["wan_animate_2"].model(), TINY["wan_animate_2"].inputs()
    cache = inputs["kv_cache"]
    reference = {
        **{k: inputs[k] for k in ("timestep", "encoder_hidden_states", "kv_cache")},
        "hidden_states": list(noise(2, 4, T, 2 * H, 2 * W)),
        "condition_latents": list(noise(2, 4, T, 2 * H, 2 * W, seed=2)),
        "kv_cache_mode": "extract",
        "seq_len": T * SITES,
        "offset_grid_sizes": torch.tensor([[T, H, W]] * 2),
    }
    plain = run(model, reference), cache.get(1).get()
    with enhance(model, strength=2.0, **ALWAYS) as handle:
        assert torch.equal(run(model, reference), plain[0])
        assert all(torch.equal(a, b) for a, b in zip(cache.get(1).get(), plain[1], strict=True))
        run(model, inputs)
    assert list(handle.summary().num_frames) == [1, T]


# ---------------------------------------------------------------------------- samples with caches of their own
def far_sample(inputs, i):
    cut = [{k: v[:, i : i + 1].clone() for k, v in cache.items()} for cache in inputs["kv_cache"]]
    return {**take(inputs, slice(i, i + 1)), "kv_cache": cut}


def cached_sample(inputs, i):
    """Where the cache is an object of caches of a layer each."""
    cut = copy.deepcopy(inputs["kv_cache"])
    for layer in cut.layer_caches:
        for name, value in vars(layer).items():
            if isinstance(value, torch.Tensor):
                setattr(layer, name, value[i : i + 1])
    if hasattr(cut, "sink_pe"):
        cut.sink_pe = tuple(x[i : i + 1] for x in cut.sink_pe)
    return {**take(inputs, slice(i, i + 1)), "kv_cache": cut}


@pytest.mark.parametrize("name, sample, tolerance", [
    ("anyflow_far", far_sample, 1e-5), ("wan_animate_2", cached_sample, 1e-5),
    ("sana_wm_refiner_cached", cached_sample, 1e-5),
    ("kandinsky_5_nabla", lambda inputs, i: take(inputs, slice(i, i + 1)), 1e-3),
])  # fmt: skip
def test_a_batch_of_two_is_two_batches_of_one(name, sample, tolerance):
    model, inputs = TINY[name].model(), TINY[name].inputs(batch=2)
    with enhance(model, strength=2.0, **ALWAYS):
        both = run(model, inputs)
        alone = torch.cat([run(model, sample(inputs, i)) for i in range(2)])
    assert torch.allclose(both, alone, rtol=tolerance, atol=tolerance)


# --------------------------------------------------------------------------------------- frames off the rotary
@pytest.mark.parametrize("positions", [(0,), (0, 1, 2), (0, 5, 6, 11), (40, 41)])
@pytest.mark.parametrize("form", ["interleaved", "split"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_refiners_frames_are_read_off_its_rotary_embedding(positions, form, dtype):
    TINY["sana_wm_refiner"].model()
    table = tuple(x.to(dtype) for x in rotary(2, positions, rope_type=form))
    config = {"num_attention_heads": 2, "attention_head_dim": 12}
    assert sana._rotary_frames(config, {"video_rotary_emb": table}) == len(positions)


@pytest.mark.parametrize("form", ["interleaved", "split"])
def test_also_at_the_published_width(form):
    """4096 channels, which three axes do not divide: the tables begin with padding."""
    TINY["sana_wm_refiner"].model()
    table = rotary(1, (3, 4, 5), rope_type=form, num_attention_heads=32, attention_head_dim=128)
    config = {"num_attention_heads": 32, "attention_head_dim": 128}
    assert sana._rotary_frames(config, {"video_rotary_emb": table}) == 3


def test_another_form_of_rotary_embedding_is_refused_with_the_way_out():
    with pytest.raises(TokenLayoutError, match="register a row with frames="):
        sana._rotary_frames({}, {"video_rotary_emb": None})


# ------------------------------------------------------------------------------------- the place in the denoising
class Pipeline:
    def __init__(self, transformer, scheduler):
        self.components, self.scheduler = {"transformer": transformer}, scheduler


@pytest.mark.parametrize("scheduler", [
    diffusers.EDMEulerScheduler(sigma_max=80.0, sigma_min=0.002, sigma_data=0.5),
    diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
    diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0),
], ids=["Cosmos 1", "Predict2", "Predict2.5"])  # fmt: skip
def test_cosmos_counts_the_schedulers_steps(scheduler):
    """Its generations give logarithms of sigma, shares of noise or sigmas as the timestep."""
    model, inputs = TINY["cosmos"].model(), TINY["cosmos"].inputs(batch=1)
    scheduler.set_timesteps(4)
    latents = inputs["hidden_states"]
    pipeline = Pipeline(model, scheduler)
    with enhance(pipeline, start=0.0, end=0.5) as handle:
        for t in scheduler.timesteps:
            for _ in range(2):  # with and without the prompt
                prediction = run(model, {**inputs, "hidden_states": latents})
            latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
    summary = handle.summary()
    assert list(summary.progress) == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert list(summary.active) == [True] * 4 + [False] * 4 and summary.progress_source == "scheduler steps"


def test_minimax_counts_the_schedulers_steps():
    """Its timesteps count up, and hold those of the audio and of the references as well."""
    if not hasattr(diffusers, "MiniMaxH3Scheduler"):
        pytest.skip("this diffusers has no MiniMaxH3Scheduler")
    model, inputs, scheduler = TINY["minimax_h3"].model(), TINY["minimax_h3"].inputs(), diffusers.MiniMaxH3Scheduler()
    scheduler.set_timesteps(5)
    pipeline = Pipeline(model, scheduler)
    with enhance(pipeline, start=0.0, end=0.5) as handle:
        for t in scheduler.timesteps:
            prediction = run(model, {**inputs, "timestep": t[None]})
            scheduler.step(prediction, t, inputs["hidden_states"])
    assert list(handle.summary().progress) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("name", [
    "cosmos_3", "kandinsky_5", "helios", "motif_video", "sana_wm", "anyflow_far", "wan_animate_2",
])  # fmt: skip
def test_the_scheduler_has_the_shift_that_the_row_lacks(name):
    tiny = TINY[name]
    model = tiny.model()
    pipeline = Pipeline(model, diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0))
    inside, outside = tiny.inputs(timestep=950.0), tiny.inputs(timestep=20.0)
    plain = [run(model, x) for x in (inside, outside)]
    with enhance(pipeline, strength=2.0, start=0.0, end=0.5) as handle:
        enhanced = [run(model, x) for x in (inside, outside)]
    assert not torch.equal(enhanced[0], plain[0]) and torch.equal(enhanced[1], plain[1])
    summary = handle.summary()
    assert list(summary.active) == [True, False] and summary.progress_source == "scheduler"


@pytest.mark.parametrize("name", ["cosmos", "minimax_h3"])
def test_a_bare_transformer_has_no_place_in_the_denoising(name):
    model = TINY[name].model()
    with enhance(model, end=0.5), pytest.raises(SettingsError, match="act in every call"):
        run(model, TINY[name].inputs())


# --------------------------------------------------------------------------------- what is read from the device
def test_where_the_video_lies_is_read_once(monkeypatch):
    model, inputs, reads = TINY["minimax_h3"].model(), TINY["minimax_h3"].inputs(), []
    monkeypatch.setattr(minimax, "steps", lambda values: (reads.append(1), device_reads.steps(values))[1])
    with enhance(model, **ALWAYS) as handle:
        for _ in range(3):
            run(model, inputs)
        assert len(reads) == 1
        inputs["position_ids"][inputs["video_indices"][: 2 * SITES], 0] = 0.0  # two frames at one time
        run(model, inputs)
    assert len(reads) == 2 and list(handle.summary().num_frames) == [T, T, T, T - 1]


def test_tensors_are_not_kept_alive():
    gc.collect()
    before = len(device_reads._KNOWN)
    indices = torch.arange(5, 9)
    assert device_reads.as_rows(indices, first=5) == slice(0, 4) and len(device_reads._KNOWN) == before + 1
    del indices
    gc.collect()
    assert len(device_reads._KNOWN) == before


def test_indices_with_gaps_stay_indices():
    assert device_reads.as_rows(torch.tensor([7, 9, 10]), first=5).tolist() == [2, 4, 5]
    assert device_reads.last_run(torch.tensor([3, 4, 9, 10, 11])) == (9, 12) and device_reads.last_run(
        torch.arange(4)
    ) == (0, 4)
    assert device_reads.steps(torch.tensor([1.0, 1.0, 2.0, 1.0])) == 3 and device_reads.steps(torch.tensor([4.0])) == 1


def test_tensors_of_inference_mode_can_be_read():
    with torch.inference_mode():
        indices = torch.arange(2, 6)
    assert [device_reads.as_rows(indices) for _ in range(2)] == [slice(2, 6)] * 2


# ------------------------------------------------------------------------------- LTX: the video by its coordinates
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
    (axis,) = next(row.self_attention for row in models.known_models() if row.transformer == tiny.transformer)
    config = {"patch_size": 1, "patch_size_t": 1}
    for frames in (2, 3, 17):
        inputs = tiny.make_inputs(1, frames)
        rows, tokens = axis.video(config, inputs), inputs["hidden_states"].shape[1]
        sites = len(range(*rows.indices(tokens))) // frames
        assert axis.frames(config, inputs) == frames
        assert rows.start == (2 * sites if name == "ltx_conditions" else 0)


def test_the_video_is_found_in_the_coordinates_that_the_pipelines_make():
    condition = diffusers.LTXConditionPipeline
    long = pytest.importorskip("diffusers.pipelines.ltx.pipeline_ltx_i2v_long_multi_prompt")

    def at(frames, index):
        return condition._scale_video_ids(condition._prepare_video_ids(1, frames, 4, 6), frame_index=index)

    conditions = torch.cat([at(2, 24), at(1, 40), at(7, 0)], 2).float()
    conditions[:, 0] /= 25
    assert ltx._place(conditions) == (3 * 24, 7, 24)
    for overlap, guiding, negative, frames in [(0, 0, 0, 9), (2, 0, 0, 7), (2, 3, 1, 3), (0, 4, 1, 4)]:
        window = torch.zeros(1, 4, 9, 4, 6)
        coordinates = long.build_video_coords_for_window(window, overlap, guiding, negative, (8, 32, 32), 25)
        assert ltx._place(coordinates) == (0, frames, 24)


def test_the_video_is_found_in_the_tiles_of_ltx2():
    layout = pytest.importorskip("diffusers.pipelines.ltx2.dfr_layout")
    rope = TINY["ltx2"].model().rope
    video = rope.prepare_video_coords(1, 7, 4, 6, torch.device("cpu"), fps=24.0)
    keyframes = [video[:, :, 24 * frame : 24 * frame + 24].clone() for frame in (3, 6)]
    for keyframe in keyframes:  # the last picture of what a latent frame stands for
        keyframe[:, 0, :, 0] = keyframe[:, 0, :, 1] - 1 / 24
    coordinates = torch.cat([video, *keyframes], 2)
    assert ltx._place(coordinates) == (0, 7, 24)
    windows = [(slice(0, 4), slice(0, 4), slice(0, 4)), (slice(2, 7), slice(0, 4), slice(0, 6))]
    weights = [torch.ones([w.stop - w.start for w in window]) for window in windows]
    tiles = [layout.LTX2DFREpilogueTile(*window, weight) for window, weight in zip(windows, weights, strict=True)]
    plan = layout.video_tile_plan(tiles, coordinates, 7, 4, 6)
    assert [ltx._place(tile.coords) for tile in plan] == [(0, 4, 16), (0, 5, 24)]


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
    row = with_attention(models.row_of(model), scale_at=None)
    monkeypatch.setitem(models.registry._MODELS, row.transformer, row)
    with enhance(model, policy=lambda mass, moment: 2 + 0 * mass, **ALWAYS):
        assert torch.allclose(run(model, inputs), plain, atol=1e-4)
