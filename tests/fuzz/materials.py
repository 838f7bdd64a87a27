"""Files and folders that a case may name: good ones, and each broken in one way. Made once, when first named."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Maker = Callable[[Path], Any]
MATERIALS: dict[str, Maker] = {}


def material(*names: str) -> Callable[[Maker], Maker]:
    """Function decorator: these names are made by this function, which gets the path to make."""

    def known(make: Maker) -> Maker:
        MATERIALS.update(dict.fromkeys(names, make))
        return make

    return known


class Store:
    """Makes materials once and puts them into the folders of cases."""

    def __init__(self, folder: Path):
        self.folder = folder

    def place(self, text: str, folder: Path) -> None:
        """Puts every material that `text` names into a folder."""
        for name in sorted(MATERIALS):
            if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])(?!\.\w)", text):
                source = self.made(name)
                if not os.path.lexists(folder / name):
                    _copy(source, folder / name)

    def made(self, name: str) -> Path:
        path = self.folder / name
        if not os.path.lexists(path):
            _in_a_child(lambda: MATERIALS[name](path))
        return path


def _in_a_child(make: Callable[[], Any]) -> None:
    """An encoder leaves threads behind, for which a process that is forked later would wait for ever."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            make()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("a material could not be made: see above")


def _copy(source: Path, target: Path) -> None:
    """Large files are linked, small ones copied, so that a case cannot spoil them for another."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_copy_file)
    elif source.is_symlink() or not source.is_file():
        os.symlink(source.resolve() if source.exists() else os.readlink(source), target)
    else:
        _copy_file(str(source), str(target))


def _copy_file(source: str, target: str) -> None:
    if os.path.getsize(source) > 300_000:
        os.symlink(source, target)
    else:
        shutil.copy2(source, target)


# ------------------------------------------------------------------------------------------------------- videos


def frames(count: int = 8, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """A bar that moves over noise, uint8 (T, H, W, 3)."""
    still = np.random.default_rng(seed).integers(60, 120, (height, width, 3), dtype=np.uint8)
    clip = np.repeat(still[None], count, 0)
    for number in range(count):
        clip[number, :, (4 * number) % width : (4 * number) % width + 6] = 230
    return clip


def encode(path: Path, clip: np.ndarray, codec: str = "libx264", form: str | None = None, fps: int = 8) -> None:
    import av

    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], "yuv420p"
        for array in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())


@material("good.mp4", "other.mp4", "[red]x[bold].mp4", "видео 🎬.mp4", "~.mp4")
def video_file(path: Path) -> None:
    from enhance_a_video.generation import video

    video.write_video(path, frames(seed=len(path.name)), 8)


@material("long.mp4")
def long(path: Path) -> None:
    """What takes some seconds to measure."""
    encode(path, np.tile(frames(height=480, width=640), (20, 1, 1, 1)))


@material("12:30:45.mp4", "http:x.mp4")
def colon(path: Path) -> None:
    shutil.copy(_sibling(path, "good.mp4"), path)


@material("one-frame.mp4")
def one_frame(path: Path) -> None:
    encode(path, frames(1))


@material("small.mp4")
def small(path: Path) -> None:
    encode(path, frames(6, 2, 2))


@material("part.mp4", "part.webm", "part.mkv", "part.avi")
def part(path: Path) -> None:
    """Half of a file whose index is in front, so that its beginning plays."""
    whole = path.with_name(f"whole-{path.name}")
    clip = np.random.default_rng(0).integers(0, 255, (40, 96, 128, 3), dtype=np.uint8)
    if path.suffix == ".mp4":
        from enhance_a_video.generation import video

        video.write_video(whole, clip, 8)
    else:
        encode(whole, clip, {".webm": "libvpx", ".mkv": "libx264", ".avi": "mpeg4"}[path.suffix])
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@material("spoilt.mp4")
def spoilt(path: Path) -> None:
    """A good file with noise in its middle."""
    data = bytearray(_sibling(path, "good.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = random.Random(0).randbytes(600)
    path.write_bytes(data)


HURT = 100  # files that are damaged at random


@material(*(f"hurt-{number}.mp4" for number in range(HURT)))
def hurt(path: Path) -> None:
    """A labelled clip with sound metadata, cut, overwritten, shortened, lengthened or turned over at random places."""
    from enhance_a_video.generation import video
    from enhance_a_video.generation.credentials import Claim

    record = {"prompt": "a bar", "seed": 0, "settings": None, "options": {}, "model": "embedded"}
    whole = path.with_name("whole-hurt.mp4")
    if not whole.exists():
        video.write_video(whole, frames(), 8, comment=json.dumps(record), claim=Claim(record))
    data, draw = bytearray(whole.read_bytes()), random.Random(path.name)
    for _ in range(draw.choice((1, 1, 3, 20))):
        at, size = draw.randrange(len(data)), draw.choice((1, 4, 64, 1000))
        how = draw.randrange(5)
        if how == 0:
            del data[at:]
        elif how == 1:
            data[at : at + size] = draw.randbytes(size)
        elif how == 2:
            del data[at : at + size]
        elif how == 3:
            data[at:at] = draw.randbytes(size)
        else:
            data[at : at + size] = bytes(size)
        data = data or bytearray(1)
    path.write_bytes(data)


@material("CON.mp4", "nul.mp4", "a b.mp4", "ends. .mp4", "C:\\clips\\x.mp4", "quote'.mp4", "-dash.mp4", "new\nline.mp4")
def named_oddly(path: Path) -> None:
    """Good files under names that Windows or a shell does not like."""
    shutil.copy(_sibling(path, "good.mp4"), path)


@material("header.mp4")
def header(path: Path) -> None:
    path.write_bytes(_sibling(path, "good.mp4").read_bytes()[:40])


@material("empty.mp4", "empty.png", "empty.jsonl", "empty.yaml", "empty.json", "empty.txt")
def empty(path: Path) -> None:
    path.touch()


@material("text.mp4", "text.png", "text.sqlite")
def text(path: Path) -> None:
    path.write_text("this is text\n" * 40)


@material("noise.mp4", "noise.png", "noise.webm", "noise.jsonl", "noise.yaml", "noise.json", "noise.txt")
def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(5_000))


@material("folder.mp4", "folder.png", "folder", "folder.jsonl", "folder.yaml", "folder.json")
def folder(path: Path) -> None:
    path.mkdir()


@material("dangling.mp4", "dangling.png", "dangling", "dangling.json")
def dangling(path: Path) -> None:
    path.symlink_to("nowhere-at-all")


@material("loop.mp4", "loop", "loop.json")
def loop(path: Path) -> None:
    path.symlink_to(path.name)


@material("fifo.mp4", "fifo.png", "fifo.jsonl", "fifo.yaml", "fifo.json")
def fifo(path: Path) -> None:
    """A pipe nobody writes into: whoever opens it waits for ever."""
    os.mkfifo(path)


@material("sound.wav", "sound.mp4")
def sound(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le" if path.suffix == ".wav" else "aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


@material("moving.gif", "moving.webp", "moving.png")
def moving(path: Path) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames()]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)


# ------------------------------------------------------------------------------------------------------ pictures


@material("good.png", "good.jpg", "good.webp", "good.bmp", "good.tiff")
def picture(path: Path) -> None:
    from PIL import Image

    Image.fromarray(frames()[0]).save(path)


@material("sideways.jpg")
def sideways(path: Path) -> None:
    from PIL import Image

    made = Image.fromarray(frames()[0])
    exif = made.getexif()
    exif[0x0112] = 6
    made.save(path, exif=exif)


@material("cut.png", "cut.jpg")
def cut_picture(path: Path) -> None:
    from PIL import Image

    whole = path.with_name(f"whole-{path.name}")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@material("bomb.png")
def bomb(path: Path) -> None:
    """A file of a few bytes whose header claims 2.5 thousand million pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + pixels + chunk(b"IEND", b""))


