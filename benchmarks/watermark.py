"""What the invisible watermark survives, how often it is found where there is none, and what it costs.

    python benchmarks/watermark.py                       # clips of the embedded world at 64 and at 256 pixels
    python benchmarks/watermark.py --videos a.mp4 b.mp4  # and pieces of real ones, 16 frames each

Each clip is marked, written and read again in each of several ways, and looked at by what `inspect` calls. Steadiness:
the warping error of the marked clip against the unmarked one's, as a mark that is drawn anew in each frame may flicker.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from enhance_a_video.embedded import world
from enhance_a_video.generation import video, watermark
from enhance_a_video.lab import stats
from enhance_a_video.lab.metrics import no_reference
from enhance_a_video.lab.metrics.clip import Clip

Frames = np.ndarray  # uint8 (T, H, W, 3)
LENGTH = 16


def through(codec: str, **options: str) -> Callable[[Frames], Frames]:
    """The clip written with a codec of FFmpeg's and read again."""

    def coded(frames: Frames) -> Frames:
        import av

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip.mkv")
            with av.open(str(path), "w") as container:
                stream = container.add_stream(codec, rate=12, options=options)
                stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
                for frame in frames:
                    container.mux(
                        stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
                    )
                container.mux(stream.encode())
            return video.read_video(path)[0]

    return coded


def resized(factor: float) -> Callable[[Frames], Frames]:
    return lambda frames: np.stack(
        [cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for frame in frames]
    )


def cropped(frames: Frames) -> Frames:
    """A tenth of each side cut off, at an odd place."""
    _, height, width, _ = frames.shape
    top, left = height // 10 | 1, width // 10 | 1
    return frames[:, top : height - top - height % 2, left : width - left - width % 2]


WAYS: dict[str, Callable[[Frames], Frames]] = {
    "as it is": lambda frames: frames,
    **{f"H.264, crf {crf}": through("libx264", crf=str(crf)) for crf in (17, 23, 28, 32, 35)},
    "VP9, crf 35": through("libvpx-vp9", crf="35", **{"b:v": "0", "cpu-used": "6"}),
    "MPEG-4, quality 5": through("mpeg4", qscale="5", **{"global_quality": str(5 * 118), "flags": "qscale"}),
    "resized to 75 %": resized(0.75),
    "resized to half": resized(0.5),
    "resized to twice": resized(2.0),
    "resized to 90 %": resized(0.9),
    "cropped by a tenth each side": cropped,
    "cropped, then H.264, crf 28": lambda frames: through("libx264", crf="28")(even(cropped(frames))),
    "lighter by 10 levels": lambda frames: np.clip(frames.astype(int) + 10, 0, 255).astype(np.uint8),
    "contrast less by a tenth": lambda frames: np.rint(128 + 0.9 * (frames - 128.0)).astype(np.uint8),
    "mirrored": lambda frames: frames[:, :, ::-1],
}


PLAIN = ("as it is", "H.264, crf 28")  # ways in which the unmarked clip is looked at too: each takes the whole search


def even(frames: Frames) -> Frames:
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def clips(options: argparse.Namespace) -> Iterator[tuple[str, Frames]]:
    """(kind, clip) of what is marked."""
    for scene in range(options.first, options.first + options.clips):
        frames = world.render(world.held_out_scene(scene))[0][:LENGTH]
        yield "64x64", frames
        yield "256x256", video.enlarged(frames, 256)
    for path in options.videos or ():
        frames = video.read_video(path)[0]
        for first in np.linspace(0, len(frames) - LENGTH, options.pieces).astype(int):
            yield "real", even(frames[first : first + LENGTH])


def psnr(one: Frames, other: Frames) -> float:
    return float(-10 * np.log10(np.mean((one / 255.0 - other / 255.0) ** 2)))


def warping(frames: Frames) -> float:
    return float(no_reference.warping_error(Clip(frames.astype(np.float32) / 255)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--first", type=int, default=800, help="the first held-out scene")
    parser.add_argument("--videos", type=Path, nargs="+")
    parser.add_argument("--pieces", type=int, default=3, help="of each video")
    options = parser.parse_args()
    found: dict[str, dict[str, list[watermark.Watermark]]] = {}
    cost: dict[str, list[tuple[float, float, float, float]]] = {}
    for kind, frames in clips(options):
        began = time.perf_counter()
        marked = np.stack([watermark.marked(frame) for frame in frames])
        seconds = (time.perf_counter() - began) / len(frames)
        cost.setdefault(kind, []).append((psnr(frames, marked), warping(frames), warping(marked), seconds))
        rows = found.setdefault(kind, {})
        for name, way in WAYS.items():
            rows.setdefault(name, []).append(watermark.find(way(marked)))
            if name in PLAIN:
                rows.setdefault(f"unmarked: {name}", []).append(watermark.find(way(frames)))
    for kind, rows in found.items():
        print_table(kind, rows, np.array(cost[kind]))


def print_table(kind: str, rows: dict[str, list[watermark.Watermark]], cost: np.ndarray) -> None:
    print(
        f"\n{kind}: {len(cost)} clips; PSNR {_with_interval(cost[:, 0])} dB; {1000 * cost[:, 3].mean():.0f} ms a frame"
    )
    change = stats.paired(list(cost[:, 1]), list(cost[:, 2]))
    print(f"warping error, 1e-4: {cost[:, 1].mean():.3g} -> {cost[:, 2].mean():.3g}, difference "
          f"{change.difference:+.3g} ({change.low:+.3g} … {change.high:+.3g})\n")  # fmt: skip
    print("| | found | bits of 64 that agree: mean, least | found in the unmarked clip | most bits there |")
    print("|---|---|---|---|---|")
    for name in WAYS:
        marks, plain = rows[name], rows.get(f"unmarked: {name}", [])
        bits, most = [one.bits for one in marks], max((one.bits for one in plain), default="")
        print(f"| {name} | {sum(one.present for one in marks)} of {len(marks)} | {np.mean(bits):.1f}, {min(bits)} | "
              f"{sum(one.present for one in plain)} of {len(plain)} | {most} |")  # fmt: skip


def _with_interval(values: np.ndarray) -> str:
    low, high = stats.interval(list(values))
    return f"{values.mean():.1f} ± {(high - low) / 2:.1f}"


if __name__ == "__main__":
    main()
