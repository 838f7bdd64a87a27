"""HunyuanVideo and its relatives: video first, then text, one sequence."""

from ..attention import Rows, Tokens
from ..progress import Flow
from .registry import Arguments, Columns, Config, FrameCount, Model, SelfAttention, register

register(Model(
    name="HunyuanVideo",
    transformer="HunyuanVideoTransformer3DModel",
    attention=(SelfAttention(
        names=r"^(single_)?transformer_blocks\.\d+\.attn$",
        tokens=Tokens("video first"),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=2, patch="patch_size_t"),
    ),),
    noise=Flow(shift=7.0),
    checkpoints=(
        "hunyuanvideo-community/HunyuanVideo", "hunyuanvideo-community/HunyuanVideo-I2V",
        "Skywork/SkyReels-V1-Hunyuan-I2V",
    ),
    notes="single blocks project outside the attention module: the gain acts before that, as in the authors' code",
    tested=("hunyuan", "hunyuan_token_replace", "hunyuan_latent_concat"),
))  # fmt: skip


def _current(config: Config, arguments: Arguments) -> Rows:
    """The last of the stream: history frames, at lower and lower resolutions, lie in front."""
    *_, frames, height, width = arguments["hidden_states"].shape
    p = config["patch_size"]
    return slice(-(frames // config["patch_size_t"]) * (height // p) * (width // p), None)


register(Model(
    name="FramePack",
    transformer="HunyuanVideoFramepackTransformer3DModel",
    attention=(SelfAttention(
        names=r"^(single_)?transformer_blocks\.\d+\.attn$",
        tokens=Tokens("video first"),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=2, patch="patch_size_t"),
        video=_current,
    ),),
    noise=Flow(shift=7.0),
    checkpoints=("lllyasviel/FramePackI2V_HY", "lllyasviel/FramePack_F1_I2V_HY_20250503"),
    notes="only the frames that are being made are seen and scaled, not the history in front of them; shift 7 is the "
    "bound that the pipeline's dynamic shift reaches at usual sizes",
    tested=("hunyuan_framepack",),
))  # fmt: skip

register(Model(
    name="HunyuanVideo 1.5",
    transformer="HunyuanVideo15Transformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn$",
        tokens=Tokens("video first"),
        columns=Columns(),
        frames=FrameCount("hidden_states", dim=2, patch="patch_size_t"),
    ),),
    noise=Flow(shift=5.0),
    checkpoints=(
        "hunyuanvideo-community/HunyuanVideo-1.5-480p_t2v", "hunyuanvideo-community/HunyuanVideo-1.5-480p_i2v",
    ),
    notes="shift 5 is that of 480p; 720p has 9 (text-to-video) and 7 (image-to-video)",
    tested=("hunyuan15",),
))  # fmt: skip
