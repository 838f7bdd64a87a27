"""The command `enhance-a-video`: argument parsing, progress and printing only.

torch and diffusers are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import json as jsonlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from .errors import EnhanceAVideoError, OutputExistsError, PromptError, SettingsError

if TYPE_CHECKING:
    from .settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
err = Console(stderr=True)

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
        rich_help_panel="Enhancement", help="The largest amplification, the same for any length: 0.4 mild, 1 strong."
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        rich_help_panel="Enhancement", help="The paper's knob instead of strength; its effect depends on length."
    ),
]
Start = Annotated[
    float | None, typer.Option(rich_help_panel="Enhancement", help="Act from here: 0 = pure noise, 1 = clean.")
]
End = Annotated[float | None, typer.Option(rich_help_panel="Enhancement", help="Act until here.")]
Negative = Annotated[str | None, typer.Option(rich_help_panel="Video", help="What the video should not show.")]
Seed = Annotated[int, typer.Option(min=0, rich_help_panel="Video", help="Of the initial noise.")]
Steps = Annotated[int | None, typer.Option(min=1, rich_help_panel="Video", help="Denoising steps.")]
Width = Annotated[int | None, typer.Option(min=1, rich_help_panel="Video", help="Pixels.")]
Height = Annotated[int | None, typer.Option(min=1, rich_help_panel="Video", help="Pixels.")]
Frames = Annotated[int | None, typer.Option(min=1, rich_help_panel="Video", help="How many.")]
Fps = Annotated[float | None, typer.Option(rich_help_panel="Video", help="Frames per second of the file.")]
Guidance = Annotated[
    float | None,
    typer.Option(rich_help_panel="Video", help="How strictly to follow the prompt (classifier-free guidance)."),
]
Image = Annotated[Path | None, typer.Option(rich_help_panel="Video", help="First picture, for image-to-video models.")]
Extra = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        rich_help_panel="Video",
        metavar="NAME=VALUE",
        help="Any further argument of this pipeline's call; repeatable.",
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite outputs that are there already.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")]
Folder = Annotated[Path, typer.Option("--out", "-o", help="Folder for the outputs.")]


# ---------------------------------------------------------------------------------------------------- commands


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Steadier AI-generated video for free: no training, one line.

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


@app.command()
def demo(
    ctx: typer.Context,
    out: Folder = Path("enhance-a-video-demo"),
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Another sentence of the embedded world.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the initial noise.")] = None,
    strength: Strength = None,
    temperature: Temperature = None,
    start: Start = None,
    end: End = None,
    model: Annotated[str, typer.Option(hidden=True)] = "embedded",
    force: Force = False,
    json: Json = False,
) -> None:
    """See it work, in about a minute on a laptop: one prompt and seed, without and with.

    Writes baseline.mp4, enhanced.mp4, side_by_side.mp4, strip.png and report.html.

    enhance-a-video demo
    enhance-a-video demo --seed 7 --strength 1.0 -o strong --force
    """
    panels = [("without", None), ("with Enhance-A-Video", _settings(strength, temperature, start, end))]
    job = _job(ctx, model, json, force)
    job.compare(out, panels, prompt, seed, title="Enhance-A-Video, the demo")


@app.command()
def generate(
    ctx: typer.Context,
    prompt: Prompt,
    out: Annotated[Path, typer.Option("--out", "-o", help="The video to write, .mp4.")],
    model: Model = "embedded",
    enhance: Annotated[
        bool, typer.Option("--enhance/--no-enhance", rich_help_panel="Enhancement", help="On by default.")
    ] = True,
    strength: Strength = None,
    temperature: Temperature = None,
    start: Start = None,
    end: End = None,
    negative: Negative = None,
    seed: Seed = 0,
    steps: Steps = None,
    width: Width = None,
    height: Height = None,
    frames: Frames = None,
    fps: Fps = None,
    guidance: Guidance = None,
    image: Image = None,
    extra: Extra = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    offload: Offload = "none",
    vae_tiling: Tiling = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Generate one video with any supported model, enhanced by default.

    enhance-a-video generate -p "a red ball moves to the right over a green meadow" -o ball.mp4
    enhance-a-video generate -m Wan-AI/Wan2.1-T2V-14B-Diffusers -p "..." -o x.mp4 --offload model --vae-tiling
    enhance-a-video generate -m ./my-model -p "..." -o plain.mp4 --no-enhance --seed 3
    """
    knobs = (strength, temperature, start, end)
    if not enhance and any(knob is not None for knob in knobs):
        raise SettingsError("--no-enhance and an enhancement setting were given together: leave one of them out.")
    settings = _settings(*knobs) if enhance else None
    job = _job(ctx, model, json, force, dtype=dtype, device=device, offload=offload, vae_tiling=vae_tiling)
    job.options = _options(negative, steps, width, height, frames, fps, guidance, image, extra)
    job.generate(out, prompt, seed, settings)


