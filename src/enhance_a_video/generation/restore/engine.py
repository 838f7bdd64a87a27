"""A clip in memory made better by a video model: encoded, noised, denoised with the method on, window by window.

    pipe = load()
    steadier = restore_frames(pipe, frames, Restoring(noise=0.25))

Frames are uint8 (T, H, W, 3) in and out.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ... import limits
from ...alternatives import Change
from ...enhancement import Enhancement
from ...errors import SettingsError
from ...record import Summary
from ...settings import Settings
from .. import pipelines
from ..events import Progress, Report, silent
from ..media import to_uint8
from ..prompts import checked_prompt
from ..requests import settings_text
from ..shape import pixels_per_latent
from . import detail, latents, light
from .windows import Window, blended, padded, windows

NOISE = 0.1  # the default of --noise: docs/guide/restore.md has the study that chose it


@dataclass(frozen=True)
class Restoring:
    """How a clip is restored. Checked on construction (SettingsError).

    noise         how much of the model's schedule is gone through: 0 nothing, 1 all of it, which keeps nothing of the
                  source. In units of training time, as start and end of `Settings`: 1 - noise is where it starts.
                  With 0 no model runs: the light is made even, and that is all
    settings      the method's; None is the plain model, video to video
    keep_detail   give back the part of what was lost that is steady along the motion (`detail.steady_detail`)
    even_light    brightness and white balance of whole frames are made even first (`light`)
    prompt        what the clip shows; may be empty
    steps         of the whole schedule; None: the model's own number
    guidance      classifier-free guidance; None: off, as the source already shows what is to be seen
    overlap       frames that two windows share; None: a quarter of a window
    seed          of the noise
    """

    noise: float = NOISE
    settings: Change | None = field(default_factory=Settings)
    keep_detail: bool = True
    even_light: bool = True
    prompt: str = ""
    negative: str | None = None
    steps: int | None = None
    guidance: float | None = None
    overlap: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        limits.number("noise", self.noise, 0, 1)
        if not self.noise and not self.even_light:
            raise SettingsError("noise=0 without even_light leaves nothing to do: give noise up to 1, or even_light.")
        for name in ("steps", "guidance"):
            if getattr(self, name) is not None:
                limits.option(name, getattr(self, name))
        if self.overlap is not None:
            limits.whole("overlap", self.overlap, 0)
        limits.seed(self.seed)
        if self.prompt:
            checked_prompt(self.prompt)

    @property
    def light_only(self) -> bool:
        """No noise is mixed in, so that no model has anything to do."""
        return not self.noise

    def facts(self) -> dict[str, Any]:
        """JSON-able, and the same for the same result."""
        settings = None if self.settings is None or self.light_only else settings_text(self.settings)
        return {**asdict(replace(self, settings=None)), "settings": settings}


@dataclass(frozen=True)
class Plan:
    """How a clip is cut for a model: its windows, and the length and size that each is padded to."""

    spans: tuple[Window, ...]
    frames: int
    height: int
    width: int
    start: latents.Start
    first_latent: Callable[[int], int]  # the absolute number of the latent frame that a window begins with


def plan(pipe: Any, how: Restoring, frames: int, height: int, width: int) -> Plan:
    """The plan for a clip of this length and size.

    Raises:
        UnsupportedModelError: a pipeline whose latents cannot be prepared. SettingsError: what it does not take.
    """
    latents.format_of(pipe)
    grid = latents.grid_of(pipe)
    own = grid.frames(max(2, _own_length(pipe)))
    length = own if frames > own else grid.frames(max(2, frames))  # one frame has no others to attend to
    overlap = own // 4 if how.overlap is None else how.overlap
    if overlap >= length and frames > own:
        raise SettingsError(f"Windows of {length} frames cannot overlap by {overlap}: give less than {length}.")
    spans = windows(frames, length, overlap, grid.time)
    size = grid.side(height), grid.side(width)
    limits.memory(length, *size)
    call = _call(pipe, how, length, *size)
    steps = latents.steps_for(how.noise, _total(pipe, call))
    start = latents.start_of(pipe, {**call, "prompt": how.prompt, "output_type": "np"}, steps)
    return Plan(tuple(spans), length, *size, start, lambda first: first // grid.time)


def size_note(pipe: Any, height: int, width: int) -> str | None:
    """A sentence where a clip has more than twice or less than half of the pixels of the model's own; else None."""
    own = _own_size(pipe)
    if own is None or 0.5 <= height * width / (own[0] * own[1]) <= 2:
        return None
    more = "larger" if height * width > own[0] * own[1] else "smaller"
    return (
        f"The video is {width}x{height}, much {more} than the model's own clips ({own[1]}x{own[0]}), and a model does "
        f"worse at a size that it was not trained on. Give --model one for this size, scale the video first "
        f"(ffmpeg -i IN -vf scale={own[1]}:{own[0]} OUT), or leave the model out with --noise 0: light alone."
    )


def restore_window(
    pipe: Any,
    frames: np.ndarray,
    first: int,
    how: Restoring,
    made: Plan,
    *,
    progress: Report = silent,
    notice: pipelines.Notice = lambda text: None,
) -> np.ndarray:
    """One window of a clip, uint8 (T, H, W, 3), of the same shape. first: its first frame's number in the clip."""
    raw = denoised(pipe, frames, first, how, made, progress=progress, notice=notice)
    return finished(raw, frames, how.keep_detail)


