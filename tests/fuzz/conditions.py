"""What may be wrong around a command: [name] before a row. Each works in the case's own process only."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import sys
from collections.abc import Callable

CONDITIONS: dict[str, Callable[[], object]] = {}


def condition(function: Callable[[], object]) -> Callable[[], object]:
    CONDITIONS[function.__name__.replace("_", "-")] = function
    return function


def _refusing(code: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


def _encoding(name: str) -> None:
    for stream in ("stdout", "stderr"):
        buffer = getattr(sys, stream).detach()
        errors = "strict" if stream == "stdout" else "backslashreplace"  # as Python opens them
        setattr(sys, stream, io.TextIOWrapper(buffer, encoding=name, errors=errors))


@condition
def cp1252() -> None:
    """A pipe on Windows."""
    _encoding("cp1252")


@condition
def ascii_terminal() -> None:
    _encoding("ascii")


@condition
def nobody() -> None:
    """A user who may not write everywhere; root may, whatever the modes are."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


@condition
def no_chmod() -> None:
    """exFAT, SMB and other file systems without modes."""
    os.chmod = _refusing(errno.EPERM)  # type: ignore[assignment]
    os.fchmod = _refusing(errno.EPERM)  # type: ignore[assignment]


@condition
def no_lock() -> None:
    """A network file system whose server gives no locks."""
    import fcntl

    fcntl.flock = _refusing(errno.ENOLCK)  # type: ignore[assignment]


@condition
def no_rename() -> None:
    """A file system on which a file cannot take another's place."""
    os.replace = _refusing(errno.EPERM)  # type: ignore[assignment]


@condition
def full_disk() -> None:
    """Nothing larger than 8 kB can be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))


@condition
def closed_pipe() -> None:
    """The reader of stdout is gone, as behind `| head -0`."""
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")  # no file any more


@condition
def interrupted() -> None:
    """Ctrl+C after a second."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)


@condition
def no_home() -> None:
    os.environ.pop("HOME", None)


@condition
def narrow() -> None:
    os.environ["COLUMNS"] = "20"
