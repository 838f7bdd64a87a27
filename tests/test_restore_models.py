"""Restoring with other pipelines than the packaged model's: each is given what its own VAE makes of the clip."""

from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tiny_models import TEXT, TINY, noise
from tiny_models.base import T
from torch import nn

from enhance_a_video.errors import UnsupportedModelError
from enhance_a_video.generation.restore import Restoring, engine, latents
from enhance_a_video.settings import Settings


def seeded(build: Any) -> nn.Module:
    torch.manual_seed(0)
    return build().eval().requires_grad_(False)


def flow(**settings: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **settings})


def mochi() -> Any:
    vae = seeded(lambda: diffusers.AutoencoderKLMochi(
        latent_channels=4, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5, add_attention_block=(False,) * 5, latents_mean=None, latents_std=None,
    ))  # fmt: skip
    return diffusers.MochiPipeline(flow(shift=1.0, invert_sigmas=True), vae, None, None, TINY["mochi"].model())


def cogvideox() -> Any:
    vae = seeded(lambda: diffusers.AutoencoderKLCogVideoX(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        temporal_compression_ratio=4,
    ))  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    return diffusers.CogVideoXPipeline(None, None, vae, TINY["cogvideox_2b"].model(), scheduler)


def ltx() -> Any:
    vae = seeded(lambda: diffusers.AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False), decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5, upsample_residual=(False,) * 4, upsample_factor=(1,) * 4, patch_size=2,
    ))  # fmt: skip
    vae.latents_mean.fill_(0.2)
    vae.latents_std.fill_(0.5)
    return diffusers.LTXPipeline(flow(), vae, None, None, TINY["ltx"].model())


def kandinsky() -> Any:
    vae = seeded(lambda: diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    ))  # fmt: skip
    return diffusers.Kandinsky5T2VPipeline(TINY["kandinsky_5"].model(), vae, None, None, None, None, flow())


def hunyuan() -> Any:
    vae = seeded(lambda: diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    ))  # fmt: skip
    return diffusers.HunyuanVideoPipeline(None, None, TINY["hunyuan"].model(), vae, flow(shift=7.0), None, None)


WORDS, MASK = noise(1, TEXT, 16, seed=1), torch.ones(1, TEXT)
TEXTS = {  # what encode_prompt of each pipeline gives
    mochi: (WORDS, MASK, WORDS, MASK),
    cogvideox: (noise(1, TEXT, 8, seed=1),) * 2,
    ltx: (WORDS, MASK, WORDS, MASK),
    kandinsky: (WORDS, noise(1, 8, seed=2), torch.tensor([0, TEXT])),
    hunyuan: (WORDS, noise(1, 8, seed=2), MASK),
}


@pytest.fixture(params=TEXTS, ids=lambda build: build.__name__)
def pipe(request):
    pipe = request.param()
    pipe.set_progress_bar_config(disable=True)
    pipe.encode_prompt = lambda *args, **kwargs: TEXTS[request.param]
    return pipe


def clip(pipe: Any) -> np.ndarray:
    """Smooth, uint8 (F, H, W, 3), of the model's grid."""
    grid = latents.grid_of(pipe)
    frames, side = grid.frames(2 * T), max(grid.side(32), 32)
    t, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (frames, side, 2 * side)), indexing="ij")
    wave = np.stack([np.sin(t + y), np.cos(x - t), np.sin(x * y)], -1)
    return np.rint(127.5 + 100 * wave).astype(np.uint8)


def planned(pipe: Any, frames: np.ndarray, noise: float = 0.5) -> tuple[Restoring, engine.Plan]:
    how = Restoring(
        noise=noise, settings=Settings(strength=3.0, start=0.0, end=1.0), steps=4, guidance=1.0, keep_detail=False
    )
    return how, engine.plan(pipe, how, *frames.shape[:3])


def test_the_schedule_is_entered_where_the_noise_is(pipe):
    frames = clip(pipe)
    shares = [planned(pipe, frames, level)[1].start.noise for level in (0.25, 0.5, 1.0)]
    assert 0 < shares[0] < shares[1] < shares[2] <= 1
    start = planned(pipe, frames)[1].start
    flow_matching = "FlowMatch" in type(pipe.scheduler).__name__
    assert (start.steps == 2 and start.signal + start.noise == pytest.approx(1)) or not flow_matching


def test_without_noise_and_steps_the_clip_is_what_the_vae_makes_of_it(pipe, monkeypatch):
    """The latents' scale and layout: the pipeline decodes what it is given to the VAE's own round trip."""
    frames = clip(pipe)
    how, made = planned(pipe, frames)
    made = replace(made, start=replace(made.start, signal=1.0, noise=0.0))
    monkeypatch.setattr(pipe.scheduler, "step", lambda prediction, t, sample, *_, **__: (sample,), raising=False)
    found = engine.denoised(pipe, frames, 0, how, made)
    with torch.inference_mode():
        video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
        z = pipe.vae.encode(video).latent_dist.mode()
        decoded = pipe.vae.decode(z, *([None] if "temb" in pipe.vae.decode.__code__.co_varnames else [])).sample
    wanted = ((decoded[0].permute(1, 2, 3, 0) + 1) / 2).clamp(0, 1).numpy() * 255
    assert found.shape == frames.shape
    assert np.abs(found - wanted).max() <= 1.01


def test_a_clip_is_restored_with_the_method_on(pipe):
    frames = clip(pipe)
    how, made = planned(pipe, frames)
    with engine.method(pipe, how) as summary:
        restored = engine.restore_window(pipe, frames, 0, how, made)
        found = summary()
    assert restored.shape == frames.shape and restored.dtype == np.uint8
    assert found.calls_made == 2 and found.active.all() and not found.no_effect


def test_cogvideox_15_pads_its_latents_and_is_refused():
    pipe = cogvideox()
    pipe.transformer = TINY["cogvideox_15"].model()
    with pytest.raises(UnsupportedModelError, match=r"CogVideoX 1\.0 works"):
        latents.format_of(pipe)


def test_mochis_statistics_are_those_of_its_config():
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=4, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5, add_attention_block=(False,) * 5, latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[0.5, 1.0, 2.0, 4.0], scaling_factor=3.0,
    )  # fmt: skip
    x = noise(1, 4, 2, 3, 3)
    mean, deviation = (
        torch.tensor(values).view(1, 4, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    scaled = latents.FORMATS["MochiPipeline"].scale(vae, x)
    assert torch.allclose(scaled * deviation / 3.0 + mean, x, atol=1e-6)  # as the pipeline decodes
