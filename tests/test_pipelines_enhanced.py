"""Tiny real pipelines, enhanced end to end: every denoiser, the window, any scheduler and step count."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    CogVideoXDDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from tiny_models import TEXT, TINY, H, T, W, noise

from enhance_a_video import enhance
from enhance_a_video.enhancement import enhancement_of
from enhance_a_video.errors import AlreadyEnhancedError

FRAMES = 4 * (T - 1) + 1
SIZE = {"height": 16 * H, "width": 16 * W, "num_frames": FRAMES}
PROMPT = {"prompt_embeds": noise(1, TEXT, 16, seed=1), "negative_prompt_embeds": noise(1, TEXT, 16, seed=2)}


def euler(shift=3.0):
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def unipc(shift=3.0):
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def wan_pipeline(scheduler=None, **components):
    parts = {"transformer": TINY["wan"].model(), **components}
    return quiet(
        diffusers.WanPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=scheduler or euler(), **parts)
    )


def cog_pipeline():
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip
    scheduler = CogVideoXDDIMScheduler(timestep_spacing="trailing")
    return quiet(diffusers.CogVideoXPipeline(None, None, vae.eval(), TINY["cogvideox_5b"].model(), scheduler)), {
        "prompt_embeds": noise(1, TEXT, 8, seed=1),
        "negative_prompt_embeds": noise(1, TEXT, 8, seed=2),
    }


def hunyuan_pipeline():
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )  # fmt: skip
    pipe = diffusers.HunyuanVideoPipeline(
        text_encoder=None, tokenizer=None, transformer=TINY["hunyuan"].model(), vae=vae.eval(), scheduler=euler(7.0),
        text_encoder_2=None, tokenizer_2=None,
    )  # fmt: skip
    return quiet(pipe), {
        "prompt_embeds": noise(1, TEXT, 16, seed=1),
        "pooled_prompt_embeds": noise(1, 8, seed=2),
        "prompt_attention_mask": torch.ones(1, TEXT),
    }


def ltx_pipeline():
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096
    )
    pipe = diffusers.LTXPipeline(scheduler, None, None, None, TINY["ltx"].model())
    return quiet(pipe), {
        "prompt_embeds": noise(1, TEXT, 16, seed=1), "prompt_attention_mask": torch.ones(1, TEXT),
        "negative_prompt_embeds": noise(1, TEXT, 16, seed=2), "negative_prompt_attention_mask": torch.ones(1, TEXT),
    }  # fmt: skip


def generate(pipe, steps=4, **prompt):
    settings = {"num_inference_steps": steps, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
    return pipe(**{**SIZE, **settings, **(prompt or PROMPT)}).frames


def test_wan_end_to_end():
    pipe = wan_pipeline()
    plain = generate(pipe)
    with enhance(pipe, strength=2.0, start=0.0, end=0.5) as handle:
        enhanced = generate(pipe)
    assert torch.equal(generate(pipe), plain) and (enhanced - plain).norm() > 0.002 * plain.norm()
    s = handle.summary()
    assert s.models == ["transformer"] and s.progress_source == "scheduler"
    assert len(s.active) == 8 and s.active.sum() == 4 and (s.num_frames == T).all()  # cond and uncond


@pytest.mark.parametrize("make, source", [(cog_pipeline, "scheduler"), (hunyuan_pipeline, "scheduler"),
                                          (ltx_pipeline, "scheduler steps")])  # fmt: skip
def test_the_other_families_end_to_end(make, source):
    pipe, prompt = make()
    plain = generate(pipe, **prompt)
    with enhance(pipe, strength=2.0, start=0.0, end=0.5) as handle:
        enhanced = generate(pipe, **prompt)
    assert torch.equal(generate(pipe, **prompt), plain) and (enhanced - plain).norm() > 0.002 * plain.norm()
    s = handle.summary()
    assert s.progress_source == source and s.active.sum() == 2 and len(s.active) == 4
    assert (s.gain[~s.active] == 1).all() and s.gain[s.active].max() > 1
    assert len(set(s.num_frames)) == 1 and s.num_frames[0] > 1


def window(scheduler, steps, **chosen):
    """The noise levels (timesteps) at which the method acted."""
    pipe = wan_pipeline(scheduler)
    with enhance(pipe, **chosen) as handle:
        generate(pipe, steps, prompt_embeds=PROMPT["prompt_embeds"], guidance_scale=1.0)
    summary = handle.summary()
    assert len(summary.active) == steps
    return pipe.scheduler.timesteps.numpy(), summary


@pytest.mark.parametrize("make", [euler, unipc])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_a_window_is_the_same_noise_levels_for_any_step_count(make, shift):
    edges = []
    for steps in (10, 40):
        timesteps, s = window(make(shift), steps, start=0.2, end=0.6)
        acted = timesteps[s.active]
        assert s.progress_source == "scheduler" and (np.diff(np.flatnonzero(s.active)) == 1).all()
        sigma = {p: shift * (1 - p) / (1 + (shift - 1) * (1 - p)) for p in (0.2, 0.6)}
        assert acted.max() <= 1000 * sigma[0.2] + 1 and acted.min() > 1000 * sigma[0.6] - 1
        edges.append(s.active.mean())
    assert edges[0] == pytest.approx(edges[1], abs=0.11) and edges[1] == pytest.approx(0.4, abs=0.03)


def test_a_step_that_falls_on_the_edge_but_for_rounding_is_beyond_it():
    """UniPC's steps are 0.0999 wide: its eighth begins at 0.6993."""
    for steps in (10, 50):
        _, s = window(unipc(5.0), steps, start=0.0, end=0.7)
        assert s.active.sum() == 0.7 * steps


