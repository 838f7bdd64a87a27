"""The interface of a policy, the moment at which it is evaluated, and its JSON. For a new policy, start here.

A policy is any callable ``policy(mass, moment) -> gain``: mass (B,) in, gain (B,) out, tensor operations only, no
host synchronisation. Those of this package are frozen dataclasses with a name, and have a JSON form:

    {"name": "strength", "g": 0.7}
    {"name": "window", "of": {"name": "constant", "gain": 1.3}, "start": 0.0, "end": 0.5, "shape": "cosine"}
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from .. import limits
from ..errors import SettingsError

# Chosen by the paired measurements of docs/results/index.md, on three small models.
DEFAULT_ODDS = 2.0
DEFAULT_STRENGTH = 0.3
DEFAULT_START = 0.0
DEFAULT_END = 0.7
LARGEST = 1e6  # of what a policy is made of: far beyond any use, and safe in float32 and bfloat16
OUTPUT, CROSS_FRAME, EXACT = "output", "cross-frame", "exact"  # what a gain multiplies (Settings: scale)


@dataclass(frozen=True)
class GainContext:
    """Where and when a gain is needed.

    num_frames: T, latent frames of this forward pass.
    layer: depth of the layer, index/(layers - 1): 0 the first, 1 the last.
    progress: 0-d tensor, how far the denoising is: 0 pure noise, 1 clean; a function of the noise level (progress.py),
        not of the step number; NaN where it is unknown.
    """

    num_frames: int
    layer: float | Tensor
    progress: Tensor


Policy = Callable[[Tensor, GainContext], Tensor]
_KNOWN: dict[str, type] = {}
_P = TypeVar("_P", bound=type)


def policy(name: str) -> Callable[[_P], _P]:
    """Class decorator: `name` is this dataclass's name in JSON."""

    def known(cls: _P) -> _P:
        _KNOWN[name] = cls
        return cls

    return known


def names() -> list[str]:
    """The names of all policies."""
    return list(_KNOWN)


def to_dict(value: Any) -> Any:
    """A policy of this package as JSON; None for anything else."""
    name = next((name for name, cls in _KNOWN.items() if type(value) is cls), None)
    if name is None:
        return None
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {"name": name, **{key: _plain(inner) for key, inner in fields.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Tensor):
        return value.item() if value.ndim == 0 else value.tolist()
    return to_dict(value) or value


def from_dict(data: Any) -> Any:
    """The policy that `data` describes. Raises SettingsError for an unknown name or parameter, or a wrong one."""
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise SettingsError(f"policy: {data!r}; give an object with a name, as in {{'name': 'strength', 'g': 0.7}}.")
    cls = _KNOWN.get(data["name"])
    if cls is None:
        near = difflib.get_close_matches(data["name"], _KNOWN, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"policy: {data['name']!r} is unknown.{hint} Known: {', '.join(_KNOWN)}.")
    known = {f.name: f for f in dataclasses.fields(cls)}
    given = {key: value for key, value in data.items() if key != "name"}
    unknown = [key for key in given if key not in known]
    missing = [
        key
        for key, f in known.items()
        if key not in given and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if unknown or missing:
        wrong = f"does not know {unknown}" if unknown else f"needs {missing}"
        raise SettingsError(f"policy {data['name']!r} {wrong}. Its parameters: {', '.join(known)}.")
    return cls(**{key: _value(value) for key, value in given.items()})


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return from_dict(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)  # numbers become tensors, which do not recompile; whole ones too
    if isinstance(value, list | tuple):
        return tuple(_value(inner) for inner in value)
    return value


def needs_progress(value: Any) -> bool:
    """Whether a policy, or one inside it, depends on how far the denoising is."""
    inner = getattr(value, "of", None)
    return bool(getattr(value, "uses_progress", False)) or (inner is not None and needs_progress(inner))


def scale_of(value: Any) -> str:
    """What a policy's gain is meant to multiply: its attribute `scales`, "output" without one."""
    scales, inner = getattr(value, "scales", None), getattr(value, "of", None)
    if isinstance(scales, str):
        return scales
    return OUTPUT if inner is None else scale_of(inner)


def inner(what: str, value: Any) -> None:
    """Raise SettingsError unless `value` can be a policy."""
    if not callable(value):
        raise SettingsError(f"{what}={value!r} is no policy: give an object with a name.")


def number(what: str, value: Any, low: float = -LARGEST, high: float = LARGEST) -> None:
    """Raise SettingsError unless `value` is a finite number in [low, high]; a tensor is taken as it is."""
    if not isinstance(value, Tensor):
        limits.number(what, value, low, high)


def numbers(what: str, values: Any, least: int = 1, exactly: int | None = None) -> None:
    """The same for a tuple of at least `least`, or of exactly so many, finite numbers."""
    if isinstance(values, Tensor):
        return
    if not (isinstance(values, tuple) and len(values) >= least and exactly in (None, len(values))):
        wanted = f"{least} or more" if exactly is None else str(exactly)
        raise SettingsError(f"{what}={values!r}; give {wanted} numbers.")
    for value in values:
        number(what, value)
