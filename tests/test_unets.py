"""AnimateDiff's and Stable Video Diffusion's own pipelines at tiny size, enhanced end to end."""

import diffusers
import pytest
import torch
from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, MotionAdapter
from PIL import Image
from tiny_models import TINY, noise
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from enhance_a_video import enhance
from enhance_a_video.errors import TokenLayoutError

VAE = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 2,
}


def generator():
    return torch.Generator().manual_seed(0)


def animatediff():
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    adapter = MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2
    )
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE, up_block_types=("UpDecoderBlock2D",) * 2)
    pipe = AnimateDiffPipeline(
        vae,
        None,
        None,
        unet,
        adapter,
        DDIMScheduler(beta_schedule="linear", clip_sample=False, timestep_spacing="trailing"),
    )
    pipe.set_progress_bar_config(disable=True)
    text = {"prompt_embeds": noise(1, 7, 8, seed=1), "negative_prompt_embeds": noise(1, 7, 8, seed=2)}

    def run(frames=8):
        return pipe(**text, num_frames=frames, height=16, width=16, num_inference_steps=4, generator=generator(),
                    output_type="latent").frames  # fmt: skip

    return pipe, run


def stable_video():
    torch.manual_seed(0)
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(hidden_size=8, projection_dim=8, num_hidden_layers=1, num_attention_heads=2, image_size=224,
                         intermediate_size=8, patch_size=112)
    )  # fmt: skip
    unet = diffusers.UNetSpatioTemporalConditionModel(**{**TINY["svd"].model().config, "in_channels": 8})
    scheduler = EulerDiscreteScheduler(
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, timestep_type="continuous",
        prediction_type="v_prediction", timestep_spacing="leading", steps_offset=1, interpolation_type="linear",
    )  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(block_out_channels=(32, 32), down_block_types=VAE["down_block_types"])
    pipe = diffusers.StableVideoDiffusionPipeline(
        vae.eval(), encoder.eval(), unet.eval(), scheduler, CLIPImageProcessor()
    )
    pipe.set_progress_bar_config(disable=True)

    def run(frames=6):
        return pipe(Image.new("RGB", (32, 32), "red"), num_frames=frames, height=32, width=32, num_inference_steps=4,
                    generator=generator(), output_type="latent").frames  # fmt: skip

    return pipe, run


@pytest.mark.parametrize("make, layers, frames, source", [
    (animatediff, 14, 8, "scheduler"), (stable_video, 4, 6, "scheduler steps")
])  # fmt: skip
def test_end_to_end(make, layers, frames, source):
    pipe, run = make()
    plain = run()
    with enhance(pipe, strength=2.0, start=0.0, end=0.5) as handle:
        enhanced = run()
    s = handle.summary()
    assert s.models == ["unet"] and s.progress_source == source and set(s.num_frames) == {frames}
    assert list(s.active) == [True, True, False, False] and s.gain.shape == (4, layers)
    assert (s.gain[:2] > 1.5).all() and (s.gain[2:] == 1).all()
    assert torch.equal(run(), plain) and (enhanced - plain).norm() > 0.001 * plain.norm()


def test_windows_shorter_than_the_video_are_refused():
    """FreeNoise: the intensity of a window is none of the video's frames."""
    pipe, _ = animatediff()
    pipe.enable_free_noise(context_length=8, context_stride=4)

    def predict(frames):
        with torch.no_grad():
            pipe.unet(noise(2, 4, frames, 8, 8), torch.tensor(500), noise(2 * frames, 7, 8))

    with (
        enhance(pipe, start=0.0, end=1.0),
        pytest.raises(TokenLayoutError, match=r"a temporal layer of 16 frames gets .* the kernel got 8"),
    ):
        predict(16)
    with enhance(pipe, strength=2.0, start=0.0, end=1.0) as handle:
        predict(8)
    assert (handle.summary().gain > 1).all()
