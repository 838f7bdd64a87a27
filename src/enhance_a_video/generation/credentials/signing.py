"""Signs videos: a claim about how a clip was made, bound to the file's bytes. The last step of writing one.

Whether clips are labelled is decided once for a command, with its processes: `chosen`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...errors import MissingExtraError, UnlabelledWarning
from ...extras import require
from .. import watermark
from .identity import identity

OFF = "ENHANCE_A_VIDEO_CREDENTIALS"  # "off": no clip is labelled
SETTINGS = "org.enhance-a-video.settings"  # the label of our own assertion
_SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE, EDITED = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
CORRECTED = "algorithmicallyEnhanced"  # an edit without any model: restore --noise 0
FORMATS = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".avi": "video/x-msvideo",
    ".webp": "image/webp", ".gif": "image/gif", ".png": "image/png", ".wav": "audio/wav",
}  # fmt: skip
_SOURCE_FORMATS = {**FORMATS, ".webm": "video/webm", ".mkv": "video/x-matroska"}  # that carry no credentials themselves


@dataclass(frozen=True)
class Claim:
    """The content of a video's credentials: how it was made (a record, such as that of an mp4's comment), and the file
    that was edited, if one was. Prompts go in as hashes, names of the computer and of files not at all."""

    record: Mapping[str, Any]
    source: Path | None = None

    def data(self) -> dict[str, Any]:
        """Our assertion: model, settings, seed and versions."""
        names = ("model", "seed", "settings", "noise", "keep_detail", "even_light", "starts", "enhancement")
        found = {name: self.record[name] for name in names if self.record.get(name) is not None}
        if isinstance(found.get("model"), str) and Path(found["model"]).exists():  # a folder of this computer
            found["model"] = Path(found["model"]).name
        options = {**self.record.get("options", {}), **{n: self.record[n] for n in ("negative", "steps", "guidance")
                                                        if self.record.get(n) is not None}}  # fmt: skip
        for name, text in (("prompt", self.record.get("prompt")), ("negative", options.pop("negative", None))):
            if text:
                found[f"{name}_sha256"] = hashlib.sha256(str(text).encode("utf-8", "backslashreplace")).hexdigest()
        if watermark.wanted():
            found["watermark"] = watermark.NAME
        plain = {name: value for name, value in options.items() if isinstance(value, int | float | bool)}
        about = {name: value for name, value in self.record.get("about", {}).items() if name != "host"}
        return _plain(json.loads(json.dumps({**found, "options": plain, "about": about}, default=str)))


def _plain(value: Any) -> Any:
    """JSON that C2PA takes: integers of 64 bits with a sign and finite numbers; others become text."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    odd = (isinstance(value, int) and abs(value) >= 2**63) or (isinstance(value, float) and not math.isfinite(value))
    return str(value) if odd else value


def unlabelled() -> str | None:
    """Why clips are not labelled in this process, as a sentence; None where they are."""
    if os.environ.get(OFF, "").lower() in ("off", "0", "false", "no"):
        return "Content credentials are switched off: the clips do not say that a model made them."
    try:
        require("Labelling clips as made by a model (content credentials)", "credentials")
    except MissingExtraError as error:
        return f"The clips carry no content credentials, so they do not say that a model made them. {error}"
    return None


@contextmanager
def chosen(wanted: bool, notice: Callable[[str], None]) -> Iterator[None]:
    """For a command and the processes that it starts: whether its clips are labelled.

    Args:
        wanted: False: no label, and no notice of it. notice: called with the reason where a label was wanted and cannot
            be given.

    Raises:
        SettingsError: a certificate of the user's that cannot be used, before the work.
    """
    before, why = os.environ.get(OFF), unlabelled()
    if wanted and why:
        notice(why)
    elif wanted:
        identity()
    if not wanted or why:
        os.environ[OFF] = "off"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(OFF, None)
        else:
            os.environ[OFF] = before


def sign(path: Path, claim: Claim) -> bool:
    """Signs an mp4, PNG or WAV file in its place; its content must not be changed any more.

    Returns:
        False where clips are not labelled, and where signing failed: the finished clip is worth more than its label, so
        it stays, with an UnlabelledWarning.

    Raises:
        SettingsError: as `identity`. OSError: the file system refuses to take the signed file.
    """
    why = unlabelled()
    if why:
        if OFF not in os.environ:
            _warn_once(why)
        return False
    import c2pa

    who, signed = identity(), path.with_name(path.name + ".signed")
    kind = FORMATS[path.suffix.lower()]
    try:
        with c2pa.Context() as context, c2pa.Builder(_manifest(claim, kind), context) as builder:
            _intend(builder, claim)
            info = c2pa.C2paSignerInfo(who.algorithm.encode(), who.chain, who.key, None)
            with c2pa.Signer.from_info(info) as signer, path.open("rb") as source, signed.open("w+b") as target:
                builder.sign(signer, kind, source, target)
        try:
            os.replace(signed, path)
        except OSError:  # a file system on which a file cannot take another's place
            shutil.copyfile(signed, path)
    except c2pa.C2paError as error:
        why = f"The clip could not be signed and carries no content credentials ({error}). Is the certificate valid?"
        warnings.warn(why, UnlabelledWarning, stacklevel=3)
        return False
    finally:
        with suppress(OSError):
            signed.unlink()
    return True


def _manifest(claim: Claim, file_type: str) -> dict[str, Any]:
    assertions: list[dict[str, Any]] = [{"label": SETTINGS, "data": claim.data()}]
    if claim.source is not None:
        kind = CORRECTED if claim.record.get("noise") == 0 else EDITED
        edited = {"action": "c2pa.edited", "digitalSourceType": _SOURCES + kind}
        assertions.append({"label": "c2pa.actions.v2", "data": {"actions": [edited]}})
    generator = {"name": "Enhance-A-Video", "version": version("enhance-a-video")}
    return {"claim_generator_info": [generator], "format": file_type, "assertions": assertions}


def _intend(builder: Any, claim: Claim) -> None:
    """A clip that was made, or one that was edited: then the source is its parent, with the credentials that it has."""
    import c2pa

    if claim.source is None:
        source_type = c2pa.C2paDigitalSourceType.TRAINED_ALGORITHMIC_MEDIA
        builder.set_intent(c2pa.C2paBuilderIntent.CREATE, source_type)
        return
    builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
    kind = _SOURCE_FORMATS.get(claim.source.suffix.lower(), "application/octet-stream")
    parent = json.dumps({"title": "source", "relationship": "parentOf"})
    with claim.source.open("rb") as file:
        try:
            builder.add_ingredient(parent, kind, file)
        except c2pa.C2paError:  # the content is of another kind than the name
            file.seek(0)
            builder.add_ingredient(parent, "application/octet-stream", file)


@lru_cache(maxsize=1)
def _warn_once(why: str) -> None:
    warnings.warn(why, UnlabelledWarning, stacklevel=4)
