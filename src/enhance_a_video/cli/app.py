"""The command `enhance-a-video` itself: the application that the other files add commands to, and its errors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import EnhanceAVideoError, OutputExistsError, PromptError, SettingsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
err = Console(stderr=True)
_FIX_THE_COMMAND = (SettingsError, PromptError, OutputExistsError)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Enhance-A-Video for any video diffusion model: no training, one line, measured.

    [b]Start here[/b]   enhance-a-video demo

    Then, with a GPU, the same on a big model:

    enhance-a-video generate -m Wan-AI/Wan2.1-T2V-1.3B-Diffusers -p "a cat walks on the grass" -o cat.mp4

    Does it help on [i]your[/i] prompts? Measure it, in pairs, with intervals:

    enhance-a-video compare -m Wan-AI/Wan2.1-T2V-1.3B-Diffusers -p "a cat walks on the grass" --seeds 8
    """
    if version:
        from importlib.metadata import version as installed

        print(installed("enhance-a-video"))
        raise typer.Exit


def main(argv: list[str] | None = None) -> None:
    """The entry point: a clear message and an exit code (2: change the command, 1: the rest), no traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # wherever it stands
    try:
        app(args=words, obj=words, prog_name="enhance-a-video")
    except EnhanceAVideoError as error:
        if debug:
            raise
        err.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2 if isinstance(error, _FIX_THE_COMMAND) else 1) from None


_FIX_THE_COMMAND = (SettingsError, PromptError, OutputExistsError)
