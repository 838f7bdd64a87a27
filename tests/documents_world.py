"""The world in which the blocks of the docs run: published weights are tiny models of their real classes, sizes small.

pipelines(monkeypatch)      diffusers' from_pretrained gives, for a hub id, a pipeline of the class that is called whose
                            denoiser is a tiny model of the class that has these weights
files(folder)               the files that commands of the docs take as given: videos, prompts, a study, models
smaller(words)              a command line with published models and sizes replaced
"""

import dataclasses
import importlib
import inspect
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import diffusers
import numpy as np
from PIL import Image
from tiny_models import TINY, run, wan

from enhance_a_video.generation import pipelines as generation
from enhance_a_video.generation import video
from enhance_a_video.models import known_models

ROOT = Path(__file__).parent.parent
PUBLISHED = {checkpoint: row for row in known_models() for checkpoint in row.checkpoints}
WITH_ADAPTER = {"emilianJR/epiCRealism": "UNetMotionModel"}  # an image model that a motion adapter makes a video model
SMALL = {
    "--steps": "2", "--frames": "9", "--height": "32", "--width": "32", "--seeds": "2", "--workers": "1",
    "--budget": "1", "--clips": "2", "--confirm": "2", "--groups": "2", "--times": "2", "--pilot": "1",
    "--prompts": "four.txt",
}  # fmt: skip
NEEDED = {
    "tune": ("--budget", "--clips", "--confirm", "--steps", "--groups", "--times", "--prompts"),
    "compare": ("--steps",),
    "generate": ("--steps",),
    "demo": ("--steps", "--seeds"),
    "ui": ("--port",),
}
ACCELERATOR = ("--offload", "--device")  # with their values: not on a CPU
LAYERS = 30  # of Wan 2.1 1.3B: its pages choose among them
QUIET = ("enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload", "load_lora_weights", "to")


def _tiny(transformer: str) -> Any:
    (name, *_) = next(row.tested for row in known_models() if row.transformer == transformer)
    return TINY[name]


def _bound(cls: type, name: str) -> Any:
    """A method that takes what the class's own takes, and does nothing."""
    signature = inspect.signature(getattr(cls, name))

    def method(self: Any, *args: Any, **given: Any) -> Any:
        signature.bind(self, *args, **given)
        return self

    return method


def _pipeline(cls: type, name: str, **given: Any) -> Any:
    """A pipeline of this class with a tiny denoiser; its VAE is a stand-in with the methods of the real one."""
    tiny = _tiny(WITH_ADAPTER.get(name) or PUBLISHED[name].transformer)
    if tiny is TINY["wan"]:
        tiny = dataclasses.replace(tiny, build=lambda: wan.wan(num_layers=LAYERS))
    model, wanted = tiny.model(), inspect.signature(cls.__init__).parameters

    def call(self: Any, *args: Any, **options: Any) -> Any:
        inspect.signature(cls.__call__).bind(self, *args, **options)
        for timestep in (900.0, 500.0, 100.0):
            run(model, tiny.inputs(batch=1, timestep=timestep))
        return SimpleNamespace(frames=[[Image.new("RGB", (32, 32), (40 * n, 90, 90)) for n in range(5)]])

    part = "unet" if "unet" in wanted else "transformer"
    members = {key: _bound(cls, key) for key in QUIET if hasattr(cls, key)}
    members |= {"__init__": lambda self: None, "__call__": call, "components": property(lambda self: {part: model})}
    pipe = type(cls.__name__, (cls,), members)()
    vae = wanted["vae"].annotation
    stand_in = create_autospec(vae, instance=True) if inspect.isclass(vae) else None
    vars(pipe).update({part: model, "vae": stand_in, **given})
    return pipe


def pipelines(monkeypatch: Any) -> None:
    real = diffusers.DiffusionPipeline.from_pretrained.__func__
    real_part = diffusers.ModelMixin.from_pretrained.__func__

    def from_pretrained(cls: type, name: Any, **given: Any) -> Any:
        return real(cls, name, **given) if Path(name).exists() else _pipeline(cls, name, **given)

    def part(cls: type, name: Any, **given: Any) -> Any:
        if Path(name).exists():
            return real_part(cls, name, **given)
        rows = [row for row in known_models() if row.transformer == cls.__name__]
        return _tiny(cls.__name__).model() if rows else create_autospec(cls, instance=True)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", classmethod(from_pretrained))
    for base in {row.transformer for row in known_models()} | {"MotionAdapter"}:
        if hasattr(diffusers, base):
            monkeypatch.setattr(getattr(diffusers, base), "from_pretrained", classmethod(part))


def loading(monkeypatch: Any, folder: Path) -> None:
    """`load` gives the tiny pipeline of `folder` for every hub id and ./my-model."""
    real = generation.load

    def load(model: Any = "embedded", **given: Any) -> Any:
        return real(folder if str(model) in (*PUBLISHED, "./my-model") else model, **{**given, "offload": "none"})

    monkeypatch.setattr(generation, "load", load)


def files(folder: Path, model: Path) -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    frames = np.stack([np.roll(still, n, 1) for n in range(9)])
    for name in ("in", "clip", "A", "B"):
        video.write_video(folder / f"{name}.mp4", frames, fps=8)
    for name in ("first.png", "last.png"):
        Image.fromarray(still).save(folder / name)
    prompts = [f"a {colour} moves {side}" for colour in ("red ball", "blue square") for side in ("right", "left")]
    (folder / "four.txt").write_text("\n".join(prompts))
    (folder / "prompts.txt").write_text("\n".join(prompts[:2]))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts[:2]))
    study = f"model: {model}\nprompts: prompts.txt\nsettings: {{plain: null, default: {{}}}}\noptions: {{steps: 2}}\n"
    (folder / "study.yaml").write_text(study)
    for name in ("models", "studies", "examples"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "my-model").symlink_to(model)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def smaller(words: list[str], model: Path) -> list[str]:
    out: list[str] = []
    small = SMALL | {"--port": str(free_port())}
    for word in words:
        before = out[-1] if out else ""
        if before in ACCELERATOR:
            out.pop()
        elif before in small:
            out.append(small[before])
        else:
            out.append(str(model) if word in PUBLISHED else word)
    return out + [part for option in NEEDED.get(words[0], ()) if option not in out for part in (option, small[option])]


def commands_stop_at_once(monkeypatch: Any) -> None:
    """`ui` and `vote` start their servers, somebody votes once, and Ctrl+C is pressed."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def voted(server: Any) -> None:
        seat = server.ballots.join("Ada")
        answers = {"consistency": "left", "prompt": "equal", "quality": "right"}
        server.ballots.vote(seat.voter, seat.queue[0].id, answers)
        interrupted()

    monkeypatch.setattr("webbrowser.open", lambda url: True)
    monkeypatch.setattr("enhance_a_video.lab.vote.Server.serve_forever", voted)
    page = importlib.import_module("enhance_a_video.cli.ui")
    monkeypatch.setattr(page, "time", SimpleNamespace(sleep=interrupted))
