"""Measures whether `restore` makes finished videos better, and the method's share, on clips with a clean original.

    python benchmarks/restore.py --out runs/restore                    # the packaged model, 12 clips: noise levels
    python benchmarks/restore.py --out runs/restore-joint -m models/joint --noise 0.1 --clips 12 --first 900
    python benchmarks/restore.py --out runs/restore --table      # the tables of docs/guide/restore.md, from its numbers

Clips of the embedded world (held-out scenes) get known damage; each way to repair them gives a clip, which is compared
with the damaged and with the clean one. Beside the method: plain video to video, the VAE alone, FFmpeg's filters, and
the source's own frames averaged along the motion, which is what --keep-detail does without any model. A run that was
stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from enhance_a_video.embedded import world
from enhance_a_video.generation import pipelines, video
from enhance_a_video.generation.media import to_uint8
from enhance_a_video.generation.restore import Restoring, engine, light
from enhance_a_video.lab import stats
from enhance_a_video.lab.metrics import damage, no_reference
from enhance_a_video.lab.metrics.clip import Clip
from enhance_a_video.settings import Settings

Frames = np.ndarray  # (T, H, W, 3), float32 in [0, 1] here, uint8 for the engine

# ---------------------------------------------------------------------------------------------------------- damage


def flicker(clean: Frames, seed: int) -> Frames:
    """Each frame lighter or darker by a random 7 %."""
    light = 1 + 0.07 * np.random.default_rng((1, seed)).standard_normal(len(clean))
    return clean * light[:, None, None, None]


def colour_drift(clean: Frames, seed: int) -> Frames:
    """Each frame's white balance off by a random 5 % in each channel, slowly: the mean of five frames' draws."""
    draws = np.random.default_rng((2, seed)).standard_normal((len(clean) + 4, 3))
    slow = np.stack([draws[t : t + 5].mean(0) for t in range(len(clean))]) * 5**0.5
    return clean * (1 + 0.05 * slow)[:, None, None]


def boil(clean: Frames, seed: int) -> Frames:
    """Each frame bent by a smooth random field of its own, by about 1 % of its side."""
    return damage.boil(clean, 0.5)


def grain(clean: Frames, seed: int) -> Frames:
    """Gaussian noise of standard deviation 0.04 (10 of 255) in each frame."""
    return clean + 0.04 * np.random.default_rng((3, seed)).standard_normal(clean.shape)


def everything(clean: Frames, seed: int) -> Frames:
    """The four, one after the other."""
    return grain(colour_drift(flicker(boil(clean, seed), seed), seed), seed)


def nothing(clean: Frames, seed: int) -> Frames:
    """A clip that needs no repair: what is lost of it?"""
    return clean


DAMAGES: dict[str, Callable[[Frames, int], Frames]] = {
    one.__name__.replace("_", " "): one for one in (flicker, colour_drift, boil, grain, everything, nothing)
}

# --------------------------------------------------------------------------------------------------------- repairs


def filtered(source: Frames, graph: str) -> Frames:
    """The clip through one of FFmpeg's filter graphs, in RGB without loss."""
    import imageio_ffmpeg

    length, height, width = source.shape[:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(world.FPS)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *raw, "-i", "-", "-vf", graph]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    out = subprocess.run(command, input=to_uint8(source).tobytes(), capture_output=True, check=True).stdout
    frames = np.frombuffer(out, np.uint8).reshape(-1, height, width, 3).astype(np.float32) / 255
    return np.pad(frames[:length], ((0, max(0, length - len(frames))), (0, 0), (0, 0), (0, 0)), mode="edge")


def averaged(source: Frames) -> Frames:
    """The source's frames averaged along its own motion: keep-detail with nothing to keep it beside."""
    from enhance_a_video.generation.restore import detail

    blank = detail.steady_detail(np.zeros_like(source), source, flow_of=source)
    return np.clip(blank, 0, 1)


def vae_alone(pipe: Any, source: Frames) -> np.ndarray:
    """Encoded and decoded, nothing in between; uint8."""
    import torch

    from enhance_a_video.generation.restore import latents

    x, vae = latents.encoded(pipe, to_uint8(source)), pipe.vae
    with torch.inference_mode():
        if type(pipe).__name__ == "LattePipeline":
            video = vae.decode(x[0].transpose(0, 1) / vae.config.scaling_factor).sample.transpose(0, 1)[None]
        else:
            shape = (1, -1, 1, 1, 1)
            deviation, mean = (torch.tensor(vae.config[name]).view(shape) for name in ("latents_std", "latents_mean"))
            video = vae.decode(x * deviation + mean).sample
    return to_uint8(((video[0].permute(1, 2, 3, 0) + 1) / 2).clamp(0, 1).float().numpy())


def repaired(pipe: Any, source: Frames, noise: float, odds: float | None) -> np.ndarray:
    """What the model makes of it, in windows of its own length, before anything is given back; uint8."""
    how = Restoring(noise=noise, settings=Settings(odds=odds) if odds else None, keep_detail=False, even_light=False)
    frames = to_uint8(source)
    made = engine.plan(pipe, how, *frames.shape[:3])
    with engine.method(pipe, how):
        clips = [engine.denoised(pipe, frames[s.first : s.last], s.first, how, made) for s in made.spans]
    return to_uint8(np.stack(list(engine.blended(made.spans, clips))) / 255)


