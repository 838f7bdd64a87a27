"""The options that several commands share, and the parsing of their text into values."""

from __future__ import annotations

import functools
import inspect
import json as jsonlib
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from .. import limits
from ..errors import SettingsError
from ..generation.files import named
from ..limits import MAX_SEED, MAX_WORKERS

if TYPE_CHECKING:
    from ..settings import Settings


def path_of(text: str | Path) -> Path:
    """The parser of every path option: `files.named`. The shell leaves the ~ of --out=~/clips as it is."""
    if isinstance(text, Path):  # read already; of ./~name a Path keeps ~name
        return text
    try:
        return named(text)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


Prompt = Annotated[str, typer.Option("--prompt", "-p", help="What the video shows.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        rich_help_panel="Model",
        help="[b]embedded[/b] (a small model in this package), a hub id (see: enhance-a-video models) or a folder.",
    ),
]
Dtype = Annotated[str, typer.Option(rich_help_panel="Model", help="auto, bfloat16, float16 or float32.")]
Device = Annotated[str, typer.Option(rich_help_panel="Model", help="auto, cuda, mps or cpu.")]
Offload = Annotated[
    str,
    typer.Option(
        rich_help_panel="Model",
        help="Low memory: weights off the GPU until needed. none, model, group, sequential: ever smaller, slower.",
    ),
]
Tiling = Annotated[
    bool, typer.Option("--vae-tiling", rich_help_panel="Model", help="Low memory: decode the video in tiles.")
]
Strength = Annotated[
    float | None,
    typer.Option(
        rich_help_panel="Enhancement",
        help="In place of odds: the paper's gain on the whole output, at most 1 + this; 0.3 mild, 0.7 strong.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        rich_help_panel="Enhancement", help="The paper's knob instead of strength; its effect depends on length."
    ),
]
Odds = Annotated[
    float | None,
    typer.Option(
        rich_help_panel="Enhancement",
        help="By how much the odds that attention leaves its frame are multiplied: 1.5 mild, 3 strong, 1 nothing.",
    ),
]
Axis = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel="Enhancement",
        metavar="NAME[=ODDS]",
        help="Odds on another partition of attention than time: time, near:2, far:2, reference, prompt, sound, "
        "space:2. With its odds, repeatable (time=2, prompt=1.5); alone, those of --odds or --policy.",
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Enhancement",
        help="What the gain multiplies: cross-frame (the default with odds), exact (the same by the kernel's true "
        "shares), output (the paper's way).",
    ),
]
Passes = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Enhancement",
        help="[b]conditional[/b]: under guidance change only the pass with the prompt, at half the cost.",
    ),
]
Policy = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel="Enhancement",
        metavar="FILE",
        parser=path_of,
        help="A profile, .json, such as [b]tune[/b] writes; in place of odds, strength or temperature.",
    ),
]
Start = Annotated[
    float | None, typer.Option(rich_help_panel="Enhancement", help="Act from here: 0 = pure noise, 1 = clean.")
]
End = Annotated[float | None, typer.Option(rich_help_panel="Enhancement", help="Act until here.")]
Negative = Annotated[str | None, typer.Option(rich_help_panel="Video", help="What the video should not show.")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, rich_help_panel="Video", help="Of the initial noise.")]
Steps = Annotated[int | None, typer.Option(rich_help_panel="Video", help="Denoising steps.")]
Width = Annotated[int | None, typer.Option(rich_help_panel="Video", help="Pixels.")]
Height = Annotated[int | None, typer.Option(rich_help_panel="Video", help="Pixels.")]
Frames = Annotated[int | None, typer.Option(rich_help_panel="Video", help="How many.")]
Fps = Annotated[float | None, typer.Option(rich_help_panel="Video", help="Frames per second of the file.")]
Seconds = Annotated[
    float | None, typer.Option(rich_help_panel="Video", help="How long a sound is, for models that make sound.")
]
Guidance = Annotated[
    float | None,
    typer.Option(rich_help_panel="Video", help="How strictly to follow the prompt (classifier-free guidance)."),
]
Image = Annotated[
    Path | None,
    typer.Option(parser=path_of, rich_help_panel="Video", help="First picture, for image-to-video models."),
]
Extra = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        rich_help_panel="Video",
        metavar="NAME=VALUE",
        help="A further argument of this pipeline's call, such as max_sequence_length=512; repeatable. One that takes "
        "a picture is given a file: last_image=end.png.",
    ),
]
Guider = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Video",
        metavar="NAME[:KEY=VALUE,...]",
        help="Another training-free method beside the enhancement, such as self_refining (1.4 times the time; "
        "docs/results/peers.md) or 'slg: scale=0.3,layers=2'.",
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite outputs that are there already.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")]
Signed = Annotated[
    bool,
    typer.Option(
        "--credentials/--no-credentials",
        help="Sign clips as made by a model (C2PA, docs/guide/responsible-use.md); --no-credentials: only their "
        "comment shows it.",
    ),
]
Marked = Annotated[
    bool,
    typer.Option(
        "--watermark",
        help="Mark the pictures too, invisibly: it survives a re-encoding that strips the credentials "
        "(docs/guide/responsible-use.md).",
    ),
]
Checked = Annotated[
    bool,
    typer.Option(
        "--content-check",
        help="Look for pornography in the finished clips and report it; they are written all the same "
        "(docs/guide/responsible-use.md).",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_WORKERS, help="How many clips at a time; by default one for each CUDA device, or one."),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="[ADDRESS]", help="Work on a Ray cluster; alone: the one that Ray finds, or a local one."),
]
Folder = Annotated[Path, typer.Option("--out", "-o", parser=path_of, help="Folder for the outputs.")]