@app.command()
def compare(
    ctx: typer.Context,
    prompt: Prompt,
    out: Folder = Path("enhance-a-video-compare"),
    panel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL:]KEY=VALUE,...",
            help="A further panel with other settings, e.g. 'paper: temperature=4,start=0,end=1'; repeatable.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="How many seeds, from --seed on: mean and 95 % interval per measure.")
    ] = 1,
    model: Model = "embedded",
    strength: Strength = None,
    temperature: Temperature = None,
    start: Start = None,
    end: End = None,
    negative: Negative = None,
    seed: Seed = 0,
    steps: Steps = None,
    width: Width = None,
    height: Height = None,
    frames: Frames = None,
    fps: Fps = None,
    guidance: Guidance = None,
    image: Image = None,
    extra: Extra = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    offload: Offload = "none",
    vae_tiling: Tiling = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """The same prompt and seed without and with, measured; with --seeds, does it help on average?

    enhance-a-video compare -p "a red ball moves to the right over a green meadow" --seeds 8
    enhance-a-video compare -p "..." --strength 0.5 --panel "paper: temperature=4,start=0,end=1"
    """
    panels = [("without", None), ("with Enhance-A-Video", _settings(strength, temperature, start, end))]
    panels += [_panel(text) for text in panel or []]
    job = _job(ctx, model, json, force, dtype=dtype, device=device, offload=offload, vae_tiling=vae_tiling)
    job.options = _options(negative, steps, width, height, frames, fps, guidance, image, extra)
    job.compare(out, panels, prompt, seed, seeds, title="Enhance-A-Video, compared")


@app.command()
def models(json: Json = False) -> None:
    """The supported video transformers and published weights that use them."""
    from .families import families

    rows: list[dict[str, Any]] = [
        {"name": f.name, "transformer": f.transformer, "checkpoints": list(f.checkpoints), "notes": f.notes}
        for f in families()
    ]
    if json:
        print(jsonlib.dumps({"command": "models", "models": rows}))
        return
    screen = Console()
    screen.print("[bold]embedded[/]  [dim]the default: a small Wan, inside this package[/]", highlight=False)
    for row in rows:
        screen.print(f"[bold]{row['name']}[/]  [dim]{row['transformer']}[/]", highlight=False)
        screen.print(f"  {escape(row['notes'])}", highlight=False)
        for name in row["checkpoints"]:
            screen.print(f"    --model {name}", highlight=False, soft_wrap=True)
    screen.print("\nAny folder or fine-tune with one of these transformers works as well. Yours: docs/add-a-model.md")


# --------------------------------------------------------------------------------------------- from text to values


def _job(ctx: typer.Context, model: str, json: bool, force: bool, **load: Any) -> Any:
    from .job import Job

    words = [word for word in ctx.find_root().obj or [ctx.info_name] if word not in ("--json", "--force", "-f")]
    return Job(model, load, force=force, json=json, command=shlex.join(["enhance-a-video", *map(str, words)]))


def _settings(strength: float | None, temperature: float | None, start: float | None, end: float | None) -> Settings:
    """Settings from flags; those that were not given keep their defaults."""
    from .settings import Settings

    given = {"strength": strength, "temperature": temperature, "start": start, "end": end}
    return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _panel(text: str) -> tuple[str, Settings]:
    """A panel from text: "paper: temperature=4,start=0,end=1"; without a label the text is the label."""
    from .settings import Settings

    label, colon, rest = text.partition(":")
    knobs = _pairs("--panel", (rest if colon else text).split(","))
    return (label if colon else text).strip(), Settings.from_dict(knobs)


def _pairs(flag: str, texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE texts as a dict; a value is JSON where it can be (3, 0.5, true, null), else the text itself."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise SettingsError(f"{flag} {text.strip()!r} is not NAME=VALUE, as in strength=0.5.")
        try:
            found[name] = jsonlib.loads(value)
        except ValueError:
            found[name] = value
    return found


def _options(
    negative: str | None,
    steps: int | None,
    width: int | None,
    height: int | None,
    frames: int | None,
    fps: float | None,
    guidance: float | None,
    image: Path | None,
    extra: list[str] | None,
) -> dict[str, Any]:
    """The options of pipelines.generate that were given."""
    given = {
        "negative": negative, "steps": steps, "width": width, "height": height, "frames": frames, "fps": fps,
        "guidance": guidance, "image": _picture(image), "extra": _pairs("--set", extra or []) or None,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _picture(path: Path | None) -> Any:
    if path is None:
        return None
    from PIL import Image

    try:
        return Image.open(path).convert("RGB")
    except OSError as error:
        raise SettingsError(f"--image {path} cannot be read as a picture: {error}") from error


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


if __name__ == "__main__":
    main()
