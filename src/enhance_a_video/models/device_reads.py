"""Caches values read from device tensors, so that each tensor causes one synchronisation, not one a step.

The tensors with the place of the video (token indices, positions, types) stay the same through a denoising, so
reading them once costs one wait in all; read at each call it would be one a step.
"""

from collections.abc import Callable, Hashable
from typing import TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..attention import Rows

Answer = TypeVar("Answer")

_KNOWN = WeakTensorKeyDictionary()  # tensor -> {what: (version of its contents, answer)}


def once(tensor: Tensor, what: Hashable, read: Callable[[], Answer]) -> Answer:
    """read(), remembered as `what` of this tensor while its contents stay the same.

    Tensors made in inference mode have no version; theirs are taken to stay the same.
    """
    known = _KNOWN.setdefault(tensor, {})
    version = None if tensor.is_inference() else tensor._version
    if what not in known or known[what][0] != version:
        known[what] = version, read()
    return known[what][1]


def as_rows(indices: Tensor, first: int = 0) -> Rows:
    """Indices (N,) into a sequence whose part from `first` on is the stream: a slice when they are consecutive."""

    def read() -> tuple[int, bool]:
        return int(indices[0]), bool((indices.diff() == 1).all())

    start, consecutive = once(indices, "consecutive", read)
    return slice(start - first, start - first + len(indices)) if consecutive else indices - first


def last_run(indices: Tensor) -> tuple[int, int]:
    """Start and stop of the last stretch of consecutive indices (N,), N > 0."""

    def read() -> tuple[int, int]:
        breaks = (indices.diff() != 1).nonzero()[:, 0]  # after which entries a new stretch begins
        begin = int(breaks[-1]) + 1 if len(breaks) else 0
        return int(indices[begin]), int(indices[-1]) + 1

    return once(indices, "last run", read)


def steps(values: Tensor) -> int:
    """How many stretches of equal values (N,) or (N, K) there are, one after the other; equal within 0.01."""
    changes = values.diff(dim=0).abs() > 0.01  # (N-1,) or (N-1, K)
    return int((changes.any(1) if changes.ndim == 2 else changes).sum()) + 1
