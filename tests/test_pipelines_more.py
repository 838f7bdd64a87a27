"""More tiny real pipelines, enhanced by the defaults: image-to-video, sound, modular ones, and guidance.

Each runs plain, enhanced and plain again, to the latents. Prompt embeddings are given, so no text encoder is needed;
the other components are the pipeline's own classes, tiny, with random weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from PIL import Image
from tiny_models import TEXT, TINY, H, T, W, noise
from tiny_models.cogvideox import cog
from tiny_models.wan import wan
from torch import Tensor, nn

from enhance_a_video import enhance
from enhance_a_video.enhancement import enhancement_of
from enhance_a_video.settings import Settings

STEPS = 8
SIZE = {"height": 16 * H, "width": 16 * W}  # two latents a token, eight pixels a latent
FRAMES = 4 * (T - 1) + 1


@dataclass(frozen=True)
class Ready:
    """A pipeline with the arguments of a call, and the required summary of that call."""

    pipe: Any
    arguments: dict[str, Any]
    layers: list[str]
    source: str = "scheduler"
    frames: int = T
    calls: list[int] = field(default_factory=lambda: [1] * STEPS)  # forward calls of each step
    progress: Sequence[float] = tuple(i / STEPS for i in range(STEPS))  # at each step
    skipped: frozenset[tuple[int, int]] = frozenset()  # (call of a step, layer): the pipeline skips the layer there
    models: tuple[str, ...] = ("transformer",)
    output: Callable[[Any], Tensor] = lambda result: result.frames

    def generate(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return self.output(self.pipe(num_inference_steps=STEPS, generator=generator, **self.arguments))

    def runs(self, model: np.ndarray) -> np.ndarray:
        """(calls, layers): whether a layer runs in a call; model (calls,) is the index of the call's own."""
        runs = model[:, None] == np.repeat(np.arange(len(self.models)), len(self.layers) // len(self.models))
        call = np.concatenate([np.arange(n) for n in self.calls])
        for number, layer in self.skipped:
            runs[call == number, layer] = False
        return runs


def blocks(pattern: str, count: int = 2) -> list[str]:
    return [pattern.format(n) for n in range(count)]


def built(name: str, *args: Any, **components: Any) -> Any:
    """A pipeline of diffusers by its class's name; where the installed diffusers lacks it the test is skipped."""
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    pipe = getattr(diffusers, name)(*args, **components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(build: Callable[[], nn.Module]) -> Any:
    """As Tiny.model() does: from a fixed seed, and no weight zero, which would hide the attention."""
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.numel() > 1 and not parameter.any():
            parameter.data.normal_(0, 0.05, generator=generator)
    return model


def prompts(width: int, masks: bool = False, **given: Any) -> dict[str, Any]:
    made = {"prompt_embeds": noise(1, TEXT, width, seed=1), "negative_prompt_embeds": noise(1, TEXT, width, seed=2)}
    if masks:
        made |= {"prompt_attention_mask": torch.ones(1, TEXT), "negative_prompt_attention_mask": torch.ones(1, TEXT)}
    return {**made, "output_type": "latent", **given}


def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE["height"], SIZE["width"], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def unipc() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def flow(**settings: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **settings})


# ---------------------------------------------------------------------------------------- Wan, image to video
def wan_vae() -> nn.Module:
    return seeded(lambda: diffusers.AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ))  # fmt: skip


def wan_i2v(**components: Any) -> Any:
    parts = {"tokenizer": None, "text_encoder": None, "vae": wan_vae(), "scheduler": unipc(), **components}
    return built("WanImageToVideoPipeline", **parts)


