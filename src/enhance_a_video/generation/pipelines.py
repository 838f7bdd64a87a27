"""Loads a diffusers pipeline of videos, pictures or sound and generates with it.

pipe = load()                                               # the embedded model, or a hub id, or a folder
frames = generate(pipe, "a red ball rolls ...", seed=0)     # uint8 (T, H, W, 3)
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import limits
from ..errors import EnhanceAVideoError, SettingsError
from ..models import find
from ..wording import count
from . import peers
from .events import Progress, Report
from .guidance import SCALE, arguments_of, check_on, guided, in_guider
from .loading import (
    EMBEDDED,
    check_folder,
    defaults_in,
    makes,
    out_of_memory,
    parts_of,
    rows_in,
    source_of,
    why_not,
)
from .media import as_rgb, to_uint8
from .preview import preview_of
from .prompts import checked_prompt
from .requests import OPTIONS, ClipOptions, check_extra, check_kind
from .shape import made_frames, made_size

if TYPE_CHECKING:
    from typing_extensions import Unpack

Notice = Callable[[str], None]

# Frames per second the published models were trained for, which their pipelines do not have.
# A folder's own defaults.json comes first; what neither names is the pipeline's own default.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "WanPipeline": {"fps": 16},
    "WanImageToVideoPipeline": {"fps": 16},
    "WanVideoToVideoPipeline": {"fps": 16},
    "CogVideoXPipeline": {"fps": 8},  # 1.5 was trained at 16: --fps 16
    "CogVideoXImageToVideoPipeline": {"fps": 8},
    "HunyuanVideoPipeline": {"fps": 24},
    "HunyuanVideoImageToVideoPipeline": {"fps": 24},
    "LattePipeline": {"fps": 8},
    "LTXPipeline": {"fps": 25},
    "LTXImageToVideoPipeline": {"fps": 25},
}
_FALLBACK_FPS = 16

# Our names for options that pipelines call otherwise.
_ARGUMENTS = {
    "negative": "negative_prompt", "steps": "num_inference_steps", "guidance": "guidance_scale",
    "frames": "num_frames", "height": "height", "width": "width", "image": "image", "seconds": "audio_end_in_s",
}  # fmt: skip
_ELSEWHERE = {  # what Latte, ACE-Step and LongCat-AudioDiT call it
    "num_frames": ("video_length",), "audio_end_in_s": ("audio_duration", "audio_duration_s"),
}  # fmt: skip
_OFF = 0.1  # seconds that a sound may be off: above what one latent of these models stands for


# ---------------------------------------------------------------------------------------------------- loading


def load(
    model: str | Path = EMBEDDED,
    *,
    dtype: str = "auto",
    device: str = "auto",
    offload: str = "none",
    vae_tiling: bool = False,
) -> Any:
    """A diffusers pipeline, ready to generate.

    Args:
        model: "embedded" (the small model in this package), a hub id such as
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", or a folder that `save_pretrained` wrote.
        dtype: "float32", "bfloat16", "float16"; "auto" is bfloat16 on cuda, float16 on mps, float32 on cpu.
        device: "cuda", "mps", "cpu" (or with an index); "auto" takes the first of these that is there.
        offload: keep weights in main memory until needed: "none", "model", "group" or "sequential",
            in this order slower and smaller. Needs an accelerator.
        vae_tiling: decode in tiles: much less memory, slightly slower.

    Raises:
        SettingsError: unknown dtype, device or offload; no such folder or model, or what is wrong in it; the hub cannot
            be reached.
        UnsupportedModelError: no supported video transformer in it, which shows before the weights are loaded.
    """
    from diffusers import DiffusionPipeline

    source, kind, where = check(model, dtype=dtype, device=device, offload=offload)
    parts = [name for _, name in parts_of(source).values()]
    # A Wan VAE is small and visibly worse in half precision: it stays in float32, as its authors advise.
    dtypes = {"default": kind, "vae": torch.float32} if "AutoencoderKLWan" in parts else kind
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch_dtype.*")  # renamed in 0.4x; every version takes this
            with _unused_weights() as unused:
                pipe = DiffusionPipeline.from_pretrained(source, torch_dtype=dtypes)
    except Exception as error:  # of many kinds, by the part and the library that reads it
        raise out_of_memory(error) or SettingsError(why_not(source, error)) from error
    _check_filled(pipe, source)
    for text in unused:
        warnings.warn(f"{source}: {text}", stacklevel=2)
    pipe.set_progress_bar_config(disable=True)
    if vae_tiling:
        if not hasattr(getattr(pipe, "vae", None), "enable_tiling"):
            raise SettingsError(f"The VAE of {type(pipe).__name__} cannot decode in tiles: leave out vae_tiling.")
        pipe.vae.enable_tiling()
    _OFFLOADS[offload](pipe, where)
    return pipe


@contextmanager
def _unused_weights() -> Iterator[list[str]]:
    """Collects a sentence for each part of a pipeline whose files hold weights that it has no place for."""
    found: list[str] = []
    logger = logging.getLogger("diffusers.models.modeling_utils")
    level, heard = logger.level, logger.getEffectiveLevel()

    def read(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if match := re.search(r"not used when initializing (\w+):\W*([\w.]+)", text):
            part, first = match.groups()
            found.append(
                f"weights in the files of {part} have no place in it and are left out (the first: {first}). If its "
                "config.json was changed, put the original back; else the video is not this model's."
            )
        return not match and record.levelno >= heard

    logger.addFilter(read)
    logger.setLevel(min(heard, logging.WARNING))
    try:
        yield found
    finally:
        logger.removeFilter(read)
        logger.setLevel(level)


def _check_filled(pipe: Any, source: str) -> None:
    """SettingsError where a part has weights that were in no file: diffusers leaves them empty."""
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and any(weight.is_meta for weight in part.parameters()):
            raise SettingsError(
                f"{source}: the files of {name} lack weights that its config.json lists. Copy or download it again."
            )


def check(
    model: str | Path, *, dtype: str = "auto", device: str = "auto", offload: str = "none", vae_tiling: bool = False
) -> tuple[str, torch.dtype, torch.device]:
    """What `load` refuses before it reads weights; arguments and errors as there.

    Returns:
        The model's folder or hub id, and the type and device that its weights will have.
    """
    where = _device(device)
    kind = _dtype(dtype, where)
    if offload not in _OFFLOADS:
        raise SettingsError(f"offload={offload!r} is unknown: give one of {', '.join(_OFFLOADS)}.")
    if offload != "none" and where.type == "cpu":
        raise SettingsError(
            f"offload={offload!r} moves weights off an accelerator, and this runs on the CPU: leave it out."
        )
    source = source_of(model)
    check_folder(source)
    return source, kind, where


def check_load(load: Mapping[str, Any]) -> None:
    """SettingsError for a name in `load`, the options of `load` for workers, that is none of them, and for a value that
    is right on no machine. What only this machine lacks is left to `check`."""
    known = [name for name in inspect.signature(check).parameters if name != "model"]
    if wrong := [name for name in load if name not in known]:
        raise SettingsError(f"load: {wrong[0]!r} is unknown: give {', '.join(known)}.")
    for name, words in (("dtype", ("auto", *_DTYPES)), ("offload", tuple(_OFFLOADS))):
        if load.get(name, words[0]) not in words:
            raise SettingsError(f"load: {name}={load[name]!r} is unknown: give one of {', '.join(words)}.")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", str(load.get("device", "auto"))):
        raise SettingsError(f"load: device={load['device']!r} is unknown: give auto, cpu, mps, cuda or cuda:1.")


def check_on_a_cluster(model: str | Path) -> None:
    """What is wrong with a model on any machine. SettingsError: an empty name, one that is neither a path nor
    a hub id, a folder here that is no pipeline or incomplete.

    A path that is not here is left to the machines of the cluster.
    """
    elsewhere = isinstance(model, str) and model[:1] in ("/", "~", ".") and not Path(model).expanduser().exists()
    if elsewhere and model != ".":
        return
    source = source_of(model)
    if Path(source).is_dir():
        check_folder(source)


def quiet() -> None:
    """Silences the chatter of the libraries while they load; for commands, which have a progress bar of their own."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, about libraries


