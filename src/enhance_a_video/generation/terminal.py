"""What reaches the terminal: any text in any encoding, and no error because a reader of the output went away."""

from __future__ import annotations

import codecs
import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# What our own texts and tables hold, for a terminal or pipe that cannot: cp1252, ASCII.
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("─━╌╴╶╸╺═", "-"), **dict.fromkeys("│┃║", "|"), **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┡┩╇", "+"),
        **dict.fromkeys("‘’", "'"), **dict.fromkeys("“”„", '"'), **dict.fromkeys("•●", "*"),
        "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "±": "+-", "→": "->", "←": "<-", "↑": "^", "↓": "v",
        "≤": "<=", "≥": ">=", "≈": "~", "°": " deg", "·": "*", "α": "alpha", "τ": "tau", "σ": "sigma", "δ": "delta",
    }
)  # fmt: skip


def print_json(data: Any) -> None:
    """One JSON object on stdout, in ASCII, whatever is in it."""
    try:
        print(json.dumps(data, allow_nan=False), flush=True)
    except OSError as error:
        _lost(sys.stdout, error)


@contextmanager
def streams() -> Iterator[None]:
    """While a command runs, stdout and stderr take any character: one that their encoding lacks is written plainly or,
    such as in a user's text, as \u1234. A reader that went away is no error.

    Raises:
        SystemExit: with a message, where what was printed could not be written.
    """
    accept_any_character()
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _finish(stream)


def accept_any_character() -> None:
    """stdout and stderr of this process write plainly what their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="enhance-a-video")


def _finish(stream: Any) -> None:
    """Writes what is left: Python would do it after the last line of the program and complain in its own way."""
    try:
        stream.flush()
    except (AttributeError, ValueError):  # there is none, or it is closed
        pass
    except OSError as error:
        _lost(stream, error)


def _lost(stream: Any, error: OSError) -> None:
    let_go(stream)
    if error.errno not in (errno.EPIPE, errno.EINVAL):  # Windows reports a closed pipe as EINVAL
        raise SystemExit(f"Error: what was printed could not be written: {error.strerror}.") from None


def let_go(stream: Any) -> None:
    """What is still to be written goes nowhere, so that Python does not complain about it when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("enhance-a-video", _replaced)
