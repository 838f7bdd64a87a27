"""One case of the fuzz in a process of its own, forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import re
import resource
import shlex
import signal
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from .cases import Case
from .conditions import CONDITIONS

MEMORY = 8 << 30  # bytes that it may allocate besides what is loaded


@dataclass(frozen=True)
class Outcome:
    """What a case did. code: the exit code, negative the signal that ended it; hung: it was ended after the limit."""

    code: int
    out: str
    err: str
    seconds: float
    hung: bool
    lost: str  # what is wrong with the files in its folder


@dataclass(frozen=True)
class Run:
    """A case and the way in which it is run."""

    case: Case
    json: bool = False


def runs_of(case: Case) -> list[Run]:
    """A command with --json and, where a person has to be spoken to, without."""
    words = case.text.split()
    if case.python:
        return [Run(case)]
    if "--json" in words:
        return [Run(case, True)]
    speaks_json = not {"--help", "--version"} & set(words) and bool(words) and words[0] in _JSON
    if not speaks_json or case.condition == "closed-pipe":
        return [Run(case)]
    both = case.condition or case.wanted in ("told", "warned") or case.kind == "terminal"
    return [Run(case, True), Run(case)] if both else [Run(case, True)]  # with --json people read stderr as well


_JSON = ("demo", "generate", "compare", "batch", "restore", "inspect", "study", "tune", "score", "vote", "models")


def start(run: Run, folder: Path, names: dict[str, object]) -> int:
    """The process id of a child that runs a case in `folder`/work and prints into `folder`."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        for number, name in ((0, os.devnull), (1, folder / "stdout"), (2, folder / "stderr")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            handle = os.open(name, flags, 0o666)
            os.dup2(handle, number)
            os.close(handle)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8", write_through=True)
        faulthandler.register(signal.SIGUSR1, 2)
        os.chdir(folder / "work")
        tempfile.tempdir = str(folder)
        os.environ["HOME"], os.environ["COLUMNS"] = str(folder / "work" / "home"), "100"
        _limit_memory()
        torch.set_num_threads(1)  # renews torch's pool of threads, which a fork spoils, before two threads at once do
        if run.case.condition:
            CONDITIONS[run.case.condition]()
        code = _call(run.case.text, names) if run.case.python else _command(run)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _limit_memory() -> None:
    """A case that allocates more memory than a small machine has gets none."""
    if sys.platform == "linux":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


def _command(run: Run) -> int:
    from enhance_a_video import cli

    words = shlex.split(run.case.text.replace("%00", "\0").replace("%09", "\t"))
    if run.json and "--json" not in words:
        words.insert(1, "--json")
    sys.argv = ["enhance-a-video", *words]
    try:
        cli.main(words)
    except SystemExit as left:
        code = left.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            return 1
        sys.stdout.flush()  # as the interpreter does on leaving
        return int(code or 0)
    sys.stdout.flush()
    return 0


def _call(text: str, names: dict[str, object]) -> int:
    """Runs Python: 0 it works, 2 it raised an error of the package; what it warned of is printed."""
    from enhance_a_video.errors import EnhanceAVideoError

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(text, dict(names))
        except (EnhanceAVideoError, TypeError) as error:
            ours = isinstance(error, EnhanceAVideoError)
            if not ours and not re.search(r"unexpected keyword|missing \d+ required", str(error)):
                raise  # but those are Python's own way
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
        finally:
            for one in caught:
                if not issubclass(one.category, DeprecationWarning | FutureWarning | ResourceWarning):
                    print(f"{one.category.__name__}: {one.message}")
    return 0