_ADDRESS = re.compile(r"auto|local|\w+://.+|[^/\\]+:\d+")


class WithRay(TyperCommand):
    """--ray may stand alone: the next word is its address only where it has the form of one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words: list[str] = []
        for number, word in enumerate(args):
            following = args[number + 1] if number + 1 < len(args) else ""
            bare = word == "--ray" and not _ADDRESS.fullmatch(following)
            words.append("--ray=" if bare else word)
        return super().parse_args(ctx, words)


# ------------------------------------------------------------------------------------------------ groups of options


@dataclass(frozen=True)
class Knobs:
    """How the clip is enhanced."""

    odds: Odds = None
    axis: Axis = None
    strength: Strength = None
    temperature: Temperature = None
    policy: Policy = None
    start: Start = None
    end: End = None
    scale: Scale = None
    passes: Passes = None

    def settings(self, enhance: bool = True) -> Settings | None:
        """Settings from what was given, the rest at its default; None with --no-enhance.

        Raises SettingsError: both --no-enhance and a knob; a profile that is none.
        """
        from ..settings import Settings

        given = {name: value for name, value in asdict(self).items() if value is not None}
        given |= self._axes(given.pop("axis", []))
        if not enhance and given:
            raise SettingsError("--no-enhance and an enhancement setting were given together: leave one of them out.")
        if self.policy is not None and self.policy.suffix != ".json":
            raise SettingsError(
                f"--policy {self.policy}: give the file of a profile, .json; enhance-a-video tune writes one."
            )
        return Settings(**given) if enhance else None

    def _axes(self, texts: list[str]) -> dict[str, Any]:
        """The fields of Settings for --axis."""
        alone = [text for text in texts if "=" not in text]
        if not texts:
            return {}
        if len(texts) == 1 and alone:
            return {"axis": alone[0]}
        if alone or self.odds is not None:
            other = f"--axis {alone[0]}" if alone else f"--odds {self.odds:g}"
            raise SettingsError(f"{other} beside --axis NAME=ODDS: give every axis its odds, as in --axis time=2.")
        return {"odds": pairs_of("--axis", texts)}


@dataclass(frozen=True)
class Clip:
    """The options of the video to make."""

    negative: Negative = None
    steps: Steps = None
    width: Width = None
    height: Height = None
    frames: Frames = None
    fps: Fps = None
    seconds: Seconds = None
    guidance: Guidance = None
    image: Image = None
    guider: Guider = None
    extra: Extra = None

    def options(self, open_image: bool = True) -> dict[str, Any]:
        """The options of pipelines.generate that were given; pictures opened, or as absolute paths.

        Raises SettingsError: a number out of its range; a picture that cannot be read; --set without NAME=VALUE.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in given.items():
            if value is not None:
                limits.option(name, value, f"--{name}")
        from ..generation.requests import check_extra, located, opened

        given["guider"] = None if self.guider is None else guider_of(self.guider, "--guider")
        given["extra"] = pairs_of("--set", self.extra or []) or None
        check_extra(given["extra"] or {}, "--set")
        found = located({name: value for name, value in given.items() if value is not None}, Path.cwd())
        return opened(found) if open_image else found


