"""Wan and its relatives: full attention over video tokens alone."""

from torch import Tensor

from ..attention import Rows, Tokens
from ..progress import Flow
from .device_reads import once
from .registry import Arguments, Columns, Config, CrossAttention, FrameCount, Model, SelfAttention, register

_LATENT_FRAMES = FrameCount("hidden_states", dim=2, patch="patch_size")


def _sites(config: Config, arguments: Arguments) -> int:
    _, p_h, p_w = config["patch_size"]
    *_, height, width = arguments["hidden_states"].shape
    return (height // p_h) * (width // p_w)


def _after(references: int, config: Config, arguments: Arguments) -> Rows:
    """The tokens behind those of the reference frames."""
    return slice(references * _sites(config, arguments), None) if references else None


def _words(config: Config, arguments: Arguments) -> Tensor:
    """Which of the prompt's tokens are no padding, (B, K): the pipelines fill up with zeros."""
    return (arguments["encoder_hidden_states"] != 0).any(-1)


def _cross(names: str) -> CrossAttention:
    return CrossAttention(names=names, tokens=Tokens("cross"), prompt=_words)


# -------------------------------------------------------------------------------------------------------- VACE
def _references(config: Config, arguments: Arguments) -> int:
    """How many frames in front are reference images: of their condition, only the part that is kept is not zero.

    WanVACEPipeline concatenates the latents to keep (in_channels of them), those to change and the mask.
    """
    control = arguments.get("control_hidden_states")
    if control is None:
        return 0

    def read() -> int:
        rest = control[:, config["in_channels"] :].transpose(1, 2).flatten(2)  # (B, F, C·H·W)
        filled = (rest != 0).any(2).any(0).tolist()
        return filled.index(True) if True in filled else 0

    return once(control, "references", read)


def _vace_frames(config: Config, arguments: Arguments) -> int:
    return _LATENT_FRAMES(config, arguments) - _references(config, arguments)


def _vace_video(config: Config, arguments: Arguments) -> Rows:
    return _after(_references(config, arguments), config, arguments)


# ----------------------------------------------------------------------------------------------------- Animate
def _animate_frames(config: Config, arguments: Arguments) -> int:
    return _LATENT_FRAMES(config, arguments) - 1


def _animate_video(config: Config, arguments: Arguments) -> Rows:
    return _after(1, config, arguments)


register(Model(
    name="Wan",
    transformer="WanTransformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        columns=Columns(),
        frames=_LATENT_FRAMES,
    ), _cross(r"^blocks\.\d+\.attn2$")),
    noise=Flow(shift=5.0),
    checkpoints=(
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "Wan-AI/Wan2.2-I2V-A14B-Diffusers", "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    ),
    notes="2.1, 2.2 (two transformers), image-to-video; TI2V's per-token timesteps",
    tested=("wan", "wan_i2v", "wan22_ti2v"),
))  # fmt: skip

register(Model(
    name="Wan VACE",
    transformer="WanVACETransformer3DModel",
    attention=(SelfAttention(
        names=r"^(blocks|vace_blocks)\.\d+\.attn1$",
        tokens=Tokens("video only"),
        columns=Columns(),
        frames=_vace_frames,
        video=_vace_video,
    ), _cross(r"^(blocks|vace_blocks)\.\d+\.attn2$")),
    noise=Flow(shift=5.0),
    checkpoints=("Wan-AI/Wan2.1-VACE-1.3B-diffusers", "Wan-AI/Wan2.1-VACE-14B-diffusers"),
    notes="reference images, which the pipeline puts in front as frames, are neither counted nor scaled: they are "
    "found by their all-zero mask, read once for each condition",
    tested=("wan_vace", "wan_vace_references"),
))  # fmt: skip

register(Model(
    name="Wan Animate",
    transformer="WanAnimateTransformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        columns=Columns(),
        frames=_animate_frames,
        video=_animate_video,
    ),),
    noise=Flow(shift=5.0),
    checkpoints=("Wan-AI/Wan2.2-Animate-14B-Diffusers",),
    notes="the first latent frame is the reference image: neither counted nor scaled",
    tested=("wan_animate",),
))  # fmt: skip

register(Model(
    name="SkyReels V2",
    transformer="SkyReelsV2Transformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        columns=Columns(),
        frames=_LATENT_FRAMES,
    ), _cross(r"^blocks\.\d+\.attn2$")),
    noise=Flow(shift=8.0),
    checkpoints=(
        "Skywork/SkyReels-V2-T2V-14B-720P-Diffusers", "Skywork/SkyReels-V2-I2V-14B-720P-Diffusers",
        "Skywork/SkyReels-V2-DF-14B-720P-Diffusers",
    ),
    notes="diffusion forcing as well: a timestep for each frame, of which the noisiest counts, and block-causal "
    "attention, whose mask the intensity leaves out; image-to-video uses shift 5",
    tested=("skyreels_v2", "skyreels_v2_forcing"),
))  # fmt: skip

register(Model(
    name="ChronoEdit",
    transformer="ChronoEditTransformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        columns=Columns(),
        frames=_LATENT_FRAMES,
    ), _cross(r"^blocks\.\d+\.attn2$")),
    noise=Flow(shift=5.0),
    checkpoints=("nvidia/ChronoEdit-14B-Diffusers",),
    notes="edits an image as a short video, of two latent frames unless it reasons in time: there is little to enhance",
    tested=("chronoedit",),
))  # fmt: skip

register(Model(
    name="AnyFlow",
    transformer="AnyFlowTransformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=1, patch="patch_size"),
    ),),
    noise=Flow(shift=5.0),
    checkpoints=("nvidia/AnyFlow-Wan2.1-T2V-14B-Diffusers",),
    notes="few-step flow maps: with 4 steps the window of a strength (to 0.7) is the first 2",
    tested=("anyflow",),
))  # fmt: skip