def ways(pipe: Any, source: Frames, levels: list[float], odds: float, even: bool) -> Iterator[tuple[str, Frames]]:
    """(name, clip) of every way to repair a clip. even: what the models get has had its light made even."""
    yield "damaged", source
    yield "ffmpeg deflicker", filtered(source, "deflicker=size=5")
    yield "ffmpeg hqdn3d", filtered(source, "hqdn3d")
    half = f"tpad=stop=4:stop_mode=clone,framestep=2,minterpolate=fps={world.FPS}:mi_mode=mci:scd=none"
    yield "ffmpeg minterpolate, every second frame", filtered(source, half)
    yield "averaged along the motion, no model", averaged(source)
    if even:
        frames = to_uint8(source)
        source = light.lit(frames, light.gains_of(frames)).astype(np.float32) / 255
        yield "light made even, no model", source
        yield "light made even, averaged along the motion, no model", averaged(source)
    models = [("VAE alone", partial(vae_alone, pipe, source))]
    for level in levels:
        models += [(f"video to video, noise {level:g}", partial(repaired, pipe, source, level, None))]
        models += [(f"restore, noise {level:g}", partial(repaired, pipe, source, level, odds))]
    for name, make in models:
        raw = make()
        for kept in (True, False):
            frames = engine.finished(raw, to_uint8(source), kept).astype(np.float32) / 255
            yield f"{name}{', detail kept' if kept else ''}", frames


# -------------------------------------------------------------------------------------------------------- measures


def psnr(frames: Frames, clean: Frames) -> float:
    """Peak signal to noise against the clean clip, dB; at most 60, as an equal clip has no number."""
    return float(min(60.0, -10 * np.log10(max(np.mean((frames - clean) ** 2, dtype=np.float64), 1e-6))))


def ssim(frames: Frames, clean: Frames) -> float:
    """Structural similarity of the luma (Wang et al. 2004): Gaussian window of 11 pixels, sigma 1.5; mean of frames."""
    import cv2

    blur = partial(cv2.GaussianBlur, ksize=(11, 11), sigmaX=1.5)
    values = []
    for x, y in zip(Clip(frames).luma, Clip(clean).luma, strict=True):
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        values.append(((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))).mean())
    return float(np.mean(values))


def vmaf(frames: Frames, clean: Frames) -> float:
    """Netflix's VMAF, by the libvmaf of imageio-ffmpeg, mean of the frames; NaN where its FFmpeg has none.

    Its model is made for large pictures, so that clips are enlarged to four times their size, bicubically.
    """
    import imageio_ffmpeg

    height, width = frames.shape[1:3]
    with tempfile.TemporaryDirectory() as folder:
        inputs = []
        for name, clip in (("ours", frames), ("clean", clean)):
            Path(folder, name).write_bytes(to_uint8(clip).tobytes())
            raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(world.FPS)]
            inputs += [*raw, "-i", str(Path(folder, name))]
        large = f"scale={4 * width}:{4 * height}:flags=bicubic,format=yuv420p"
        graph = f"[0:v]{large}[a];[1:v]{large}[b];[a][b]libvmaf=log_fmt=json:log_path={folder}/log"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-threads", "1", *inputs]
        done = subprocess.run([*command, "-lavfi", graph, "-f", "null", "-"], capture_output=True)
        if done.returncode:
            return float("nan")
        return float(json.loads(Path(folder, "log").read_text(encoding="utf-8"))["pooled_metrics"]["vmaf"]["mean"])


def flickering(frames: Frames, clean: Frames) -> float:
    """How far the clip's flicker is from the clean one's: mean |second difference over time of (clip - clean)|, in
    grey levels of 255."""
    return float(255 * np.abs(np.diff(frames - clean, 2, axis=0)).mean())


def measured(frames: Frames, clean: Frames) -> dict[str, float]:
    clip, truth = Clip(frames), Clip(clean)
    return {
        "psnr": psnr(frames, clean),
        "ssim": ssim(frames, clean),
        "vmaf": vmaf(frames, clean),
        "warping": float(no_reference.warping_error(clip).mean()),
        "flicker": flickering(frames, clean),
        "motion": float(no_reference.motion(clip).mean() / max(no_reference.motion(truth).mean(), 1e-6)),
        "sharpness": float(no_reference.sharpness(clip).mean() / max(no_reference.sharpness(truth).mean(), 1e-6)),
    }


# ------------------------------------------------------------------------------------------------------- the study


def originals(options: argparse.Namespace) -> Iterator[tuple[int, Frames]]:
    """(number, clean clip) of the study: held-out scenes, or pieces of the videos that were given."""
    if not options.videos:
        for scene in range(options.first, options.first + options.clips):
            yield scene, np.asarray(world.render(world.held_out_scene(scene))[0], np.float32) / 255
        return
    pieces = [piece for path in options.videos for piece in cut(path, options.clips)]
    yield from enumerate(pieces)