@material("grey16.png", "clear.png", "palette.png", "cmyk.jpg", "float.tiff", "pixel.png")
def unusual_picture(path: Path) -> None:
    from PIL import Image

    array = frames()[0]
    grey = array[..., 0]
    made = {
        "grey16.png": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
        "clear.png": lambda: Image.fromarray(np.dstack([array, np.zeros_like(grey)])),
        "palette.png": lambda: Image.fromarray(array).convert("P"),
        "cmyk.jpg": lambda: Image.fromarray(array).convert("CMYK"),
        "float.tiff": lambda: Image.fromarray(grey.astype(np.float32) / 255),
        "pixel.png": lambda: Image.fromarray(array[:1, :1]),
    }
    made[path.name]().save(path)


@material("drawing.svg.png")
def drawing(path: Path) -> None:
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4" height="4"/></svg>')


# -------------------------------------------------------------------------------------------------- model folders


def model(path: Path, **changes: Any) -> None:
    """The embedded model, quick: a step of five frames. changes: a file's path ("/" written "__") -> its text, None =
    missing, or a function of the path."""
    from enhance_a_video.embedded import model_folder

    shutil.copytree(model_folder(), path, copy_function=_copy_file)
    known = json.loads((path / "defaults.json").read_text())
    (path / "defaults.json").write_text(json.dumps(known | {"steps": 1, "frames": 5, "height": 32, "width": 32}))
    for name, change in changes.items():
        file = path / name
        if callable(change):
            change(file)
            continue
        file.unlink() if file.is_file() or file.is_symlink() else shutil.rmtree(file, ignore_errors=True)
        if isinstance(change, str | bytes):
            file.write_bytes(change if isinstance(change, bytes) else change.encode())


