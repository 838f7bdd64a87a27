"""Measures that need nothing but the frames.

Each function gives a series, one value for each frame, each pair of neighbouring frames or each triple of them, so
that a long file can be measured in pieces and come out as if it had been measured whole (`metrics.measure_pieces`).

None of them uses the prompt: a frozen clip is perfectly steady and an artefact is sharp. So motion, sharpness and
contrast stand beside steadiness, with no direction of their own, to show what a gain was paid with.
docs/reference/measures.md lists for each what it responds to and what it is blind to, as measured on planted damage.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .clip import Clip

_TOP = 0.05  # share of a frame's pixels that dynamic degree uses, as VBench


def temporal_flicker(clip: Clip) -> np.ndarray:
    """Steadiness of each pair of neighbouring frames, (T-1,); 1 = no change at all.

    VBench's "temporal flickering" (Huang et al. 2024): (255 - mean absolute frame difference) / 255.
    VBench applies it to static scenes; on moving ones it also counts motion.
    """
    return np.asarray([1 - np.abs(b - a).mean(dtype=np.float64) for a, b in pairwise(clip.frames)])


def warping_error(clip: Clip) -> np.ndarray:
    """Mean squared difference of each frame and the next one warped back on it, (T-1,), in units of 1e-4.

    Lai et al. 2018 (Learning Blind Video Temporal Consistency), with OpenCV's DIS flow (Kroeger et al. 2016)
    and the forward/backward occlusion test of Ruder et al. 2016: motion that the flow explains costs nothing,
    flicker does. Where the test leaves under 1 % of a frame (nothing moves consistently), all of it counts.
    """
    errors = []
    for (now, after), forth, back in zip(pairwise(clip.frames), clip.forward_flow, clip.backward_flow, strict=True):
        visible = _visible(forth, back)
        if visible.mean() < 0.01:
            visible = np.ones_like(visible)
        error = np.square(_pull(after, forth) - now).mean(axis=-1)  # (H, W)
        errors.append(1e4 * float(error[visible].mean(dtype=np.float64)))
    return np.asarray(errors)


def motion_smoothness(clip: Clip) -> np.ndarray:
    """How well each inner frame follows from its two neighbours, (T-2,); 1 = exactly as steady motion predicts.

    1 - mean absolute difference between the frame and its prediction. The idea and the scale are those of VBench's
    motion smoothness (Huang et al. 2024), which keeps every second frame and lets the network AMT-S draw the others.
    Here every inner frame is predicted, by optical flow and without weights: DIS flow between the two neighbours in
    both directions, flow at the middle from both as in Super SloMo (Jiang et al. 2018, t = 1/2), both neighbours pulled
    there and averaged where they lie inside the picture. It is not VBench's number and does not compare with it.
    """
    values = []
    for t in range(1, len(clip) - 1):
        forth, back = clip.flow(t - 1, t + 1), clip.flow(t + 1, t - 1)
        to_next = 0.25 * (forth - back)  # (H, W, 2), from the middle; to the frame before it is the opposite
        weights = [_inside(flow)[..., None] + 1e-3 for flow in (-to_next, to_next)]
        sides = [_pull(clip.frames[t - 1], -to_next), _pull(clip.frames[t + 1], to_next)]
        predicted = (weights[0] * sides[0] + weights[1] * sides[1]) / (weights[0] + weights[1])
        values.append(1 - float(np.abs(predicted - clip.frames[t]).mean(dtype=np.float64)))
    return np.asarray(values)


def motion(clip: Clip) -> np.ndarray:
    """Mean length of the optical flow of each pair of neighbouring frames, (T-1,), in pixels per frame."""
    return np.asarray([np.linalg.norm(flow, axis=-1).mean(dtype=np.float64) for flow in clip.forward_flow])


def dynamic_degree(clip: Clip) -> np.ndarray:
    """Mean length of the longest 5 % of the flow vectors of each pair, (T-1,), in % of the shorter side per frame.

    What VBench's dynamic degree (Huang et al. 2024) thresholds, with DIS flow in place of RAFT and without the
    threshold: VBench takes about 8 frames a second and gives 1 where a quarter of them exceed 6/256 = 2.3 % of the
    shorter side. Here it stays a number per frame of the file, at the file's own frame rate.
    """
    height, width = clip.frames.shape[1:3]
    top = max(1, int(height * width * _TOP))
    lengths = (np.linalg.norm(flow, axis=-1).ravel() for flow in clip.forward_flow)
    largest = [np.partition(length, -top)[-top:].mean(dtype=np.float64) for length in lengths]
    return 100 * np.asarray(largest) / min(height, width)


def tone(clip: Clip) -> np.ndarray:
    """Mean colour of each frame in CIELAB, (T, 3)."""
    import cv2

    return np.asarray([cv2.cvtColor(f, cv2.COLOR_RGB2LAB).mean((0, 1), dtype=np.float64) for f in clip.frames])


def drift(tones: np.ndarray) -> float:
    """Distance between the mean colours of the first and the last third of a clip, ΔE*ab (CIE 1976)."""
    third = max(1, len(tones) // 3)
    return float(np.linalg.norm(tones[-third:].mean(0) - tones[:third].mean(0)))


def sharpness(clip: Clip) -> np.ndarray:
    """Variance of the Laplacian of each frame's luma (Pech-Pacheco et al. 2000), (T,), in units of 1e-3."""
    import cv2

    return 1e3 * np.asarray([cv2.Laplacian(y, cv2.CV_32F, ksize=1).var(dtype=np.float64) for y in clip.luma])


def contrast(clip: Clip) -> np.ndarray:
    """Standard deviation of the luma inside each frame (RMS contrast, Peli 1990), (T,), 0..0.5."""
    return np.asarray([y.std(dtype=np.float64) for y in clip.luma])


def saturation(clip: Clip) -> np.ndarray:
    """Mean HSV saturation of each frame, (T,); 0 = grey, 1 = pure colours."""
    values = []
    for frame in clip.frames:
        high, low = frame.max(axis=-1), frame.min(axis=-1)  # (H, W)
        values.append(((high - low) / np.maximum(high, 1e-6)).mean(dtype=np.float64))
    return np.asarray(values)


def _pull(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`image` (H, W, C) sampled where `flow` (H, W, 2) points: the later frame seen from the earlier one."""
    import cv2

    x, y = _targets(flow)
    return cv2.remap(image, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _targets(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel's flow (H, W, 2) ends, as x and y, (H, W) each."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x + flow[..., 0], y + flow[..., 1]


def _inside(flow: np.ndarray) -> np.ndarray:
    """Pixels (H, W) whose flow ends inside the picture."""
    height, width = flow.shape[:2]
    x, y = _targets(flow)
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def _visible(forth: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Pixels (H, W) seen in both frames: forth and back ends where it began, in the picture (Ruder et al.)"""
    returned = _pull(back, forth)
    gap = np.square(forth + returned).sum(-1)
    consistent = gap <= 0.01 * (np.square(forth).sum(-1) + np.square(returned).sum(-1)) + 0.5
    return consistent & _inside(forth)
