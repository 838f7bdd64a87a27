"""`Progress`, the one event of all work that takes time: for whoever shows a bar, or stops a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    done, total: what is finished of what there is, in `unit`; total is None where it is not known. parts: of what has
    begun, how much is done. failed: how many of the finished ones could not be made. doing: what is being done now.
    news: one line about what just happened, or ""; wrong: whether that is a failure. workers: slot -> what
    its worker reported of itself (host, pid, device), of those that are ready. preview: a few frames as they form,
    uint8 (T, H, W, 3), or None where this model has none; worked out when it is called, which only the report itself
    may do, as the pipeline waits meanwhile.
    """

    done: int
    total: int | None = None
    unit: str = "clip"
    doing: str = ""
    parts: float = 0.0
    failed: int = 0
    news: str = ""
    wrong: bool = False
    workers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    preview: Callable[[], np.ndarray | None] | None = field(default=None, compare=False, repr=False)


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """The report of work that nobody watches."""
