"""What is wrong with what a case of the fuzz did."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from .process import Outcome, Run

FAULTS = ("traceback", "hang", "silent", "refused", "no way out", "no JSON", "lost")


def faults(run: Run, outcome: Outcome) -> list[tuple[str, str]]:
    """(one of FAULTS, what is wrong) for everything that a case did wrong."""
    found = []
    case, printed = run.case, " ".join(f"{outcome.out}\n{outcome.err}".split())
    if outcome.hung:
        where = " < ".join(":".join(one) for one in re.findall(r'(\w+\.py)", line (\d+)', outcome.err)[:6])
        return [("hang", f"still at work after {outcome.seconds:.0f} s: {where}")]
    if re.search(r"Traceback \(most recent call last\)|please report it", printed) or outcome.code < 0:
        last = next((line for line in reversed(outcome.err.splitlines()) if line.strip()), f"signal {-outcome.code}")
        return [("traceback", last[:300])]
    if outcome.lost:
        found.append(("lost", outcome.lost))
    refused = outcome.code != 0
    if case.condition == "closed-pipe":  # nobody is left to read anything: the exit code shows it
        if outcome.code != 141 or re.search("error|pipe", outcome.err, re.IGNORECASE):
            found.append(("silent", f"exit code {outcome.code}, not SIGPIPE's 141, or more: {outcome.err[-200:]!r}"))
        return found
    if refused and case.wanted in ("ok", "warned"):
        return [*found, ("refused", _message(run, outcome))]
    named = re.search(case.says, printed, re.IGNORECASE) is not None
    if not refused and case.wanted == "refused":
        end = f"; it printed: {printed[-160:]}" if printed else ", nothing printed"
        return [*found, ("silent", f"exit code 0{end}")]
    if not refused and case.wanted in ("told", "warned") and not _warned(run, outcome):
        return [*found, ("silent", "exit code 0, and nothing is reported")]
    if refused and (not named or not outcome.err.strip()):
        found.append(("no way out", f"{_message(run, outcome)!r} has nothing of {case.says!r}"))
    elif refused and (bad := re.search(r"object at 0x\w+|\[Errno -?\d+\]|<class '[^']*'>", printed)):
        found.append(("no way out", f"{bad.group()} in {_message(run, outcome)!r}"))
    if run.json and (wrong := _json_fault(run, outcome, refused)):
        found.append(("no JSON", wrong))
    return found


def _warned(run: Run, outcome: Outcome) -> bool:
    """Whether what is not as requested is reported: with --json in the object, else anywhere."""
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
    credentials = data.get("credentials")  # inspect: exit code 1 where they do not hold
    if isinstance(credentials, dict) and credentials.get("present") and not credentials.get("valid"):
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
