"""A fuzz of the command and of the Python calls: nothing that somebody may type ends in a traceback, in silence, in a
wait without end or in a lost file. Run it before a release, and after a change to what checks input (ten minutes).

    make fuzz
    python -m tests.fuzz --only media --show        the cases of a kind, or with a word in them, with what they printed

Each case runs in a process of its own, forked from one that has imported everything, in a folder of its own. Commands
run with --json, and where a person has to be warned without it as well. cases.py explains how to add a case.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", MPLBACKEND="Agg", PYTHON_COLORS="0")
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".config" / "matplotlib"))  # cases have another home

import torch

from .cases import Case, read
from .conditions import CONDITIONS
from .materials import Store

HERE = Path(__file__).parent
LIMIT = 60.0  # seconds that a case may take
MEMORY = 8 << 30  # bytes that it may ask for besides what is loaded
FAULTS = ("traceback", "hang", "silent", "refused", "no way out", "no JSON", "lost")


@dataclass(frozen=True)
class Outcome:
    """What a case did. code: the exit code, negative the signal that ended it; hung: it was ended after the limit."""

    code: int
    out: str
    err: str
    seconds: float
    hung: bool
    lost: str  # what the files in its folder say against it


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


_JSON = ("demo", "generate", "compare", "batch", "study", "tune", "score", "vote", "models")


# ------------------------------------------------------------------------------------------- one case, in its process


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
    """A case that asks for more memory than a small machine has gets none."""
    if sys.platform == "linux":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


def _command(run: Run) -> int:
    from enhance_a_video import cli

    words = shlex.split(run.case.text.replace("%00", "\0"))
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
            if isinstance(error, TypeError) and not re.search(r"unexpected keyword|missing \d+ required", str(error)):
                raise  # but that one is Python's own way
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
        finally:
            for one in caught:
                if not issubclass(one.category, DeprecationWarning | FutureWarning | ResourceWarning):
                    print(f"{one.category.__name__}: {one.message}")
    return 0


# ------------------------------------------------------------------------------------------------------ what is wrong


def faults(run: Run, outcome: Outcome) -> list[tuple[str, str]]:
    """(one of FAULTS, what is wrong) for everything that a case did wrong."""
    found = []
    case, said = run.case, " ".join(f"{outcome.out}\n{outcome.err}".split())
    if outcome.hung:
        return [("hang", f"still at work after {outcome.seconds:.0f} s")]
    if re.search(r"Traceback \(most recent call last\)|please report it", said) or outcome.code < 0:
        last = next((line for line in reversed(outcome.err.splitlines()) if line.strip()), f"signal {-outcome.code}")
        return [("traceback", last[:300])]
    if outcome.lost:
        found.append(("lost", outcome.lost))
    refused = outcome.code != 0
    if refused and case.wanted in ("ok", "warned"):
        return [*found, ("refused", _message(run, outcome))]
    named = re.search(case.says, said, re.IGNORECASE) is not None
    if not refused and case.wanted == "refused":
        return [*found, ("silent", f"exit code 0{'; it printed: ' + said[-160:] if said else ', nothing printed'}")]
    if not refused and case.wanted in ("told", "warned") and not _warned(run, outcome):
        return [*found, ("silent", "exit code 0, and nothing is said")]
    if refused and (not named or not outcome.err.strip()):
        found.append(("no way out", f"{_message(run, outcome)!r} has nothing of {case.says!r}"))
    elif refused and (bad := re.search(r"object at 0x\w+|\[Errno -?\d+\]|<class '[^']*'>", said)):
        found.append(("no way out", f"{bad.group()} in {_message(run, outcome)!r}"))
    if run.json and (wrong := _json_fault(run, outcome, refused)):
        found.append(("no JSON", wrong))
    return found


def _warned(run: Run, outcome: Outcome) -> bool:
    """Whether something is said about what is not as asked: with --json in the object, else anywhere."""
    text = outcome.out if run.json else f"{outcome.out}\n{outcome.err}"
    if run.json:
        text = _without_echo(text)
    elif not run.case.python:
        text = "\n".join(line for line in text.splitlines() if not re.match(r"\s*(Written|\S+\.(mp4|html|png))", line))
    return re.search(run.case.says, text, re.IGNORECASE) is not None


def _without_echo(text: str) -> str:
    """The notes and warnings of a JSON object, not what it repeats of the command."""
    try:
        data = json.loads(text)
    except ValueError:
        return ""
    kept = {key: value for key, value in data.items() if re.search(r"note|warning|error|fail|files", key)}
    return json.dumps(kept, ensure_ascii=False)


def _message(run: Run, outcome: Outcome) -> str:
    if run.json:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(outcome.out)["error"]["message"])[:400]
    lines = [line.strip("│ ") for line in outcome.err.splitlines() if re.search(r"\w", line)]
    return " ".join(" ".join(lines).split())[-400:]


def _json_fault(run: Run, outcome: Outcome, refused: bool) -> str:
    try:
        data = json.loads(outcome.out, parse_constant=_no_json)
    except ValueError as error:
        return f"stdout is {outcome.out[:80]!r}: {error}"
    if not isinstance(data, dict):
        return f"stdout is no object: {outcome.out[:80]!r}"
    if refused and not _says_error(data):
        return f"no error in {outcome.out[:200]!r}"
    return ""


def _no_json(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _says_error(data: dict) -> bool:
    error = data.get("error")
    if isinstance(error, dict) and {"class", "message"} <= set(error) and "command" in data:
        return True
    files = data.get("files")  # score: the other files' numbers are not lost for one that cannot be read
    if isinstance(files, list) and any(isinstance(one, dict) and one.get("error") for one in files):
        return True
    return bool(data.get("failed") or data.get("failed_before") or data.get("failures"))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """name -> size and time of every file of a folder."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                stat = path.stat()
                found[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return found


_KEEPS_STATE = re.compile(r"\.sqlite|\.jsonl|\.json|\.lock")  # files that a run that goes on adds to


def lost(before: dict, after: dict, refused: bool) -> str:
    gone = [name for name in before if name not in after]
    changed = [n for n in before if n in after and after[n] != before[n] and not _KEEPS_STATE.search(n)]
    drafts = [n for n in after if n not in before and re.search(r"(^|/)\.[^/]+\.(mp4|png|html|json|txt|db)$", n)]
    parts = []
    if gone and refused:
        parts.append(f"gone: {', '.join(gone)}")
    if changed and refused:
        parts.append(f"changed: {', '.join(changed)}")
    if drafts:
        parts.append(f"left behind: {', '.join(drafts)}")
    return "; ".join(parts)


# --------------------------------------------------------------------------------------------------------- all cases


def everything(runs: Sequence[Run], jobs: int, limit: float, place: Path) -> Iterator[tuple[Run, Outcome]]:
    """Runs every case, `jobs` at a time, and ends those that take more than `limit` seconds."""
    from . import namespace

    names = {name: getattr(namespace, name) for name in namespace.__all__}
    _warm(names)
    store = Store(place / "materials")
    store.folder.mkdir()
    place.chmod(0o755)
    waiting, working = list(enumerate(runs)), {}
    waiting.reverse()
    while waiting or working:
        while waiting and len(working) < jobs:
            number, run = waiting.pop()
            folder = place / f"case-{number}"
            before = _prepare(run.case, folder, store)
            working[start(run, folder, names)] = (run, folder, before, time.monotonic())
        time.sleep(0.002)
        for pid, (run, folder, before, begun) in list(working.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            hung = not ended and time.monotonic() - begun > limit
            if not ended and not hung:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # and what it started
            if hung:
                status = os.waitpid(pid, 0)[1]
            del working[pid]
            code = os.waitstatus_to_exitcode(status)
            out, err = (
                (folder / name).read_text("utf-8", errors="replace") if (folder / name).exists() else ""
                for name in ("stdout", "stderr")
            )
            seconds = time.monotonic() - begun
            against = "" if hung else lost(before, listing(folder / "work"), code != 0)
            yield run, Outcome(code, out, err, seconds, hung, against)
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(case: Case, folder: Path, store: Store) -> dict:
    work = folder / "work"
    (work / "home").mkdir(parents=True)
    for one in (folder, work, work / "home"):
        one.chmod(0o777)
    for name, text in case.files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text, encoding="utf-8")
    store.place(f"{case.text} {' '.join(case.files.values())}"[:20_000], work)
    return listing(work)


def _warm(names: dict[str, object]) -> None:
    """What is imported late is imported once, here, and one model is loaded as the cases load it."""
    import matplotlib.font_manager  # noqa: F401

    from enhance_a_video import cli, job, report, tune  # noqa: F401

    torch.set_num_threads(1)
    names["run"](seed=0)  # type: ignore[operator]
    words = shlex.split("generate -p 'a red ball moves left over a green meadow' --steps 1 --frames 5 --json -o")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for out in ("x.mp4", "x.avi"):
            with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
                cli.main([*words, f"{folder}/{out}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="TEXT", help="a kind, or a regular expression that a case contains")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a case may take")
    parser.add_argument("--show", action="store_true", help="print what every case printed")
    parser.add_argument("--list", action="store_true", help="list the cases and leave")
    parser.add_argument("--log", type=Path, help="a file for the faults, a JSON object a line")
    asked = parser.parse_args()
    cases = [*read(HERE / "commands.txt"), *read(HERE / "calls.txt")]
    if asked.only:
        cases = [c for c in cases if c.kind == asked.only or re.search(asked.only, f"{c.kind}: {c}")]
    if asked.list or not cases:
        print(*(f"{case.kind:18} {case.wanted:8} {case}" for case in cases), sep="\n")
        return
    sys.exit(_report([run for case in cases for run in runs_of(case)], cases, asked))


def _report(runs: Sequence[Run], cases: Sequence[Case], asked: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track
    from rich.table import Table

    screen, begun = Console(highlight=False), time.monotonic()
    counts: dict[str, Counter[str]] = {case.kind: Counter() for case in cases}
    for case in cases:
        counts[case.kind]["cases"] += 1
    log = asked.log.open("w", encoding="utf-8") if asked.log else None
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        outcomes = everything(runs, asked.jobs, asked.limit, Path(place))
        for run, outcome in track(outcomes, "cases", total=len(runs), console=screen, transient=True):
            wrong = faults(run, outcome)
            counts[run.case.kind].update(fault for fault, _ in wrong)
            for fault, what in wrong:
                way = " --json" * run.json
                text = f"[red]{fault}[/]  [bold]{escape(str(run.case))}{way}[/]\n    {escape(what)}"
                screen.print(text, soft_wrap=True)
                if log:
                    entry = {"fault": fault, "kind": run.case.kind, "case": str(run.case) + way, "what": what}
                    print(json.dumps(entry, ensure_ascii=False), file=log, flush=True)
            if asked.show:
                screen.print(f"[dim]{escape(str(run.case))}  ->  {outcome.code}, {outcome.seconds:.1f} s[/]")
                screen.print(escape(outcome.out + outcome.err), soft_wrap=True)
    table = Table("kind", "cases", *FAULTS)
    for kind, row in counts.items():
        table.add_row(kind, *(str(row[name] or "") for name in ("cases", *FAULTS)))
    screen.print(table)
    total = sum(row[fault] for row in counts.values() for fault in FAULTS)
    python = sum(case.python for case in cases)
    screen.print(
        f"{len(cases) - python} command lines and {python} Python calls, {len(runs)} runs in "
        f"{(time.monotonic() - begun) / 60:.1f} minutes: {total} faults."
    )
    return 1 if total else 0


if __name__ == "__main__":
    main()
