"""Pictures of clips for a page: side by side, slices through time, maps of flicker, moving pictures.

Steadiness does not show in single frames. For showing the same scene without and with the method:

    line = busiest_line(plain)                     # where the plain clip moves, chosen by a rule
    image = slice_picture([plain, enhanced], ["without", "with"], line)        # a flicker becomes a stripe
    image = flicker_picture([plain, enhanced], ["without", "with"])            # and a bright place
    image = steadiness_picture([plain, enhanced], ["without", "with"])         # both, next to each other
    write_webp("moving.webp", clip_grid([[plain, enhanced]], ["without", "with"]), fps=12)

Frames are uint8 or float in [0, 1], shape (T, H, W, 3), RGB; pictures are uint8 (H, W, 3).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import limits
from ..errors import SettingsError
from ..generation.files import atomic
from ..generation.media import to_uint8
from ..generation.video import enlarged, even
from ..wording import count
from .metrics.clip import Clip

_INK, GROUND = (245, 246, 248), (22, 24, 29)  # label text, and what it and the clips stand on
_GAP, _TYPE = 8, 15  # pixels between the parts of a picture; size of its type
_WEBP_QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10)  # tried in this order until the file is small enough


@dataclass(frozen=True)
class Line:
    """One line of pixels of a clip: `number` counts rows from the top, columns from the left, from 0."""

    axis: str  # "row" or "column"
    number: int

    def __str__(self) -> str:
        return f"{self.axis} {self.number}"


# ------------------------------------------------------------------------------------------- what is measured


def busiest_line(frames: np.ndarray) -> Line:
    """The row or column of pixels whose brightness varies most over time (mean over the line of the variance)."""
    variance = Clip(frames).luma.var(axis=0)  # (H, W)
    rows, columns = variance.mean(axis=1), variance.mean(axis=0)
    if rows.max() >= columns.max():
        return Line("row", int(rows.argmax()))
    return Line("column", int(columns.argmax()))


def temporal_slice(frames: np.ndarray, line: Line) -> np.ndarray:
    """One line of pixels over time: uint8 (pixels of the line, T, 3), time to the right.

    What stands still is a horizontal stripe, what moves along the line a slanted one; a flicker is a vertical stripe.

    Raises:
        SettingsError: the clip has no such line.
    """
    frames = to_uint8(frames)
    size = frames.shape[1 if line.axis == "row" else 2]
    if line.axis not in ("row", "column") or not 0 <= line.number < size:
        raise SettingsError(f"This clip has no {line}: it is {frames.shape[2]} pixels wide and {frames.shape[1]} high.")
    pixels = frames[:, line.number] if line.axis == "row" else frames[:, :, line.number]  # (T, pixels, 3)
    return pixels.swapaxes(0, 1)


def flicker_map(frames: np.ndarray) -> np.ndarray:
    """Where a clip flickers: the mean over time of |previous - 2 · this + next frame| of the brightness.

    Returns:
        float32 (H, W), in grey levels of 255. A still picture and a steady change of brightness have 0; besides
        flicker, an edge that passes leaves a trace too.

    Raises:
        SettingsError: fewer than three frames.
    """
    luma = Clip(frames).luma
    if len(luma) < 3:
        raise SettingsError(f"Flicker is seen in three frames or more; this clip has {len(luma)}.")
    return 255 * np.abs(luma[:-2] - 2 * luma[1:-1] + luma[2:]).mean(axis=0)


# -------------------------------------------------------------------------------------------------- pictures


def resized(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images (..., H, W, 3), uint8, at another size by Lanczos' filter, smaller or larger."""
    from PIL import Image

    flat = images.reshape(-1, *images.shape[-3:])
    done = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.LANCZOS)) for one in flat]
    return np.stack(done).reshape(*images.shape[:-3], height, width, 3)


def coloured(values: np.ndarray, low: float, high: float, colours: str = "inferno") -> np.ndarray:
    """Values (H, W) as a picture: `low` and below at the one end of one of matplotlib's colour maps, `high` at the
    other."""
    import matplotlib

    share = np.clip((values - low) / (high - low), 0, 1)
    return matplotlib.colormaps[colours](share, bytes=True)[..., :3]


