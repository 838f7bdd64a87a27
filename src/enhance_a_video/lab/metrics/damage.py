"""Known damage to plant in a clip, to test whether a measure finds it: for benchmarks/measures.py and the tests.

    from enhance_a_video.lab.metrics.damage import DAMAGES
    worse = DAMAGES["flicker"](frames, 0.5)

Each is a function of frames, float (T, H, W, 3) in [0, 1], and an amount: 0 is none, 1 is plain to see. Deterministic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Damage = Callable[[np.ndarray, float], np.ndarray]


def flicker(frames: np.ndarray, amount: float) -> np.ndarray:
    """Every second frame darker, by up to 10 %."""
    return frames * (1 - 0.1 * amount * (np.arange(len(frames)) % 2))[:, None, None, None]


def noise(frames: np.ndarray, amount: float) -> np.ndarray:
    """Fresh Gaussian noise in each frame, standard deviation up to 0.04."""
    grain = np.random.default_rng(1).standard_normal(frames.shape)
    return np.clip(frames + 0.04 * amount * grain, 0, 1)


def jitter(frames: np.ndarray, amount: float) -> np.ndarray:
    """Each frame shifted by random whole pixels (nothing is blurred), by up to 3 % of its shorter side or one pixel."""
    reach = int(np.ceil(0.03 * amount * min(frames.shape[1:3])))
    shifts = np.random.default_rng(2).integers(-reach, reach + 1, (len(frames), 2))
    padded = np.pad(frames, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    height, width = frames.shape[1:3]
    moved = [f[reach + y :, reach + x :][:height, :width] for f, (x, y) in zip(padded, shifts, strict=True)]
    return np.stack(moved)


def boil(frames: np.ndarray, amount: float) -> np.ndarray:
    """Each frame bent by a smooth random field of its own, up to about 2 % of its shorter side: shapes wobble."""
    import cv2

    generator = np.random.default_rng(3)
    height, width = frames.shape[1:3]
    bent = []
    for frame in frames:
        coarse = generator.standard_normal((6, 6, 2)).astype(np.float32)
        field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        bent.append(_warped(frame, 0.02 * amount * min(height, width) * field))
    return np.clip(np.stack(bent), 0, 1)


def stutter(frames: np.ndarray, amount: float) -> np.ndarray:
    """A share of the frames, up to every second one, replaced by the one before it."""
    kept, error = np.arange(len(frames)), 0.0
    for t in range(1, len(frames)):
        error += amount / 2
        if error >= 1:
            kept[t], error = kept[t - 1], error - 1
    return frames[kept]


def freeze(frames: np.ndarray, amount: float) -> np.ndarray:
    """The clip stands still from somewhere on; at 1 from its first frame."""
    last = round((1 - amount) * (len(frames) - 1))
    return frames[np.minimum(np.arange(len(frames)), last)]


def drift(frames: np.ndarray, amount: float) -> np.ndarray:
    """The colours wander steadily towards a warm tint, by up to 10 % of full scale."""
    share = np.linspace(0, 1, len(frames))[:, None, None, None]
    return np.clip(frames + 0.1 * amount * share * np.array([1.0, 0.2, -1.0]), 0, 1)


def blur(frames: np.ndarray, amount: float) -> np.ndarray:
    """Gaussian blur of each frame, sigma up to 2 % of its shorter side."""
    import cv2

    sigma = 0.02 * amount * min(frames.shape[1:3])
    return np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in frames]) if sigma else frames


def fade(frames: np.ndarray, amount: float) -> np.ndarray:
    """All colours of the clip paler, by up to half: a shift of saturation."""
    grey = frames.mean(axis=-1, keepdims=True)
    return grey + (frames - grey) * (1 - 0.5 * amount)


def flatten(frames: np.ndarray, amount: float) -> np.ndarray:
    """All values of the clip drawn to the middle, by up to 30 %: a shift of contrast."""
    return 0.5 + (frames - 0.5) * (1 - 0.3 * amount)


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage
    for damage in (flicker, noise, jitter, boil, stutter, freeze, drift, blur, fade, flatten)
}  # fmt: skip


def _warped(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) sampled where `flow` (H, W, 2) points, in pixels; what lies outside mirrors the inside."""
    import cv2

    height, width = frame.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    at_x, at_y = (x + flow[..., 0]).astype(np.float32), (y + flow[..., 1]).astype(np.float32)
    return cv2.remap(frame, at_x, at_y, interpolation=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