def cut(path: Path, most: int) -> Iterator[Frames]:
    """Up to so many pieces of a video, evenly apart: of the world's length, its middle square at the world's size."""
    import cv2

    frames = video.read_video(path)[0]
    side, length = min(frames.shape[1:3]), world.FRAMES
    top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
    number = min(most, len(frames) // length)
    for first in np.linspace(0, len(frames) - length, number).astype(int):
        square = frames[first : first + length, top : top + side, left : left + side]
        small = [cv2.resize(frame, (world.SIZE, world.SIZE), interpolation=cv2.INTER_AREA) for frame in square]
        yield np.stack(small).astype(np.float32) / 255


def run(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "numbers.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {(line["damage"], line["scene"]) for line in map(json.loads, lines)}
    pipelines.quiet()
    pipe = pipelines.load(options.model)
    with path.open("a", encoding="utf-8") as file:
        for scene, clean in originals(options):
            for name in options.damage:
                if (name, scene) in done:
                    continue
                source = to_uint8(np.clip(DAMAGES[name](clean, scene), 0, 1)).astype(np.float32) / 255
                found = {
                    way: measured(frames, clean)
                    for way, frames in ways(pipe, source, options.noise, options.odds, options.even_light)
                }
                file.write(json.dumps({"damage": name, "scene": scene, "model": options.model, "ways": found}) + "\n")
                file.flush()
                print(scene, name, file=sys.stderr)


TABLES = {"psnr": "PSNR to the clean clip, dB", "ssim": "SSIM to the clean clip", "vmaf": "VMAF to the clean clip",
          "warping": "Warping error, 1e-4",
          "flicker": "Flicker beyond the clean clip's, grey levels", "motion": "Motion, 1 = the clean clip's",
          "sharpness": "Sharpness, 1 = the clean clip's"}  # fmt: skip


def table(folder: Path) -> str:
    """Markdown: for each measure the mean of each way to repair each damage, with the half width of its 95 % interval
    over clips; what the method adds to plain video to video, in pairs; and the noise level that this chooses."""
    lines = [json.loads(line) for line in (folder / "numbers.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {name: [line["ways"] for line in lines if line["damage"] == name] for name in DAMAGES}
    found = {name: rows for name, rows in found.items() if rows}
    names = list(next(iter(found.values()))[0])
    parts = []
    for measure, title in TABLES.items():
        parts.append(f"\n**{title}**\n\n{_head(found)}")
        for way in names:
            cells = [_cell([row[way][measure] for row in rows]) for rows in found.values()]
            parts.append(f"| {way} | {' | '.join(cells)} |")
    for measure in ("psnr", "warping"):
        parts.append(f"\n**What the method adds to plain video to video: {TABLES[measure]}**\n\n{_head(found)}")
        for way in (way for way in names if way.startswith("restore")):
            plain = way.replace("restore", "video to video")
            cells = [
                _paired([r[plain][measure] for r in rows], [r[way][measure] for r in rows]) for rows in found.values()
            ]
            parts.append(f"| {way.removeprefix('restore, ')} | {' | '.join(cells)} |")
    return "\n".join([*parts, "", _choice(found, names)])


def _head(found: dict[str, Any]) -> str:
    titles = [f"{name} ({len(rows)})" for name, rows in found.items()]
    return f"| | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}"


def _choice(found: dict[str, list[dict[str, Any]]], names: list[str]) -> str:
    """The rule of the default: the highest PSNR, mean of the damages, of restoring with the detail kept."""
    means = {}
    for way in (way for way in names if way.startswith("restore") and way.endswith("kept")):
        hurt = [rows for name, rows in found.items() if name != "nothing"]
        means[way] = float(np.mean([np.mean([row[way]["psnr"] for row in rows]) for rows in hurt]))
    listed = ", ".join(f"{way.split()[2].rstrip(',')}: {mean:.2f}" for way, mean in means.items())
    return f"PSNR, mean of the damages, by noise: {listed} dB."


def _cell(values: list[float]) -> str:
    low, high = stats.interval(values)
    return f"{np.mean(values):.3g} ± {(high - low) / 2:.2g}"


def _paired(before: list[float], after: list[float]) -> str:
    found = stats.paired(before, after)
    text = f"{found.difference:+.3g} ({found.low:+.3g} … {found.high:+.3g})"
    return f"**{text}**" if found.clear else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the numbers")
    parser.add_argument("--model", "-m", default="embedded")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--first", type=int, default=800, help="the first held-out scene")
    parser.add_argument("--videos", type=Path, nargs="+", help="real clips, --clips pieces of each, in place of scenes")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.4])
    parser.add_argument("--odds", type=float, default=2.0)
    parser.add_argument("--even-light", action="store_true", help="before the models, as the command does")
    parser.add_argument("--damage", nargs="+", default=list(DAMAGES), choices=list(DAMAGES))
    parser.add_argument("--table", action="store_true", help="print the tables of numbers that are there")
    options = parser.parse_args()
    if not options.table:
        run(options)
    print(table(options.out))


if __name__ == "__main__":
    main()
