"""Gives a restored clip its source's colours, and the detail that the VAE has lost.

Pure functions of frames, float32 (T, H, W, 3) in [0, 1].
"""

from __future__ import annotations

from math import comb

import numpy as np


def colour_matched(frames: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Frames whose mean over the whole clip is that of the source, in each channel of CIELAB.

    One shift for all frames: matched frame by frame, the flicker of the source would come back. Deviations are not
    matched: those of a source with noise are those of its noise.
    """
    import cv2

    ours = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2LAB) for frame in frames])
    theirs = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2LAB) for frame in source])
    shift = theirs.mean((0, 1, 2), dtype=np.float64) - ours.mean((0, 1, 2), dtype=np.float64)
    matched = (ours + shift).astype(np.float32)
    return np.clip(np.stack([cv2.cvtColor(frame, cv2.COLOR_LAB2RGB) for frame in matched]), 0, 1)


def low_only(frames: np.ndarray, source: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """The source with the coarse part (Gaussian of `sigma` pixels) of the change alone: all its fine detail stays."""
    import cv2

    change = np.stack([cv2.GaussianBlur(one, (0, 0), sigma) for one in frames - source])
    return np.clip(source + change, 0, 1)


def steady_detail(
    frames: np.ndarray, source: np.ndarray, reach: int = 3, flow_of: np.ndarray | None = None
) -> np.ndarray:
    """Frames with the part of the source's difference to them that stays the same along the motion.

    Detail that was lost everywhere is a difference that moves with the picture; flicker and noise are differences that
    change from frame to frame. So the difference is followed along the optical flow of the restored frames, over
    `reach` frames to either side, and its mean is given back, with binomial weights: what alternates from frame to
    frame is zero in it. flow_of: the clip whose motion is followed, where it is not `frames`.
    """
    lost = (source - frames).astype(np.float32)
    flows, length = _flows(frames if flow_of is None else flow_of), len(frames)
    weights = [comb(2 * reach, reach + distance) for distance in range(reach + 1)]
    back = []
    for t in range(length):
        total, weight = weights[0] * lost[t], weights[0]
        for direction in (-1, 1):
            at: np.ndarray | None = None
            for distance in range(1, reach + 1):
                other = t + direction * distance
                if not 0 <= other < length:
                    break
                step = flows[direction][other - direction]  # from the frame before, on this way, to `other`
                at = step if at is None else at + _pulled(step, at)
                total = total + weights[distance] * _pulled(lost[other], at)
                weight += weights[distance]
        back.append(total / weight)
    return np.clip(frames + np.stack(back), 0, 1)


def _flows(frames: np.ndarray) -> dict[int, list[np.ndarray]]:
    """direction -> at t the flow (H, W, 2) from frame t to its neighbour there, zeros where there is none."""
    import cv2

    grey = [np.rint(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) * 255).astype(np.uint8) for frame in frames]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    still = np.zeros((*grey[0].shape, 2), np.float32)
    small = min(grey[0].shape) < 16  # DIS needs a few pixels
    ways = {}
    for direction in (-1, 1):
        ways[direction] = [
            flow.calc(grey[t], grey[t + direction], still.copy())
            if 0 <= t + direction < len(grey) and not small
            else still
            for t in range(len(grey))
        ]
    return ways


def _pulled(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`image` (H, W, C) sampled where `flow` (H, W, 2) points."""
    import cv2

    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        image, x + flow[..., 0], y + flow[..., 1], interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
