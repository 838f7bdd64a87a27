"""MiniMax-H3: text, references, audio and video packed in one sequence of full attention."""

from ..attention import Rows, Tokens
from ..errors import TokenLayoutError
from .device_reads import as_rows, last_run, once, steps
from .registry import Arguments, Config, Model, SelfAttention, register


def _target(arguments: Arguments) -> tuple[int, int]:
    """Where the generated video begins and ends: the last stretch of video tokens, behind the generated audio.

    Keyframes and references are video tokens too, but stand before that audio.
    """
    return last_run(arguments["video_indices"])


def _frames(config: Config, arguments: Arguments) -> int:
    """T: the first coordinate of position_ids (N, 3) is time and changes from frame to frame."""
    start, stop = _target(arguments)
    positions = arguments["position_ids"]
    frames = once(positions, ("frames", start, stop), lambda: steps(positions[start:stop, 0]))
    if frames == 1 and stop - start < arguments["video_indices"].shape[0]:
        raise TokenLayoutError(
            "the video tokens are in several pieces, of which the last is a single frame, so it is not known which of "
            "them is the generated video. Pack that in one piece, last (as the pipeline does), or remove the "
            "enhancement."
        )
    return frames


def _rows(config: Config, arguments: Arguments) -> Rows:
    return slice(*_target(arguments))


def _without_text(config: Config, arguments: Arguments) -> Rows:
    tags = arguments["token_tags"]  # 0 video, 1 text, 2 audio
    return as_rows(once(tags, "no text", lambda: (tags != 1).nonzero().flatten()))


def _audio(config: Config, arguments: Arguments) -> Rows:
    return as_rows(arguments["audio_indices"])


register(Model(
    name="MiniMax-H3",
    transformer="MiniMaxH3Transformer3DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn$",
        tokens=Tokens("video only"),
        frames=_frames,
        video=_rows,
        stream=_without_text,
        sound=_audio,
    ),),
    noise=None,
    timestep="",  # one for each kind of token, counted from noise 0 up to clean 1
    checkpoints=("MiniMaxAI/MiniMax-H3",),
    notes="the generated video; on the axis of time, keyframes, references, audio and text are neither counted nor "
    "scaled. The window "
    "counts the scheduler's steps, and on a bare transformer only start=0.0, end=1.0 is possible; waits for the device "
    "at the first call of a generation (where the video lies)",
    tested=("minimax_h3", "minimax_h3_reference"),
))  # fmt: skip
