"""A fuzz of the command and of the Python calls: nothing that somebody may type ends in a traceback, in silence, in a
wait without end or in a lost file. Run it before a release, and after a change to what checks input (ten minutes).

    make fuzz
    python -m tests.fuzz --only media --show        the cases of a kind, or with a word in them, with what they printed
    python -m tests.fuzz --log runs/fuzz.jsonl      stopped, the same words go on where it was
    python -m tests.fuzz --again runs/fuzz.jsonl    those that had faults, after a mend

Each case runs in a process of its own, forked from one that has imported everything, in a folder of its own. Commands
run with --json, and where a person has to be warned without it as well. cases.py explains how to add a case.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", MPLBACKEND="Agg", PYTHON_COLORS="0")
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".config" / "matplotlib"))  # cases have another home

from .cases import Case, read
from .materials import Store
from .process import Outcome, Run, runs_of, start
from .verdict import FAULTS, faults, listing, lost

HERE = Path(__file__).parent
LIMIT = 60.0  # seconds that a case may take


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
        time.sleep(0.01)
        for pid, (run, folder, before, begun) in list(working.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            hung = not ended and time.monotonic() - begun > limit
            if not ended and not hung:
                continue
            if hung:
                os.kill(pid, signal.SIGUSR1)  # prints where it is
                time.sleep(0.5)
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
    words = f"{case.text} {' '.join(case.files.values())}"
    store.place(words if len(words) < 20_000 else f"{words[:10_000]} {words[-10_000:]}", work)
    return listing(work)


def _warm(names: dict[str, object]) -> None:
    """What is imported late is imported once, here, and one model is loaded as the cases load it."""
    "".encode("utf-8-sig")  # a user who may not write everywhere may not read Python's own modules either
    import matplotlib.font_manager  # noqa: F401

    from enhance_a_video import cli
    from enhance_a_video.lab import report, tune  # noqa: F401

    names["run"](seed=0)  # type: ignore[operator]
    words = shlex.split("generate -p 'a red ball moves left over a green meadow' --steps 1 --frames 5 --json -o")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for out in ("x.mp4", "x.avi"):
            with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
                cli.main([*words, f"{folder}/{out}"])
    gc.collect()  # encoders, whose threads are not in the cases' processes
    gc.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="TEXT", help="a kind, or a regular expression that a case contains")
    parser.add_argument("--again", metavar="LOG", type=Path, help="only the cases with faults in the log of a run")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a case may take")
    parser.add_argument("--show", action="store_true", help="print what every case printed")
    parser.add_argument("--list", action="store_true", help="list the cases and leave")
    parser.add_argument(
        "--log", type=Path, help="a file for what is found, a JSON object a run; those in it are not run"
    )
    options = parser.parse_args()
    cases = [*read(HERE / "commands.txt"), *read(HERE / "calls.txt")]
    if options.only:
        cases = [c for c in cases if c.kind == options.only or re.search(options.only, f"{c.kind}: {c}")]
    if options.again:
        failed = {entry["case"] for entry in _logged(options.again) if entry["faults"]}
        cases = [case for case in cases if str(case) in failed]
    if options.list or not cases:
        print(*(f"{case.kind:18} {case.wanted:8} {case}" for case in cases), sep="\n")
        return
    sys.exit(_report([run for case in cases for run in runs_of(case)], cases, options))


def _logged(log: Path | None) -> list[dict]:
    """What the log of an earlier run holds; a last line that was cut off is none."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines() if log and log.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def _report(runs: Sequence[Run], cases: Sequence[Case], options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    screen, begun = Console(highlight=False), time.monotonic()
    wanted = {(str(run.case), run.json) for run in runs}
    entries = {(one["case"], one["json"]): one for one in _logged(options.log)}
    entries = {key: one for key, one in entries.items() if key in wanted}
    left = [run for run in runs if (str(run.case), run.json) not in entries]
    if entries:
        screen.print(f"{len(entries)} runs are in {options.log} already; {len(left)} are left.")
    log = options.log.open("a", encoding="utf-8") if options.log else None
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        outcomes = everything(left, options.jobs, options.limit, Path(place))
        for run, outcome in track(outcomes, "cases", total=len(left), console=screen, transient=True):
            found, seconds = faults(run, outcome), round(outcome.seconds, 1)
            entry = {
                "kind": run.case.kind,
                "case": str(run.case),
                "json": run.json,
                "faults": found,
                "seconds": seconds,
            }
            entries[entry["case"], run.json] = entry
            if log:
                print(json.dumps(entry, ensure_ascii=False), file=log, flush=True)
            for fault, what in found:
                text = f"[red]{fault}[/]  [bold]{escape(str(run.case))}{' --json' * run.json}[/]\n    {escape(what)}"
                screen.print(text, soft_wrap=True)
            if options.show:
                screen.print(f"[dim]{escape(str(run.case))}  ->  {outcome.code}, {outcome.seconds:.1f} s[/]")
                screen.print(escape(outcome.out + outcome.err), soft_wrap=True)
    minutes = (time.monotonic() - begun) / 60
    return _table(
        cases, list(entries.values()), f"{len(runs)} runs, {len(left)} of them now in {minutes:.1f} minutes", screen
    )


def _table(cases: Sequence[Case], entries: Sequence[dict], how: str, screen: object) -> int:
    """Prints what each kind of cases was found to do; 1 if there was a fault."""
    from rich.table import Table

    counts: dict[str, Counter[str]] = {case.kind: Counter() for case in cases}
    for case in cases:
        counts[case.kind]["cases"] += 1
    for entry in entries:
        counts[entry["kind"]].update(fault for fault, _ in entry["faults"])
    table = Table("kind", "cases", *FAULTS)
    for kind, row in counts.items():
        table.add_row(kind, *(str(row[name] or "") for name in ("cases", *FAULTS)))
    screen.print(table)  # type: ignore[attr-defined]
    total = sum(row[fault] for row in counts.values() for fault in FAULTS)
    python = sum(case.python for case in cases)
    screen.print(f"{len(cases) - python} command lines and {python} Python calls, {how}: {total} faults.")  # type: ignore[attr-defined]
    return 1 if total else 0


if __name__ == "__main__":
    main()