_OFFLOADS: dict[str, Callable[[Any, torch.device], Any]] = {
    "none": lambda pipe, device: pipe.to(device),
    "model": lambda pipe, device: pipe.enable_model_cpu_offload(device=device),
    "group": lambda pipe, device: pipe.enable_group_offload(
        onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda"
    ),
    "sequential": lambda pipe, device: pipe.enable_sequential_cpu_offload(device=device),
}


_DTYPES = ("float32", "bfloat16", "float16")


def _device(name: str) -> torch.device:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    kind, _, index = str(name).partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not present.get(kind, False) or (index and not (index.isdecimal() and int(index) < count)) or name[-1] == ":":
        found = ", ".join(kind for kind, there in present.items() if there)
        raise SettingsError(f"device={name!r} is not available here. Available: auto, {found}.")
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = {"cuda": "bfloat16", "mps": "float16"}.get(device.type, "float32")
    if name not in _DTYPES:
        raise SettingsError(f"dtype={name!r} is unknown: give auto, {', '.join(_DTYPES)}.")
    return getattr(torch, name)


# ------------------------------------------------------------------------------------------------- generating


def defaults(pipe: Any) -> dict[str, Any]:
    """What `generate` fills in for this pipeline: its folder's defaults.json, else a row of a small table."""
    found = dict(_DEFAULTS.get(type(pipe).__name__, {}))
    found |= defaults_in(Path(str(getattr(pipe, "name_or_path", "") or "")))
    return {"fps": _FALLBACK_FPS, **found}


