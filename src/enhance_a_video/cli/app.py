"""The application that the files of commands add to, and the one place where a failed command is reported."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

from ..errors import EnhanceAVideoError, MissingExtraError, OutputExistsError, PromptError, SettingsError
from ..generation.terminal import print_json, streams, warnings_as_notes
from .screen import Screen


class Stopped(Exception):
    """Ctrl+C; the message is what remains of the work."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # Typer would leave without a word
            raise Stopped(str(error) or "Stopped.") from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
err = Screen(stderr=True)
_FIX_THE_COMMAND = (SettingsError, PromptError, OutputExistsError, MissingExtraError)
_ClickError: Any = typer.BadParameter.__mro__[2]  # the base of what Typer refuses, in its own copy of click or in click


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


def print_notes(notes: Sequence[str], most: int = 8) -> None:
    """What will not be done as requested, on stderr; of many the first ones."""
    for text in notes[:most]:
        err.print(f"[yellow]Note:[/] {escape(text)}", highlight=False, soft_wrap=True)
    if len(notes) > most:
        err.print(f"[yellow]Note:[/] and {len(notes) - most} more such notes; --json lists all.", highlight=False)


def main(argv: list[str] | None = None) -> None:
    """The entry point. Every failure is one message on stderr, with --json one object on stdout too, and an exit code.

    0: done. 2: the command has to be changed. 130: stopped with Ctrl+C. 141: done, but the reader of what was printed
    went away (| head). 1: anything else. What Python warns of is a note on stderr and in the object's "warnings". No
    traceback; an unexpected error's is in a file that the message names, and --debug shows it in place of the message.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    with streams(), warnings_as_notes(lambda text: print_notes([text])):
        _run([word for word in words if word != "--debug"], debug)  # wherever it stands


def _run(words: list[str], debug: bool) -> NoReturn:
    try:
        code = app(args=words, obj=words, prog_name="enhance-a-video", standalone_mode=False)
    except _ClickError as error:
        if not error.format_message():  # no command at all: the help has been printed
            raise SystemExit(error.exit_code) from None
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "enhance-a-video"
        _fail(words, error, f"{error.format_message().rstrip('.')}. See: {path} --help", error.exit_code)
    except (Stopped, KeyboardInterrupt, typer.Abort) as error:
        _fail(words, KeyboardInterrupt(), str(error) or "Stopped.", 130)
    except EnhanceAVideoError as error:
        if debug:
            raise
        _fail(words, error, str(error), 2 if isinstance(error, _FIX_THE_COMMAND) else 1)
    except Exception as error:
        if debug:
            raise
        from ..generation.loading import out_of_memory  # here, as it imports torch

        _fail(words, error, str(out_of_memory(error) or _unexpected(error)), 1)
    raise SystemExit(code if isinstance(code, int) else 0)


def _fail(words: list[str], error: BaseException, message: str, code: int) -> NoReturn:
    """The one place where a command that failed reports it."""
    if "--json" in words:
        command = next((word for word in words if not word.startswith("-")), None)
        print_json({"command": command, "error": {"class": type(error).__name__, "message": message}})
    start = "\n" if code == 130 else "[bold red]Error:[/] "  # a terminal shows ^C first
    err.print(f"{start}{escape(message)}", highlight=False, soft_wrap=True)
    raise SystemExit(code) from None


def _unexpected(error: Exception) -> str:
    """A sentence about an error that this package does not raise on purpose; its traceback goes into a file."""
    what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="enhance-a-video-", suffix=".txt", delete=False
        ) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return f"Unexpected {what}. The same command with --debug shows the traceback; please report it."
    return f"Unexpected {what}. The traceback is in {file.name}; please report it."
