"""The command line that makes a clip again, from the record in its file: for `inspect` and the gallery."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError
from ..limits import parse_json
from ..settings import Settings
from . import peers
from .media import read_comment


def record_in(path: Any) -> dict[str, Any] | None:
    """The record of how a clip was made, from the comment of its file; None where it carries none of ours.

    Raises:
        VideoFileError: the file cannot be read as a video.
    """
    try:
        found = parse_json(read_comment(path))
    except ValueError:
        return None
    return found if isinstance(found, dict) and ("restored" in found or {"prompt", "seed"} <= found.keys()) else None


def command_for(record: Mapping[str, Any], out: str) -> str:
    """The command line.

    Raises:
        SettingsError: no command has flags for these settings; the message names them.
    """
    words = ["enhance-a-video"]
    words += ["restore", record["restored"]["file"]] if "restored" in record else ["generate"]
    if record.get("model", "embedded") != "embedded":
        words += ["--model", record["model"]]
    if record.get("prompt"):
        words += ["--prompt", record["prompt"]]
    if record.get("noise") == 0:  # light alone, without a model
        return shlex.join([*words, "--noise", "0", "--out", out])
    words += ["--seed", str(record["seed"])]
    words += _restoring(record) if "restored" in record else _options(record.get("options", {}))
    return shlex.join([*words, *_knobs(record["settings"]), "--out", out])


def _restoring(record: Mapping[str, Any]) -> list[str]:
    words = ["--noise", f"{record['noise']:g}"] + ["--no-keep-detail"] * (not record["keep_detail"])
    words += ["--no-even-light"] * (not record["even_light"])
    return words + _options({name: record.get(name) for name in ("negative", "steps", "guidance", "overlap")})


def _options(options: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        if name == "extra":
            for key, inner in (value or {}).items():
                words += ["--set", f"{key}={inner if isinstance(inner, str) else json.dumps(inner)}"]
        elif name == "guider" and value is not None:
            words += ["--guider", _guider(value)]
        elif value is not None:
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def _guider(guider: Mapping[str, Any]) -> str:
    """Another method as --guider takes it: its name, and the knobs that are not at their defaults."""
    usual = peers.from_dict(guider["name"]).to_dict()
    knobs = {name: value for name, value in guider.items() if value != usual.get(name)}
    texts = []
    for name, value in knobs.items():
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(value, list):
            raise SettingsError(f"No flag sets {name}={value} of a guider: use generate(guider=...) in Python.")
        texts.append(f"{name}={json.dumps(value)}")
    return guider["name"] + (f": {','.join(texts)}" if texts else "")


def _knobs(settings: Mapping[str, Any] | None) -> list[str]:
    """The flags of an enhancement: those that differ from what the command does by itself."""
    if settings is None:
        return ["--no-enhance"]
    knobs = {n: settings[n] for n in ("odds", "strength", "temperature") if settings.get(n) is not None}
    if settings.get("policy") is not None or not knobs:
        raise SettingsError("Its policy has no flag of its own: write it into a profile, and give that with --policy.")
    others = {n: settings[n] for n in ("axis", "start", "end", "scale", "passes") if settings.get(n) is not None}
    try:
        same = Settings.from_dict({**knobs, **others}).to_dict()
        usual = Settings.from_dict(knobs).to_dict()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"Its settings are none of this version: {error}") from error
    changes = {name: value for name, value in settings.items() if name in same and name != "attention_maps"}
    other = [name for name, value in changes.items() if same[name] != value]
    if other:
        raise SettingsError(f"No flag sets {' and '.join(other)}: use enhance() in Python.")
    shown = {**knobs, **{name: value for name, value in others.items() if usual[name] != value}}
    if isinstance(odds := shown.get("odds"), Mapping):
        del shown["odds"]
        axes = [word for name, value in odds.items() for word in ("--axis", f"{name}={value:g}")]
        return axes + [word for name, value in shown.items() for word in (f"--{name}", _shown(value))]
    return [word for name, value in shown.items() for word in (f"--{name}", _shown(value))]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"
