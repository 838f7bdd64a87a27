"""Finds what a pipeline will not do as requested, before the first step of the denoising.

Needed by every command that generates: words that the model does not know, prompts that are cut, numbers of frames that
are rounded, settings under which the method has nothing to act on. None of this is an error; each is one sentence.

notices(pipe, items)                the sentences about clips, for a loaded pipeline
notices_about(model, items)         the same for a model that workers will load: no weights are read
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import string
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..alternatives import Change
from ..embedded import LEAST_FRAMES, model_folder, world
from ..errors import SettingsError
from ..models import FrameCount, SelfAttention, find
from ..policies import Constant
from ..progress import progress_at_steps
from . import pipelines
from .loading import makes, rows_in, source_of
from .requests import ClipRequest
from .shape import frames_per_latent, made_frames, made_size

WAY_OUT = "For any other prompt give another model with --model; enhance-a-video models lists them."


def notices(pipe: Any, items: Sequence[ClipRequest]) -> list[str]:
    """What these clips will not be, one sentence each, none twice.

    Args:
        pipe: a diffusers pipeline; its weights are not used.

    Raises:
        SettingsError: options that this pipeline does not take.
    """
    calls = {_text(item.options): pipelines.call_of(pipe, **item.options) for item in items}
    prompts = {(item.prompt, _text(item.options)): item.prompt for item in items}
    changes = {(repr(item.settings), _text(item.options)): item for item in items}
    found = [one for (_, options), text in prompts.items() for one in _of_prompt(pipe, text, calls[options])]
    found += [one for options in calls for one in _of_shape(pipe, calls[options])]
    for (_, options), item in changes.items():
        found += [
            f"{item.label}: {one}" if item.label else one for one in _of_change(pipe, item.settings, calls[options])
        ]
    return list(dict.fromkeys(found))


def frames_of(pipe: Any, item: ClipRequest) -> int | None:
    """The frames that a pipeline will make, 1 for a picture; None where neither the call nor the pipeline says it."""
    if makes("pictures", rows_in(pipe)):
        return 1
    frames = _value(pipe, pipelines.call_of(pipe, **item.options), "num_frames", "video_length")
    return (made_frames(pipe, frames) or frames) if frames else None


def notices_about(model: str | Path, items: Sequence[ClipRequest]) -> list[str]:
    """`notices` for a model that is not loaded here. One that cannot be read gives none: loading it explains why."""
    pipe = outline(model)
    return [] if pipe is None else notices(pipe, items)


# ------------------------------------------------------------------------------------------------------ prompts


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """The words of a text that a tokenizer has no token for, as written, none twice. Punctuation is left out."""
    words = [word for word in dict.fromkeys(re.findall(r"\w+|[^\w\s]+", text)) if set(word) - set(string.punctuation)]
    if tokenizer.unk_token_id is None or not words:
        return []
    tokens = tokenizer(words, add_special_tokens=False)["input_ids"]
    return [word for word, ids in zip(words, tokens, strict=True) if tokenizer.unk_token_id in ids]


def _of_prompt(pipe: Any, prompt: str, call: Mapping[str, Any]) -> Iterator[str]:
    tokenizers = list(_tokenizers(pipe))
    if not tokenizers:
        return
    shown = repr(textwrap.shorten(prompt, 60, placeholder=" …"))
    unknown = _unknown_to_all(tokenizers, prompt)
    outside = world.outside(prompt) if any(map(_of_the_world, tokenizers)) else ""
    if unknown or outside:
        reason = f" ({outside})" if outside else ""
        words = f"it has no token for {_listed(unknown)}" if unknown else "it has the words, not the sentence"
        yield f"{shown} is beyond this model's vocabulary{reason}: {words}. The video will not follow what is unknown."
    if any(map(_of_the_world, tokenizers)) and (unknown or outside):
        yield f"{world.vocabulary()} {WAY_OUT}"
    if negative := _unknown_to_all(tokenizers, call.get("negative_prompt") or ""):
        yield f"In the negative prompt the model has no token for {_listed(negative)}: that part does nothing."
    yield from _cut(pipe, tokenizers, prompt, shown, call)


def _unknown_to_all(tokenizers: Sequence[Any], text: str) -> list[str]:
    found = [unknown_words(tokenizer, text) for tokenizer in tokenizers]
    return [word for word in found[0] if all(word in others for others in found[1:])]


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(repr(word) for word in words[:8])
    return f"{shown} and {len(words) - 8} more" if len(words) > 8 else shown


def _cut(pipe: Any, tokenizers: Sequence[Any], prompt: str, shown: str, call: Mapping[str, Any]) -> Iterator[str]:
    """Whether every text encoder gets only the beginning of the prompt."""
    limit = call.get("max_sequence_length", _default(pipe, "max_sequence_length"))
    rests = []
    for tokenizer in tokenizers:
        limits = [one for one in (limit, tokenizer.model_max_length) if isinstance(one, int) and 0 < one < 10**6]
        tokens = tokenizer(prompt, verbose=False)["input_ids"]
        if not limits or len(tokens) <= min(limits):
            return
        rests.append((min(limits), tokenizer.decode(tokens[min(limits) - 1 :], skip_special_tokens=True)))
    kept, rest = max(rests)
    end = textwrap.shorten(rest, 60, placeholder=" …")
    yield f"{shown} is longer than the {kept} tokens that this pipeline reads: from {end!r} on it has no effect."


def _tokenizers(pipe: Any) -> Iterator[Any]:
    from transformers import PreTrainedTokenizerBase

    for part in pipe.components.values():
        own = part if isinstance(part, PreTrainedTokenizerBase) else getattr(part, "tokenizer", None)
        if isinstance(own, PreTrainedTokenizerBase):
            yield own


def _of_the_world(tokenizer: Any) -> bool:
    """Whether a tokenizer has the words of the embedded world and hardly any others."""
    vocabulary = set(tokenizer.get_vocab())
    return world.words() <= vocabulary and len(vocabulary) < 2 * len(world.words())


# ----------------------------------------------------------------------------------------- shape, method, steps


def _of_shape(pipe: Any, call: Mapping[str, Any]) -> Iterator[str]:
    frames = _value(pipe, call, "num_frames", "video_length")
    made = made_frames(pipe, frames) if frames else None
    if made not in (None, frames):
        ratio = frames_per_latent(pipe) or 1
        rule = f"this model makes {1 + ratio}, {1 + 2 * ratio}, {1 + 3 * ratio}, … frames"
        yield f"{frames} frames cannot be made, {made} will be: {rule}."
    height, width = _value(pipe, call, "height"), _value(pipe, call, "width")
    size = made_size(pipe, height, width) if height and width else None
    if size not in (None, (height, width)):
        yield f"{width}x{height} pixels cannot be made, {size[1]}x{size[0]} will be."
    number = made or frames
    if number and number < LEAST_FRAMES and str(getattr(pipe, "name_or_path", "")) == str(model_folder()):
        yield f"{number} frames: with fewer than {LEAST_FRAMES} the packaged model's clips begin with wrong colours."
    usual = pipelines.defaults(pipe).get("steps") or _default(pipe, "num_inference_steps")
    if call.get("num_inference_steps") == 1 and isinstance(usual, int) and usual > 1:
        yield f"1 step: a model that was not made for it needs more (by default {usual}), and leaves noise."


def _of_change(pipe: Any, settings: Change | None, call: Mapping[str, Any]) -> Iterator[str]:
    """Where the method will have no effect."""
    if settings is None:
        return
    if idle := _idle(settings):
        yield f"{idle}: the video will be the plain model's."
        return
    frames = _value(pipe, call, "num_frames", "video_length")
    ratio, patch = frames_per_latent(pipe) or 1, _temporal_patch(pipe)
    made = (made_frames(pipe, frames) or frames) if frames else None
    if between_frames(settings) and made and (made - 1) // ratio + 1 <= patch:  # latent frames in a frame of tokens
        what = "1 frame" if made == 1 else f"{made} frames, which are one inside this model"
        yield f"{what}: the method acts between frames and will do nothing. Request {patch * ratio + 1} frames or more."
    steps = _value(pipe, call, "num_inference_steps")
    if steps and not _acts(pipe, settings, steps):
        yield (
            f"None of the {steps} steps lies between start={settings.start:g} and end={settings.end:g}: the method "
            "will do nothing. Give more steps or a wider window."
        )


def between_frames(settings: Change) -> bool:
    """Whether settings act between frames only, and so not at all in a picture."""
    return all(axis.needs == "frames" for axis in settings.axes)


def _idle(settings: Change) -> str:
    """The setting that changes nothing whatever the model does, or ""."""
    if getattr(settings, "observe_only", False):
        return "observe_only records and changes nothing"
    policy = getattr(settings, "policy", None)
    neutral = {"odds": 1, "strength": 0, "temperature": -1, "tau": 1}
    named = [
        f"{name}={value} changes nothing" for name, value in neutral.items() if getattr(settings, name, None) == value
    ]
    if isinstance(odds := getattr(settings, "odds", None), Mapping) and set(odds.values()) == {1}:
        named.append(f"odds={dict(odds)} change nothing")
    if isinstance(policy, Constant) and policy.gain == 1:
        named.append("a constant gain of 1 changes nothing")
    return next(iter(named), "")


def _acts(pipe: Any, settings: Change, steps: int) -> bool:
    """Whether a step falls into the window, by the scheduler or, where the pipeline may set its steps, by even ones."""
    row = next(iter(rows_in(pipe)), None)
    scheduler = getattr(pipe, "scheduler", None)
    places = []
    if scheduler is not None and row is not None:
        places.append(progress_at_steps(scheduler, row.noise, steps))
    sets_its_steps = "sigmas" in inspect.signature(pipe.__call__).parameters
    if not places or sets_its_steps:
        places.append(torch.arange(steps) / steps)
    start, end = float(settings.start or 0.0), float(settings.end or 1.0)  # Settings has always filled them in
    near = 1e-4  # a step on the edge of the window but for rounding
    return any(bool(((place + near >= start) & ((place + near < end) | (end >= 1.0))).any()) for place in places)


def _temporal_patch(pipe: Any) -> int:
    """Latent frames that one frame of tokens stands for."""
    for part in pipe.components.values():
        row = find(part)
        for axis in () if row is None else row.attention:
            if isinstance(axis, SelfAttention) and isinstance(axis.frames, FrameCount) and axis.frames.patch:
                patch = part.config[axis.frames.patch]
                return int(patch[0] if isinstance(patch, tuple | list) else patch or 1)
    return 1


def _value(pipe: Any, call: Mapping[str, Any], *names: str) -> int | None:
    """What the call gives under one of the names, or the pipeline's own default."""
    found = next((call[name] for name in names if call.get(name) is not None), None)
    found = found if found is not None else next(filter(None, (_default(pipe, name) for name in names)), None)
    return found if isinstance(found, int) else None


