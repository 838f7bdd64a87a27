"""Sound models: a step of the latent sound is a frame of one token; for Stable Audio, ACE-Step and LongCat-Audio."""

from torch import Tensor

from ..attention import Rows, Tokens
from .registry import Arguments, Config, FrameCount, Model, SelfAttention, register


def _behind_global_tokens(config: Config, arguments: Arguments) -> Rows:
    """Tokens of the sound behind those of duration and noise level, which are put in front."""
    states = arguments["global_hidden_states"]
    return slice(states.shape[1], states.shape[1] + arguments["hidden_states"].shape[-1])


register(Model(
    name="Stable Audio",
    transformer="StableAudioDiTModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        frames=FrameCount("hidden_states", dim=-1),
        video=_behind_global_tokens,
    ),),
    noise=None,
    makes="sounds",
    checkpoints=("stabilityai/stable-audio-open-1.0",),
    notes="sound; the prompt is in the same cross-attention as the duration, so there is no axis \"prompt\"",
    tested=("stable_audio",),
))  # fmt: skip

register(Model(
    name="Stable Audio 3",
    transformer="StableAudio3DiTModel",
    attention=(),
    noise=None,
    makes="sounds",
    checkpoints=("stabilityai/stable-audio-3-medium",),
    refused="its attention is the difference of two softmaxes, on which odds are not defined",
))  # fmt: skip


# -------------------------------------------------------------------------------------------------- ACE-Step
def _patches(config: Config, arguments: Arguments) -> int:
    """The sound is padded to whole patches."""
    return -(-arguments["hidden_states"].shape[1] // config["patch_size"])


register(Model(
    name="ACE-Step 1.5",
    transformer="AceStepTransformer1DModel",
    attention=(SelfAttention(
        names=r"^layers\.\d+\.self_attn$",
        tokens=Tokens("video only"),
        frames=_patches,
    ),),
    noise=None,
    makes="sounds",
    checkpoints=("ACE-Step/acestep-v15-xl-turbo-diffusers",),
    notes="sound; every second layer sees a window of 128 steps each way, within which the axes act",
    tested=("ace_step",),
))  # fmt: skip


# --------------------------------------------------------------------------------------------- LongCat-Audio
def _words(config: Config, arguments: Arguments) -> Tensor:
    return arguments["encoder_attention_mask"].bool()


register(Model(
    name="LongCat-AudioDiT",
    transformer="LongCatAudioDiTTransformer",
    attention=(
        SelfAttention(
            names=r"^blocks\.\d+\.self_attn$",
            tokens=Tokens("video only"),
            frames=FrameCount("hidden_states", dim=1),
        ),
    ),
    noise=None,
    makes="sounds",
    checkpoints=("ruixiangma/LongCat-AudioDiT-1B-Diffusers",),
    notes="sound; padding at its end counts as sound that is not attended to",
    tested=("longcat_audio", "longcat_audio_padded"),
))  # fmt: skip
