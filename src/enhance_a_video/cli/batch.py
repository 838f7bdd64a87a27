"""The command that makes many clips: batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from typer.core import TyperCommand

from ..limits import MAX_CLIPS, MAX_WORKERS, seeds_from
from ..terminal import print_json
from ..wording import count
from .app import Stopped, app, err, print_notes
from .options import Clip, Json, Knobs, Load, Model, Seed, given, grouped, panel_of, path_of
from .screen import Screen

if TYPE_CHECKING:
    from ..batch import Progress, Tally

_ADDRESS = re.compile(r"auto|local|\w+://.+|[^/\\]+:\d+")


class _WithRay(TyperCommand):
    """--ray may stand alone: the next word is its address only where it looks like one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words: list[str] = []
        for number, word in enumerate(args):
            following = args[number + 1] if number + 1 < len(args) else ""
            bare = word == "--ray" and not _ADDRESS.fullmatch(following)
            words.append("--ray=" if bare else word)
        return super().parse_args(ctx, words)


@app.command(cls=_WithRay)
@grouped
def batch(
    ctx: typer.Context,
    *,
    prompts: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS", parser=path_of, help=".txt: a prompt a line. .jsonl: an object a line, see below."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", parser=path_of, help="Folder for the clips and manifest.jsonl.")],
    model: Model = "embedded",
    enhance: Annotated[
        bool,
        typer.Option("--enhance/--no-enhance", rich_help_panel="Enhancement", help="--no-enhance: plain clips only."),
    ] = True,
    plain: Annotated[
        bool, typer.Option("--plain", rich_help_panel="Enhancement", help="The plain model's clips as well.")
    ] = False,
    panel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL:]KEY=VALUE,...",
            rich_help_panel="Enhancement",
            help="Clips with other settings as well, e.g. 'paper: temperature=4,start=0,end=1'; repeatable.",
        ),
    ] = None,
    knobs: Knobs,
    seeds: Annotated[
        int,
        typer.Option(min=1, max=MAX_CLIPS, rich_help_panel="Video", help="How many for each prompt, from --seed on."),
    ] = 1,
    clip: Clip,
    seed: Seed = 0,
    load: Load,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_WORKERS, help="How many clips at a time; by default one for each CUDA device, or one."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="[ADDRESS]", help="Work on a Ray cluster; alone: the one that Ray finds, or a local one."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try clips again that failed in an earlier run.")
    ] = False,
    json: Json = False,
) -> None:
    """Many prompts, seeds and settings into one folder. Stopped or killed, the same command goes on where it was.

    enhance-a-video batch prompts.txt -o clips --seeds 4
    enhance-a-video batch prompts.jsonl -o clips -m Wan-AI/Wan2.1-T2V-1.3B-Diffusers --plain
    enhance-a-video batch prompts.jsonl -o clips -m ./my-model --ray head-node:6379 --workers 16

    A line of prompts.jsonl: {"prompt": "a cat", "seeds": [0, 1], "negative": "blur", "steps": 30}
    """
    settings = knobs.settings(enhance)
    from .. import batch as batches
    from .. import pipelines, plan, preflight

    pipelines.quiet()
    panels = [("plain", None)] if plain or not enhance else []
    panels += [("enhanced", settings)] if enhance else []  # type: ignore[list-item]
    panels += [panel_of(text) for text in panel or []]  # type: ignore[misc]
    options = clip.options(open_image=False)
    lines = plan.read_prompts(prompts)
    items = plan.expand(lines, seeds_from(seed, seeds), panels, options)
    flags = [flag.removeprefix("--") for flag in given(ctx, "seed", "seeds")]
    notes = [*plan.repeats(lines), *plan.overridden(lines, [*options, *flags])]
    notes += preflight.notices_about(model, items)
    print_notes(notes)
    try:
        with _bar() as tell:
            tally = batches.run(
                out, items, model=model, load=asdict(load), workers=workers, ray=ray, retry_failed=retry_failed,
                tell=tell,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped("Stopped. What is written stays; the same command goes on from there.") from None
    _say(tally, out, model, json, notes)
    if tally.failed or tally.failed_before:
        raise typer.Exit(1)


@contextmanager
def _bar() -> Iterator[Callable[[Progress, str, bool], None]]:
    """A bar over all clips with the time left; where no terminal shows one, a line for each clip."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[clips]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Bar(*columns, console=err, transient=True, speed_estimate_period=3600) as bar:
        task = bar.add_task("starting", total=None, clips="")

        def tell(progress: Progress, line: str, wrong: bool) -> None:
            finished = progress.made + progress.failed
            clips = f"{finished} of {count(progress.total, 'clip')}"
            clips += f", {progress.failed} failed" * bool(progress.failed)
            running = len(progress.workers)
            text = count(running, "worker") if running else "loading the model"
            bar.update(task, total=progress.total, completed=progress.clips, clips=clips, description=text)
            if line and (wrong or not err.is_terminal):
                left = bar.tasks[0].time_remaining
                ending = "" if left is None or err.is_terminal else f", {timedelta(seconds=round(left))} left"
                err.print(f"{clips}{ending}: {escape(line)}", highlight=False, soft_wrap=True)

        yield tell


def _say(tally: Tally, out: Path, model: str, json: bool, notes: list[str]) -> None:
    from ..batch.folder import MANIFEST

    if json:
        facts = {"out": str(out), "manifest": str(out / MANIFEST), "model": model}
        print_json({"command": "batch", **facts, **tally.to_dict(), "warnings": notes})
        return
    screen = Screen()
    parts = [f"{tally.made} made", f"{tally.there} there before"]
    parts += [f"{tally.adopted} found without a line and listed"] * bool(tally.adopted)
    parts += [f"{tally.failed} failed"] * bool(tally.failed)
    parts += [f"{tally.failed_before} failed in an earlier run"] * bool(tally.failed_before)
    screen.print(f"{count(tally.items, 'clip')}: {', '.join(parts)}.", highlight=False)
    if tally.failed or tally.failed_before:
        screen.print("The manifest says why they failed. To try them again: --retry-failed", highlight=False)
    screen.print(f"[bold green]Written:[/] {escape(str(out / MANIFEST))}", soft_wrap=True)