@dataclass(frozen=True)
class Load:
    """How the model is loaded: the arguments of pipelines.load."""

    dtype: Dtype = "auto"
    device: Device = "auto"
    offload: Offload = "none"
    vae_tiling: Tiling = False


@dataclass(frozen=True)
class Labels:
    """What finished clips carry, and whether they are looked at."""

    credentials: Signed = True
    watermark: Marked = False
    content_check: Checked = False

    @contextmanager
    def applied(self, notice: Callable[[str], None]) -> Iterator[None]:
        """For the clips that are made inside. notice: called with why they carry no credentials where they should.

        Raises SettingsError: a certificate that cannot be used. MissingExtraError: --content-check without its extra.
        """
        from ..generation.content import checking
        from ..generation.credentials import chosen
        from ..generation.watermark import marking

        with checking(self.content_check), chosen(self.credentials, notice), marking(self.watermark):
            yield


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """For a command with parameters that are groups: each of their fields becomes an option of the command's own."""
    hints = get_type_hints(command, include_extras=True)
    options: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            options.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = kind
        inner = get_type_hints(kind, include_extras=True)
        options += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=inner[f.name])
            for f in fields(kind)
        ]

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        values = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**given, **values)

    flat.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    flat.__annotations__ = {option.name: option.annotation for option in options}
    return flat


# --------------------------------------------------------------------------------------------- from text to values


def command_of(ctx: typer.Context) -> str:
    """The command line as it was given, for records and reports; without what only matters to whoever ran it."""
    words = [word for word in ctx.find_root().obj or [ctx.info_name] if word not in ("--json", "--force", "-f")]
    return shlex.join(["enhance-a-video", *map(str, words)])


def given(ctx: typer.Context, *names: str) -> list[str]:
    """Which of these parameters are on the command line, as it writes them: --seeds."""
    flags = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    written = [name for name in names if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    return [flags[name] for name in written]


def without_effect(flags: list[str], why: str) -> list[str]:
    """One note about options that do nothing beside others; none for no options."""
    return [f"{' and '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect {why}."] if flags else []


def panel_of(text: str) -> tuple[str, Settings]:
    """A panel from text: "paper: temperature=4,start=0,end=1"; without a label the text is the label."""
    from ..settings import Settings

    label, colon, rest = text.partition(":")
    if colon and not label.strip():
        raise SettingsError(f"--panel {text!r} has an empty label: write one before the colon, or leave the colon out.")
    knobs = pairs_of("--panel", (rest if colon else text).split(","))
    return (label if colon else text).strip(), Settings.from_dict(knobs)


def guider_of(text: str, flag: str = "--against") -> dict[str, Any]:
    """Another training-free method from text, "slg" or "slg: scale=0.3,layers=2", as `peers` has it in JSON."""
    from ..generation import peers

    name, _, knobs = text.partition(":")
    given = pairs_of(flag, knobs.split(",")) if knobs.strip() else {}
    return peers.from_dict({"name": name.strip(), **given}).to_dict()


def pairs_of(flag: str, texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE texts as a dict; a value is JSON where it can be (3, 0.5, true, null), else the text itself."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise SettingsError(f"{flag} {text.strip()!r} is not NAME=VALUE, as in strength=0.5.")
        if name in found:
            raise SettingsError(f"{flag} gives {name} twice: leave one of them out.")
        try:
            found[name] = jsonlib.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
        limits.finite(f"{flag} {name}", found[name])
    return found
