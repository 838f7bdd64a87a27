"""`Form`, the settings of one clip to make: from the page's fields, from a clip's record, from a link.

A form holds what the engine needs and nothing of the page: prompt, seed, model, settings, options of generating, how
the model is loaded. The queue, the gallery and links keep it as JSON.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import limits
from ..errors import PromptError, SettingsError
from ..generation import files
from ..generation.loading import EMBEDDED
from ..generation.prompts import checked_prompt
from ..generation.requests import ClipRequest, check_option
from ..generation.restore import NOISE
from ..settings import Settings

OFF, OWN = "off", "own numbers"
EFFECTS: dict[str, Settings | None] = {
    OFF: None, "gentle": Settings(odds=1.5), "standard": Settings(), "strong": Settings(odds=3.0),
}  # fmt: skip
KNOBS = ("odds", "strength", "temperature", "start", "end")
NUMBERS = ("steps", "guidance", "frames", "width", "height", "fps")
LOADING = {"dtype": "auto", "device": "auto", "offload": "none", "vae_tiling": False}
MOST = 1000  # forms from one press of the button
PLAIN, ENHANCED = "plain", "enhanced"


@dataclass(frozen=True)
class Form:
    """One prompt with one seed. settings: of `Settings.from_dict`, None for the plain model alone; with settings both
    are made, plain and enhanced. options: of `pipelines.generate`. load: of `pipelines.load`, what is not usual.
    restores: "ID/LABEL" of a clip in the gallery that is restored instead, at this noise; "": a clip is made."""

    prompt: str
    seed: int = 0
    model: str = EMBEDDED
    settings: Mapping[str, Any] | None = field(default_factory=lambda: Settings().to_dict())
    options: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    restores: str = ""
    noise: float = NOISE

    def __post_init__(self) -> None:
        checked_prompt(self.prompt)
        limits.seed(self.seed)
        limits.number("noise", self.noise, 0, 1)
        if not isinstance(self.restores, str):
            raise SettingsError(f"restores={self.restores!r}, but text is wanted.")
        if not isinstance(self.model, str) or not self.model.strip():
            raise SettingsError("No model: choose embedded, or write a folder or a hub id (owner/name).")
        for name, given in (("options", self.options), ("load", self.load)):
            if not isinstance(given, Mapping):
                raise SettingsError(f"{name}={given!r}, but an object is wanted.")
        for name, value in self.options.items():
            if name not in (*NUMBERS, "negative", "extra", "image"):
                raise SettingsError(f"{name!r} is no option of this page.")
            check_option(name, value)
        for name, value in self.load.items():
            if name not in LOADING or type(value) is not type(LOADING[name]):
                raise SettingsError(f"{name}={value!r} is no way of loading a model.")
        if self.settings is not None:
            Settings.from_dict(self.settings)

    def panels(self) -> list[tuple[str, Settings | None]]:
        """The clips of this form: label and settings."""
        if self.settings is None:
            return [(PLAIN, None)]
        return [(PLAIN, None), (ENHANCED, Settings.from_dict(self.settings))]

    def items(self) -> list[ClipRequest]:
        return [ClipRequest(self.prompt, self.seed, label, how, dict(self.options)) for label, how in self.panels()]

    @property
    def effect(self) -> str:
        """The word for the settings, or "own numbers"."""
        if self.settings is None:
            return OFF
        own = Settings.from_dict(self.settings).to_dict()
        return next((word for word, known in EFFECTS.items() if known and known.to_dict() == own), OWN)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Form:
        """The inverse of to_dict. SettingsError, PromptError: it is none."""
        known = tuple(cls.__dataclass_fields__)
        if not isinstance(data, Mapping) or "prompt" not in data or set(data) - set(known):
            raise SettingsError(f"These are no settings of the page: known are {', '.join(known)}.")
        if not isinstance(data["prompt"], str):
            raise PromptError(f"prompt={data['prompt']!r}, but text is wanted.")
        return cls(**data)


# ------------------------------------------------------------------------------------------------- from the fields


def forms_from(values: Mapping[str, Any]) -> list[Form]:
    """The page's fields as forms: every line of the prompt with every seed.

    Args:
        values: prompt, seeds, model, effect, negative, further and arguments as text, `vae_tiling` as a bool, and those
            of KNOBS and NUMBERS as numbers or text, None or "" where a field is empty.

    Raises:
        SettingsError, PromptError: what cannot be used, in a sentence.
    """
    prompts = [line.strip() for line in str(values.get("prompt") or "").splitlines() if line.strip()]
    if not prompts:
        raise PromptError("The prompt is empty: describe in a sentence what the video shows.")
    seeds = seeds_of(str(values.get("seeds") or "0"))
    if len(prompts) * len(seeds) > MOST:
        raise SettingsError(
            f"{len(prompts)} prompts with {len(seeds)} seeds are more than {MOST} clips: fewer of them."
        )
    same: dict[str, Any] = {
        "model": str(values.get("model") or EMBEDDED).strip(), "settings": _settings(values),
        "options": _options(values), "load": _load(values),
    }  # fmt: skip
    return [Form(prompt, seed, **same) for prompt in prompts for seed in seeds]


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds from text such as "0", "3, 7" or "0-7"."""
    found: list[int] = []
    for part in filter(None, re.split(r"[,;\s]+", text.strip())):
        ends = re.fullmatch(r"(\d{1,20})(?:[-–](\d{1,20}))?", part)
        if not ends:
            raise SettingsError(f"Seeds are whole numbers such as 0, or 3, 7, or 0-7; {part!r} is none.")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not first <= last < first + MOST:
            raise SettingsError(f"The seeds {part} are none, or more than {MOST}.")
        found += range(first, last + 1)
    return limits.seeds(list(dict.fromkeys(found)) or [0])


