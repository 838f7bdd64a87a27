"""The command `ui`: serves the web page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..generation.terminal import print_json
from .app import app, err
from .options import Json, Labels, grouped, path_of
from .progress import Notes
from .screen import Screen


@app.command()
@grouped
def ui(
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", parser=path_of, help="Folder for the gallery, the queue and presets.")
    ] = Path("enhance-a-video-ui"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets other machines of your network use the page, with a password.")
    ] = "127.0.0.1",
    password: Annotated[
        str, typer.Option(envvar="ENHANCE_A_VIDEO_PASSWORD", help="Asked for by the page; the name is free.")
    ] = "",
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    labels: Labels,
    json: Json = False,
) -> None:
    """A web page: prompt, strength, go; plain and enhanced in one player; a gallery, a queue, settings from any clip.

    enhance-a-video ui --open
    ENHANCE_A_VIDEO_PASSWORD=... enhance-a-video ui --host 0.0.0.0
    """
    from ..web.page import serve

    notes = Notes()
    with labels.applied(notes):
        blocks, desk = serve(out, host=host, port=port, password=password, browser=open_)
        _stay(blocks, desk, out, host, json, notes)


def _stay(blocks: Any, desk: Any, out: Path, host: str, json: bool, notes: list[str]) -> None:
    """Prints the page's address, and serves it until Ctrl+C."""
    try:
        if json:
            data = {"command": "ui", "url": blocks.local_url, "out": str(desk.folder), "warnings": notes}
            print_json(data)
        else:
            screen = Screen()
            screen.print(f"\n  [bold]{escape(blocks.local_url)}[/]\n", highlight=False, soft_wrap=True)
            screen.print(f"Clips go to {escape(str(out))}. Stop with Ctrl+C.", highlight=False, soft_wrap=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            text = "the page is unencrypted: for a network you trust."
            err.print(f"[yellow]Note:[/] {text}", highlight=False, soft_wrap=True)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        desk.maker.stop(wait=60)
        err.print("\nStopped. The gallery and the queue are kept.", soft_wrap=True)
    finally:
        blocks.close(verbose=False)
