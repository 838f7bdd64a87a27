"""Reads study.yaml into one frozen, validated `Study`: what is generated, what is measured, what is the baseline."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from ... import limits
from ...alternatives import Change, alternative_from_dict
from ...embedded import checker, world
from ...errors import EnhanceAVideoError, PromptError, SettingsError
from ...generation import peers
from ...generation.files import named, reserved, text_of
from ...generation.measures import Measure
from ...generation.pipelines import EMBEDDED, check_load
from ...generation.prompts import checked_prompt
from ...generation.requests import (
    OPTIONS,
    ClipRequest,
    Prompt,
    as_text,
    check_option,
    expand,
    located,
    read_prompts,
    settings_text,
)
from ...settings import Settings
from ..metrics import MEASURES
from ..stats import CORRECTIONS

MODEL = "model"  # the name of the factor when a study has several
LOAD = ("dtype", "device", "offload", "vae_tiling", "batch")  # of pipelines.load, and how many clips at once


@dataclass(frozen=True)
class Power:
    """What the study should be able to find: a change by `effect` of the baseline's mean, with this chance.

    effects: another share for single measures (5 % of a steadiness of 0.98 would be beyond perfect).
    """

    effect: float = 0.05
    power: float = 0.8
    effects: Mapping[str, float] = field(default_factory=dict)

    def effect_on(self, measure: str) -> float:
        return self.effects.get(measure, self.effect)


@dataclass(frozen=True)
class Videos:
    """keep: a small mp4 of every clip (else those that are shown are generated again). show: settings; count: of
    each of worst, random, best."""

    keep: bool = True
    show: tuple[str, ...] = ()
    count: int = 10


@dataclass(frozen=True)
class Trial:
    """One clip of the study, and what it is paired by: everything but its label."""

    model: str
    condition: Mapping[str, Any]  # the varied options, and the model where there are several
    prompt: int  # index into Study.prompts
    item: ClipRequest

    @property
    def pair(self) -> tuple[str, str, int, int]:
        return self.model, json.dumps(self.condition, sort_keys=True), self.prompt, self.item.seed


@dataclass(frozen=True)
class Study:
    """A study, read and checked: see docs/guide/study.md for the file's words."""

    name: str
    models: tuple[str, ...]
    load: Mapping[str, Any]
    prompts: tuple[Prompt, ...]  # each with its seeds
    settings: Mapping[str, Change | None]  # label -> settings, the baseline first
    options: Mapping[str, Any]  # of pipelines.generate, the same for all clips
    varied: Mapping[str, tuple[Any, ...]]  # of pipelines.generate, each value a condition of its own
    measures: tuple[Measure, ...]
    pooled: tuple[str, ...]  # measures that go into the pooled score, all with a direction
    correction: str = "holm"
    power: Power = Power()
    videos: Videos = Videos()
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # label -> options of that setting alone
    scenes: range | None = None  # the held-out scenes that the prompts describe, where they do
    text: str = ""  # the file

    @property
    def baseline(self) -> str:
        return next(iter(self.settings))

    @property
    def others(self) -> tuple[str, ...]:
        """The settings that are compared with the baseline."""
        return tuple(self.settings)[1:]

    @property
    def truth(self) -> bool:
        """Whether any measure comes from the embedded world's checker."""
        return any(row.truth for row in self.measures)

    @property
    def factors(self) -> dict[str, tuple[Any, ...]]:
        """What the study varies besides the settings: name -> values."""
        return ({MODEL: self.models} if len(self.models) > 1 else {}) | dict(self.varied)

    @property
    def digest(self) -> str:
        """16 hex digits of everything that decides the numbers; not of comments, names of files or videos."""
        facts = {
            "models": self.models,
            "load": {name: value for name, value in self.load.items() if name in ("dtype", "vae_tiling", "batch")},
            "prompts": [[p.text, p.seeds, {k: str(v) for k, v in as_text(p.options).items()}] for p in self.prompts],
            "settings": {label: s and settings_text(s) for label, s in self.settings.items()},
            **({"own": {label: as_text(options) for label, options in self.own.items()}} if self.own else {}),
            "options": as_text(self.options),
            "varied": self.varied,
            "measures": [row.name for row in self.measures],
            "pooled": self.pooled,
            "correction": self.correction,
            "power": asdict(self.power),
        }
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def conditions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every model under every combination of the varied options: (model, values of the factors)."""
        for model in self.models:
            named = {MODEL: model} if len(self.models) > 1 else {}
            for values in product(*self.varied.values()):
                yield model, named | dict(zip(self.varied, values, strict=True))

    def trials(self, first: int | None = None) -> list[Trial]:
        """Every clip, a prompt's together (so that an interrupted study is made of whole pairs), models outermost.

        Args:
            first: only the first so many prompts.
        """
        panels = list(self.settings.items())
        found = []
        for model, condition in self.conditions():
            options = {**self.options, **{k: v for k, v in condition.items() if k != MODEL}}
            for index, prompt in enumerate(self.prompts[:first]):
                items = expand([prompt], prompt.seeds or (), panels, options, self.own)
                found += [Trial(model, condition, index, item) for item in items]
        order = {model: n for n, model in enumerate(self.models)}
        return sorted(found, key=lambda trial: (order[trial.model], trial.prompt, trial.item.seed))


# ---------------------------------------------------------------------------------------------------- reading


def read_study(path: str | Path) -> Study:
    """A study from its YAML file.

    Raises:
        SettingsError: an unreadable file, unknown or repeated keys (the nearest known one is named), values that
            do not fit; PromptError for prompts that cannot be used.
    """
    path = Path(path)
    text = text_of(path, "The study", SettingsError)
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SettingsError(f"{path} is nested too deeply.") from None
    try:
        return parse_study(data, folder=path.parent, text=text, name=path.stem)
    except EnhanceAVideoError as error:
        raise type(error)(f"{path}: {error}") from error


def parse_study(data: Any, *, folder: Path = Path("."), text: str = "", name: str = "study") -> Study:
    """A study from the value of its YAML. `folder`: files named in it are relative to this. Errors: `read_study`."""
    data = _keys("the study", data, _READERS)
    limits.finite("the study", data)
    for needed in ("prompts", "settings"):
        if needed not in data:
            raise SettingsError(f"a study needs {needed!r}; found {', '.join(map(repr, data)) or 'nothing'}.")
    got = {key: read(data.get(key), folder) for key, read in _READERS.items()}
    prompts, embedded = got["prompts"]
    own = {label: options for label, (_, options) in got["settings"].items() if options}
    settings = _baseline_first({label: one for label, (one, _) in got["settings"].items()}, own, got["baseline"])
    options, varied = got["options"]
    _not_varied(own, varied)
    _no_overlap(prompts, varied)
    _not_too_many(len(prompts), got)
    of_the_world = (embedded or got["model"] == (EMBEDDED,)) and _in_its_size(prompts, options, varied)
    known = measures_of(prompts, of_the_world)
    study = Study(
        name=got["name"] or name,
        models=got["model"],
        load=got["load"],
        prompts=_with_seeds(prompts, got["seeds"], embedded),
        settings=settings,
        options=options,
        varied=varied,
        measures=_choose("measures", got["measures"], known),
        pooled=(),
        correction=got["correction"],
        power=got["power"],
        videos=got["videos"],
        own=own,
        scenes=embedded,
        text=text,
    )
    directed = [row for row in study.measures if row.better != "neither"]
    pooled = tuple(row.name for row in _choose("pooled", got["pooled"], directed, "that the study takes"))
    _names("power: effects", study.power.effects, [row.name for row in study.measures])
    _names("videos: show", study.videos.show, study.others)
    study = replace(study, pooled=pooled)
    list(study.trials(1))  # conflicts between settings show here
    return study


def measures_of(prompts: Sequence[Prompt], embedded: bool) -> list[Measure]:
    """The measures there are for these prompts: with the checker's truth where they are of the embedded world."""
    truth = checker.TRUTH_MEASURES
    return [*(truth if embedded and all(_understood(prompt.text) for prompt in prompts) else ()), *MEASURES.values()]


