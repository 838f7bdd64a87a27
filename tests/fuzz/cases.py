"""What a case of the fuzz is, and how commands.txt and calls.txt are read. Read this to add a case: it is a row there.

A row is the outcome that is wanted, a command line or a piece of Python, and what the message has to contain:

    refused  GENERATE --guidance <nan|inf|-inf>  -> guidance

refused  a non-zero exit code and a message (Python: an error of enhance_a_video.errors)
warned   it works, and says so that something is not as asked (Python: a warning)
told     one or the other: what must not happen is silence
ok       it works, without a warning being required
any      it works or it is refused with a message: of files that are damaged at random

<a|b|c> stands for a case for each of them, <0..9> for one for each number.
[name] before a command line is a condition of conditions.py. A word that
is the name of a material of materials.py puts that file or folder into the case's folder. What follows the arrow is a
regular expression, upper and lower case alike. A line that begins with a space continues the one above, # a comment.

=== KIND          begins a kind of cases
command  WORDS    until the next kind the rows are not command lines but what a file contains, which these words read
file     NAME     the file's name
base     LINE     a line that the file has besides, unless a row has one that begins with the same word
word     A WORDS  A stands for these words

In a command %00 is a zero byte and %09 a tab. In what a file contains \\n is a new line and DEEP are brackets, far
too deep. MANY is a text far too long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

_OUTCOMES = ("refused", "warned", "told", "ok", "any")
_ROW = re.compile(rf"({'|'.join(_OUTCOMES)})\s+(?:\[([a-z][\w-]+)\]\s+)?(.*?)(?:\s+->\s*(.*))?")
_DEEP, _MANY = "[" * 100_000, "cat " * 20_000


@dataclass(frozen=True)
class Case:
    """One thing that somebody may do. files: name -> text, made in the case's folder."""

    kind: str
    wanted: str
    text: str  # the words after enhance-a-video, or Python
    says: str = ""
    condition: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    python: bool = False

    def __str__(self) -> str:
        parts = [f"[{self.condition}]"] * bool(self.condition) + [self.text]
        parts += [f"{name}: {text}" for name, text in self.files.items()]
        return "  ".join(part if len(part) < 300 else part[:300] + " ..." for part in parts).replace("\n", "\\n")


def read(path: Path) -> list[Case]:
    """The cases of a file. Raises ValueError for a line that is none."""
    found: list[Case] = []
    kind, words, section = "", {}, {}
    for line in _lines(path.read_text(encoding="utf-8")):
        first, _, rest = line.partition(" ")
        if first == "===":
            kind, section = rest, {"base": []}
        elif first == "word":
            short, long = rest.split(None, 1)
            words[short] = _with(words, long)
        elif first in ("command", "file"):
            section[first] = rest.strip()
        elif first == "base":
            section[first].append(rest.strip())
        elif row := _ROW.fullmatch(line):
            wanted, condition, text, says = (part or "" for part in row.groups())
            for one in _alternatives(text):
                files = _contents(one, section)
                typed = _with(words, section["command"] if files else one).replace("MANY", _MANY)
                found.append(Case(kind, wanted, typed, says, condition, files, path.stem == "calls"))
        else:
            raise ValueError(f"{path}: neither a row nor anything else: {line}")
    return found


def _lines(text: str) -> Iterator[str]:
    """Lines without comments, those that are continued in one."""
    whole = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith(" ") and whole:
            whole += line.strip() if whole.endswith("|") else " " + line.strip()
            continue
        if whole:
            yield whole
        whole = "" if line.startswith("#") else line.rstrip()


def _alternatives(text: str) -> Iterator[str]:
    """The texts that one stands for: each of <a|b|c> in turn, each number of <0..9>."""
    text = re.sub(
        r"<(\d+)\.\.(\d+)>", lambda ends: f"<{'|'.join(map(str, range(int(ends[1]), int(ends[2]) + 1)))}>", text
    )
    parts = re.split(r"<([^<>]*\|[^<>]*)>", text)  # every second one is a list of alternatives
    choices = [part.split("|") if number % 2 else [part] for number, part in enumerate(parts)]
    return ("".join(chosen) for chosen in product(*choices))


def _numbers(ends: re.Match) -> str:
    return f"<{'|'.join(map(str, range(int(ends[1]), int(ends[2]) + 1)))}>"


def _contents(text: str, section: Mapping) -> dict[str, str]:
    """The file that a row is the content of, if it is."""
    if "file" not in section:
        return {}
    text = text.replace("\\n", "\n").replace("DEEP", _DEEP)
    kept = [line for line in section["base"] if not re.search(rf"^{line.split(':')[0]}:", text, re.MULTILINE)]
    return {section["file"]: "\n".join([text, *kept])}


def _with(words: Mapping[str, str], text: str) -> str:
    for short, long in words.items():
        text = re.sub(rf"\b{short}\b", lambda _, long=long: long, text)
    return text