def test_every_step_or_none_of_the_window():
    _, always = window(unipc(), 6, start=0.0, end=1.0)
    _, late = window(euler(), 6, start=0.5, end=1.0)
    assert always.active.all() and late.active[-1] and not late.active[0]


def test_the_scheduler_is_read_at_each_call():
    pipe = wan_pipeline(euler(1.0))
    with enhance(pipe, start=0.0, end=0.5) as handle:
        generate(pipe, 4)
        pipe.scheduler = euler(9.0)
        generate(pipe, 4)
    progress = handle.summary().progress
    assert progress[:8] == pytest.approx(progress[8:], abs=1e-2)  # uniform steps of either scheduler


def test_two_denoisers_share_the_denoising():
    pipe = wan_pipeline(transformer_2=TINY["wan"].model(), boundary_ratio=0.875)
    plain = generate(pipe, 8)
    with enhance(pipe, strength=2.0, start=0.0, end=0.5) as handle:
        with pytest.raises(AlreadyEnhancedError, match="is enhanced already"):
            enhance(pipe.transformer_2)
        enhanced = generate(pipe, 8)
        assert enhancement_of(pipe) is handle
    assert torch.equal(generate(pipe, 8), plain) and not torch.equal(enhanced, plain)
    s = handle.summary()
    assert s.models == ["transformer", "transformer_2"] and len(s.layers) == 4
    assert s.layers[2] == "transformer_2.blocks.0.attn1"
    first = s.model == 0
    assert first.sum() + (~first).sum() == 16 and s.progress[first].max() < s.progress[~first].min()
    assert np.isnan(s.gain[first][:, 2:]).all() and not np.isnan(s.gain[first][:, :2]).any()
    assert s.active[~first].any() and not s.active.all()


def test_a_low_noise_denoiser_alone():
    """Wan 2.2 may be loaded with one of its transformers only."""
    pipe = wan_pipeline(transformer=None, transformer_2=TINY["wan"].model(), boundary_ratio=1.01)
    with enhance(pipe) as handle:
        generate(pipe, 2)
    assert handle.summary().models == ["transformer_2"]


def test_per_token_timesteps_of_wan22():
    pipe = wan_pipeline(unipc(5.0), expand_timesteps=True)
    with enhance(pipe, start=0.0, end=0.5) as handle:
        generate(pipe, 4)
    s = handle.summary()
    assert s.active.sum() == 4 and s.gain[s.active].max() > 1


def test_a_bare_transformer_in_a_pipeline_uses_its_familys_shift():
    pipe = wan_pipeline(euler(5.0))
    with enhance(pipe.transformer, start=0.0, end=0.5) as handle:
        generate(pipe, 4)
    assert handle.summary().progress_source == "timestep" and handle.summary().active.sum() == 4


def test_saving_the_pipeline_leaks_nothing(tmp_path):
    pipe = wan_pipeline()
    with enhance(pipe):
        pipe.transformer.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert "enhance" not in (tmp_path / "config.json").read_text()


def test_an_error_inside_the_pipeline_undoes():
    pipe = wan_pipeline()
    with pytest.raises(RuntimeError), enhance(pipe):
        generate(pipe, prompt_embeds=noise(1, TEXT, 5), negative_prompt_embeds=noise(1, TEXT, 5))
    assert enhancement_of(pipe) is None and not pipe.transformer._forward_pre_hooks
