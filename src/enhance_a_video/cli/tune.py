"""The command `tune`: searches or learns a policy for a model, confirms it on other prompts, writes a profile."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..generation.terminal import print_json
from ..limits import MAX_SEED
from ..wording import count
from .app import app, print_notes
from .options import Clip, Json, Load, Model, Ray, WithRay, Workers, command_of, given, grouped, path_of, without_effect
from .progress import working
from .screen import Screen

if TYPE_CHECKING:
    from ..lab.tune import Confirmation, Result


@app.command(cls=WithRay)
@grouped
def tune(
    ctx: typer.Context,
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", parser=path_of, help="Folder of the run, continued where it has one.")
    ] = Path("enhance-a-video-tune"),
    model: Model = "embedded",
    method: Annotated[
        str, typer.Option(help="[b]tpe[/b] or [b]cmaes[/b]: search a grid of strengths. [b]learn[/b]: a small network.")
    ] = "tpe",
    scale: Annotated[
        str, typer.Option(help="[b]cross-frame[/b]: odds, as the default. [b]output[/b]: gains on the whole output.")
    ] = "cross-frame",
    budget: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="Trials of a search, updates of a learning; each makes --clips clips."),
    ] = 60,
    clips: Annotated[
        int, typer.Option(min=2, max=10_000, help="Prompts, with a noise each, that every policy is judged on.")
    ] = 16,
    confirm: Annotated[
        int,
        typer.Option(min=0, max=100_000, help="Other prompts on which the result is confirmed; 0: none."),
    ] = 48,
    reward: Annotated[str, typer.Option(help="quality, truth or no-reference: see docs/guide/tune.md.")] = "quality",
    prompts: Annotated[
        Path | None,
        typer.Option(parser=path_of, help="A prompts file, as for batch. Not needed for the embedded model."),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**31, help="Without a file: the first held-out scene of the embedded world (else 1000)."
        ),
    ] = None,
    groups: Annotated[int, typer.Option(min=1, max=128, help="Depths of the grid that is searched.")] = 6,
    times: Annotated[int, typer.Option(min=1, max=128, help="Times of that grid.")] = 3,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the search or the learning.")] = 0,
    profile: Annotated[
        Path | None,
        typer.Option(parser=path_of, help="The profile to write, .json; by default profile.json in the folder."),
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    batch: Annotated[
        int,
        typer.Option(
            min=1, max=1024, help="Clips of one policy made in one call of the pipeline: quicker, and more memory."
        ),
    ] = 1,
    clip: Clip,
    load: Load,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the --profile that is there.")] = False,
    json: Json = False,
) -> None:
    """Find where and when to enhance this model: a policy is searched or learned, then confirmed on other prompts.

    Writes a profile: enhance(pipe, policy="profile.json"), or --policy profile.json. Killed or stopped, the same
    command goes on where it was.

    enhance-a-video tune --out runs/tune --workers 2
    enhance-a-video tune --method learn --budget 100 --clips 32 --out runs/learned
    enhance-a-video tune -m ./my-model --prompts prompts.txt --clips 16 --confirm 32 --out runs/mine
    """
    from ..lab import tune as room

    own, others = room.chosen_prompts(model, prompts, clips, confirm, first)
    tuning = room.Tuning(
        model, own, others, method=method, scale=scale, reward=reward, budget=budget, groups=groups, times=times,
        seed=seed, load=asdict(load) | ({"batch": batch} if batch > 1 else {}), options=clip.options(open_image=False),
        workers=workers, ray=ray, scenes=first is not None,
    )  # fmt: skip
    notes = without_effect(given(ctx, "groups", "times") if method == "learn" else [], "with --method learn")
    notes += room.notices(tuning)
    print_notes(notes)
    with working("Stopped. What is stored stays; the same command goes on from there.") as progress:
        result = room.tune(tuning, out, profile=profile, command=command_of(ctx), force=force, progress=progress)
    if json:
        data = {"command": "tune", "out": str(out), "model": model, "warnings": notes, **room.result_to_dict(result)}
        print_json(data)
        return
    _print(Screen(), result, method)


def _print(screen: Screen, result: Result, method: str) -> None:
    found, confirmation = result.found, result.confirmation
    tries = count(len(found.tries), "update" if method == "learn" else "trial")
    screen.print(f"{tries}. Reward of the best on its own prompts: {found.reward:+.3f}", highlight=False)
    if found.policy is None:
        screen.print(
            "Nothing that was tried is better than the plain model. The profile does nothing.", highlight=False
        )
    elif confirmation is None:
        screen.print("Not confirmed on other prompts (--confirm 0): its reward is too high by chance.", highlight=False)
    else:
        screen.print(_table(confirmation))
        colour = "green" if "better than the plain model, and" in confirmation.verdict() else "yellow"
        screen.print(f"[{colour}]{escape(confirmation.verdict())}[/]", highlight=False)
    screen.print("\n[bold green]Written:[/]")
    for path in result.files:
        screen.print(f"  {escape(str(path))}", highlight=False, soft_wrap=True)


def _table(confirmation: Confirmation) -> Table:
    from rich import box

    table = Table(title="Against the plain model, on other prompts", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", max_width=30)
    labels = list(confirmation.rewards)
    for label in labels:
        table.add_column(label, justify="right", no_wrap=True)
        table.add_column("95 %", justify="right", no_wrap=True)
    cells = [(f"{one.difference:+.3f}", f"{one.low:+.3f} … {one.high:+.3f}") for one in confirmation.rewards.values()]
    table.add_row("[bold]reward[/]", *(text for pair in cells for text in pair))
    effects = confirmation.results.effects
    for row in confirmation.results.study.measures:
        texts = []
        for label in labels:
            one = effects[label].get(row.name)
            if one is None or not isfinite(one.scaled[0]):  # nothing to measure, or all plain clips are alike
                texts += ["–", ""]
            else:
                texts += [f"{one.scaled[0]:+.3f}", f"{one.scaled[1]:+.3f} … {one.scaled[2]:+.3f}"]
        mark = {"higher": "", "lower": "", "neither": " (no direction)"}[row.better]
        table.add_row(escape(row.label) + mark, *texts)
    table.caption = "Measures in standard deviations of the plain model's clips, + better (no direction: + more)."
    return table
