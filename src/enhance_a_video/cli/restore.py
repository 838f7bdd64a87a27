"""The command `restore`: makes a finished video steadier."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..generation.terminal import print_json
from ..wording import count
from .app import app
from .options import (
    Force,
    Guidance,
    Json,
    Knobs,
    Labels,
    Load,
    Model,
    Negative,
    Seed,
    Steps,
    given,
    grouped,
    path_of,
    without_effect,
)
from .progress import Notes, working
from .screen import Screen

if TYPE_CHECKING:
    from ..generation.restore import Restored


@app.command()
@grouped
def restore(
    ctx: typer.Context,
    *,
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", parser=path_of, help="The video: any container and codec that FFmpeg reads."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", parser=path_of, help="The mp4 to write; by default FILE-restored.mp4.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="How much noise is mixed in and taken out again: 0.1 by default, 0.4 strong, 1 a new video; 0: no "
            "model runs, the light alone is made even.",
        ),
    ] = None,
    keep_detail: Annotated[
        bool,
        typer.Option("--keep-detail/--no-keep-detail", help="Give back the detail of FILE that is steady in it."),
    ] = True,
    even_light: Annotated[
        bool,
        typer.Option(
            "--even-light/--no-even-light", help="Make brightness and white balance of whole frames even first."
        ),
    ] = True,
    enhance: Annotated[
        bool,
        typer.Option(
            "--enhance/--no-enhance", rich_help_panel="Enhancement", help="--no-enhance: plain video to video."
        ),
    ] = True,
    knobs: Knobs,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the video shows; may be left out.")] = "",
    negative: Negative = None,
    steps: Steps = None,
    guidance: Guidance = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Frames that two windows of a long video share.")] = None,
    seed: Seed = 0,
    model: Model = "embedded",
    load: Load,
    labels: Labels,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a finished video steadier: less flicker, noise and boiling. Sound, length, size and metadata stay.

    Noise is mixed into the video in the model's latent space and taken out again, with the method on; long videos in
    windows of the model's length. Stopped, the same command goes on where it was. What it can do, beside what plain
    video to video and filters do: docs/guide/restore.md

    enhance-a-video restore in.mp4
    enhance-a-video restore in.mp4 --noise 0
    enhance-a-video restore in.mp4 --noise 0.4 -m Wan-AI/Wan2.1-T2V-1.3B-Diffusers -o out.mp4
    """
    settings = knobs.settings(enhance)
    from ..generation.restore import NOISE, Restoring, restore_file

    how = Restoring(
        noise=NOISE if noise is None else noise, settings=settings, keep_detail=keep_detail, even_light=even_light,
        prompt=prompt, negative=negative, steps=steps, guidance=guidance, overlap=overlap, seed=seed,
    )  # fmt: skip
    out = source.with_name(f"{source.stem}-restored.mp4") if out is None else out
    notes = Notes()
    for text in without_effect(given(ctx, *_OF_MODELS) if how.light_only else [], "with --noise 0: no model runs"):
        notes(text)
    stopped = "Stopped. The finished windows are kept; the same command goes on from there."
    with labels.applied(notes), working(stopped) as progress:
        made = restore_file(
            source, out, how, model=model, load=asdict(load), force=force, progress=progress, notice=notes
        )
    _print(made, notes, json)


_OF_MODELS = (
    "keep_detail", "enhance", *(field.name for field in fields(Knobs)), "prompt", "negative", "steps", "guidance",
    "overlap", "seed", "model", *(field.name for field in fields(Load)),
)  # fmt: skip


def _print(made: Restored, notes: list[str], json: bool) -> None:
    record = made.record()
    if json:
        warnings = list(dict.fromkeys([*record["warnings"], *notes]))
        print_json({"command": "restore", "out": str(made.out), **record, "warnings": warnings})
        return
    screen = Screen()
    if made.summary is not None:
        screen.print(str(made.summary), highlight=False, markup=False)
    screen.print(_worked(made, record), highlight=False)
    if made.content is not None:
        screen.print(f"Content check: {made.content}", highlight=False)
    source = made.source
    shape = f"{count(source.frames, 'frame')}, {source.width}x{source.height}, {source.fps:g} fps, {made.seconds:.1f} s"
    screen.print(f"[bold green]Written:[/] {escape(str(made.out))}  [dim]({shape})[/]", soft_wrap=True)


def _worked(made: Restored, record: dict[str, Any]) -> str:
    if made.plan is None:
        return "No model ran: the light of whole frames was made even."
    starts = record["starts"]
    return (
        f"Started at step {starts['step']} of {starts['of']}, where the latents are {starts['noise_share']:.0%} noise; "
        f"{count(len(made.plan.spans), 'window')} of {count(made.plan.frames, 'frame')}."
    )
