"""The command `vote`: lets people judge pairs of clips, and prints the results."""

from __future__ import annotations

import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from ..errors import EnhanceAVideoError, VideoFileError
from ..generation.terminal import print_json
from ..wording import count
from .app import app, err, print_notes
from .options import Json, given, path_of, without_effect
from .progress import working
from .screen import Screen

if TYPE_CHECKING:
    from ..lab.vote import Found, Results, Row, Server


@app.command()
def vote(
    ctx: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(parser=path_of, help="What compare, demo, study or batch wrote, or a folder of compare's."),
    ],
    results: Annotated[
        bool, typer.Option("--results", "-r", help="Print the results of the votes so far, and leave.")
    ] = False,
    against: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The label that the others are compared with; else the first.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets other machines of your network vote, on their phones too.")
    ] = "127.0.0.1",
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Json = False,
) -> None:
    """Let people judge: a local page with blinded pairs, left and right at random, and the paper's three questions.

    The votes are kept in votes.sqlite in the folder; stop with Ctrl+C and go on whenever you like.

    enhance-a-video vote enhance-a-video-compare --open
    enhance-a-video vote clips --results
    """
    if results:
        notes = without_effect(given(ctx, "port", "host", "open_"), "with --results")
        print_notes(notes)
        _results(folder, against, json, notes)
    else:
        _serve(folder, against, host, port, open_, json)


def _serve(folder: Path, against: str | None, host: str, port: int, open_page: bool, json: bool) -> None:
    from ..lab.vote import FILE, Ballots, Server

    found = _find(folder, against)
    ballots = Ballots(folder / FILE, found.pairs)
    with Server(ballots, host, port) as server:
        _announce(server, found, folder, json)
        if open_page:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            err.print(
                f"\nStopped. What was voted: enhance-a-video vote {escape(str(folder))} --results", soft_wrap=True
            )
    if found.unreadable:
        raise typer.Exit(1)


def _announce(server: Server, found: Found, folder: Path, json: bool) -> None:
    for line in found.unreadable:
        err.print(f"[bold red]Error:[/] {escape(line)} Its pairs are left out.", highlight=False, soft_wrap=True)
    for note in found.notes:
        err.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    if not server.local:
        err.print(
            "[yellow]Note:[/] everybody who reaches this machine over the network can see these videos and vote, under "
            "any name and unencrypted. For people you trust, on a network you trust.",
            highlight=False,
            soft_wrap=True,
        )
    if json:
        data = {"command": "vote", "url": server.url, "pairs": len(found.pairs), "votes": str(server.ballots.path)}
        data |= {"unreadable": list(found.unreadable), "warnings": list(found.notes)}
        print_json(data)
        return
    screen = Screen()
    screen.print(
        f"{count(len(found.pairs), 'pair')} from {escape(found.source)}. "
        f"Votes go to {escape(str(server.ballots.path))}.",
        highlight=False,
        soft_wrap=True,
    )
    screen.print(f"\n  [bold]{escape(server.url)}[/]", highlight=False, soft_wrap=True)
    if not server.local:
        screen.print(
            f"  [bold]{escape(server.url_for(_own_address()))}[/]  on other machines", highlight=False, soft_wrap=True
        )
    screen.print("\nOpen it in a browser; stop with Ctrl+C.", highlight=False)


def _own_address() -> str:
    """This machine's address in its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of no machine: reserved for documentation
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _find(folder: Path, against: str | None) -> Found:
    from ..lab.vote import find_pairs

    with working() as progress:
        return find_pairs(folder, against, progress=progress)


def _results(folder: Path, against: str | None, json: bool, notes: list[str]) -> None:
    from ..lab.vote import FILE, results

    current, note = None, ""
    try:
        found = _find(folder, against)
        if found.unreadable and against is None:
            raise VideoFileError(found.trouble)
        current = {pair.id for pair in found.pairs}
        note = found.trouble
    except EnhanceAVideoError as error:
        if against is not None or not (folder / FILE).is_file():
            raise
        note = f"All votes in the file are counted, as the videos are not as they were: {error}"
    counted = results(folder, current)
    if json:
        data: dict[str, Any] = {"command": "vote", "folder": str(folder), **counted.to_dict()}
        data |= {"note": note, "warnings": notes}
        print_json(data)
        return
    _print(counted, note)


def _print(counted: Results, note: str) -> None:
    screen = Screen()
    for label, against in dict.fromkeys((row.label, row.against) for row in counted.rows):
        screen.print(_table([row for row in counted.rows if (row.label, row.against) == (label, against)]))
    screen.print(
        "Win rate: wins and half of the ties, with its 95 % interval for other clips. "
        "alpha: agreement between voters (Krippendorff), 1 is full, 0 no more than chance.",
        style="dim",
    )
    people = ", ".join(f"{name} ({pairs})" for name, pairs in counted.voters.items())
    voters = count(len(counted.voters), "voter")
    screen.print(f"{count(counted.pairs, 'pair')}, {voters}: {escape(people)}", highlight=False)
    if counted.left == counted.left:
        screen.print(f"Left was chosen in {counted.left:.0%} of the answers that are not equal.", highlight=False)
    if counted.left_out:
        note = f"Not counted: {count(counted.left_out, 'pair')} whose videos changed or went since. {note}"
    if note:
        screen.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)


def _table(rows: list[Row]) -> Table:
    """The questions about one label, for a terminal of 80 columns."""
    first = rows[0]
    table = Table(
        title=escape(f"{first.label}, against {first.against}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("question", no_wrap=True)
    for name in ("votes", "better", "equal", "worse", "win rate", "95 %", "alpha"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        won = row.wins
        shares = [f"{votes / won.votes:.0%}" for votes in (won.wins, won.ties, won.losses)]
        between = f"{won.low:.0%}–{won.high:.0%}" if won.low == won.low else "–"
        style = ("green" if won.low > 0.5 else "red") if won.clear else ""
        agreed = f"{row.agreement.alpha:.2f}".replace("-", "−") if row.agreement.alpha == row.agreement.alpha else "–"
        rate = f"[{style or 'none'}]{won.rate:.0%}[/]"
        table.add_row(row.question.name, str(won.votes), *shares, rate, between, agreed)
    return table