def _in_its_size(prompts: Sequence[Prompt], options: Mapping[str, Any], varied: Mapping[str, Any]) -> bool:
    """Whether every clip is as large as the embedded world, the only size that its checker takes."""
    given = [options, *(prompt.options for prompt in prompts)]
    sizes = {one.get(side) for one in given for side in ("height", "width")}
    sizes |= {size for side in ("height", "width") for size in varied.get(side, ())}
    return sizes <= {None, world.SIZE}


def _understood(text: str) -> bool:
    try:
        world.parse_caption(text)
    except PromptError:
        return False
    return True


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that is there twice is an error: the second would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # '<<': what is merged in may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# ------------------------------------------------------------------------------------- one key of the file each


def _name(value: Any, _: Path) -> str:
    if value is None:
        return ""
    text = value.strip() if isinstance(value, str) else ""
    odd = set(text) & set('/\\:*?"<>|') or text.strip(".") != text or reserved(text)
    if odd or not text.isprintable() or not 0 < len(text) <= 80:
        raise SettingsError(f"name: {value!r} cannot name a folder. Give letters, digits and dashes.")
    return text


def _model(value: Any, folder: Path) -> tuple[str, ...]:
    names = [EMBEDDED] if value is None else value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise SettingsError(f"model: {value!r}; give 'embedded', a folder or a hub id, or a list of such names.")
    if len(set(names)) < len(names):
        raise SettingsError(f"model: a name is there twice in {names}.")
    return tuple(_located(name, folder) for name in names)