def edited(**values: Any) -> Maker:
    """A JSON file with other values; None takes a key away."""

    def edit(file: Path) -> None:
        data = json.loads(file.read_text()) | values
        file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))

    return edit


def halved(file: Path) -> None:
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[: len(data) // 2])


_UNET, _INDEX, _SCHEDULER = "transformer/config.json", "model_index.json", "scheduler/scheduler_config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_BROKEN: dict[str, dict[str, Any]] = {
    "quick": {},
    "no-index": {_INDEX: None},
    "index-empty": {_INDEX: ""},
    "index-text": {_INDEX: "hello"},
    "index-list": {_INDEX: "[1, 2]"},
    "index-null": {_INDEX: "null"},
    "index-noise": {_INDEX: random.Random(2).randbytes(300)},
    "index-deep": {_INDEX: "[" * 100_000},
    "index-unknown-class": {_INDEX: edited(_class_name="NoSuchPipeline")},
    "index-no-class": {_INDEX: edited(_class_name=None)},
    "index-class-number": {_INDEX: edited(_class_name=7)},
    "index-other-class": {_INDEX: edited(_class_name="StableDiffusionPipeline")},
    "index-unknown-part": {_INDEX: edited(vae=["diffusers", "NoSuchAutoencoder"])},
    "index-unknown-library": {_INDEX: edited(vae=["nosuchlibrary", "AutoencoderKLWan"])},
    "index-part-wrong": {_INDEX: edited(vae="AutoencoderKLWan")},
    "index-no-scheduler": {_INDEX: edited(scheduler=None)},
    "index-no-transformer": {_INDEX: edited(transformer=[None, None])},
    "index-extra-part": {_INDEX: edited(safety=["diffusers", "AutoencoderKLWan"])},
    "index-folder": {_INDEX: lambda file: (file.unlink(), file.mkdir())},
    "defaults-text": {"defaults.json": "steps: 20"},
    "defaults-empty": {"defaults.json": ""},
    "defaults-list": {"defaults.json": "[20]"},
    "defaults-null": {"defaults.json": "null"},
    "defaults-noise": {"defaults.json": random.Random(3).randbytes(300)},
    "defaults-folder": {"defaults.json": lambda file: (file.unlink(), file.mkdir())},
    "defaults-steps-text": {"defaults.json": edited(steps="many")},
    "defaults-steps-zero": {"defaults.json": edited(steps=0)},
    "defaults-steps-half": {"defaults.json": edited(steps=1.5)},
    "defaults-guidance-nan": {"defaults.json": edited(guidance=float("nan"))},
    "defaults-guidance-text": {"defaults.json": edited(guidance="strong")},
    "defaults-frames-text": {"defaults.json": edited(frames="all")},
    "defaults-size-huge": {"defaults.json": edited(height=10**9)},
    "defaults-height-negative": {"defaults.json": edited(height=-64)},
    "defaults-fps-text": {"defaults.json": edited(fps="slow")},
    "defaults-fps-zero": {"defaults.json": edited(fps=0)},
    "defaults-fps-infinite": {"defaults.json": edited(fps=float("inf"))},
    "defaults-prompt-number": {"defaults.json": edited(prompt=7)},
    "defaults-seed-text": {"defaults.json": edited(seed="lucky")},
    "defaults-unknown": {"defaults.json": edited(stepz=3)},
    "defaults-extra-list": {"defaults.json": edited(extra=[1])},
    "defaults-extra-unknown": {"defaults.json": edited(extra={"nosuch": 1})},
    "scheduler-missing": {"scheduler": None},
    "scheduler-config-missing": {_SCHEDULER: None},
    "scheduler-text": {_SCHEDULER: "hello"},
    "scheduler-list": {_SCHEDULER: "[]"},
    "scheduler-unknown-class": {_INDEX: edited(scheduler=["diffusers", "NoSuchScheduler"])},
    "scheduler-wrong-value": {_SCHEDULER: edited(num_train_timesteps="many")},
    "tokenizer-missing": {"tokenizer": None},
    "tokenizer-file-missing": {"tokenizer/tokenizer.json": None},
    "tokenizer-empty": {"tokenizer/tokenizer.json": ""},
    "tokenizer-text": {"tokenizer/tokenizer.json": "hello"},
    "tokenizer-object": {"tokenizer/tokenizer.json": "{}"},
    "tokenizer-noise": {"tokenizer/tokenizer.json": random.Random(4).randbytes(300)},
    "tokenizer-config-text": {"tokenizer/tokenizer_config.json": "hello"},
    "tokenizer-config-list": {"tokenizer/tokenizer_config.json": "[]"},
    "encoder-missing": {"text_encoder": None},
    "encoder-config-missing": {"text_encoder/config.json": None},
    "encoder-config-text": {"text_encoder/config.json": "hello"},
    "encoder-wrong-size": {"text_encoder/config.json": edited(d_model=17)},
    "encoder-weights-missing": {"text_encoder/model.safetensors": None},
    "encoder-weights-empty": {"text_encoder/model.safetensors": ""},
    "encoder-weights-half": {"text_encoder/model.safetensors": halved},
    "encoder-weights-noise": {"text_encoder/model.safetensors": random.Random(5).randbytes(3000)},
    "vae-missing": {"vae": None},
    "vae-config-missing": {"vae/config.json": None},
    "vae-config-text": {"vae/config.json": "hello"},
    "vae-config-list": {"vae/config.json": "[]"},
    "vae-wrong-size": {"vae/config.json": edited(base_dim=17)},
    "vae-wrong-type": {"vae/config.json": edited(base_dim="wide")},
    "vae-weights-missing": {f"vae/{_WEIGHTS}": None},
    "vae-weights-empty": {f"vae/{_WEIGHTS}": ""},
    "vae-weights-half": {f"vae/{_WEIGHTS}": halved},
    "vae-weights-text": {f"vae/{_WEIGHTS}": "version https://git-lfs.github.com/spec/v1\n"},
    "transformer-missing": {"transformer": None},
    "transformer-config-missing": {_UNET: None},
    "transformer-config-text": {_UNET: "hello"},
    "transformer-config-list": {_UNET: "[]"},
    "transformer-more-layers": {_UNET: edited(num_layers=99)},
    "transformer-fewer-layers": {_UNET: edited(num_layers=1)},
    "transformer-wrong-heads": {_UNET: edited(num_attention_heads=1)},
    "transformer-wrong-type": {_UNET: edited(num_layers="all")},
    "transformer-channels": {_UNET: edited(in_channels=7)},
    "transformer-index-text": {f"transformer/{_WEIGHTS}.index.json": "hello"},
    "transformer-index-list": {f"transformer/{_WEIGHTS}.index.json": "[]"},
    "transformer-index-missing": {f"transformer/{_WEIGHTS}.index.json": None},
    "transformer-shard-missing": {"transformer/diffusion_pytorch_model-00002-of-00002.safetensors": None},
    "transformer-shard-half": {"transformer/diffusion_pytorch_model-00002-of-00002.safetensors": halved},
    "transformer-shard-empty": {"transformer/diffusion_pytorch_model-00001-of-00002.safetensors": ""},
    "pictures-model": {
        _INDEX: edited(
            _class_name="WanImageToVideoPipeline", expand_timesteps=True, image_encoder=[None, None],
            image_processor=[None, None],
        )
    },
}  # fmt: skip


