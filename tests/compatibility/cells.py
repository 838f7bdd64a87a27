"""The cells of the compatibility matrix, their outcomes, and the page made of them.

A cell is a test with the mark `cell(row, column)`. Its section is the first line of its file's docstring, what it
asserts is its own docstring; docs/reference/compatibility.md is a function of these and of outcomes.json alone.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "reference" / "compatibility.md"
OUTCOMES = HERE / "outcomes.json"
COLUMNS = ("Wan", "CogVideoX", "HunyuanVideo", "LTX-Video")
PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "peft", "torchao", "bitsandbytes", "gguf", "cache-dit",
)  # fmt: skip
# The order of the sections on the page.
FILES = ("compile", "attention", "weights", "caches", "embedded", "guidance", "parallel", "process")


def cells(row: str, *columns: str) -> pytest.MarkDecorator:
    """A test for each column (all four families by default), which it gets as the argument `column`."""
    marked = [pytest.param(c, marks=pytest.mark.cell(row, c), id=c) for c in columns or COLUMNS]
    return pytest.mark.parametrize("column", marked)


@dataclass(frozen=True)
class Cell:
    section: str
    row: str
    column: str

    @property
    def key(self) -> str:
        return f"{self.section} | {self.row} | {self.column}"


@dataclass
class Section:
    """A file of the matrix: its heading and introduction, and what each row asserts."""

    title: str
    intro: str
    rows: dict[str, str]  # row -> what is asserted
    cells: list[Cell]


def _text(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


def section_of(module: Any) -> str:
    """The heading of a test file: the first line of its docstring, up to the colon."""
    return _text(module.__doc__).split(":")[0]


def _marks_of(function: Any) -> Iterator[tuple[str, str]]:
    for mark in getattr(function, "pytestmark", []):
        if mark.name == "cell":
            yield mark.args
        if mark.name == "parametrize":
            for parameters in mark.args[1]:
                yield from (m.args for m in getattr(parameters, "marks", ()) if m.name == "cell")


def sections() -> list[Section]:
    """Every cell there is, read off the test functions."""
    found = []
    for name in FILES:
        module = importlib.import_module(f"test_matrix_{name}")
        title, intro = section_of(module), _text(module.__doc__).split(":", 1)[1].strip()
        section = Section(title, intro[0].upper() + intro[1:], {}, [])
        for function in vars(module).values():
            if not inspect.isfunction(function) or function.__module__ != module.__name__:
                continue
            for row, column in _marks_of(function):
                section.rows[row] = _text(function.__doc__)
                section.cells.append(Cell(title, row, column))
        found.append(section)
    return found


def outcomes() -> dict[str, Any]:
    return json.loads(OUTCOMES.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------- the page
HEAD = """# Compatibility

<!-- Written by the tests: make compatibility. Do not edit by hand. -->

The ways people run video models, each with the method on: every **yes** below is a test that passed, and every other
entry says what was missing. The tests are in [`tests/compatibility/`](../../tests/compatibility).

**How to read.** *yes*: the test ran and held. *not run here*: with what it needs. *not in diffusers*: it fails or does
nothing on the plain model as well, which the test shows. *not yet*: it fails, and is known to. *–*: there is no such
cell. A number leads to a remark. Unless a row says otherwise, every cell asserts three things: the method **acts** (the
output differs from the plain one by more than a thousandth), the output **equals a stated reference**, and after
`remove()` the output is the plain one **to the bit**.

**What ran.** The real diffusers classes at tiny size with random weights, in fp32; the step caches also on the embedded
model; {machine}, {versions}. A tiny model shows that the numbers are the right ones, not how large weights look.

**How to regenerate.** `make compatibility` (or `pytest tests/compatibility --write-docs` where the packages are): it
writes this page when no cell is missing and none failed. `make test` runs the same cells and checks that the page lists
exactly these.

**Written out by hand**, as a reference, means: the paper's equations 5–7 in float64 inside the processors of a plain
model, without anything of this package ([`common.py`](../../tests/compatibility/common.py)).
"""


def page(sections: list[Section], outcome: dict[str, Any]) -> str:
    """The whole of docs/reference/compatibility.md."""
    versions = ", ".join(f"{name} {v}" for name, v in outcome["versions"].items())
    head = HEAD.format(machine=outcome["machine"], versions=versions)
    return "\n".join([_fill(head), *(_section(s, outcome) for s in sections)])


def _broken(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _fill(text: str) -> str:
    """Paragraphs broken at spaces; headings and comments as they are."""
    blocks = text.strip().split("\n\n")
    return "\n\n".join(b if b[0] in "#<" else _broken(" ".join(b.split())) for b in blocks) + "\n"


def _section(section: Section, outcome: dict[str, Any]) -> str:
    present = [cell.column for cell in section.cells]
    columns = [c for c in COLUMNS if c in present] + sorted({c for c in present if c not in COLUMNS})
    notes: list[str] = []
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in section.rows:
        entries = [_entry(Cell(section.title, row, c), section, outcome, notes) for c in columns]
        lines.append(f"| {row} | " + " | ".join(entries) + " |")
    alike: dict[str, list[str]] = {}
    for row, what in section.rows.items():
        alike.setdefault(what, []).append(row)
    says = "\n".join(_fill_item(f"- **{'**, **'.join(rows)}**: {what}") for what, rows in alike.items())
    numbered = "\n".join(_fill_item(f"{n}. {note}") for n, note in enumerate(notes, 1))
    parts = [
        f"## {section.title}",
        _fill(section.intro).strip(),
        "\n".join(lines),
        numbered,
        *_measures(section, outcome),
    ]
    return "\n\n".join([p for p in [*parts, "What is asserted:", says] if p]) + "\n"


def _fill_item(text: str) -> str:
    return _broken(text, " " * (text.index(" ") + 1))


def _entry(cell: Cell, section: Section, outcome: dict[str, Any], notes: list[str]) -> str:
    if cell not in section.cells:
        return "–"
    state, reason = outcome["cells"].get(cell.key, ("never run", ""))
    if reason and reason not in notes:
        notes.append(reason)
    mark = f" [{notes.index(reason) + 1}]" if reason else ""
    return f"{state}{mark}"


def _measures(section: Section, outcome: dict[str, Any]) -> list[str]:
    """What the tests of a section measured, as a table: a line for each cell that measured something."""
    rows = [
        {section.title: cell.row, **outcome["measures"][cell.key]}
        for cell in section.cells
        if cell.key in outcome["measures"]
    ]
    if not rows:
        return []
    head = list(rows[0])
    table = ["| " + " | ".join(["", *head[1:]]) + " |", "|---" * len(head) + "|"]
    table += ["| " + " | ".join(str(row[k]) for k in head) + " |" for row in rows]
    return ["Measured when this page was written:", "\n".join(table)]


def pinned() -> dict[str, str]:
    """constraints.txt as {package: version}."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