def generate(
    pipe: Any,
    prompt: str | Sequence[str],
    *,
    seed: int | Sequence[int] = 0,
    latents: torch.Tensor | None = None,
    progress: Report | None = None,
    notice: Notice | None = None,
    **options: Unpack[ClipOptions],
) -> np.ndarray:
    """One video, picture or sound. An option that is None or left out is the default of the model.

    Args:
        pipe: from `load`, or any diffusers pipeline of a supported model.
        prompt: or several, with a seed each: one call makes them all, quicker than one by one.
        seed: of the initial noise, 0 to 2**64 - 1, drawn on the CPU so that it is the same on any device.
        steps, guidance, frames, height, width, fps: within limits.OPTIONS. fps is only for models that take their
            frame rate (LTX-Video).
        seconds: how long a sound is, only for models that make sound; those have no frames, height, width, fps, image
            and guider.
        image: first picture, for image-to-video pipelines (PIL image; used as a viewer shows it: `media.as_rgb`).
        negative: what the video shall not show; only with guidance above 1.
        guider: another training-free method, {"name": "skip_layer", "scale": 1}: see `peers`.
        extra: further arguments of this pipeline's call, by its own names; not those that this function sets itself.
        latents: what the first step gets in place of the seed's noise, in the pipeline's own shape; the prompt may then
            be empty.
        progress: called after each step.
        notice: called with a sentence about what was not done as requested: the warnings that the pipeline itself logs,
            and another number of frames or pixels than was requested; that is a warning without `notice`.

    Returns:
        uint8 (T, H, W, 3), T = 1 for a picture; for several prompts (n, T, H, W, 3). Of a sound float32 (N, C) in
        [-1, 1], N samples of C channels, `sound_rate` of them a second; for several prompts (n, N, C).

    Raises:
        PromptError: an empty prompt.
        SettingsError: what this pipeline does not take or refuses; frames that are not finite; several prompts whose
            number is not that of the seeds.
        EnhanceAVideoError: out of memory.
    """
    if not hasattr(pipe, "__call__"):  # noqa: B004
        raise SettingsError(f"pipe={limits.shown(pipe)} is not a pipeline: take one from load().")
    negative, extra = options.get("negative"), options.get("extra")
    if not isinstance(negative, str | None):
        raise SettingsError(f"negative={limits.shown(negative)}, but text is wanted.")
    if not isinstance({} if extra is None else extra, Mapping):
        raise SettingsError(f"extra={limits.shown(extra)}, but a dict of arguments is wanted.")
    for name, function in (("progress", progress), ("notice", notice)):
        if function is not None and not callable(function):
            raise SettingsError(f"{name}={limits.shown(function)}, but a function is wanted.")
    accepted = inspect.signature(pipe.__call__).parameters
    if hasattr(options.get("image"), "getexif"):  # PIL's; pipelines leave a phone's picture on its side
        options["image"] = as_rgb(options["image"])
    call = call_of(pipe, **options)
    held = call.pop(SCALE, None) if in_guider(pipe) else None
    if progress and "callback_on_step_end" in accepted:
        call["callback_on_step_end"] = _reporter(progress)
    elif progress and "callback" in accepted:  # Stable Audio
        call["callback"] = _counter(progress, call.get("num_inference_steps", accepted["num_inference_steps"].default))
    requested = dict(call)
    text, generator = _several(prompt, seed) if prompt or latents is None else ("", None)
    if isinstance(text, list) and "lyrics" in accepted:  # ACE-Step takes a list of prompts with as many lyrics only
        call["lyrics"] = [call.get("lyrics", "")] * len(text)
    call = _rounded(pipe, call) | ({} if latents is None else {"latents": latents})
    try:
        with (
            torch.inference_mode(),
            fitting_threads(pipe),
            _logged(notice),
            _under(pipe, options.get("guider"), seed),
            guided(pipe, held),
        ):
            output = pipe(prompt=text, generator=generator, output_type="np", **call)
    except EnhanceAVideoError:
        raise
    except (ValueError, TypeError) as error:
        given = "".join(f" Given besides: {name}={reprlib.repr(value)}." for name, value in (extra or {}).items())
        raise SettingsError(f"{type(pipe).__name__} refuses this: {error}{'.' * bool(given)}{given}") from error
    except Exception as error:
        if (memory := out_of_memory(error)) is not None:
            raise memory from error
        if extra:  # the likely reason: nothing else that is given goes there unchecked
            names, what = ", ".join(extra), f"{type(error).__name__}: {error}"
            raise SettingsError(f"{type(pipe).__name__} fails, perhaps by the value of {names}: {what}") from error
        raise
    if hasattr(output, "audios"):
        clips = _sounds(output.audios, sound_rate(pipe), options.get("seconds"), notice or _warn)  # (n, N, C)
    else:
        clips = _quantized(np.asarray(_videos_in(output), np.float32))  # (n, T, H, W, 3)
        _compare_with(call if notice else requested, clips, notice or _warn)  # preflight has reported what is rounded
    return clips[0] if isinstance(prompt, str) else clips