def _register(name: str, changes: dict[str, Any]) -> None:
    material(name)(lambda path: model(path, **changes))


for _name, _changes in _BROKEN.items():
    _register(_name, _changes)


@material("only-transformer")
def only_transformer(path: Path) -> None:
    """What people download by mistake: a part of a pipeline."""
    from enhance_a_video.embedded import model_folder

    shutil.copytree(model_folder() / "transformer", path, copy_function=_copy_file)


@material("weights.safetensors")
def single_file(path: Path) -> None:
    from enhance_a_video.embedded import model_folder

    shutil.copy(model_folder() / "vae" / _WEIGHTS, path)


# ------------------------------------------------------------------------------------- prompts, profiles, studies


@material("good.txt")
def good_prompts(path: Path) -> None:
    path.write_text("a red ball moves to the right over a green meadow\n")


@material("good.yaml")
def good_study(path: Path) -> None:
    path.write_text(
        "prompts: [a red ball moves to the right over a green meadow]\nsettings: {plain: null, default: {}}\n"
        "options: {steps: 1, frames: 5, height: 32, width: 32}\n"
    )


@material("good.json")
def good_profile(path: Path) -> None:
    path.write_text('{"name": "constant", "gain": 1.2}')


@material("[red]a[bold].txt", "видео 🎬.txt")
def odd_prompts(path: Path) -> None:
    good_prompts(path)


