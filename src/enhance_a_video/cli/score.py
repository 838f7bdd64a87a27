"""The command `score`: measures any video files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from ..errors import ExternalToolError, SettingsError
from ..generation.terminal import print_json
from .app import app, err
from .options import Json, path_of
from .progress import working
from .screen import Screen

if TYPE_CHECKING:
    from ..lab.score import Score

_ACROSS = 3  # files beside each other in one table, so that it fits a terminal of 80 columns
_ARROW = {"higher": "↑", "lower": "↓", "neither": " "}


@app.command()
def score(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", parser=path_of, help="Videos in any format.")],
    measures: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only these, by the names that --json gives them.")
    ] = None,
    vbench: Annotated[
        str | None,
        typer.Option(
            metavar="DIMENSION,...", help="VBench's own measures as well, where you have it: docs/guide/vbench.md."
        ),
    ] = None,
    vbench_python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The Python of the environment that VBench is installed in."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure any videos: how steady, how smooth, how sharp. No prompt and no reference needed.

    Long files are read in pieces: every frame counts, memory stays small. A file that is damaged or cut off is
    reported, measured as far as it goes, and does not stop the others. What each measure responds to, and what it is
    blind to, is in docs/reference/measures.md: a frozen clip is perfectly steady.

    enhance-a-video score A.mp4 B.mp4
    enhance-a-video score *.mp4 --json --measures temporal_flicker,warping_error
    enhance-a-video score A.mp4 --vbench subject_consistency,motion_smoothness --vbench-python vbench-env/bin/python
    """
    from ..lab import score as room

    python = os.path.expanduser(vbench_python) if vbench_python else None  # as it is typed: ./python is not python
    names, dimensions = _words("--measures", measures), _words("--vbench", vbench)
    if dimensions is not None:
        room.check_vbench(dimensions, python)
    elif python:
        raise SettingsError("--vbench-python alone does nothing: name with --vbench what VBench is to measure.")
    with working() as progress:
        scores = room.score_files(files, names, progress=progress)
    trouble: dict[str, Any] = {}
    failed = [one.error if one.path in one.error else f"{one.path}: {one.error}" for one in scores if one.error]
    if dimensions is not None:
        try:
            with working() as progress:
                room.add_vbench(scores, dimensions, python=python, progress=progress)
        except ExternalToolError as error:  # what we measured ourselves is not thrown away
            failed.append(str(error))
            trouble["error"] = {"class": type(error).__name__, "message": str(error)}
    if json:
        print_json({"command": "score", **room.to_dict(scores), **trouble})
    else:
        _print(scores, room.rows(scores))
    for line in failed:
        err.print(f"[bold red]Error:[/] {escape(line)}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _words(flag: str, text: str | None) -> list[str] | None:
    """The words of a comma-separated list; None where it was not given."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise SettingsError(f"{flag} names nothing. Give names with commas between them.")
    return list(dict.fromkeys(words))


def _print(scores: Sequence[Score], rows: dict[str, dict[str, str]]) -> None:
    """Tables of a few files each, a measure a row, with an arrow in the direction that is better."""
    screen, measured = Screen(), [one for one in scores if one.measures]
    for at in range(0, len(measured), _ACROSS):
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("measure", no_wrap=True)
        table.add_column("", no_wrap=True)
        for one in measured[at : at + _ACROSS]:
            table.add_column(escape(Path(one.path).name), justify="right", overflow="fold")
        table.add_column("unit", style="dim", no_wrap=True)
        for label, unit, text in _FACTS:
            table.add_row(label, "", *(text(one) for one in measured[at : at + _ACROSS]), unit)
        for name, row in rows.items():
            values = [_number(one.measures.get(name)) for one in measured[at : at + _ACROSS]]
            table.add_row(row["label"], _ARROW[row["better"]], *values, row["unit"])
        screen.print(table)
    if measured:
        screen.print(
            "[dim]↑ more is better, ↓ less is better; without an arrow neither is: these show what steadiness was "
            "paid with. A frozen clip is perfectly steady, a blurred one nearly: docs/reference/measures.md.[/]",
            highlight=False,
        )


# Rows above the measures: label, unit, text of a score.
_FACTS: tuple[tuple[str, str, Callable[[Score], str]], ...] = (
    ("Frames", "", lambda one: str(one.frames)),
    ("Length", "s", lambda one: _number(one.duration)),
    ("Frame rate", "fps", lambda one: _number(one.fps)),
    ("Size", "px", lambda one: f"{one.width}x{one.height}"),
)


def _number(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4f}" if 0.9 < value < 1 else f"{value:.4g}"
