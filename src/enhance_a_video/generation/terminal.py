"""Output to a terminal or pipe: any text in any encoding, and no error because a reader of the output went away."""

from __future__ import annotations

import codecs
import errno
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
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


_GONE = 128 + 13  # exit code of a program that SIGPIPE ended, as a shell reports it: what `yes | head` gives
_unread: list[Any] = []  # streams whose reader went away while a command ran
_warned: list[str] = []  # what Python warned of while a command ran, none twice


def print_json(data: Any) -> None:
    """One JSON object on stdout, in ASCII, whatever is in it. What Python warned of so far joins its "warnings"."""
    if _warned and isinstance(data, dict):
        data = data | {"warnings": list(dict.fromkeys([*data.get("warnings", ()), *_warned]))}
    try:
        print(json.dumps(data, allow_nan=False), flush=True)
    except OSError as error:
        _lost(sys.stdout, error)


@contextmanager
def streams() -> Iterator[None]:
    """While a command runs, stdout and stderr take any character: one that their encoding lacks is written plainly or,
    such as in a user's text, as \\u1234. A reader of stdout that went away (| head) does not stop the work; at its end
    the exit code is 141, as for any program whose output was not read, and nothing is printed about it.

    Raises:
        SystemExit: with a message, where what was printed could not be written; with 141, where nobody read it.
    """
    accept_any_character()
    _unread.clear()
    out, code = sys.stdout, None
    try:
        yield
    except SystemExit as left:
        code = left.code
        if isinstance(left.__context__, BrokenPipeError):  # rich's way out, in the help: with 1
            _unread.append(out)
            code = None
        raise
    finally:
        for stream in (out, sys.stderr):
            _finish(stream)
        if out in _unread and not code:
            raise SystemExit(_GONE) from None


@contextmanager
def warnings_as_notes(note: Callable[[str], None]) -> Iterator[None]:
    """While a command runs, `note` is called with the text of each Python warning, and `print_json` lists them."""
    before = warnings.showwarning
    _warned.clear()

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        text = " ".join(str(message).split())
        if text not in _warned:
            _warned.append(text)
            note(text)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
        _warned.clear()


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
    _unread.append(stream)
    if error.errno not in (errno.EPIPE, errno.EINVAL):  # Windows reports a closed pipe as EINVAL
        raise SystemExit(f"Error: what was printed could not be written: {error.strerror}.") from None


def reader_left(stream: Any) -> None:
    """Nobody reads what is written to `stream`: the work goes on, and `streams` exits with 141."""
    _unread.append(stream)
    let_go(stream)


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