# ------------------------------------------------------------------------------------------------ folders of results


@material("compared")
def compared(path: Path) -> None:
    _compared(path, "without", "with")


@material("compared-markup")
def compared_markup(path: Path) -> None:
    _compared(path, "[/bold]", "[link=x]λ 🎬")


@material("compared-cut")
def compared_cut(path: Path) -> None:
    _compared(path, "without", "with")
    halved(path / "enhanced.mp4")


@material("compared-one")
def compared_one(path: Path) -> None:
    _compared(path, "without", "with")
    (path / "enhanced.mp4").unlink()


@material("compared-read-only")
def compared_read_only(path: Path) -> None:
    _compared(path, "without", "with")
    path.chmod(0o555)


@material("voted")
def voted(path: Path) -> None:
    """A comparison with a vote."""
    from enhance_a_video.lab.vote import FILE, Ballots, find_pairs

    _compared(path, "without", "with")
    ballots = Ballots(path / FILE, find_pairs(path).pairs)
    seat = ballots.join("Ada")
    ballots.vote(seat.voter, seat.queue[0].id, dict.fromkeys(("consistency", "prompt", "quality"), "left"))


@material("votes-text", "votes-noise", "votes-empty", "votes-foreign", "votes-folder")
def bad_votes(path: Path) -> None:
    _compared(path, "without", "with")
    _bad_database(path / "votes.sqlite", path.name.split("-")[1])


@material("study-text", "study-noise", "study-empty", "study-foreign", "study-folder", "study-newer")
def bad_study_folder(path: Path) -> None:
    path.mkdir()
    _bad_database(path / "study.sqlite", path.name.split("-")[1])


def _bad_database(file: Path, how: str) -> None:
    if how == "text":
        file.write_text("this is text\n" * 40)
    elif how == "noise":
        file.write_bytes(b"SQLite format 3\0" + random.Random(6).randbytes(4080))
    elif how == "empty":
        file.touch()
    elif how == "folder":
        file.mkdir()
    else:
        with sqlite3.connect(file) as db:
            db.execute("CREATE TABLE clips (id INTEGER)")
            if how == "newer":
                db.execute("PRAGMA application_id = 1162957139")
                db.execute("PRAGMA user_version = 99")
        db.close()


@material("read-only")
def read_only(path: Path) -> None:
    path.mkdir(mode=0o555)


@material("unreadable.txt", "unreadable.png", "unreadable.mp4", "unreadable.yaml", "unreadable.json")
def unreadable(path: Path) -> None:
    path.write_text("x")
    path.chmod(0)


@material("file")
def file(path: Path) -> None:
    path.write_text("x")


def _compared(path: Path, *labels: str) -> None:
    from enhance_a_video.generation import video

    path.mkdir()
    for number, (name, label) in enumerate(zip(("baseline", "enhanced"), labels, strict=True)):
        facts = json.dumps({"prompt": "a bar", "seed": 0, "panel": label, "settings": None})
        video.write_video(path / f"{name}.mp4", frames(seed=number), 8, comment=facts)


def _sibling(path: Path, name: str) -> Path:
    file = path.with_name(name)
    if not file.exists():
        MATERIALS[name](file)
    return file