def wan_i2v_21() -> Ready:
    """Wan 2.1: the picture's latents and their mask as further channels, and the picture through CLIP."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    pipe = wan_i2v(
        transformer=TINY["wan_i2v"].model(),
        image_encoder=seeded(lambda: CLIPVisionModel(config)),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
    )
    # The transformer takes the last 512 tokens of what it is given for the text, those before for the picture.
    text = {name: noise(1, 512, 16, seed=n) for n, name in enumerate(("prompt_embeds", "negative_prompt_embeds"))}
    call = {"image": picture(), "num_frames": FRAMES, **SIZE, **prompts(16), **text}
    return Ready(pipe, call, blocks("blocks.{}.attn1"), calls=[2] * STEPS)


def wan_i2v_22() -> Ready:
    """Wan 2.2 A14B: two transformers, no CLIP."""
    pipe = wan_i2v(
        transformer=seeded(lambda: wan(in_channels=12)), transformer_2=seeded(lambda: wan(in_channels=12)),
        boundary_ratio=0.9,
    )  # fmt: skip
    layers = blocks("transformer.blocks.{}.attn1") + blocks("transformer_2.blocks.{}.attn1")
    call = {"image": picture(), "num_frames": FRAMES, **SIZE, **prompts(16)}
    return Ready(pipe, call, layers, calls=[2] * STEPS, models=("transformer", "transformer_2"))


def wan_ti2v_22() -> Ready:
    """Wan 2.2 TI2V-5B: the first frame is the picture, clean, and every token has its own timestep."""
    pipe = wan_i2v(transformer=TINY["wan22_ti2v"].model(), expand_timesteps=True)
    call = {"image": picture(), "num_frames": FRAMES, **SIZE, **prompts(16)}
    return Ready(pipe, call, blocks("blocks.{}.attn1"), calls=[2] * STEPS)


# ---------------------------------------------------------------------------------- CogVideoX, image to video
def cog_i2v(latent_frames: int, frames: int, **changes: Any) -> Ready:
    vae = seeded(lambda: diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    ))  # fmt: skip
    model = seeded(lambda: cog(in_channels=8, use_rotary_positional_embeddings=True, **changes))
    scheduler = diffusers.CogVideoXDDIMScheduler(timestep_spacing="trailing")
    pipe = built("CogVideoXImageToVideoPipeline", None, None, vae, model, scheduler)
    call = {"image": picture(), "num_frames": 4 * (latent_frames - 1) + 1, **SIZE, **prompts(8)}
    return Ready(pipe, call, blocks("transformer_blocks.{}.attn1"), frames=frames)


def cog_i2v_5b() -> Ready:
    return cog_i2v(T, T, use_learned_positional_embeddings=True)


def cog_i2v_15() -> Ready:
    """1.5: patches of two latent frames, of which the pipeline adds one to 7; and an embedding of the frame offset."""
    return cog_i2v(7, 4, patch_size_t=2, patch_bias=False, ofs_embed_dim=4)


# ------------------------------------------------------------------------------------------------------- LTX-2
def ltx2(transformer: str, **guidance: Any) -> tuple[Any, dict[str, Any]]:
    """The pipeline and its arguments. The text encoder's states go through the pipeline's own connectors."""
    model = TINY[transformer].model()  # skips where diffusers has none
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

    video = seeded(lambda: diffusers.AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8,), decoder_block_out_channels=(8,), layers_per_block=(1,),
        decoder_layers_per_block=(1, 1), spatio_temporal_scaling=(True,), decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False), downsample_type=("spatial",), upsample_type=("spatiotemporal",),
        upsample_residual=(False,), upsample_factor=(1,), patch_size=1, spatial_compression_ratio=16,
        temporal_compression_ratio=4,
    ))  # fmt: skip
    audio = seeded(lambda: diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, in_channels=2, resolution=32,
        latent_channels=2, mel_bins=8,
    ))  # fmt: skip
    connectors = seeded(lambda: LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=1, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8, video_connector_num_layers=1,
        video_connector_num_learnable_registers=None, audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None, rope_double_precision=False,
    ))  # fmt: skip
    vocoder = seeded(lambda: LTX2Vocoder(
        in_channels=4, hidden_channels=8, upsample_kernel_sizes=[4], upsample_factors=[2], resnet_kernel_sizes=[3],
        resnet_dilations=[[1]],
    ))  # fmt: skip
    scheduler = flow(
        shift=1.0, use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
        max_image_seq_len=4096, shift_terminal=0.1,
    )  # fmt: skip
    pipe = built(
        "LTX2Pipeline", scheduler=scheduler, vae=video, audio_vae=audio, text_encoder=None, tokenizer=None,
        connectors=connectors, transformer=model, vocoder=vocoder,
    )  # fmt: skip
    call = {"height": 32 * H, "width": 32 * W, "num_frames": FRAMES, "frame_rate": 24.0, **prompts(16, masks=True)}
    return pipe, {**call, **guidance}


def ltx2_text() -> Ready:
    """Text guidance alone: one call of both halves."""
    pipe, call = ltx2("ltx2", stg_scale=0.0, audio_stg_scale=0.0, modality_scale=1.0, audio_modality_scale=1.0)
    return Ready(pipe, call, blocks("transformer_blocks.{}.attn1"), source="scheduler steps")


def ltx2_guided() -> Ready:
    """By its own defaults two more calls: without a block's attention, and without what crosses to and from sound."""
    pipe, call = ltx2("ltx23", spatio_temporal_guidance_blocks=[1])
    return Ready(
        pipe, call, blocks("transformer_blocks.{}.attn1"), source="scheduler steps", calls=[3] * STEPS,
        skipped=frozenset({(1, 1)}),
    )  # fmt: skip