def _located(name: str, folder: Path) -> str:
    """A folder beside the study's file, if there is one of this name; else the name as it is."""
    beside = folder / named(name)
    return str(beside) if name != EMBEDDED and not Path(name).is_absolute() and beside.is_dir() else name


def _load(value: Any, _: Path) -> dict[str, Any]:
    given = _keys("load", value, LOAD)
    for key, inner in given.items():
        if key == "batch":
            limits.whole("load: batch", inner, 1, 1024)
            continue
        wanted: type = bool if key == "vae_tiling" else str
        if not isinstance(inner, wanted):
            raise SettingsError(f"load: {key}: {inner!r} is not {'true or false' if wanted is bool else 'text'}.")
    check_load({key: inner for key, inner in given.items() if key != "batch"})
    return given


def _prompts(value: Any, folder: Path) -> tuple[tuple[Prompt, ...], range | None]:
    """Prompts, and for held-out scenes of the embedded world which ones."""
    if isinstance(value, str):
        prompts: Iterable[Prompt] = read_prompts(folder / named(value, "prompts"))
    elif isinstance(value, list) and value:
        prompts = [Prompt(checked_prompt(text, f"prompts, number {n}").strip()) for n, text in enumerate(value, 1)]
    elif isinstance(value, Mapping):
        which = _keys("prompts", value, ("embedded",)).get("embedded")
        which = _keys("prompts: embedded", which, ("first", "count"))
        first = limits.whole("prompts: embedded: first", which.get("first", 0), 0, 2**31)
        count = limits.whole("prompts: embedded: count", which.get("count"), 1, 100_000)
        scenes = range(first, first + count)
        return tuple(Prompt(held_out_prompt(i)) for i in scenes), scenes
    else:
        raise SettingsError(
            f"prompts: {value!r}; give a list of texts, the name of a .txt or .jsonl file, "
            "or {embedded: {first: 0, count: 200}}."
        )
    found = tuple(prompts)
    texts = [prompt.text for prompt in found]
    for number, text in enumerate(texts):
        if text in texts[:number]:
            raise SettingsError(f"prompts: {text!r} is there twice. For more clips of a prompt, give more seeds.")
    return found, None


def held_out_prompt(index: int) -> str:
    """The sentence of held-out scene `index`: scenes that the embedded models' training never draws."""
    import numpy as np

    return world.caption(world.held_out_scene(index), np.random.default_rng((3, index)))


def _seeds(value: Any, _: Path) -> int | tuple[int, ...]:
    if value is None:
        return 1
    if isinstance(value, list):
        if not value or len(set(map(str, value))) < len(value):
            raise SettingsError(f"seeds: {value!r}; give different whole numbers.")
        return limits.seeds(value)
    return limits.whole("seeds", value, 1, limits.MAX_CLIPS)