def _videos_in(output: Any) -> Any:
    """(n, T, H, W, 3) from what a pipeline returns; a picture is a video of one frame."""
    return output.images[:, None] if hasattr(output, "images") else output.frames


def sound_rate(pipe: Any) -> int | None:
    """Samples a second of a pipeline that makes sound; None of any other."""
    if not makes("sounds", rows_in(pipe)):
        return None
    return int(getattr(pipe, "sample_rate", 0) or pipe.vae.config.sampling_rate)


def rate(pipe: Any, fps: float | None) -> float:
    """Frames a second of a pipeline's clips, where `fps` None is its default; of a sound its samples a second."""
    return sound_rate(pipe) or fps or defaults(pipe)["fps"]


def _sounds(audios: Any, rate: int | None, seconds: float | None, notice: Notice) -> np.ndarray:
    """A pipeline's sounds (n, C, N), about -1 to 1, as (n, N, C) in [-1, 1]; reports what is cut off and the length."""
    sounds = np.moveaxis(np.asarray(audios, np.float32), 1, 2)
    if not sounds.size:
        raise SettingsError("The model made a sound without a single sample: give more --seconds.")
    _check_finite(sounds)
    if beyond := float((np.abs(sounds) > 1).mean()):
        notice(f"The sound is too loud for its file in {beyond:.2%} of its samples, which are cut off.")
    made = sounds.shape[1] / (rate or 1)
    if seconds and abs(made - seconds) > _OFF:
        notice(f"seconds: {seconds:g} requested, {made:.2f} made.")
    return np.clip(sounds, -1, 1)


def _under(pipe: Any, guider: Any, seed: int | Sequence[int]) -> AbstractContextManager[None]:
    """The scope of a guider from JSON, if there is one."""
    if guider is None:
        return nullcontext()
    return peers.attached(pipe, peers.from_dict(guider), seed if isinstance(seed, Sequence) else [seed])


_TORCH_THREADS = torch.get_num_threads()  # torch's own choice: another number later on is the user's
_SMALL = 100_000_000  # parameters


