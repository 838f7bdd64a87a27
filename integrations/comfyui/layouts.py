"""Where the video tokens lie in the attention of each native video model: one declarative row a model class.

Read this when a model is missing or warned about. A row is found by the class name of the diffusion model or of one of
its base classes, so that nothing of ComfyUI is imported. All native models order their tokens frame by frame.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .attention import Attention


@dataclass(frozen=True)
class ModelCall:
    """One call of a diffusion model, as far as a row needs it."""

    model: Any  # the diffusion model
    shape: tuple[int, ...]  # of its video latent: (B, C, frames, height, width)
    arguments: Mapping[str, Any]  # the conditions of this call, by name
    options: Mapping[str, Any]  # its transformer_options

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along frames, height and width: the latent in patches, rounded up as the models pad it."""
        frames, height, width = (
            -(-size // patch) for size, patch in zip(self.shape[2:], patch_size(self.model), strict=True)
        )
        return frames, height, width

    @property
    def text_tokens(self) -> int:
        text = self.arguments.get("c_crossattn")
        return 0 if text is None else text.shape[1]


@dataclass(frozen=True)
class Video:
    """The video in the attention of one model call: T frames of S tokens, and where they begin."""

    batch: int
    num_frames: int
    sites: int
    start: int | None  # the first video token; None: the video tokens are the last ones

    @property
    def tokens(self) -> int:
        return self.num_frames * self.sites

    def rows(self, length: int) -> slice:
        """Which tokens of an attention over `length` tokens are the video."""
        start = length - self.tokens if self.start is None else self.start
        return slice(start, start + self.tokens)


Attends = Callable[[ModelCall, Video, Attention], bool]


def _none(call: ModelCall) -> int:
    return 0


def _no_reason(call: ModelCall) -> str:
    return ""


def _any(call: ModelCall, video: Video, attention: Attention) -> bool:
    return True


@dataclass(frozen=True)
class Layout:
    """One native model."""

    model: str  # class name of the diffusion model
    name: str  # what people call it
    last: bool = False  # the video tokens are the last ones; else they begin behind what `before` counts
    joint: bool = False  # text lies in the same attention; else the model has cross-attention too
    before: Callable[[ModelCall], int] = _none  # tokens in front of the video
    first: Callable[[ModelCall], int] = _none  # latent frames in front that are a reference, not the video
    end: Callable[[ModelCall], int] = _none  # latent frames at the end that are guides, not the video
    attends: Attends = _any  # whether a self-attention of fitting length is the video's
    barred: Callable[[ModelCall], str] = _no_reason  # why nothing can be done in this call; "" = it can
    norm_behind: bool = False  # a norm behind the attention takes a gain on the whole output back
    notes: str = ""
    refused: str = ""  # why nothing can be done; the other fields then mean nothing

    def video(self, call: ModelCall) -> Video:
        """The video of one model call."""
        frames, height, width = call.grid
        sites, first = height * width, self.first(call)
        start = None if self.last else self.before(call) + first * sites
        return Video(call.shape[0], frames - first - self.end(call), sites, start)

    def is_videos(self, call: ModelCall, video: Video, attention: Attention) -> bool:
        """Whether an attention of this call is a self-attention of the video, as far as its shape shows."""
        return (
            attention.query.shape[0] == video.batch
            and attention.length == attention.keys
            and attention.length >= video.tokens + (video.start or 0)
            and self.attends(call, video, attention)
        )


def patch_size(model: Any) -> tuple[int, int, int]:
    """The latent frames, rows and columns in one token, as each model keeps it."""
    if hasattr(model, "patchifier"):
        return tuple(model.patchifier.patch_size)
    if hasattr(model, "patch_spatial"):
        return model.patch_temporal, model.patch_spatial, model.patch_spatial
    patch = model.patch_size
    if isinstance(patch, int):
        return getattr(model, "patch_size_t", None) or 1, patch, patch
    return tuple(patch)


# ---------------------------------------------------------------------------------------- the functions of the rows
def _in_block(call: ModelCall, video: Video, attention: Attention) -> bool:
    """Text is refined by the same attention before the blocks, which alone are counted in transformer_options."""
    return "block_index" in attention.model_options


def _all(call: ModelCall, video: Video, attention: Attention) -> bool:
    return attention.length == video.tokens


def _all_in_block(call: ModelCall, video: Video, attention: Attention) -> bool:
    return _all(call, video, attention) and _in_block(call, video, attention)


def _more_than_text(call: ModelCall, video: Video, attention: Attention) -> bool:
    return attention.length != call.text_tokens


def _ltx_video_stream(call: ModelCall, video: Video, attention: Attention) -> bool:
    """Sound has a narrower stream."""
    return attention.width == call.model.inner_dim


def _wan_reference(call: ModelCall) -> int:
    """Tokens of the reference image that a model with `ref_conv` puts in front."""
    reference = call.arguments.get("reference_latent")
    if reference is None or getattr(call.model, "ref_conv", None) is None:
        return 0
    _, patch_h, patch_w = patch_size(call.model)
    return (reference.shape[-2] // patch_h) * (reference.shape[-1] // patch_w)


def _scail_reference(call: ModelCall) -> int:
    reference = call.arguments.get("reference_latent")
    if reference is None:
        return 0
    sizes = zip(reference.shape[-3:], patch_size(call.model), strict=True)
    return math.prod(-(-size // patch) for size, patch in sizes)


def _vace_references(call: ModelCall) -> int:
    """Reference images are latent frames in front whose mask is empty and which have nothing to change.

    vace_context is (B, videos, 16 kept + 16 to change + 64 mask, frames, height, width).
    """
    context = call.arguments.get("vace_context")
    if context is None:
        return 0
    changes = context[:, :, 16:].abs().amax((0, 1, 2, 4, 5)) > 1e-3  # (frames,)
    return int(changes.int().argmax()) if bool(changes.any()) else 0


def _reference_frame(call: ModelCall) -> int:
    """Frame 0 is the reference image, unless this call is a context window that begins later."""
    window = call.options.get("context_window")
    if window is None:
        return 1
    anchor = getattr(window, "causal_anchor_index", None)  # a frame that is put in front of the window's own
    return int((window.index_list[0] if anchor is None or anchor < 0 else anchor) == 0)


def _causal(call: ModelCall) -> str:
    """ComfyUI's sampler for it keeps keys and values between calls, and hands its attention no options."""
    return "the sampler makes it a few frames at a time, and it takes no override then" if _AR in call.options else ""


_AR = "ar_state"  # what that sampler puts into transformer_options


def _ltx_guides(call: ModelCall) -> int:
    guides = call.arguments.get("keyframe_idxs")
    _, height, width = call.grid
    return 0 if guides is None else guides.shape[2] // (height * width)


_LTX_NOTES = (
    "guide frames are left alone; a guide with a strength below 1 splits the attention, and then nothing is done"
)

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "WanModel",
        "Wan 2.1 and 2.2",
        before=_wan_reference,
        notes="text-, image- and first-last-frame-to-video, Fun Control, camera, Bernini's in-context latents",
    ),
    Layout("CausalWanModel", "Wan causal", barred=_causal, notes="with SamplerARVideo nothing is done"),
    Layout(
        "VaceWanModel",
        "Wan VACE",
        first=_vace_references,
        notes="reference images in front are neither counted nor scaled; the control branch is left alone",
    ),
    Layout("AnimateWanModel", "Wan Animate", before=_wan_reference, first=_reference_frame),
    Layout(
        "WanAnimate2Model",
        "Wan Animate 2",
        first=_reference_frame,
        notes="while a pose is applied it attends frame by frame, and then nothing is done",
    ),
    Layout("HumoWanModel", "HuMo", notes="reference tokens behind the video are neither counted nor scaled"),
    Layout("WanModel_S2V", "Wan S2V", notes="reference and motion tokens behind the video are left alone"),
    Layout("SCAILWanModel", "SCAIL and SCAIL 2", before=_scail_reference, notes="pose tokens are left alone"),
    Layout("WanDancerModel", "WanDancer", before=_wan_reference),
    Layout("HunyuanVideo", "HunyuanVideo and 1.5", last=True, joint=True, attends=_in_block),
    Layout("LTXVModel", "LTX-Video", end=_ltx_guides, notes=_LTX_NOTES),
    Layout(
        "LTXAVModel",
        "LTX-2",
        end=_ltx_guides,
        attends=_ltx_video_stream,
        notes=f"the video's self-attention alone, not that of sound or between them; {_LTX_NOTES}",
    ),
    Layout("AsymmDiTJoint", "Mochi", joint=True, norm_behind=True, notes="temperature and strength have no effect"),
    Layout("CogVideoXTransformer3DModel", "CogVideoX", last=True, joint=True),
    Layout("GeneralDIT", "Cosmos 1", attends=_all),
    Layout("MiniTrainDIT", "Cosmos Predict2", attends=_all),
    Layout("Kandinsky5", "Kandinsky 5", attends=_all_in_block),
    Layout("MiniMaxH3Model", "MiniMax-H3", last=True, joint=True, attends=_more_than_text),
    Layout("NaDiT", "SeedVR2", refused="ComfyUI gives its attention, which is windowed, no override"),
)


def layout_of(model: object) -> Layout | None:
    """The row of a diffusion model's class, or of the nearest of its base classes."""
    rows = {row.model: row for row in LAYOUTS}
    return next((rows[c.__name__] for c in type(model).__mro__ if c.__name__ in rows), None)
