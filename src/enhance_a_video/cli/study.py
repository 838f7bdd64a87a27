"""The command `study`: an experiment from one file, planned, run, resumed and reported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from ..errors import EnhanceAVideoError, SettingsError, VideoFileError
from ..generation.terminal import print_json
from ..wording import count
from .app import app, err, print_notes
from .options import Json, Ray, WithRay, Workers, command_of, given, path_of, without_effect
from .progress import working
from .screen import Screen

if TYPE_CHECKING:
    from ..lab.study import Outcome, Results, Study, StudySize


@app.command(cls=WithRay)
def study(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(parser=path_of, help="The study, YAML.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", parser=path_of, help="Folder of the results; by default the study's name."),
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print what it takes: clips, hours, clips needed for each measure.")
    ] = False,
    pilot: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many prompts, then the plan. They count later.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Only write the pages, from what is stored.")] = False,
    json: Json = False,
) -> None:
    """Does it help? Prompts x seeds x settings, in pairs, with intervals, corrected, worst cases shown.

    Results go into a folder: study.sqlite (every number), report.html, report.md. Killed or stopped, the same command
    goes on where it was.

    enhance-a-video study study.yaml --pilot 10        the first 10 prompts; then how many are needed
    enhance-a-video study study.yaml --workers 2       all of them, and the report
    """
    if sum((plan, report, pilot is not None)) > 1:
        raise SettingsError("--plan, --pilot and --report are three things to do: give one of them.")
    from ..lab import study as room

    study = room.read_study(file)
    folder = out or Path(study.name)
    room.refuse_foreign(folder, write=not (plan or report or pilot is not None))
    notes = without_effect(given(ctx, "workers", "ray") if report else [], "with --report")
    notes += [] if report else room.notices(study, pilot)
    print_notes(notes)
    screen = err if json else Screen()
    outcome, refused = None, None
    if not (plan or report):
        with working("Stopped. What is stored stays; the same command goes on from there.") as progress:
            outcome = room.run(
                study, folder, workers=workers, ray=ray, first=pilot, command=command_of(ctx), progress=progress
            )
    if plan or pilot is not None:
        planned = room.make_plan(study, folder, workers=workers or 1)
        data: dict[str, Any] = {"plan": planned.to_dict()}
        _print_plan(screen, planned, file)
    else:
        with working() as progress:
            results, pages = _results(study, folder, outcome), []
            try:
                pages = room.write_pages(results, folder, progress=progress)
            except VideoFileError as error:  # a read-only folder: the numbers are there all the same
                refused = (
                    f"{error} The numbers are complete. For the pages: copy {folder} to where you may write, and "
                    "give the copy with --out and --report."
                )
        data = {"results": results.to_dict(), "files": [str(path) for path in pages]}
        if refused:
            data["error"] = {"class": "VideoFileError", "message": refused}
        _print(screen, results, pages)
    if json:
        failed = outcome.failures if outcome else {}
        facts = {"command": "study", "out": str(folder), "failures": failed, "warnings": notes}
        print_json({**facts, **data})
    if refused:
        err.print(f"[bold red]Error:[/] {escape(refused)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    _end(study, outcome)


def _results(study: Study, folder: Path, outcome: Outcome | None) -> Results:
    from ..lab import study as room

    try:
        return room.analyse(study, folder)
    except SettingsError as error:  # too few clips to compare: because they failed, or because none was made yet
        if outcome and outcome.failures:
            raise EnhanceAVideoError(_failed(study, outcome)) from error
        raise


def _failed(study: Study, outcome: Outcome) -> str:
    return (
        f"{len(outcome.failures)} of {count(outcome.planned, 'clip')} of {study.name} could not be made. The same "
        f"command tries them again. The first: {next(iter(outcome.failures.values()))}"
    )


def _end(study: Study, outcome: Outcome | None) -> None:
    if outcome and outcome.failures:
        err.print(f"[bold red]Error:[/] {escape(_failed(study, outcome))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


# -------------------------------------------------------------------------------------------------------- printing


def _print_plan(screen: Screen, plan: StudySize, file: Path) -> None:
    from ..lab.study import view

    study = plan.study
    parts = [count(len(study.prompts), "prompt"), count(len(study.settings), "setting")]
    parts += [f"{name} {', '.join(map(str, values))}" for name, values in study.factors.items()]
    screen.print(f"[bold]{escape(study.name)}[/]  [dim]{study.digest}[/]", highlight=False)
    screen.print(
        f"{count(plan.clips, 'clip')}: {escape('; '.join(parts))}. {plan.done:,} stored, {plan.left:,} to make."
    )
    if plan.other_weights:
        others = count(plan.other_weights, "stored clip")
        screen.print(f"Made by other weights of the model, so that they do not count: {others}.")
    if plan.seconds is None or plan.hours is None:
        again = f"enhance-a-video study {file} --pilot {max(4, min(10, len(study.prompts)))}"
        screen.print(
            f"How long it takes and how many it needs is unknown before a pilot: {escape(again)}", soft_wrap=True
        )
        return
    screen.print(f"About {_hours(plan.hours)} with {count(plan.workers, 'worker')}, at {plan.seconds:.1f} s a clip.")
    if not plan.needs:
        screen.print("Too few pairs are stored to estimate how many are needed: make a larger --pilot.")
        return
    screen.print(
        f"\nNeeded for a chance of {study.power.power:.0%} to find the effect, in {view.plural(plan.unit)} "
        f"(planned: {plan.units}):",
        highlight=False,
    )
    screen.print(_needs_table(view.needs(plan)))


def _needs_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure", max_width=28)
    for name in ("effect", "sd", "alone", "corrected", "planned find"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        style = {True: "green", False: "yellow", None: "dim"}[row["enough"]]
        values = [row[key] for key in ("effect", "spread", "alone")]
        table.add_row(row["label"], *values, f"[{style}]{row['all']}[/]", row["finds"])
    return table


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else count(max(1, round(60 * hours)), "minute")


def _print(screen: Screen, results: Results, pages: list[Path]) -> None:
    from ..lab.study import view

    screen.print(f"[bold]{escape(results.study.name)}[/]: {escape(view.headline(results))}", highlight=False)
    for text in view.warnings(results):
        screen.print(f"[yellow]{escape(text)}[/]", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("setting", max_width=24)
    for name in ("pooled, sd", "95 % interval", "p", "", "better", "worse"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for label in results.study.others:
        row = view.pooled_line(results, label)
        style = {"better": "green", "worse": "red"}.get(row["verdict"], "dim")
        values = (row["value"], row["span"], row["adjusted"], f"[{style}]{row['verdict']}[/]")
        table.add_row(escape(label), *values, str(row["better"]), str(row["worse"]))
    screen.print(table)
    for label in results.study.others:
        screen.print(f"[bold]{escape(label)}[/]: {escape(view.verdict(results, label))}", highlight=False)
    if pages:
        screen.print("\n[bold green]Written:[/]")
    for path in pages:
        screen.print(f"  {escape(str(path))}", highlight=False, soft_wrap=True)
