"""Kandinsky 5 and 6: full or block-sparse attention over video tokens alone, channels last.

Where NABLA is on, 8 x 8 neighbourhoods of a frame stand together: another order of the sites, the same for every
frame, so the tokens are frame-major still.
"""

from math import prod

from ..attention import Rows, Tokens
from ..progress import Flow
from .device_reads import once
from .registry import Arguments, Config, FrameCount, Model, SelfAttention, register

_all_frames = FrameCount("hidden_states", dim=1, patch="patch_size")


def _generated_frames(config: Config, arguments: Arguments) -> int:
    """T without the clean reference frame that image-to-video appends; its token type is not 0."""
    types = arguments.get("visual_token_type_ids")  # (B, T) or None
    if types is None:
        return _all_frames(config, arguments)
    return once(types, "generated", lambda: int((types[0] == 0).long().cumprod(0).sum()))


def _generated_rows(config: Config, arguments: Arguments) -> Rows:
    _, height, width = config["patch_size"]
    sites = prod(arguments["hidden_states"].shape[2:4]) // (height * width)
    return slice(0, _generated_frames(config, arguments) * sites)


register(Model(
    name="Kandinsky 5",
    transformer="Kandinsky5Transformer3DModel",
    attention=(SelfAttention(
        names=r"^visual_transformer_blocks\.\d+\.self_attention$",
        tokens=Tokens("video only"),
        frames=_all_frames,
    ),),
    noise=None,
    checkpoints=(
        "kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers", "kandinskylab/Kandinsky-5.0-T2V-Lite-sft-10s-Diffusers",
        "kandinskylab/Kandinsky-5.0-T2V-Lite-nocfg-5s-Diffusers",
        "kandinskylab/Kandinsky-5.0-T2V-Lite-nocfg-10s-Diffusers",
        "kandinskylab/Kandinsky-5.0-T2V-Lite-distilled16steps-5s-Diffusers",
        "kandinskylab/Kandinsky-5.0-T2V-Lite-distilled16steps-10s-Diffusers",
        "kandinskylab/Kandinsky-5.0-T2V-Lite-pretrain-5s-Diffusers",
        "kandinskylab/Kandinsky-5.0-T2V-Lite-pretrain-10s-Diffusers",
        "kandinskylab/Kandinsky-5.0-T2V-Pro-sft-5s-Diffusers", "kandinskylab/Kandinsky-5.0-I2V-Pro-sft-5s-Diffusers",
    ),
    notes="dense and NABLA; NABLA's sparsity is not in the temporal attention that is measured",
    tested=("kandinsky_5", "kandinsky_5_nabla"),
))  # fmt: skip

register(Model(
    name="Kandinsky 6",
    transformer="Kandinsky6Transformer3DModel",
    attention=(SelfAttention(
        names=r"^visual_transformer_blocks\.\d+\.video_dec_block\.self_attention$",
        tokens=Tokens("video only"),
        frames=_generated_frames,
        video=_generated_rows,
    ),),
    noise=Flow(shift=5.0),
    checkpoints=("kandinskylab/Kandinsky-6.0-Pro-distill-5s-Diffusers",),
    notes="video layers only, audio is left alone; the reference frame that image-to-video appends is neither counted "
    "nor scaled; 5.0 is the shift of its distilled scheduler",
    tested=("kandinsky_6", "kandinsky_6_reference"),
))  # fmt: skip

register(Model(
    name="Kandinsky 6 super-resolution",
    transformer="Kandinsky6SRTransformer3DModel",
    attention=(SelfAttention(
        names=r"^visual_transformer_blocks\.\d+\.self_attention$",
        tokens=Tokens("video only"),
        frames=_all_frames,
    ),),
    noise=Flow(shift=5.0),
    checkpoints=("kandinskylab/Kandinsky-6.0-VSR-distilled2steps-5s-Diffusers",),
    notes="each tile of the picture has a gain of its own; NABLA's sparsity is not in the temporal attention that is "
    "measured",
    tested=("kandinsky_6_sr",),
))  # fmt: skip
