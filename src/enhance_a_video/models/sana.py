"""SANA-Video (linear attention, refused), SANA-WM (some softmax layers among linear ones) and its refiner."""

from torch import Tensor

from ..attention import Tokens
from ..errors import TokenLayoutError
from ..progress import Flow
from .device_reads import once, steps
from .registry import Arguments, Config, FrameCount, Model, SelfAttention, register


def _rotary_frames(config: Config, arguments: Arguments) -> int:
    """T of the refiner's block, read off its rotary embedding: no argument gives it.

    The cosines are (B, N, D) or, split between the heads, (B, H, N, D/2/H). Their columns are padding, then for each
    frequency one column for time, height and width (twice in the interleaved form); a frame shares its time columns.
    """
    table = arguments.get("video_rotary_emb")
    if not (isinstance(table, (tuple, list)) and len(table) == 2 and isinstance(table[0], Tensor)):
        raise TokenLayoutError(
            "the number of frames is read off video_rotary_emb, which must be the (cos, sin) tables that "
            "build_rotary_emb_for_absolute_positions() makes. For another form register a row with frames= of your "
            "own (docs/guide/add-a-model.md), or remove the enhancement."
        )
    cosines = table[0][0]  # (N, D) or (H, N, D/2/H)
    if cosines.ndim == 3:
        cosines = cosines.transpose(0, 1).flatten(1)  # (N, D/2)
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    copies = 2 * cosines.shape[1] // dim  # 2 when interleaved, 1 when split
    times = cosines[:, cosines.shape[1] - 3 * copies * (dim // 6) :: 3 * copies]  # (N, dim // 6)
    return once(table[0], "frames", lambda: steps(times))


register(Model(
    name="SANA-Video",
    transformer="SanaVideoTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        frames=FrameCount("hidden_states", dim=2, patch="patch_size"),
    ),),
    noise=None,
    checkpoints=("Efficient-Large-Model/SANA-Video_2B_480p_diffusers",),
    refused="its self-attention is linear (ReLU of query and key, no softmax), so there is no attention map between "
    "frames whose mass could be measured",
))  # fmt: skip

register(Model(
    name="SANA-WM",
    transformer="SanaWMTransformer3DModel",
    attention=(SelfAttention(
        names=r"^blocks\.\d+\.attn\.attn$",
        module="SanaWMSoftmaxAttention",
        tokens=Tokens("video only", argument=None),  # it gets query, key, value, divided into heads
        frames=FrameCount("hidden_states", dim=2, patch="patch_size"),
        scale_at="",  # the block's attention: gated and projected after the kernel, the camera branch included
    ),),
    noise=None,
    checkpoints=("Efficient-Large-Model/SANA-WM_bidirectional-diffusers",),
    notes="its softmax layers only (every 4th); the others are a linear recurrence without an attention map",
    tested=("sana_wm", "sana_wm_cameras"),
))  # fmt: skip

register(Model(
    name="SANA-WM refiner",
    transformer="SanaWMLTX2RefinerTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only", keys="last"),
        frames=_rotary_frames,
    ),),
    noise=Flow(shift=1.0),
    checkpoints=("Efficient-Large-Model/SANA-WM_bidirectional-diffusers",),
    notes="the frames of the block being refined (few); cached frames before it are neither counted nor scaled; waits "
    "for the device once a call, because its frame count is nowhere but in the rotary embedding",
    tested=("sana_wm_refiner", "sana_wm_refiner_cached"),
))  # fmt: skip
