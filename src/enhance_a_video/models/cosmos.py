"""Cosmos: full attention over video tokens alone; Cosmos 3 packs text, video, sound and action in one sequence."""

from ..attention import Rows, Tokens
from ..errors import TokenLayoutError
from .device_reads import as_rows
from .registry import Arguments, Config, FrameCount, Model, SelfAttention, register


def _packed_frames(config: Config, arguments: Arguments) -> int:
    """T of the one vision item of a call."""
    shapes = arguments["vision_token_shapes"]
    if len(shapes) != 1:
        raise TokenLayoutError(
            f"the call packs {len(shapes)} vision items in one sequence, and frames of different items do not belong "
            "together. Give one item a call (as the pipeline does), or remove the enhancement."
        )
    return int(shapes[0][0])


def _packed_rows(config: Config, arguments: Arguments) -> Rows:
    """The stream is what follows the `und_len` text tokens: video, sound, action."""
    return as_rows(arguments["vision_sequence_indexes"], first=arguments["und_len"])


def _packed_stream(config: Config, arguments: Arguments) -> Rows:
    """Of the keys: the text's stand in front."""
    return slice(arguments["und_len"], None)


def _packed_sound(config: Config, arguments: Arguments) -> Rows:
    indices = arguments.get("sound_sequence_indexes")
    return slice(0) if indices is None else as_rows(indices, first=arguments["und_len"])


register(Model(
    name="Cosmos 1, Predict2, Predict2.5, Transfer2.5",
    transformer="CosmosTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        frames=FrameCount("hidden_states", dim=2, patch="patch_size"),
    ),),
    noise=None,
    timestep="",
    checkpoints=(
        "nvidia/Cosmos-1.0-Diffusion-7B-Text2World", "nvidia/Cosmos-1.0-Diffusion-14B-Text2World",
        "nvidia/Cosmos-1.0-Diffusion-7B-Video2World", "nvidia/Cosmos-1.0-Diffusion-14B-Video2World",
        "nvidia/Cosmos-Predict2-2B-Video2World", "nvidia/Cosmos-Predict2-14B-Video2World",
        "nvidia/Cosmos-Predict2.5-2B", "nvidia/Cosmos-Transfer2.5-2B",
    ),
    notes="each generation gives its timestep in a unit of its own: the window counts the scheduler's steps, and on a "
    "bare transformer only start=0.0, end=1.0 is possible",
    tested=("cosmos", "cosmos_25"),
))  # fmt: skip

register(Model(
    name="Cosmos 3",
    transformer="Cosmos3OmniTransformer",
    attention=(SelfAttention(
        names=r"^layers\.\d+\.self_attn$",
        tokens=Tokens("video only", keys="last", call=1, argument=1),  # its first kernel call is the text's
        frames=_packed_frames,
        video=_packed_rows,
        stream=_packed_stream,
        sound=_packed_sound,
    ),),
    noise=None,
    timestep="vision_timesteps",
    checkpoints=("nvidia/Cosmos3-Nano", "nvidia/Cosmos3-Super"),
    notes="one vision item a call; on the axis of time, sound and action tokens are neither seen nor scaled; waits for "
    "the device at the first call of a generation (where the video lies)",
    tested=("cosmos_3", "cosmos_3_sound_first"),
))  # fmt: skip