def slice_picture(
    clips: Sequence[np.ndarray], labels: Sequence[str], line: Line | None = None, *, height: int = 192, width: int = 528
) -> np.ndarray:
    """The temporal slice of each clip, one above the other under their labels, along the same line.

    Args:
        line: by default the `busiest_line` of the first clip.
        height, width: of each slice in pixels. Along the line it is enlarged smoothly; each frame stays a column of
            its own, so that nothing is smoothed over time.
    """
    line = line or busiest_line(clips[0])
    parts = []
    for clip in clips:
        pixels = temporal_slice(clip, line)
        columns = resized(pixels, height, pixels.shape[1])
        parts.append(columns[:, np.arange(width) * pixels.shape[1] // width])
    return stacked(parts, labels)


def flicker_picture(clips: Sequence[np.ndarray], labels: Sequence[str], *, height: int = 256) -> np.ndarray:
    """The flicker map of each clip, next to each other in one scale under their labels and means (grey levels of 255);
    then, for each clip after the first, what changed: blue where it flickers less than the first, red where more.

    The scale ends at the value that one place in 200 of the first clip exceeds, that of the change at a quarter of it.
    """
    first, *others = maps = [flicker_map(clip) for clip in clips]
    top = max(1.0, float(np.quantile(first, 0.995)))
    parts = [
        (f"flicker, {label}: {found.mean():.2f}", coloured(found, 0, top))
        for label, found in zip(labels, maps, strict=True)
    ]
    for label, found in zip(labels[1:], others, strict=True):
        text = f"change, {label}"
        if first.mean() > 0:
            text += f": {found.mean() / first.mean() - 1:+.1%}".replace("-", "−").replace("%", " %")
        parts.append((text, coloured(found - first, -top / 4, top / 4, "coolwarm")))
    width = round(height * first.shape[1] / first.shape[0])
    return beside([headed(resized(image, height, width), text) for text, image in parts])


def steadiness_picture(clips: Sequence[np.ndarray], labels: Sequence[str], *, height: int = 120) -> np.ndarray:
    """`slice_picture` (each slice of this height) and beside it `flicker_picture`, which needs three frames."""
    line = busiest_line(clips[0])
    slices = slice_picture(clips, [f"{line} over time, {label}" for label in labels], line, height=height)
    if min(map(len, clips)) < 3:
        return slices
    size = slices.shape[0] - slices.shape[0] // len(clips) + height  # as high as all slices with their labels
    return beside([slices, flicker_picture(clips, labels, height=size)])


def clip_grid(
    rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str], *, columns: int = 1, side: int = 160
) -> np.ndarray:
    """Clips of several scenes in a grid: each scene's clips next to each other, several scenes in a line.

    Args:
        rows: for each scene its clips (T, H, W, 3), in the order of the labels; all of one length and size.
        labels: of the clips, above each column.
        columns: scenes in a line.
        side: height of a clip in pixels.

    Returns:
        uint8 (T, H', W', 3).
    """
    scenes = []
    for clips in rows:
        if len(clips) != len(labels):
            raise SettingsError(
                f"Each clip needs one label; found {count(len(clips), 'clip')} and {count(len(labels), 'label')}."
            )
        parts = [to_uint8(clip) for clip in clips]
        scenes.append(beside([resized(part, side, round(side * part.shape[2] / part.shape[1])) for part in parts], 2))
    lines = [beside(scenes[n : n + columns]) for n in range(0, len(scenes), columns)]
    head = beside([_labels_of(scenes[0].shape[-2], labels)] * min(columns, len(scenes)))
    head = np.broadcast_to(head, (*lines[0].shape[:-3], *head.shape))
    return above([head, *lines])


def headed(image: np.ndarray, label: str) -> np.ndarray:
    """A picture under a dark bar with its label."""
    return np.concatenate([label_bar(label, image.shape[1], _TYPE), image])


def stacked(images: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
    """Pictures one above the other, each under its label."""
    return above([headed(image, label) for image, label in zip(images, labels, strict=True)], 0)


def beside(images: Sequence[np.ndarray], gap: int = _GAP) -> np.ndarray:
    """Pictures or clips (..., H, W, 3) next to each other on a dark ground; lower ones are filled up below."""
    return _joined(images, -2, gap)


def above(images: Sequence[np.ndarray], gap: int = _GAP) -> np.ndarray:
    """Pictures or clips (..., H, W, 3) one above the other on a dark ground; narrower ones are filled up."""
    return _joined(images, -3, gap)


def _joined(images: Sequence[np.ndarray], axis: int, gap: int) -> np.ndarray:
    across = -5 - axis  # height for pictures side by side, width for pictures in a column
    size = max(image.shape[across] for image in images)
    parts: list[np.ndarray] = []
    for image in images:
        full = np.concatenate([image, _ground(image, across, size - image.shape[across])], axis=across)
        parts += [_ground(full, axis, gap), full]
    return np.concatenate(parts[1:], axis=axis)


def _ground(beside: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The dark ground, in the shape of the picture beside it but for `size` along one axis."""
    shape = list(beside.shape)
    shape[axis] = size
    return np.broadcast_to(np.array(GROUND, np.uint8), shape)


def _labels_of(width: int, labels: Sequence[str]) -> np.ndarray:
    """A bar of labels in columns of one width, uint8 (h, width, 3)."""
    edges = np.linspace(0, width, len(labels) + 1).round().astype(int)
    widths = np.diff(edges)
    return np.concatenate([label_bar(text, int(w), _TYPE) for text, w in zip(labels, widths, strict=True)], axis=1)


# ----------------------------------------------------------------------------------------------------- files


def webp_bytes(frames: np.ndarray, fps: float, *, limit: int = 2_000_000) -> bytes:
    """A clip as an animated WebP that repeats for ever, at the best quality that fits into `limit` bytes.

    Raises:
        SettingsError: it does not fit at any quality.
    """
    from PIL import Image

    images = [Image.fromarray(frame) for frame in to_uint8(frames)]
    ends = np.rint(np.arange(len(images) + 1) * 1000 / fps).astype(
        int
    )  # in milliseconds, without adding up their rounding
    for quality in _WEBP_QUALITIES:
        target = io.BytesIO()
        images[0].save(
            target, "WEBP", save_all=True, append_images=images[1:], duration=np.diff(ends).tolist(), loop=0,
            quality=quality, method=6,
        )  # fmt: skip
        if target.tell() <= limit:
            return target.getvalue()
    raise SettingsError(
        f"{len(images)} frames of {frames.shape[2]}x{frames.shape[1]} do not fit into {limit} bytes: "
        "give smaller or fewer clips."
    )


def write_webp(
    path: str | Path, frames: np.ndarray, fps: float, *, limit: int = 2_000_000, force: bool = False
) -> Path:
    """`webp_bytes` into a file, atomically. Errors as there and in `video.write_video`."""
    with atomic(Path(path), force=force) as draft:
        draft.write_bytes(webp_bytes(frames, fps, limit=limit))
    return Path(path)


# ------------------------------------------------------------------------------------------- clips beside each other


def side_by_side(
    panels: Sequence[np.ndarray], labels: Sequence[str], *, min_side: int = 256, gap: int = 8
) -> np.ndarray:
    """Clips next to each other, each under its label, on one dark ground.

    Args:
        panels: clips (T, H, W, 3) of one height; shorter ones hold their last frame.
        labels: one per clip.
        min_side: clips with a shorter side below this are enlarged by a whole factor.
        gap: pixels between clips.

    Returns:
        uint8 (T, H', W', 3), even sizes.
    """
    clips = _comparable(panels, labels, min_side)
    length = max(map(len, clips))
    clips = [np.concatenate([clip, np.repeat(clip[-1:], length - len(clip), 0)]) for clip in clips]
    size = max(15, round(clips[0].shape[1] / 18))  # type size in pixels
    columns = []
    for clip, label in zip(clips, labels, strict=True):
        bar = label_bar(label, clip.shape[2], size)  # (h, W, 3)
        columns += [np.concatenate([np.broadcast_to(bar, (length, *bar.shape)), clip], axis=1), None]
    tall = columns[0].shape[1]  # type: ignore[union-attr]
    ground = np.full((length, tall, gap, 3), GROUND, np.uint8)
    return even(np.concatenate([ground if column is None else column for column in columns[:-1]], axis=2))


def film_strip(
    panels: Sequence[np.ndarray], labels: Sequence[str], *, count: int = 8, min_side: int = 128, gap: int = 4
) -> np.ndarray:
    """A picture of a video: per clip one labelled row of `count` evenly spaced frames. uint8 (H', W', 3)."""
    limits.whole("count", count, 1)
    rows = []
    for clip, label in zip(_comparable(panels, labels, min_side), labels, strict=True):
        chosen = clip[np.linspace(0, len(clip) - 1, min(count, len(clip))).round().astype(int)]
        spaced = np.pad(chosen, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=0)
        spaced[:, -gap:], spaced[:, :, -gap:] = GROUND, GROUND
        row = np.concatenate(list(spaced), axis=1)[:, :-gap]
        rows += [label_bar(label, row.shape[1], max(14, clip.shape[1] // 9)), row]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_widen(row, width) for row in rows])


def label_bar(text: str, width: int, size: int) -> np.ndarray:
    """One line of text on a dark bar, uint8 (about 1.9 size, width, 3); made smaller, then cut, to fit."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    face = Path(
        matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"
    )  # Greek and Cyrillic too, unlike Pillow's own
    image = Image.new("RGB", (width, 2 * round(0.95 * size)), GROUND)
    draw, room = ImageDraw.Draw(image), width - size
    text = " ".join("".join(one if one.isprintable() else " " for one in text[:1000]).split())  # Pillow takes one line
    for points in range(size, max(9, size // 2) - 1, -1):
        font = ImageFont.truetype(str(face), points)
        if draw.textlength(text, font=font) <= room:
            break
    while len(text) > 1 and draw.textlength(text, font=font) > room:
        text = text.rstrip("…")[:-1] + "…"
    draw.text((size / 2, image.height / 2), text, fill=_INK, font=font, anchor="lm")
    return np.asarray(image)


def _comparable(panels: Sequence[np.ndarray], labels: Sequence[str], min_side: int) -> list[np.ndarray]:
    clips = [to_uint8(panel) for panel in panels]
    if len(clips) != len(labels) or not clips:
        raise SettingsError(
            f"Each clip needs one label; found {count(len(clips), 'clip')} and {count(len(labels), 'label')}."
        )
    sizes = {clip.shape[1:3] for clip in clips}
    if len(sizes) > 1:
        raise SettingsError(f"Clips side by side must have one size; found {sorted(sizes)} (height, width).")
    return [enlarged(clip, min_side) for clip in clips]


def _widen(row: np.ndarray, width: int) -> np.ndarray:
    ground = np.full((len(row), width, 3), GROUND, np.uint8)
    ground[:, : row.shape[1]] = row
    return ground
