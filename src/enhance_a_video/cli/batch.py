"""The command `batch`: makes many clips in one folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..generation.terminal import print_json
from ..limits import MAX_CLIPS, seeds_from
from ..wording import count
from .app import app, print_notes
from .options import (
    Clip,
    Json,
    Knobs,
    Labels,
    Load,
    Model,
    Ray,
    Seed,
    WithRay,
    Workers,
    given,
    grouped,
    panel_of,
    path_of,
)
from .progress import Notes, working
from .screen import Screen

if TYPE_CHECKING:
    from ..generation.batch import Tally


@app.command(cls=WithRay)
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
    workers: Workers = None,
    ray: Ray = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try clips again that failed in an earlier run.")
    ] = False,
    labels: Labels,
    json: Json = False,
) -> None:
    """Many prompts, seeds and settings into one folder. Stopped or killed, the same command goes on where it was.

    enhance-a-video batch prompts.txt -o clips --seeds 4
    enhance-a-video batch prompts.jsonl -o clips -m Wan-AI/Wan2.1-T2V-1.3B-Diffusers --plain
    enhance-a-video batch prompts.jsonl -o clips -m ./my-model --ray head-node:6379 --workers 16

    A line of prompts.jsonl: {"prompt": "a cat", "seeds": [0, 1], "negative": "blur", "steps": 30}
    """
    settings = knobs.settings(enhance)
    from ..generation import batch as batches
    from ..generation import pipelines, preflight, requests

    pipelines.quiet()
    panels = [("plain", None)] if plain or not enhance else []
    panels += [("enhanced", settings)] if enhance else []  # type: ignore[list-item]
    panels += [panel_of(text) for text in panel or []]  # type: ignore[misc]
    options = clip.options(open_image=False)
    lines = requests.read_prompts(prompts)
    items = requests.expand(lines, seeds_from(seed, seeds), panels, options)
    flags = [flag.removeprefix("--") for flag in given(ctx, "seed", "seeds")]
    notes = [*requests.repeats(lines), *requests.overridden(lines, [*options, *flags])]
    notes += preflight.notices_about(model, items)
    print_notes(notes)
    stopped = "Stopped. What is written stays; the same command goes on from there."
    with labels.applied(unlabelled := Notes()), working(stopped, lines=True) as progress:
        tally = batches.run(
            out, items, model=model, load=asdict(load), workers=workers, ray=ray, retry_failed=retry_failed,
            progress=progress,
        )  # fmt: skip
    _say(tally, out, model, json, [*notes, *unlabelled])
    if tally.failed or tally.failed_before:
        raise typer.Exit(1)


def _say(tally: Tally, out: Path, model: str, json: bool, notes: list[str]) -> None:
    from ..generation.batch.folder import MANIFEST

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
        screen.print("The reasons are in the manifest. To try them again: --retry-failed", highlight=False)
    screen.print(f"[bold green]Written:[/] {escape(str(out / MANIFEST))}", soft_wrap=True)
