"""Content credentials read from a file: whether they are valid, who signed, and what they claim. For `inspect`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import VideoFileError
from ...extras import require
from ...limits import ordinary
from .identity import SELF_MADE
from .signing import FORMATS, SETTINGS

_FORMATS = {**FORMATS, ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Credentials:
    """The content credentials of a file.

    present: whether there are any; the rest is empty without. valid: the signature holds and the file is as it was
    signed. trusted: whoever signed is on a list of trusted signers (none is given here, so it is False). problems:
    C2PA's codes of what does not hold. self_made: signed with a certificate that a computer made for itself. sources:
    IPTC's types of digital source that its actions name. claims: our own assertion. ingredients: the files that it was
    made from.
    """

    present: bool
    valid: bool = False
    trusted: bool = False
    problems: tuple[str, ...] = ()
    signed_by: str = ""
    self_made: bool = False
    generator: str = ""
    actions: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    claims: dict[str, Any] = field(default_factory=dict)
    ingredients: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_credentials(path: str | Path) -> Credentials:
    """The credentials of a video, picture or sound file.

    Raises:
        MissingExtraError: [credentials] is not installed. VideoFileError: the file cannot be read.
    """
    require("Reading content credentials", "credentials")
    import c2pa

    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:  # a container that cannot hold any
        return Credentials(False)
    try:
        with open(ordinary(path), "rb") as file, c2pa.Context() as context:
            reader = c2pa.Reader.try_create(kind, file, context=context)
            if reader is None:
                return Credentials(False)
            with reader:
                return _read(json.loads(reader.json()), str(reader.get_validation_state()))
    except OSError as error:
        raise VideoFileError(f"{path} cannot be read ({error.strerror or error}).") from error
    except c2pa.C2paError as error:
        return _unreadable(path, error)


def _unreadable(path: Path, error: Exception) -> Credentials:
    """Credentials that are there and broken are invalid; a file that holds none and is no video has none."""
    with open(ordinary(path), "rb") as file:
        there = b"c2pa" in file.read(1 << 20)
    return Credentials(there, problems=(str(error),) if there else ())


def _read(store: dict[str, Any], state: str) -> Credentials:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    data = {one["label"]: one.get("data", {}) for one in active.get("assertions", [])}
    actions = [one for label, value in data.items() if label.startswith("c2pa.actions") for one in value["actions"]]
    who = active.get("signature_info", {})
    generator: dict[str, Any] = next(iter(active.get("claim_generator_info", [])), {})
    codes = [one["code"] for one in store.get("validation_status", [])]
    return Credentials(
        True,
        valid=state in ("Valid", "Trusted"),
        trusted=state == "Trusted",
        problems=tuple(code for code in codes if code != "signingCredential.untrusted"),
        signed_by=who.get("common_name") or who.get("issuer") or "",
        self_made=who.get("issuer") == SELF_MADE,
        generator=" ".join(filter(None, (generator.get("name"), generator.get("version")))),
        actions=tuple(one.get("action", "") for one in actions),
        sources=tuple(one["digitalSourceType"].rsplit("/", 1)[-1] for one in actions if one.get("digitalSourceType")),
        claims=data.get(SETTINGS, {}),
        ingredients=tuple(map(_ingredient, active.get("ingredients", []))),
    )


def _ingredient(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": data.get("title", ""), "relationship": data.get("relationship", ""),
        "has_credentials": bool(data.get("active_manifest")),
    }  # fmt: skip