def wants_one_thread(pipe: Any) -> bool:
    """Whether a pipeline runs on the CPU and is small: below 100 million parameters in all."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    size = sum(weight.numel() for part in parts for weight in part.parameters())
    return size < _SMALL and getattr(pipe, "_execution_device", pipe.device).type == "cpu"


@contextmanager
def fitting_threads(pipe: Any) -> Iterator[None]:
    """One CPU thread while a small model runs, torch's own number for a large one.

    The operations of a small model are so short that threads mostly wait for each other, and on busy cores wait long.
    The number stays as it is where the user has set it (OMP_NUM_THREADS, torch.set_num_threads).
    """
    number = torch.get_num_threads()
    chosen = "OMP_NUM_THREADS" in os.environ or number != _TORCH_THREADS
    if chosen or not wants_one_thread(pipe):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


def call_of(pipe: Any, **options: Unpack[ClipOptions]) -> dict[str, Any]:
    """The arguments of this pipeline's call, by its own names, from the options of `generate` and the model's defaults.

    Raises:
        SettingsError: as `generate`, for what this pipeline does not take.
    """
    accepted, name = arguments_of(pipe), type(pipe).__name__
    given = {option: value for option, value in options.items() if value is not None}
    for option, value in given.items():
        if option not in OPTIONS:
            raise SettingsError(f"{option} is no option of a clip. Known: {', '.join(OPTIONS)}.")
        limits.option(option, value)
    for row in rows_in(pipe):
        check_kind(name, row.makes, given)
    known, extra = defaults(pipe), options.get("extra") or {}
    check_extra(extra)
    if in_guider(pipe):
        known.pop("guidance", None)  # the guider has its own
        if "guidance" in given:
            check_on(pipe)
    call = _arguments(name, accepted, given, known) | known.get("extra", {}) | extra
    if "frame_rate" in accepted:
        call.setdefault("frame_rate", options.get("fps") or known["fps"])
    strange = [word for word in known.get("extra", {}) if word not in accepted]
    if strange:
        raise SettingsError(f"The model's defaults.json: extra has {', '.join(strange)}, which {name} does not take.")
    _refuse(name, accepted, call)
    _check_memory(accepted, call)
    return call


def _several(prompt: str | Sequence[str], seed: int | Sequence[int]) -> tuple[Any, Any]:
    """Prompt and generator as a pipeline takes them: one of each, also for a list of one, or as many as there are."""
    several = isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes)
    prompts = [checked_prompt(one) for one in (prompt if several else [prompt])]
    seeds = [limits.seed(one) for one in (seed if isinstance(seed, Sequence) else [seed])]
    if not prompts or len(prompts) != len(seeds):
        raise SettingsError(
            f"{count(len(prompts), 'prompt')} and {count(len(seeds), 'seed')}: give as many seeds as prompts."
        )
    generators = [torch.Generator("cpu").manual_seed(one) for one in seeds]
    return (prompts[0], generators[0]) if len(prompts) == 1 else (prompts, generators)


def _arguments(name: str, accepted: Iterable[str], given: Mapping[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's arguments from ours; one that is given and does not exist there is an error."""
    call = {}
    names = {ours: _its_name(theirs, accepted) for ours, theirs in _ARGUMENTS.items()}
    for ours, theirs in names.items():
        if ours in given and theirs not in accepted:
            takes = [word for word, argument in names.items() if argument in accepted]
            raise SettingsError(f"{name} takes no {ours!r} ({theirs}). It takes: {', '.join(takes)}.")
        value = given.get(ours, known.get(ours))
        if value is not None and theirs in accepted:
            call[theirs] = value
    return call


def _its_name(argument: str, accepted: Iterable[str]) -> str:
    """What a pipeline that takes these arguments calls one of _ARGUMENTS."""
    names = (argument, *_ELSEWHERE.get(argument, ()))
    return next((name for name in names if name in accepted), argument)


def _check_memory(accepted: Any, call: dict[str, Any]) -> None:
    """SettingsError where the video would not fit into this machine; a size that only the pipeline works out passes."""
    size: list[Any] = []
    for name in ("num_frames", "height", "width"):
        name = _its_name(name, accepted)
        default = accepted[name].default if name in accepted else None
        size.append(call.get(name, default))
    if all(type(one) is int for one in size):
        limits.memory(*size)


