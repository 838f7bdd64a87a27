"""The limits of every number that is accepted, the same for command-line options, files and function calls.

A number is finite; a count is whole and no larger than a machine can work through; a seed has 64 bits.
"""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from .errors import SettingsError

MAX_SEED = 2**64 - 1  # what torch.Generator.manual_seed takes, and ComfyUI draws from
MAX_CLIPS = 1_000_000  # in one batch or study
MAX_WORKERS = 1024
_LARGEST = sys.float_info.max
_NOISES = 2**32  # torch's CPU generator starts from the lowest 32 bits of its seed

# The numbers among the options of pipelines.generate: whether whole, lowest, highest.
OPTIONS: dict[str, tuple[bool, float, float]] = {
    "steps": (True, 1, 10_000), "frames": (True, 1, 100_000), "height": (True, 1, 16_384), "width": (True, 1, 16_384),
    "guidance": (False, 0, 1000), "fps": (False, 0.01, 1000), "seconds": (False, 0.01, 3600),
}  # fmt: skip


def number(what: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """SettingsError unless `value` is a finite number from low to high; a bool and text are none."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not (good and max(low, -_LARGEST) <= value <= min(high, _LARGEST)):
        raise _refused(what, value, "number", low, high)


def whole(what: str, value: Any, low: int = 0, high: float = math.inf) -> int:
    """`value` as an int; SettingsError unless it is a whole number from low to high, NumPy's included."""
    if isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high:
        return int(value)
    raise _refused(what, value, "whole number", low, high)


def option(name: str, value: Any, what: str = "") -> None:
    """SettingsError unless `value` fits the option of pipelines.generate with this name, if that is a number.

    what: how the user wrote it, such as "--steps"; else the name.
    """
    if name in OPTIONS:
        is_whole, low, high = OPTIONS[name]
        if is_whole:
            whole(what or name, value, int(low), high)
        else:
            number(what or name, value, low, high)


def seed(value: Any, what: str = "seed") -> int:
    """A seed as an int; SettingsError unless it is a whole number from 0 to 2**64 - 1."""
    return whole(what, value, 0, MAX_SEED)


def seeds(values: Sequence[Any], what: str = "seeds") -> tuple[int, ...]:
    """Seeds of one prompt. SettingsError for one that is none, and for two that draw the same noise."""
    found = tuple(seed(value, what) for value in values)
    noises: dict[int, int] = {}
    for one in found:
        other = noises.setdefault(one % _NOISES, one)
        if other != one:
            raise SettingsError(
                f"{what}: {other} and {one} are the same noise, as torch uses the lowest 32 bits of a seed. "
                "Leave one of them out."
            )
    return found


def seeds_from(first: int, count: int) -> range:
    """`count` seeds counted up from `first`; SettingsError where they go beyond the largest seed."""
    seed(first)
    if first + count - 1 > MAX_SEED:
        raise SettingsError(f"{count} seeds from {first} on go beyond the largest, {MAX_SEED}: start lower.")
    return range(first, first + count)


def signed(value: int | None) -> int | None:
    """A seed as a signed 64-bit integer, which is what SQLite stores: from 2**63 on, less 2**64."""
    return value if value is None or value < 2**63 else value - 2**64


def clips(count: int) -> None:
    """SettingsError where a batch or a study would have too many clips to be listed."""
    if count > MAX_CLIPS:
        raise SettingsError(
            f"{count:,} clips are requested, and at most {MAX_CLIPS:,} can be planned at once: fewer seeds, prompts or "
            "settings."
        )


def memory(frames: int, height: int, width: int) -> None:
    """SettingsError where the finished video alone, in float32, is larger than this machine's memory."""
    wanted, there = 12 * frames * height * width, _machine_memory()
    if there is not None and wanted > there:
        raise SettingsError(
            f"{frames} frames of {width}x{height} take {wanted / 2**30:,.0f} GiB as finished pictures alone, and this "
            f"machine has {there / 2**30:,.0f} GiB: fewer frames, or a smaller width and height."
        )


def ordinary(path: str | Path) -> Path:
    """The path of a file to read. OSError with the reason for a device or a named pipe, which may never end; the pipes
    that a shell makes for `<(...)` do."""
    path = Path(path)
    shells = path.is_fifo() and str(path).startswith("/dev/")
    if path.exists() and not (path.is_file() or path.is_dir() or shells):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")
    return path


def parse_json(text: str | bytes) -> Any:
    """As json.loads; ValueError also for NaN and infinity, 1e999 included, a name twice, and too deep a nesting."""
    try:
        value = json.loads(text, object_pairs_hook=_once)
        finite("", value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. ValueError for a name that is there twice: the second would win in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"{twice!r} is there twice")
    return found


def finite(what: str, value: Any) -> None:
    """SettingsError where a number anywhere in data from JSON or YAML is NaN or infinite, or the data never end."""
    try:
        _finite(what, value)
    except RecursionError:
        raise SettingsError(f"{what or 'it'} is nested too deeply.") from None


def or_none(value: float) -> float | None:
    """The number for JSON, which has no NaN and no infinity: None for those."""
    return value if math.isfinite(value) else None


def _finite(what: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{what or 'a number'} is {value}, but numbers must be finite.")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _finite(f"{what}: {name}" if what else str(name), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _finite(what, inner)


def shown(value: Any) -> str:
    """A value as a message shows it: short, and an object without a text of its own by its class, not its address."""
    plain = type(value).__repr__ is object.__repr__
    return f"an object of the class {type(value).__qualname__}" if plain else reprlib.repr(value)


def _refused(what: str, value: Any, kind: str, low: float, high: float) -> SettingsError:
    start = f"{what}={shown(value)}, but a {kind}{_between(low, high)} is wanted."
    if isinstance(value, float) and kind == "whole number" and value.is_integer():
        return SettingsError(f"{start} Write {value:.0f}, without a point.")
    if isinstance(value, str) and (meant := _float(value)) is not None:
        return SettingsError(f"{start} This is text: write {meant:.15g}, without quotes.")
    return SettingsError(start)


def _between(low: float, high: float) -> str:
    if high == MAX_SEED:
        return " from 0 to 2^64 - 1"
    if high < math.inf:
        return f" from {_text(low)} to {_text(high)}" if low > -math.inf else f" up to {_text(high)}"
    return f" from {_text(low)} on" if low > -math.inf else ""


def _text(limit: float) -> str:
    return f"{limit:,.0f}" if float(limit).is_integer() else f"{limit:g}"


def _float(text: str) -> float | None:
    """The finite number that a text is; None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _machine_memory() -> int | None:
    """Bytes of main memory; None where the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
