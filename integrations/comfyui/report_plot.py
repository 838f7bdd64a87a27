"""A summary as a picture: mean gain and cross-frame mass by layer and call. numpy and Pillow, which ComfyUI has."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from enhance_a_video.record import Summary

WIDTH, HEIGHT, MARGIN = 960, 640, 92
GROUND, INK, EMPTY = (255, 255, 255), (40, 40, 40), (225, 225, 225)
# A few colours of the maps viridis and magma, dark to light.
VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
MAGMA = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))


def plot(summary: Summary) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) float32 between 0 and 1: layers upwards, model calls to the right, grey where none ran."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    title = f"{', '.join(summary.models)}: {len(summary.progress)} model calls, {len(summary.layers)} layers"
    ImageDraw.Draw(picture).text((MARGIN, 10), title, INK, _font(24))
    half = (HEIGHT - 44) // 2
    _panel(picture, 44, half, summary.gain, "gain applied", MAGMA)
    _panel(picture, 44 + half, half, summary.mass, "cross-frame mass", VIRIDIS)
    return np.asarray(picture, np.float32) / 255


def _panel(picture: Image.Image, top: int, height: int, data: np.ndarray, title: str, colours: tuple) -> None:
    """One heat map of data (calls, layers) with its range beside it."""
    draw, small = ImageDraw.Draw(picture), _font(20)
    low, high = (float(np.nanmin(data)), float(np.nanmax(data))) if np.isfinite(data).any() else (0.0, 1.0)
    box = (MARGIN, top + 30, WIDTH - 116, top + height - 30)  # left, top, right, bottom
    if data.size:
        cells = Image.fromarray(_coloured(data.T[::-1], low, high, colours))
        picture.paste(cells.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.NEAREST), box[:2])
    draw.rectangle(box, outline=INK)
    draw.text((box[0], top + 3), title, INK, small)
    draw.text((box[0], box[3] + 4), "first call", INK, small)
    draw.text((box[2], box[3] + 4), "last call", INK, small, anchor="ra")
    draw.text((6, box[1]), f"layer {max(data.shape[1] - 1, 0)}", INK, small)
    draw.text((6, box[3] - 24), "layer 0", INK, small)
    bar = _coloured(np.linspace(1, 0, 64)[:, None], 0.0, 1.0, colours)
    picture.paste(Image.fromarray(bar).resize((16, box[3] - box[1])), (box[2] + 12, box[1]))
    draw.text((box[2] + 34, box[1]), f"{high:.3f}", INK, small)
    draw.text((box[2] + 34, box[3] - 24), f"{low:.3f}", INK, small)


def _coloured(data: np.ndarray, low: float, high: float, colours: tuple) -> np.ndarray:
    """(rows, columns) -> (rows, columns, 3) uint8; NaN is grey."""
    place = np.nan_to_num((data - low) / max(high - low, 1e-9)) * (len(colours) - 1)
    table = np.array(colours, np.float32)
    rgb = np.stack([np.interp(place, range(len(colours)), table[:, channel]) for channel in range(3)], -1)
    rgb[np.isnan(data)] = EMPTY
    return rgb.astype(np.uint8)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