def _rounded(pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The call with the numbers that the pipeline rounds to, where its rule is known."""
    frames = {name: made_frames(pipe, call[name]) for name in ("num_frames", "video_length") if name in call}
    size = made_size(pipe, call["height"], call["width"]) if {"height", "width"} <= call.keys() else None
    made = frames | (dict(zip(("height", "width"), size, strict=True)) if size else {})
    return call | {name: value for name, value in made.items() if value is not None}


def _compare_with(call: dict[str, Any], clips: np.ndarray, notice: Notice) -> None:
    """Reports another shape than was requested, for pipelines whose rule is not known."""
    made = {
        "num_frames": clips.shape[1],
        "video_length": clips.shape[1],
        "height": clips.shape[2],
        "width": clips.shape[3],
    }
    for name, value in made.items():
        if call.get(name) not in (None, value):
            notice(f"{name.replace('num_', '')}: {call[name]} requested, {value} made.")


def _warn(text: str) -> None:
    """A notice where nobody takes them."""
    warnings.warn(text, stacklevel=3)


@contextmanager
def _logged(notice: Notice | None) -> Iterator[None]:
    """Passes on what pipelines log as a warning while they run, whatever the verbosity of diffusers."""
    if notice is None:
        yield
        return
    logger, handler = logging.getLogger("diffusers.pipelines"), logging.Handler(logging.WARNING)
    handler.emit = lambda record: notice(f"{record.name.rpartition('.')[2]}: {record.getMessage()}")  # type: ignore[method-assign]
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _refuse(name: str, accepted: Any, call: dict[str, Any]) -> None:
    """What would be ignored in silence, or fail deep inside."""
    unknown = [word for word in call if word not in accepted]
    if unknown:
        raise SettingsError(f"{name} takes no {', '.join(unknown)}. It takes: {', '.join(accepted)}.")
    if "image" in accepted and accepted["image"].default is inspect.Parameter.empty and "image" not in call:
        raise SettingsError(f"{name} starts from a picture: give one (--image FILE).")
    if call.get("negative_prompt"):
        scale = "true_cfg_scale" if "true_cfg_scale" in accepted else "guidance_scale"
        default = accepted[scale].default if scale in accepted else 2
        if call.get(scale, default) <= 1:
            flag = "--guidance 6" if scale == "guidance_scale" else f"--set {scale}=6"
            raise SettingsError(
                f"A negative prompt does nothing in {name} while {scale} is {call.get(scale, default)}: "
                f"raise {scale} above 1 ({flag}), or leave the negative prompt out."
            )


def _reporter(progress: Report) -> Callable[..., dict[str, Any]]:
    def after_step(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        preview = partial(preview_of, pipe, values.get("latents"))
        progress(Progress(step + 1, int(getattr(pipe, "num_timesteps", step + 1)), "step", preview=preview))
        return values

    return after_step


def _counter(progress: Report, steps: int) -> Callable[..., None]:
    """For pipelines whose callback gets no more than step, time and latents."""
    return lambda step, time, latents: progress(Progress(step + 1, steps, "step"))


def _check_finite(made: np.ndarray) -> None:
    bad = 1 - np.isfinite(made).mean()
    if bad:
        raise SettingsError(
            f"The model returned {bad:.0%} values that are not numbers. float16 overflows in some models: "
            "use --dtype bfloat16 or float32; with a high strength, lower it."
        )


def _quantized(videos: np.ndarray) -> np.ndarray:
    """A pipeline's videos (n, T, H, W, 3), about 0 to 1, as uint8. SettingsError for values not finite."""
    _check_finite(videos)
    return np.stack([to_uint8(np.clip(video, 0, 1)) for video in videos])


def describe(pipe: Any) -> dict[str, str]:
    """What ran, for the record: pipeline, denoisers, device, precision, versions."""
    from importlib.metadata import version

    import diffusers

    denoisers = {
        name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module) and find(part)
    }
    first = next(iter(denoisers.values()), None)
    return {
        "pipeline": type(pipe).__name__,
        "transformer": ", ".join(f"{name} ({type(part).__name__})" for name, part in denoisers.items()),
        "device": str(getattr(pipe, "_execution_device", pipe.device)),
        "dtype": str(getattr(first, "dtype", "")).replace("torch.", ""),
        "enhance-a-video": version("enhance-a-video"),
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }
