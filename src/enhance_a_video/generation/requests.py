"""`ClipRequest`, one clip to be made, and its key; prompts x seeds x panels become one flat list of them.

items = expand(read_prompts("prompts.jsonl"), range(4), [("without", None), ("enhanced", Settings())])
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypedDict

from .. import limits
from ..alternatives import Change
from ..errors import PromptError, SettingsError
from ..wording import count
from . import peers
from .files import named, text_of
from .media import as_rgb, open_picture
from .prompts import checked_prompt


class ClipOptions(TypedDict, total=False):
    """The options of `pipelines.generate` that a prompt, a study or a form may set. None is the model's default."""

    negative: str | None
    steps: int | None
    guidance: float | None
    frames: int | None
    height: int | None
    width: int | None
    fps: float | None
    seconds: float | None
    image: Any
    extra: Mapping[str, Any] | None
    guider: Mapping[str, Any] | None


OPTIONS = tuple(ClipOptions.__annotations__)
# What each has to be in JSON that is no number.
_KINDS: dict[str, tuple[str, type]] = {
    "negative": ("text", str), "image": ("the name of a picture file", str), "extra": ("an object", dict),
    "guider": ("an object with a name", dict),
}  # fmt: skip

# Arguments of pipelines that `extra` may not set, as generating sets them itself: what to give instead.
_SET_ELSEWHERE = {
    "prompt": "--prompt", "negative_prompt": "--negative", "num_inference_steps": "--steps", "image": "--image",
    "guidance_scale": "--guidance", "num_frames": "--frames", "video_length": "--frames", "height": "--height",
    "width": "--width", "frame_rate": "--fps", "generator": "--seed",
    "num_videos_per_prompt": "several seeds", "num_images_per_prompt": "several seeds",
    "num_waveforms_per_prompt": "several seeds", "audio_end_in_s": "--seconds", "audio_duration": "--seconds",
    "audio_duration_s": "--seconds",
    "output_type": "", "return_dict": "", "callback": "", "callback_steps": "", "callback_on_step_end": "",
    "callback_on_step_end_tensor_inputs": "",
}  # fmt: skip
_TENSOR = re.compile(r"(^|_)(latents|embeds)(_\d+)?$")
_PICTURE = re.compile(r"(^|_)images?(_\d+|_reference)?$")  # last_image, image_2, control_image, reference_images


@dataclass(frozen=True)
class Prompt:
    """One line of a prompts file: options go before those of the command, seeds (if any) instead of its seeds."""

    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        checked_prompt(self.text)


@dataclass(frozen=True)
class ClipRequest:
    """One clip to be made. settings None is the plain model; options are those of `pipelines.generate`, in which
    `image` may be the path of a picture as well."""

    prompt: str
    seed: int
    label: str
    settings: Change | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_prompt(self.prompt)

    @cached_property
    def key(self) -> str:
        """16 hex digits: the same for the same clip in any process and version, another for any other clip.

        The label is left out (it changes nothing in the clip), and so is the model, which is not part of an item.

        Raises:
            SettingsError: settings or options that have no stable text, such as a policy that is a bare function.
        """
        facts = {
            "prompt": self.prompt,
            "seed": self.seed,
            "settings": None if self.settings is None else settings_text(self.settings),
            "options": {name: value for name, value in self.options.items() if value is not None},
        }
        text = json.dumps(_plain(facts), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """What is known of a clip before it is made, JSON-able: the first half of its record (making.Made.record)."""
        return {
            "key": self.key,
            "prompt": self.prompt,
            "seed": self.seed,
            "label": self.label,
            "settings": None if self.settings is None else self.settings.to_dict(),
            "options": as_text(self.options),
        }

    def call(self) -> dict[str, Any]:
        """The keyword arguments of `pipelines.generate`: seed and options, pictures opened (RGB).

        Raises:
            SettingsError: a picture that cannot be read.
        """
        return {"seed": self.seed, **opened(self.options)}


def settings_text(settings: Change) -> dict[str, Any]:
    """The part of the settings that changes a clip. What is None is left out, so that a field which a later version
    adds does not change the keys of today's clips."""
    found = {name: value for name, value in settings.to_dict().items() if value is not None}
    found.pop("attention_maps", None)  # changes no clip
    if found.get("scale") == "output":  # as it was before there was another
        del found["scale"]
    if " at 0x" in str(found.get("policy", "")):
        raise SettingsError(
            f"{found['policy']} has no stable name, so its clips could not be found again: "
            "write the policy as a frozen dataclass, whose repr has all its values."
        )
    return found


def expand(
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    panels: Sequence[tuple[str, Change | None]],
    options: Mapping[str, Any] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[ClipRequest]:
    """Every prompt with every seed under every panel, prompts outermost; a clip that comes twice is listed once.

    Args:
        seeds: for prompts that name none themselves.
        panels: (label, settings); settings None is the plain model.
        options: of `pipelines.generate`, for all; those of a prompt come first.
        own: a panel's label -> options of its own, such as a guider; they come before all others.

    Raises:
        SettingsError: no prompts, seeds or panels, or too many of them; panels that share a label or their settings.
    """
    if not (prompts and panels):
        raise SettingsError(f"Nothing to make: {count(len(prompts), 'prompt')} and {count(len(panels), 'panel')}.")
    if wrong := [one for one in prompts if not isinstance(one, Prompt)]:
        raise SettingsError(f"prompts: {limits.shown(wrong[0])} is no Prompt: write Prompt(text).")
    own = own or {}
    check_panels(panels, own)
    limits.clips(sum(len(seeds if p.seeds is None else p.seeds) for p in prompts) * len(panels))
    found: dict[str, ClipRequest] = {}
    common = limits.seeds(seeds)
    for prompt in prompts:
        merged = _merged(options or {}, prompt.options)
        by_label = {label: _merged(merged, own.get(label, {})) for label, _ in panels}
        for one in by_label.values():
            _check_options(one)
        chosen = common if prompt.seeds is None else limits.seeds(prompt.seeds)
        if not chosen:
            raise SettingsError(f"No seeds for {prompt.text!r}: give one or more.")
        for seed in chosen:
            for label, settings in panels:
                item = ClipRequest(prompt.text, seed, label, settings, by_label[label])
                found.setdefault(item.key, item)
    return list(found.values())


def read_prompts(path: str | Path) -> list[Prompt]:
    """Prompts from a file, empty lines skipped.

    .jsonl   an object a line: {"prompt": "a cat", "seeds": [0, 1], "steps": 30, "negative": "blur"}; "seed" for a
             single one; further names are the keys of OPTIONS. A picture's name is relative to the file.
    others   the text of a prompt a line

    Raises:
        PromptError: a line that cannot be used, with file and line number; no prompt at all; an unreadable file.
    """
    path = Path(path)
    found = []
    for number, line in _lines(text_of(path, "The prompts in", PromptError)):
        lines = path.suffix.lower() == ".jsonl"
        found.append(_prompt(line, path, number) if lines else Prompt(checked_prompt(line, f"{path}, line {number}")))
    if not found:
        raise PromptError(f"{path} contains no prompt: write one a line.")
    return found


def repeats(prompts: Sequence[Prompt]) -> list[str]:
    """What is in a list of prompts more than once, a sentence each: such clips are made once."""
    counts = Counter((prompt.text, str(dict(prompt.options)), prompt.seeds) for prompt in prompts)
    found = [f"The prompt {text!r} is there {n} times." for (text, _, _), n in counts.items() if n > 1]
    found += [
        f"The seeds of {prompt.text!r} are there more than once: {', '.join(map(str, prompt.seeds))}."
        for prompt in prompts
        if prompt.seeds is not None and len(set(prompt.seeds)) < len(prompt.seeds)
    ]
    return [f"{text} Each clip is made once; for more clips of a prompt, give more seeds." for text in found]


def overridden(prompts: Sequence[Prompt], given: Sequence[str]) -> list[str]:
    """Which options of the command have no effect, as every line of the prompts file has its own, a sentence each.

    Args:
        given: the names of the command's options, with "seed" and "seeds" where they were given.
    """
    own = [{*prompt.options, *(("seed", "seeds") if prompt.seeds is not None else ())} for prompt in prompts]
    names = [name for name in given if name != "extra" and all(name in names for names in own)]
    return [f"--{name} has no effect: every line of the prompts file has its own." for name in names]


# ------------------------------------------------------------------------------------------------ one line of a file


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines; only a line feed ends one (JSON strings may hold other Unicode line ends)."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def _prompt(line: str, path: Path, number: int) -> Prompt:
    where = f"{path}, line {number}"
    try:
        data = limits.parse_json(line)
    except ValueError as error:
        raise PromptError(f"{where} is not JSON ({error}). For plain text, name the file .txt.") from None
    if not isinstance(data, dict) or not isinstance(data.get("prompt"), str):
        raise PromptError(f'{where}: an object with a "prompt" is wanted, as in {{"prompt": "a cat", "seed": 1}}.')
    checked_prompt(data["prompt"], where)
    unknown = [name for name in data if name not in ("prompt", "seed", "seeds", *OPTIONS)]
    if unknown:
        known = ", ".join(["prompt", "seed", "seeds", *OPTIONS])
        raise PromptError(f"{where}: {', '.join(unknown)} is unknown. Known: {known}.")
    options = {name: data[name] for name in OPTIONS if data.get(name) is not None}
    try:
        for name, value in options.items():
            check_option(name, value)
        options = located(options, path.parent)
    except SettingsError as error:
        raise PromptError(f"{where}: {error}") from None
    return Prompt(data["prompt"].strip(), options, _seeds(data, where))


def check_option(name: str, value: Any) -> None:
    """SettingsError unless a value from JSON or YAML fits the option of OPTIONS with this name."""
    limits.option(name, value)
    if name in _KINDS and not isinstance(value, _KINDS[name][1]):
        raise SettingsError(f"{name}={value!r}, but {_KINDS[name][0]} is wanted.")
    if name == "extra":
        check_extra(value)
    if name == "guider":
        peers.from_dict(value)


def check_extra(extra: Mapping[str, Any], flag: str = "extra") -> None:
    """SettingsError where further arguments of a pipeline's call (--set) are set by generating itself, or cannot be."""
    for name, value in extra.items():
        if not isinstance(name, str):
            raise SettingsError(f"{flag}: {name!r} is not the name of an argument: put it in quotes.")
        if name in _SET_ELSEWHERE:
            instead = _SET_ELSEWHERE[name]
            raise SettingsError(
                f"{flag}: {name} cannot be set here: "
                + (f"give {instead}{_in_files(instead)}." if instead else "the command decides it. Leave it out.")
            )
        if _TENSOR.search(name) and not hasattr(value, "shape"):
            raise SettingsError(f"{flag}: {name} takes a tensor, which only a call from Python can give.")


_NOT_OF_SOUND = ("frames", "height", "width", "fps", "image", "guider")


def check_kind(name: str, makes: str, options: Mapping[str, Any]) -> None:
    """SettingsError for options that a model's kind has not. name: whose; makes: as in models.Model."""
    sound = makes == "sounds"
    wrong = [one for one in (_NOT_OF_SOUND if sound else ("seconds",)) if options.get(one) is not None]
    if wrong:
        instead = "Give the length with --seconds." if sound else "Its length is --frames." * (makes == "videos")
        raise SettingsError(f"{name} makes {makes}, which have no {', '.join(wrong)}. {instead}".rstrip())


def _in_files(option: str) -> str:
    return f" ({option[2:]} in a file)" if option.startswith("--") else ""


def located(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options with the names of pictures, relative to `folder`, as paths: `image`, and in `extra` what is called one.

    Raises SettingsError: there is no such picture; something else than a name.
    """

    def path_of(name: str, file: Any) -> Path:
        if not isinstance(file, str | Path):
            raise SettingsError(f"{name}={file!r}, but the name of a picture file is wanted.")
        path = folder / named(file, name)
        if not path.is_file():
            raise SettingsError(f"{name}: there is no picture {path}.")
        return path

    return _for_pictures(options, path_of)


def opened(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with every picture that is a path opened. SettingsError: one that cannot be read."""
    return _for_pictures(options, lambda _, one: open_picture(one) if isinstance(one, str | Path) else one)


def as_text(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with pictures as text, for JSON."""
    return _for_pictures(options, lambda _, one: str(one))


def _each(name: str, value: Any, change: Callable[[str, Any], Any]) -> Any:
    return [change(name, one) for one in value] if isinstance(value, list) else change(name, value)


def _for_pictures(options: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    found = dict(options)
    if found.get("image") is not None:
        found["image"] = change("image", found["image"])
    if found.get("extra"):
        found["extra"] = {
            name: _each(name, value, change) if _PICTURE.search(name) else value
            for name, value in found["extra"].items()
        }
    return found


def _seeds(data: dict[str, Any], where: str) -> tuple[int, ...] | None:
    if "seed" in data and "seeds" in data:
        raise PromptError(f"{where}: seed and seeds were given together: leave one of them out.")
    seeds = [data["seed"]] if "seed" in data else data.get("seeds")
    if seeds is None:
        return None
    if not isinstance(seeds, list) or not seeds:
        raise PromptError(f'{where}: seeds are a list of whole numbers, as in "seeds": [0, 1]; found {seeds!r}.')
    try:
        return limits.seeds(seeds)
    except SettingsError as error:
        raise PromptError(f"{where}: {error}") from None


# ------------------------------------------------------------------------------------------------------- keys


def _check_options(options: Mapping[str, Any]) -> None:
    """SettingsError for options of `pipelines.generate` that there are not, and for numbers out of their range."""
    for name, value in options.items():
        if name not in OPTIONS:
            raise SettingsError(f"{name} is no option of a clip. Known: {', '.join(OPTIONS)}.")
        if value is not None and name != "image":
            check_option(name, value)


def check_panels(
    panels: Sequence[tuple[str, Change | None]], own: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """SettingsError for panels that share a label, or settings and options (own: label -> a panel's own options)."""
    labels: dict[str, str] = {}
    for label, settings in panels:
        if not isinstance(label, str):
            raise SettingsError(f"The label {label!r} of a panel is not text.")
        facts = [None if settings is None else settings_text(settings), (own or {}).get(label, {})]
        same = json.dumps(_plain(facts), sort_keys=True)
        if label in labels.values():
            raise SettingsError(f"Two panels are called {label!r}: give each a label of its own.")
        if same in labels:
            raise SettingsError(f"The panels {labels[same]!r} and {label!r} have the same settings: leave one out.")
        labels[same] = label


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**common, **own}
    if common.get("extra") and own.get("extra"):
        merged["extra"] = {**common["extra"], **own["extra"]}
    return merged


def _plain(value: Any) -> Any:
    """A value as JSON has it, one text for equal values: 1.0 is 1, a picture is what is in it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        limits.finite("a number of the plan", value)
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return _file_digest(value)
    if hasattr(value, "tobytes") and hasattr(value, "mode"):  # a PIL picture
        return _content(as_rgb(value))
    raise SettingsError(f"{value!r} cannot be part of a plan: only JSON values and pictures.")


def _file_digest(path: Path) -> str:
    """Of a picture's pixels, so that the same picture opened or named is the same."""
    stat = path.stat() if path.is_file() else None
    return _picture_digest(path, stat and (stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=1024)
def _picture_digest(path: Path, version: Any) -> str:
    return _content(open_picture(path))


def _content(picture: Any) -> str:
    data = f"{picture.mode}{picture.size}".encode() + picture.tobytes()
    return "sha256:" + hashlib.sha256(data).hexdigest()