def _default(pipe: Any, name: str) -> Any:
    parameter = inspect.signature(pipe.__call__).parameters.get(name)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def _text(options: Mapping[str, Any]) -> str:
    return json.dumps(dict(options), sort_keys=True, default=str)


# ----------------------------------------------------------------------------------- a pipeline without its weights


def outline(model: str | Path) -> Any:
    """The pipeline of a model with its tokenizers and configurations, its weights on the meta device and never read.

    None where that cannot be made: a model that is not here, or parts of classes that are not known here.
    """
    from diffusers import DiffusionPipeline

    try:
        source = source_of(model)
        config = DiffusionPipeline.load_config(source)
        kinds = {name: kind for name, kind in config.items() if isinstance(kind, list) and len(kind) == 2}
        parts = {name: _part(source, name, *kind) for name, kind in kinds.items()}
        own = {name: value for name, value in config.items() if name not in kinds and not name.startswith("_")}
        pipe = _class("diffusers", config["_class_name"])(**parts, **own)
    except SettingsError:
        return None
    except Exception:  # whatever a part's class makes of its configuration: loading the model explains it
        return None
    pipe.register_to_config(_name_or_path=source)
    return pipe


def _part(source: str, name: str, library: str | None, kind: str | None) -> Any:
    if library is None or kind is None:
        return None
    found = _class(library, kind)
    if not issubclass(found, torch.nn.Module):
        return found.from_pretrained(source, subfolder=name)
    with torch.device("meta"):
        if hasattr(found, "load_config"):  # of diffusers
            return found.from_config(found.load_config(source, subfolder=name))
        return found(found.config_class.from_pretrained(source, subfolder=name))


def _class(library: str, name: str) -> Any:
    module = importlib.import_module(library)
    return getattr(module, name)
