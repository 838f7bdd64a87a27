"""LTX and its relatives: packed video tokens, among which the video may have to be found by its coordinates."""

from torch import Tensor

from ..attention import Rows, Tokens
from ..errors import TokenLayoutError
from ..progress import Flow
from .device_reads import once
from .registry import Arguments, Config, FrameCount, Model, SelfAttention, register


# ---------------------------------------------------------------------------------------- by the coordinates
def _place(coordinates: Tensor) -> tuple[int, int, int]:
    """Where the video lies among N tokens, by their coordinates: first token, frames, sites of a frame.

    coordinates: (B, 3, N), time, row and column, or (B, 3, N, 2), the same from and to. The video starts at the first
    token at the origin and its time goes on frame by frame. Conditions in front of it are of later frames; those
    behind it start again, or, where tokens have an end, not where the frame before them ends.
    """

    def read() -> tuple[int, int, int]:
        first = coordinates[0].float().cpu()  # the one wait for the device
        start, end = (first, None) if first.ndim == 2 else (first[..., 0], first[0, :, 1])  # (3, N), (N,)
        origins = (start == 0).all(0).nonzero()
        if not len(origins):
            raise TokenLayoutError(
                "no token of video_coords is at the origin, so the start of the video cannot be found. "
                "Remove the enhancement for this pipeline."
            )
        return _run(start[0], end, int(origins[0]))

    return once(coordinates, "place", read)


def _run(start: Tensor, end: Tensor | None, origin: int) -> tuple[int, int, int]:
    """The frames that follow each other from a token on; start, end: times (N,) on the host."""
    time = start[origin:]
    others = (time != time[0]).nonzero()
    sites = int(others[0]) if len(others) else len(time)
    whole = len(time) // sites * sites
    begin = time[:whole:sites]  # (frames,)
    if end is None:
        follows = begin[1:] > begin[:-1]
    else:
        stop = end[origin:][:whole:sites]
        follows = (begin[1:] - stop[:-1]).abs() < 1e-3 * (stop - begin)[:-1]
    return origin, 1 + int(follows.long().cumprod(0).sum()), sites


def _rows(first: int, count: int, arguments: Arguments) -> Rows:
    whole = first == 0 and count == arguments["hidden_states"].shape[1]
    return None if whole else slice(first, first + count)


# -------------------------------------------------------------------------------------------------------- LTX
def _frames(config: Config, arguments: Arguments) -> int:
    coordinates = arguments.get("video_coords")
    return FrameCount("num_frames")(config, arguments) if coordinates is None else _place(coordinates)[1]


def _video(config: Config, arguments: Arguments) -> Rows:
    coordinates = arguments.get("video_coords")
    if coordinates is None:
        return None
    first, frames, sites = _place(coordinates)
    return _rows(first, frames * sites, arguments)


register(Model(
    name="LTX-Video",
    transformer="LTXVideoTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        frames=_frames,
        video=_video,
    ),),
    noise=Flow(shift=7.77),
    checkpoints=("Lightricks/LTX-Video", "Lightricks/LTX-Video-0.9.5", "Lightricks/LTX-Video-0.9.8-13B-distilled"),
    notes="shift e^2.05 is the published one at 4096 tokens; condition tokens (LTXConditionPipeline, "
    "LTXI2VLongMultiPromptPipeline) are found by their coordinates, read once for each tensor of them",
    tested=("ltx", "ltx_conditions", "ltx_guides"),
))  # fmt: skip


# ------------------------------------------------------------------------------------------------------- LTX-2
def _ltx2_sizes(config: Config, arguments: Arguments) -> tuple[int, int]:
    """Frames and sites of the video."""
    size = [arguments.get(name) for name in ("num_frames", "height", "width")]
    if None in size:  # LTX2DFRPipeline gives coordinates alone
        coordinates = arguments.get("video_coords")
        if coordinates is None:
            raise TokenLayoutError(
                "the forward call gave neither num_frames, height and width nor video_coords, from which the frames "
                "are read. Pass them, or remove the enhancement for this pipeline."
            )
        return _place(coordinates)[1:]
    p_t, p = config["patch_size_t"], config["patch_size"]
    return size[0] // p_t, (size[1] // p) * (size[2] // p)


def _ltx2_frames(config: Config, arguments: Arguments) -> int:
    return _ltx2_sizes(config, arguments)[0]


def _ltx2_video(config: Config, arguments: Arguments) -> Rows:
    frames, sites = _ltx2_sizes(config, arguments)
    return _rows(0, frames * sites, arguments)


register(Model(
    name="LTX-2",
    transformer="LTX2VideoTransformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only", skips=True),
        frames=_ltx2_frames,
        video=_ltx2_video,
    ),),
    noise=Flow(shift=7.77),
    checkpoints=(
        "Lightricks/LTX-2", "diffusers/LTX-2.3-Diffusers", "diffusers/LTX-2.3-Distilled-Diffusers",
        "Lightricks/LTX-2.5-Diffusers",
    ),
    notes="self-attention of the video alone: sound and what crosses between the two are left as they are, and so are "
    "keyframe and reference tokens behind the video; layers that spatio-temporal guidance skips are not scaled",
    tested=("ltx2", "ltx2_keyframes", "ltx2_keyframes_by_place", "ltx23"),
))  # fmt: skip
