"""Measures that need nothing but the frames. Each is a pure function of a clip and returns one number.

None of them knows what was asked for: a frozen clip is perfectly steady and an artefact is sharp. So
motion, sharpness and contrast stand beside steadiness, with no direction of their own, to show what a gain
was paid with.
"""

from __future__ import annotations

import numpy as np

from .clip import Clip

Frames = np.ndarray | Clip


def temporal_flicker(frames: Frames) -> float:
    """Steadiness of neighbouring frames, 1 = no change at all.

    VBench's "temporal flickering" (Huang et al. 2024): (255 - mean absolute frame difference) / 255.
    VBench applies it to static scenes; on moving ones it also counts motion.
    """
    clip = Clip.of(frames)
    clip.needs(2, "Temporal flicker")
    return float(1 - np.abs(np.diff(clip.frames, axis=0)).mean(dtype=np.float64))


def warping_error(frames: Frames) -> float:
    """Mean squared difference of a frame and the next one warped back on it, in units of 1e-4.

    Lai et al. 2018 (Learning Blind Video Temporal Consistency), with OpenCV's DIS flow (Kroeger et al. 2016)
    and the forward/backward occlusion test of Ruder et al. 2016: motion that the flow explains costs nothing,
    flicker does. Where the test leaves under 1 % of a frame (nothing moves consistently), all of it counts.
    """
    clip = Clip.of(frames)
    clip.needs(2, "Warping error")
    errors = []
    for now, after, forth, back in zip(
        clip.frames[:-1], clip.frames[1:], clip.forward_flow, clip.backward_flow, strict=True
    ):
        visible = _visible(forth, back)
        if visible.mean() < 0.01:
            visible = np.ones_like(visible)
        error = np.square(_pull(after, forth) - now).mean(axis=-1)  # (H, W)
        errors.append(float(error[visible].mean(dtype=np.float64)))
    return 1e4 * float(np.mean(errors))


def motion(frames: Frames) -> float:
    """Mean length of the optical flow between neighbouring frames, in pixels per frame."""
    clip = Clip.of(frames)
    clip.needs(2, "Motion")
    return float(np.linalg.norm(clip.forward_flow, axis=-1).mean(dtype=np.float64))


def sharpness(frames: Frames) -> float:
    """Variance of the Laplacian of the luma (Pech-Pacheco et al. 2000) in units of 1e-3, mean over frames."""
    import cv2

    luma = Clip.of(frames).luma  # (T, H, W)
    return 1e3 * float(np.mean([cv2.Laplacian(y, cv2.CV_32F, ksize=1).var(dtype=np.float64) for y in luma]))


def contrast(frames: Frames) -> float:
    """Standard deviation of the luma inside a frame (RMS contrast, Peli 1990), mean over frames, 0..0.5."""
    return float(Clip.of(frames).luma.std(axis=(1, 2), dtype=np.float64).mean())


def saturation(frames: Frames) -> float:
    """Mean of HSV saturation, 0 = grey, 1 = pure colours."""
    pixels = Clip.of(frames).frames
    high, low = pixels.max(axis=-1), pixels.min(axis=-1)  # (T, H, W)
    return float(((high - low) / np.maximum(high, 1e-6)).mean(dtype=np.float64))


def _pull(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`image` (H, W, C) sampled where `flow` (H, W, 2) points: the later frame seen from the earlier one."""
    import cv2

    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        image,
        x + flow[..., 0],
        y + flow[..., 1],
        interpolation=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _visible(forth: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Pixels (H, W) seen in both frames: forth and back ends where it began, in the picture (Ruder et al.)"""
    height, width = forth.shape[:2]
    returned = _pull(back, forth)
    gap = np.square(forth + returned).sum(-1)
    consistent = gap <= 0.01 * (np.square(forth).sum(-1) + np.square(returned).sum(-1)) + 0.5
    x = np.arange(width)[None, :] + forth[..., 0]
    y = np.arange(height)[:, None] + forth[..., 1]
    return consistent & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