def _settings(value: Any, folder: Path) -> dict[str, tuple[Change | None, dict[str, Any]]]:
    """label -> what the setting changes in the model, and its own options."""
    if not isinstance(value, Mapping) or len(value) < 2:
        raise SettingsError(
            f"settings: {value!r}; give two or more with a label each: 'plain: null' is the plain model, "
            "'default: {}' the default, 'paper: {temperature: 4, start: 0, end: 1}' any knobs, "
            "'flat: {alternative: logit_temperature, tau: 1.1}' what the method is compared with."
        )
    found: dict[str, tuple[Change | None, dict[str, Any]]] = {}
    for label, knobs in value.items():
        if not isinstance(label, str) or not label.strip():
            raise SettingsError(f"settings: the label {label!r} is not text: put it in quotes.")
        knobs, options = _own(label, knobs)
        if knobs is not None and not _is_alternative(knobs):
            _keys(f"settings: {label}", knobs, [*Settings().to_dict(), "alternative", *_OWN])
        try:
            for name, one in options.items():
                check_option(name, one)
            if "guider" in options:
                options["guider"] = peers.from_dict(options["guider"]).to_dict()
            found[label] = (None if knobs is None else _change(knobs, folder)), options
        except SettingsError as error:
            raise SettingsError(f"settings: {label}: {error}") from None
    return found


_OWN = ("guider", "steps", "guidance")  # options that a setting may have of its own, beside its knobs


def _own(label: str, knobs: Any) -> tuple[Any, dict[str, Any]]:
    """The knobs and the options of a setting. Options alone leave the model plain."""
    if not isinstance(knobs, Mapping) or not any(name in knobs for name in _OWN):
        return knobs, {}
    options = {name: knobs[name] for name in _OWN if knobs.get(name) is not None}
    return {name: value for name, value in knobs.items() if name not in _OWN} or None, options


def _change(knobs: Mapping[str, Any], folder: Path) -> Change:
    if _is_alternative(knobs):
        if not isinstance(knobs["alternative"], str):
            raise SettingsError(f"alternative: {knobs['alternative']!r} is not the name of one.")
        return alternative_from_dict(knobs)
    if isinstance(knobs.get("policy"), str):  # a profile, whose name is relative to the file as all names in it are
        knobs = {**knobs, "policy": str(folder / named(knobs["policy"], "policy"))}
    return Settings.from_dict(knobs)


def _is_alternative(knobs: Any) -> bool:
    return isinstance(knobs, Mapping) and "alternative" in knobs