# --------------------------------------------------------------------------------------- Mochi, Latte, Allegro
def mochi() -> Ready:
    scheduler = flow(shift=1.0, invert_sigmas=True)
    vae = seeded(lambda: diffusers.AutoencoderKLMochi(
        latent_channels=4, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5, add_attention_block=(False,) * 5,
    ))  # fmt: skip
    pipe = built("MochiPipeline", scheduler, vae, None, None, TINY["mochi"].model())
    call = {"num_frames": 6 * (T - 1) + 1, **SIZE, **prompts(16, masks=True)}
    return Ready(pipe, call, blocks("transformer_blocks.{}.attn1"))


def latte() -> Ready:
    vae = seeded(lambda: diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ))  # fmt: skip
    pipe = built("LattePipeline", None, None, vae, TINY["latte"].model(), diffusers.DDIMScheduler(beta_end=0.02))
    call = {"video_length": T, "height": 64, "width": 64, "negative_prompt": None, "clean_caption": False}
    layers = blocks("temporal_transformer_blocks.{}.attn1")
    down_to_zero = [(i + 1) / STEPS for i in range(STEPS)]  # where its timesteps lie
    return Ready(pipe, {**call, **prompts(8)}, layers, progress=down_to_zero)


def allegro() -> Ready:
    vae = seeded(lambda: diffusers.AutoencoderKLAllegro(
        down_block_types=("AllegroDownBlock3D",) * 4, up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
    ))  # fmt: skip
    scheduler = diffusers.EulerAncestralDiscreteScheduler(beta_end=0.02)
    pipe = built("AllegroPipeline", None, None, vae, TINY["allegro"].model(), scheduler)
    call = {"num_frames": 4 * T, "negative_prompt": None, "clean_caption": False, **SIZE}
    from_end_to_end = np.linspace(0, 1, STEPS)  # where its timesteps lie
    layers = blocks("transformer_blocks.{}.attn1")
    return Ready(pipe, {**call, **prompts(16, masks=True)}, layers, progress=from_end_to_end)


