"""The command `inspect`: prints the content credentials of a video, its settings, the command that makes it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from json import dumps as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..errors import MissingExtraError, SettingsError, VideoFileError
from ..generation.terminal import print_json
from .app import app
from .options import Json, path_of
from .progress import Notes
from .screen import Screen

if TYPE_CHECKING:
    from ..generation.credentials import Credentials
    from ..generation.watermark import Watermark


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", parser=path_of, help="A video, picture or sound.")],
    json: Json = False,
) -> None:
    """Print what a video carries: its content credentials and whether they hold, how it was made, and the command that
    makes it again.

    Exit code 1: the credentials are there and do not hold, so that the file was changed after it was signed.

    enhance-a-video inspect clip.mp4
    """
    from ..generation import again
    from ..generation.credentials import read_credentials

    notes = Notes()
    record = again.record_in(file)
    credentials: Credentials | None = None
    try:
        credentials = read_credentials(file)
    except MissingExtraError as error:
        notes(str(error))
    command = None
    if record is not None:
        try:
            command = again.command_for(record, file.name)
        except (SettingsError, KeyError, TypeError, ValueError) as error:
            notes(str(error) if isinstance(error, SettingsError) else "The embedded record is of another version.")
    if credentials and credentials.present and not credentials.valid:
        notes("The content credentials do not hold: the file was changed after it was signed.")
    mark = _watermark(file, notes)
    found = {
        "credentials": credentials and credentials.to_dict(), "watermark": mark and mark.to_dict(), "record": record,
        "command_to_make_it": command,
    }  # fmt: skip
    if json:
        print_json({"command": "inspect", "file": str(file), **found, "warnings": notes})
    else:
        _print(file, credentials, mark, record, command)
    if credentials and credentials.present and not credentials.valid:
        raise typer.Exit(1)


def _watermark(file: Path, notes: Notes) -> Watermark | None:
    """What is found in the pictures; None, with a note, where they cannot be read, and of a sound."""
    if file.suffix.lower() == ".wav":
        return None
    from ..generation.watermark import find_in

    try:
        return find_in(file)
    except VideoFileError as error:
        notes(f"No watermark was looked for: {error}")
        return None


def _print(
    file: Path,
    credentials: Credentials | None,
    mark: Watermark | None,
    record: dict[str, Any] | None,
    command: str | None,
) -> None:
    screen = Screen()

    def line(text: str) -> None:
        screen.print(text, highlight=False, soft_wrap=True)

    line(f"[bold]{escape(str(file))}[/]")
    for text in _of_credentials(credentials):
        line(text)
    if mark is not None:
        text = f"this program's ({mark.bits} of {mark.of} bits)" if mark.present else "none found"
        line(f"Invisible watermark: {text}")
    if record is None:
        line("Settings: none of this program's are in the file.")
        return
    made = f"restored from {record['restored'].get('file')}" if "restored" in record else "generated"
    by = f", model {record['model']}" if record.get("model") else ""
    line(f"Settings: {escape(made + by)}")
    for name, text in settings_lines(record):
        line(f"  {escape(name)}: {escape(text)}")
    if command:
        line(f"Make it again:\n  {escape(command)}")


def settings_lines(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, value) of what makes the clip, one option a line; default settings of their kind left out."""
    light_only = record.get("noise") == 0
    restoring = ("noise", "keep_detail", "even_light", "negative", "steps", "guidance", "overlap")
    for name in ("noise", "even_light") if light_only else ("prompt", "seed", *restoring):
        if record.get(name) not in (None, ""):
            yield name, _value(record[name])
    for name, value in (record.get("options") or {}).items():
        if name == "extra" and isinstance(value, Mapping):
            yield from ((f"--set {key}", _value(inner)) for key, inner in value.items())
        elif value is not None:
            yield name, _value(value)
    if not light_only:
        yield from _of_method(record.get("settings"))
    if isinstance(check := record.get("content_check"), Mapping):
        yield "content check", f"pornography: {check.get('found')} (score {check.get('score')})"
    if record.get("finished"):
        yield "finished", _value(record["finished"])


def _of_method(settings: Any) -> Iterator[tuple[str, str]]:
    """The knob of the method, and what else is not as that knob has it by itself."""
    from ..settings import Settings

    if not isinstance(settings, Mapping):
        yield "method", "off (--no-enhance)" if settings is None else _value(settings)
        return
    given = {name: value for name, value in settings.items() if value is not None}
    knobs = {name: given[name] for name in ("odds", "strength", "temperature", "policy") if name in given}
    try:
        usual = Settings.from_dict(knobs).to_dict()
    except (TypeError, ValueError):  # of another version
        usual = {}
    for name, value in given.items():
        if name in knobs or value != usual.get(name):
            yield name, _value(value)


def _value(value: Any) -> str:
    """A number, a word or a list as one would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json_text(value, ensure_ascii=False)


def _of_credentials(found: Credentials | None) -> list[str]:
    if found is None:
        return ["Content credentials: not read, see the note."]
    if not found.present:
        return ["Content credentials: none."]
    state = "[green]valid: unchanged since it was signed[/]" if found.valid else "[bold red]NOT VALID[/]"
    lines = [f"Content credentials: {state}"]
    lines += [f"  what does not hold: {escape(', '.join(found.problems))}"] * bool(found.problems)
    if found.signed_by:
        trust = "nobody vouches for this certificate" if found.self_made else "its issuer is not checked"
        lines.append(f"  signed by: {escape(found.signed_by)} [dim]({trust})[/]")
    lines += [f"  made with: {escape(found.generator)}"] * bool(found.generator)
    lines += [f"  what it is: {escape(', '.join(found.sources))}"] * bool(found.sources)
    for one in found.ingredients:
        lines.append(f"  made from: another file {'with' if one['has_credentials'] else 'without'} credentials")
    return lines