def _options(value: Any, folder: Path) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Options that are the same for all clips, and those that are varied."""
    fixed: dict[str, Any] = {}
    varied: dict[str, tuple[Any, ...]] = {}
    for name, given in _keys("options", value, OPTIONS).items():
        values = given if isinstance(given, list) else [given]
        for one in values:
            check_option(name, one)
        if len({json.dumps(one) for one in values}) < len(values) or not values:
            raise SettingsError(f"options: {name}: {given!r}; give different values.")
        values = [located({name: one}, folder)[name] for one in values]
        if len(values) == 1:
            fixed[name] = values[0]
        elif name in ("extra", "image"):
            raise SettingsError(f"options: {name} cannot be varied: give one.")
        else:
            varied[name] = tuple(values)
    return fixed, varied


def _power(value: Any, _: Path) -> Power:
    given = _keys("power", value, ("effect", "power", "effects"))
    effects = {} if given.get("effects") is None else given["effects"]
    if not isinstance(effects, Mapping):
        raise SettingsError(f"power: effects: {effects!r}; give a share for each measure, as in {{jerk: 0.2}}.")
    for where, number in (("effect", given.get("effect", 0.05)), *((f"effects: {k}", v) for k, v in effects.items())):
        limits.number(f"power: {where} (a share of the baseline's mean)", number, 1e-6, 1000)
    chance = given.get("power", 0.8)
    limits.number("power: power (a chance)", chance, 0.01, 0.9999)
    return Power(float(given.get("effect", 0.05)), float(chance), {str(k): float(v) for k, v in effects.items()})


def _videos(value: Any, _: Path) -> Videos:
    given = _keys("videos", value, ("keep", "show", "count"))
    show = [] if given.get("show") is None else given["show"]
    keep = given.get("keep", True)
    if not isinstance(keep, bool) or not isinstance(show, list):
        raise SettingsError("videos: keep is true or false, show is a list of labels of settings.")
    return Videos(keep, tuple(show), limits.whole("videos: count", given.get("count", 10), 0, 10_000))


def _correction(value: Any, _: Path) -> str:
    name = "holm" if value is None else str(value)
    _names("correction", [name], CORRECTIONS)
    return name


def _measures(value: Any, _: Path) -> list[str] | None:
    """Names; None for all."""
    if value in (None, "all"):
        return None
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise SettingsError(f"measures and pooled are 'all' or a list of names; found {value!r}.")
    return value


_READERS: dict[str, Any] = {
    "name": _name, "model": _model, "load": _load, "prompts": _prompts, "seeds": _seeds, "settings": _settings,
    "baseline": lambda value, _: value, "options": _options, "measures": _measures, "pooled": _measures,
    "correction": _correction, "power": _power, "videos": _videos,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------ checks


def _keys(where: str, value: Any, known: Iterable[str]) -> dict[str, Any]:
    if value is None:  # the key is there and nothing behind it
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where}: {value!r} is not a mapping of names to values.")
    _names(where, value, known)
    return dict(value)


def _names(where: str, given: Iterable[Any], known: Iterable[str]) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.5)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise SettingsError(f"{where}: {name!r} is unknown. {hint}Known: {', '.join(known)}.")


def _not_too_many(prompts: int, got: Mapping[str, Any]) -> None:
    """SettingsError where the clips of the study are too many to be listed."""
    seeds = got["seeds"] if isinstance(got["seeds"], int) else len(got["seeds"])
    conditions = math.prod(len(values) for values in got["options"][1].values()) * len(got["model"])
    limits.clips(prompts * seeds * conditions * len(got["settings"]))


def _choose(where: str, names: list[str] | None, known: Sequence[Measure], which: str = "for these prompts") -> Any:
    if names is None:
        return tuple(known)
    try:
        _names(where, names, [row.name for row in known])
    except SettingsError as error:
        more = "those with a direction " if where == "pooled" else ""
        raise SettingsError(f"{error} (There are {more}{which}.)") from None
    return tuple(row for row in known if row.name in names)


def _baseline_first(
    settings: dict[str, Change | None], own: Mapping[str, Any], baseline: Any
) -> dict[str, Change | None]:
    """The baseline in front: the one named, else the one that is null. own: label -> options of that setting alone."""
    plain = [label for label, knobs in settings.items() if knobs is None and label not in own]
    if baseline is None:
        if len(plain) != 1:
            raise SettingsError(f"baseline: name one of the settings ({', '.join(settings)}).")
        baseline = plain[0]
    _names("baseline", [baseline], settings)
    return {baseline: settings[baseline]} | settings


def _no_overlap(prompts: Sequence[Prompt], varied: Mapping[str, Any]) -> None:
    for prompt in prompts:
        both = [name for name in varied if name in prompt.options]
        if both:
            raise SettingsError(
                f"options: {both[0]} is varied, but the prompt {prompt.text!r} brings its own. Leave one of them out."
            )


def _not_varied(own: Mapping[str, Mapping[str, Any]], varied: Mapping[str, Any]) -> None:
    for label, options in own.items():
        if both := [name for name in options if name in varied]:
            raise SettingsError(
                f"options: {both[0]} is varied, but the setting {label!r} has its own. Leave one of them out."
            )


def _with_seeds(prompts: Sequence[Prompt], seeds: int | tuple[int, ...], scenes: range | None) -> tuple[Prompt, ...]:
    """Each prompt with its seeds. A count gives every prompt noise of its own, so that the study samples both."""
    found = []
    for number, prompt in zip(scenes or range(len(prompts)), prompts, strict=True):
        own = tuple(range(number * seeds, (number + 1) * seeds)) if isinstance(seeds, int) else seeds
        found.append(prompt if prompt.seeds is not None else replace(prompt, seeds=own))
    return tuple(found)
