"""A policy in a file: what was found for a model, how, and what it was worth."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..limits import ordinary, parse_json
from .base import from_dict, to_dict

VERSION = 1


@dataclass(frozen=True)
class Profile:
    """policy: of this package. made_for: models it was found on. found: how (method, budget, reward, date).
    study: rows of the study that confirmed it, as its table has them."""

    policy: Any
    made_for: tuple[str, ...] = ()
    found: Mapping[str, Any] = field(default_factory=dict)
    study: tuple[Mapping[str, Any], ...] = ()

    def text(self) -> str:
        """The file's text."""
        data = {
            "enhance-a-video profile": VERSION,
            "policy": to_dict(self.policy),
            "made_for": list(self.made_for),
            "found": dict(self.found),
            "study": [dict(row) for row in self.study],
        }
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def read_profile(path: str | Path) -> Profile:
    """The profile in a file, or a bare policy's object.

    Raises SettingsError: no such file, not JSON, a later version, a policy that is not known.
    """
    if not isinstance(path, str | Path):
        raise SettingsError(f"{path!r} is not the path of a profile.")
    path = Path(path).expanduser()
    try:
        data = parse_json(ordinary(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The profile {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise SettingsError(f"{path} is not a profile: it is not JSON ({error}).") from None
    if not isinstance(data, dict) or ("policy" not in data and "name" not in data):
        raise SettingsError(f"{path} is not a profile: there is no policy in it.")
    version = data.get("enhance-a-video profile", VERSION)
    if version != VERSION:
        raise SettingsError(f"{path} is a profile of version {version}; this package reads {VERSION}. Update it.")
    try:
        policy = from_dict(data.get("policy", data))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    if "policy" not in data:
        return Profile(policy)
    made_for, found, study = data.get("made_for", []), data.get("found", {}), data.get("study", [])
    if not isinstance(made_for, list) or not isinstance(found, dict) or not isinstance(study, list):
        raise SettingsError(f"{path} is not a profile: made_for and study are lists, found is an object.")
    if not all(isinstance(name, str) for name in made_for) or not all(isinstance(row, dict) for row in study):
        raise SettingsError(f"{path} is not a profile: made_for lists names of models, study rows of a table.")
    return Profile(policy, tuple(made_for), found, tuple(study))