def denoised(
    pipe: Any,
    frames: np.ndarray,
    first: int,
    how: Restoring,
    made: Plan,
    *,
    progress: Report = silent,
    notice: pipelines.Notice = lambda text: None,
) -> np.ndarray:
    """As `restore_window`: what the model made of it, before colours and detail of the source are given back."""
    count, height, width = frames.shape[:3]
    whole = padded(frames, made.frames, made.height, made.width)
    with pipelines.fitting_threads(pipe):
        clean = latents.encoded(pipe, whole)  # (1, C, t, h, w)
    shape: Any = tuple(clean.shape[1:])
    drawn = latents.noise_of_frames(how.seed, made.first_latent(first), shape)[None].to(clean)
    noised = made.start.signal * clean + made.start.noise * drawn
    arranged = latents.format_of(pipe).arrange(pipe, noised)
    with latents.late(pipe.scheduler, made.start.steps):
        ready = pipelines.generate(
            pipe, how.prompt, latents=arranged, seed=how.seed, progress=progress, notice=notice,
            **_options(pipe, how, made.frames, made.height, made.width),
        )  # fmt: skip
    return ready[:count, :height, :width]


def finished(restored: np.ndarray, source: np.ndarray, keep_detail: bool) -> np.ndarray:
    """What the model made, with the source's colours, and with its steady detail unless that is not wanted."""
    new, old = (np.asarray(clip, np.float32) / 255 for clip in (restored, source))
    return to_uint8(detail.steady_detail(new, old) if keep_detail else detail.colour_matched(new, old))


def restore_frames(
    pipe: Any,
    frames: np.ndarray,
    how: Restoring | None = None,
    *,
    progress: Report = silent,
    notice: pipelines.Notice = lambda text: None,
) -> np.ndarray:
    """A whole clip, uint8 (T, H, W, 3), restored; of the same shape. pipe: not used (None will do) with noise=0.

    Raises:
        UnsupportedModelError, SettingsError: as `plan`. EnhanceAVideoError: as `pipelines.generate`.
    """
    how = how or Restoring()
    frames = to_uint8(frames)
    if how.light_only:
        return light.lit(frames, light.gains_of(frames))
    made = plan(pipe, how, *frames.shape[:3])
    if text := size_note(pipe, *frames.shape[1:3]):
        notice(text)
    if how.even_light:
        frames = light.lit(frames, light.gains_of(frames))
    with method(pipe, how):
        clips = [
            restore_window(
                pipe, frames[span.first : span.last], span.first, how, made, notice=notice,
                progress=stepping(progress, number, len(made.spans), made.start.steps),
            )
            for number, span in enumerate(made.spans)
        ]  # fmt: skip
    return np.stack([np.rint(frame).astype(np.uint8) for frame in blended(made.spans, clips)])


@contextlib.contextmanager
def method(pipe: Any, how: Restoring) -> Iterator[Callable[[], Summary | None]]:
    """The method on the pipeline while it lasts; the function that it gives returns what it did."""
    if how.settings is None:
        yield lambda: None
        return
    with Enhancement(pipe, how.settings) as handle:
        yield handle.summary


def stepping(progress: Report, number: int, total: int, steps: int) -> Report:
    """The steps of one window as steps of all windows."""

    def report(event: Progress) -> None:
        doing = f"window {number + 1} of {total}" if total > 1 else ""
        progress(Progress(number * steps + event.done, total * steps, "step", doing=doing))

    return report


# ------------------------------------------------------------------------------------------- of the pipeline's call


def _own_length(pipe: Any) -> int:
    """Frames of the clips that the model is made for."""
    known = pipelines.defaults(pipe).get("frames")
    parameters = inspect.signature(pipe.__call__).parameters
    theirs = [parameters[name].default for name in ("num_frames", "video_length") if name in parameters]
    return int(known or theirs[0] or pipe.transformer.config.sample_frames)  # CogVideoX: its transformer has it


def _own_size(pipe: Any) -> tuple[int, int] | None:
    """(height, width) of the clips that the model is made for; None where that is not known."""
    known, parameters = pipelines.defaults(pipe), inspect.signature(pipe.__call__).parameters
    height, width = (known.get(n) or getattr(parameters.get(n), "default", None) for n in ("height", "width"))
    config = pipe.transformer.config
    if height is None and hasattr(config, "sample_height"):  # CogVideoX, in latents
        height, width = (side * pixels_per_latent(pipe) for side in (config.sample_height, config.sample_width))
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _options(pipe: Any, how: Restoring, frames: int, height: int, width: int) -> dict[str, Any]:
    """The arguments of `pipelines.generate`."""
    guidance = how.guidance
    if guidance is None and latents.format_of(pipe).unguided:
        guidance = 1.0
    return {
        "negative": how.negative, "steps": how.steps, "guidance": guidance,
        "frames": frames, "height": height, "width": width,
    }  # fmt: skip


def _call(pipe: Any, how: Restoring, frames: int, height: int, width: int) -> dict[str, Any]:
    return pipelines.call_of(pipe, **_options(pipe, how, frames, height, width))


def _total(pipe: Any, call: dict[str, Any]) -> int:
    """Steps of the whole schedule."""
    return int(
        call.get("num_inference_steps") or inspect.signature(pipe.__call__).parameters["num_inference_steps"].default
    )