def _settings(values: Mapping[str, Any]) -> dict[str, Any] | None:
    effect = values.get("effect") or "standard"
    if effect != OWN:
        if effect not in EFFECTS:
            raise SettingsError(f"The effect {effect!r} is unknown: choose one of {', '.join((*EFFECTS, OWN))}.")
        known = EFFECTS[effect]
        return None if known is None else known.to_dict()
    given = {name: value for name in KNOBS if (value := _number(name, values.get(name))) is not None}
    further = _json(values, "further", "Further settings")
    return Settings.from_dict({**further, **given}).to_dict()


def _options(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {n: v for n in NUMBERS if (v := _number(n, values.get(n))) is not None}
    if str(values.get("negative") or "").strip():
        found["negative"] = str(values["negative"]).strip()
    if extra := _json(values, "arguments", "Further arguments"):
        found["extra"] = extra
    if values.get("image"):
        found["image"] = str(values["image"])
    return found


def _number(name: str, value: Any) -> int | float | None:
    """A field's number, whole where it is written so; None for an empty field."""
    if value is None or isinstance(value, int | float):
        return value
    text = str(value).strip().replace("−", "-")
    if not text:
        return None
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    try:
        found = float(text.replace(",", "."))
    except ValueError:
        raise SettingsError(f"{name.capitalize()} is a number; {text[:40]!r} is none.") from None
    limits.number(name, found)
    return found


def _load(values: Mapping[str, Any]) -> dict[str, Any]:
    return {n: values[n] for n, usual in LOADING.items() if values.get(n) not in (None, "", usual)}


def _json(values: Mapping[str, Any], name: str, title: str) -> dict[str, Any]:
    text = str(values.get(name) or "").strip()
    if not text:
        return {}
    try:
        found = limits.parse_json(text)
    except ValueError as error:
        raise SettingsError(f'{title} are no JSON ({error}): write them as {{"name": value}}.') from None
    if not isinstance(found, dict):
        raise SettingsError(f'{title} are an object, written {{"name": value}}.')
    return found


def values_of(form: Form) -> dict[str, Any]:
    """A form as the page's fields: the inverse of forms_from."""
    settings = dict(form.settings or {})
    own = form.effect == OWN
    usual = {n: v for n, v in Settings().to_dict().items() if n not in (*KNOBS, "odds")}
    by_axis = {"odds": settings.pop("odds")} if isinstance(settings.get("odds"), Mapping) else {}
    further = {n: v for n, v in settings.items() if n not in KNOBS and v is not None and usual.get(n) != v} | by_axis
    options = dict(form.options)
    extra = options.pop("extra", None)
    return {
        "prompt": form.prompt, "seeds": str(form.seed), "model": form.model, "effect": form.effect,
        **{name: _text(settings.get(name)) if own else "" for name in KNOBS},
        "further": json.dumps(further) if own and further else "",
        "negative": options.get("negative", ""), **{name: _text(options.get(name)) for name in NUMBERS},
        "image": options.get("image"), "arguments": json.dumps(extra) if extra else "", **(LOADING | dict(form.load)),
    }  # fmt: skip


def _text(value: Any) -> str:
    return "" if value is None else f"{value!r}"


# ----------------------------------------------------------------------------------------------- from a clip's record


def form_of(record: Mapping[str, Any]) -> Form:
    """The form that makes a clip again, from its record: that of `generate`, `compare`, `batch` or this page.

    Raises:
        SettingsError: the record has no prompt, seed or settings, or ones that cannot be used here.
    """
    if not isinstance(record.get("prompt"), str) or "seed" not in record or "settings" not in record:
        raise SettingsError("The clip's comment holds no settings of Enhance-A-Video.")
    given = record.get("options") or {}
    if not isinstance(given, Mapping):
        raise SettingsError("The clip's comment holds no settings of Enhance-A-Video.")
    options = {n: v for n, v in given.items() if n in (*NUMBERS, "negative", "extra") and v is not None}
    model = record.get("model") or EMBEDDED
    return Form(record["prompt"], record["seed"], str(model), record["settings"], options)


# -------------------------------------------------------------------------------------------------- links and presets


def link_of(form: Form) -> str:
    """The part of an address that carries a form: "?s=...". A model in a folder of this machine is left out."""
    options = {name: value for name, value in form.options.items() if name != "image"}
    shared = replace(form, load={}, options=options, restores="", model=form.model if _public(form.model) else EMBEDDED)
    text = json.dumps(shared.to_dict(), separators=(",", ":"))
    return "?s=" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def form_from_link(text: str) -> Form:
    """The form in a link's "s". SettingsError, PromptError: there is none in it."""
    try:
        data = limits.parse_json(base64.urlsafe_b64decode(text[:20_000] + "=" * (-len(text) % 4)))
    except ValueError:
        raise SettingsError("The link's settings are damaged: copy the whole link.") from None
    form = Form.from_dict(data)
    if form.restores or "image" in form.options:
        raise SettingsError("The link names a file of the machine that made it: make the link again.")
    return replace(form, load={}, model=form.model if _public(form.model) else EMBEDDED)


def _public(model: str) -> bool:
    return model == EMBEDDED or (bool(re.fullmatch(r"[\w.-]+/[\w.-]+", model)) and not Path(model).exists())


class Presets:
    """Named settings in a file, beside those that come with the page. A preset has no prompt and no seed of its own."""

    OURS: dict[str, Form] = {  # noqa: RUF012
        "the model's own": Form("-"),
        "a quick preview (6 steps)": Form("-", options={"steps": 6}),
        "the paper's method": Form("-", settings=Settings(temperature=4, start=0.0, end=1.0).to_dict()),
    }

    def __init__(self, file: Path) -> None:
        self.file = file

    def all(self) -> dict[str, Form]:
        """Ours, then the user's. VideoFileError, SettingsError: the file cannot be read."""
        return {**self.OURS, **_read_forms(self.file)}

    def save(self, name: str, form: Form) -> None:
        """Keeps a form under a name. SettingsError: no name, or one of ours."""
        name = " ".join(name.split())[:60]
        if not name or name in self.OURS:
            raise SettingsError("Give the preset a name of its own.")
        kept = {**_read_forms(self.file), name: replace(form, prompt="-", seed=0)}
        text = json.dumps({one: form.to_dict() for one, form in kept.items()}, indent=1)
        files.write_text(self.file, text, force=True)


def _read_forms(file: Path) -> dict[str, Form]:
    if not file.exists():
        return {}
    with files.explained(file, "read"):
        text = file.read_text(encoding="utf-8")
    try:
        data = limits.parse_json(text)
        return {str(name): Form.from_dict(one) for name, one in data.items()}
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"{file.name} is damaged ({error}): delete it to begin anew.") from None