# ------------------------------------------------------------------------------------ Wan of modular diffusers
def modular(guider: str, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """All blocks but the text encoder's: what is left takes embeddings. The guider decides how many calls there are."""
    for name in ("WanBlocks", guider):
        if not hasattr(diffusers, name):
            pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    parts = diffusers.WanBlocks()
    del parts.sub_blocks["text_encoder"]
    pipe = parts.init_pipeline()
    guide = getattr(diffusers, guider)(**settings)
    pipe.update_components(transformer=TINY["wan"].model(), vae=wan_vae(), scheduler=unipc(), guider=guide)
    return pipe, {"num_frames": FRAMES, **SIZE, **prompts(16, output_type="pt"), "output": "latents"}


def modular_wan() -> Ready:
    pipe, call = modular("ClassifierFreeGuidance", guidance_scale=5.0)
    return Ready(pipe, call, blocks("blocks.{}.attn1"), calls=[2] * STEPS, output=lambda latents: latents)


def modular_wan_skipping() -> Ready:
    """Skip-layer guidance: a third call, without the second block, in all steps but the first."""
    from diffusers.hooks import LayerSkipConfig

    pipe, call = modular(
        "SkipLayerGuidance", guidance_scale=5.0, skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0,
        skip_layer_config=LayerSkipConfig([1]),
    )  # fmt: skip
    return Ready(
        pipe, call, blocks("blocks.{}.attn1"), calls=[2] + [3] * (STEPS - 1), skipped=frozenset({(2, 1)}),
        output=lambda latents: latents,
    )  # fmt: skip


CASES = {case.__name__: case for case in (
    wan_i2v_21, wan_i2v_22, wan_ti2v_22, cog_i2v_5b, cog_i2v_15, ltx2_text, ltx2_guided, mochi, latte, allegro,
    modular_wan, modular_wan_skipping,
)}  # fmt: skip


@pytest.mark.parametrize("knobs", [{}, {"strength": 0.7}], ids=["default", "strength"])
@pytest.mark.parametrize("case", CASES)
def test_a_real_pipeline_end_to_end(case, knobs):
    if case == "mochi" and not knobs:
        pytest.skip("falls back on a strength that the few frames of a random model clip: tests/test_cross_frame.py")
    ready, end = CASES[case](), Settings(**knobs).end
    plain = ready.generate()
    handle = enhance(ready.pipe, **knobs)
    enhanced = ready.generate()
    assert enhancement_of(ready.pipe) is handle
    handle.remove()
    assert plain.isfinite().all() and (enhanced - plain).norm() > 1e-3 * plain.norm()
    assert torch.equal(ready.generate(), plain) and enhancement_of(ready.pipe) is None
    s = handle.summary()
    assert s.models == list(ready.models) and s.layers == ready.layers
    assert s.calls_made == len(s.progress) == sum(ready.calls) and (s.num_frames == ready.frames).all()
    expected = np.repeat(ready.progress, ready.calls)
    assert s.progress_source == ready.source and s.progress == pytest.approx(expected, abs=0.01)
    clear = abs(expected - end) > 0.01  # a step on the very edge of the window may fall to either side
    assert (s.active == ((expected < end) | (end == 1)))[clear].all() and clear.sum() > 0.8 * len(clear)
    assert (np.isfinite(s.gain) == ready.runs(s.model)).all()
    assert (np.nan_to_num(s.gain[~s.active], nan=1.0) == 1).all() and np.nanmax(s.gain[s.active]) > 1


def test_first_and_last_frame_by_command(command, tiny_pipe, tmp_path, monkeypatch):
    """--set last_image=FILE reaches a model that is given its first and its last frame."""
    from PIL import Image

    from enhance_a_video.generation import video

    monkeypatch.chdir(tmp_path)
    wan_i2v(
        tokenizer=tiny_pipe.tokenizer, text_encoder=tiny_pipe.text_encoder,
        transformer=seeded(lambda: wan(in_channels=12)),
    ).save_pretrained(tmp_path / "flf")  # fmt: skip
    for name in ("red", "blue"):
        Image.new("RGB", (32, 32), name).save(f"{name}.png")
    size = ("--width", 32, "--height", 32, "--frames", 5, "--steps", 1)
    words = ("generate", "-m", "flf", "-p", "a ball", "--image", "red.png", *size)
    assert command(*words, "-o", "one.mp4")[0] == 0
    code, _, err = command(*words, "-o", "two.mp4", "--set", "last_image=blue.png")
    assert code == 0, err
    one, two = (video.read_video(name)[0] for name in ("one.mp4", "two.mp4"))
    assert one.shape == two.shape and (one != two).any()
