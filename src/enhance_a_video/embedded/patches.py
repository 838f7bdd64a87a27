"""Patches of a colour in a picture, for the checkers of both drawn worlds: the largest one, and its kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import cv2
import numpy as np


def largest_patch(mask: np.ndarray, gap: int, edge: int = 0) -> np.ndarray:
    """The largest connected patch of a mask (H, W), joined over gaps of up to `gap` - 1 pixels; empty without any.

    edge: empty pixels around the picture while gaps are closed.
    """
    height, width = mask.shape
    joined = cv2.morphologyEx(np.pad(mask.astype(np.uint8), edge), cv2.MORPH_CLOSE, np.ones((gap, gap), np.uint8))
    joined = joined[edge : edge + height, edge : edge + width]
    count, patches, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    if count < 2:
        return np.zeros(mask.shape, bool)
    return np.asarray(patches == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def best_kind(
    masks: np.ndarray, centres: Iterable[tuple[float, float]], templates: Mapping[str, np.ndarray], reach: float
) -> str | None:
    """The kind whose silhouette fits masks (N, H, W) about their centres best, or None without any.

    templates: kind -> its silhouette scaled to unit area, (size, size) over [-reach, reach]².
    """
    scores = dict.fromkeys(templates, 0.0)
    size = next(iter(templates.values())).shape[0]
    for mask, (x0, y0) in zip(masks, centres, strict=True):
        grid = ((np.arange(size) + 0.5) / size * 2 * reach - reach) * np.sqrt(mask.sum())
        x, y = np.meshgrid(grid + x0, grid + y0)
        sampled = cv2.remap(mask.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
        for kind, template in templates.items():
            scores[kind] += float(np.minimum(sampled, template).sum() / np.maximum(sampled, template).sum())
    return max(scores, key=lambda kind: scores[kind]) if len(masks) else None
