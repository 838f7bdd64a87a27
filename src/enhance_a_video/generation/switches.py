"""Options of a command that the processes it starts inherit, as environment variables: --watermark, --content-check."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def is_on(name: str) -> bool:
    """Whether the environment variable of this name switches its option on."""
    return os.environ.get(name, "").lower() in ("on", "1", "true", "yes")


@contextmanager
def switched_on(name: str, wanted: bool) -> Iterator[None]:
    """Sets the variable while it lasts, where that is wanted; one that the user has set stays."""
    before = os.environ.get(name)
    if wanted:
        os.environ[name] = "on"
    try:
        yield
    finally:
        if wanted and before is None:
            os.environ.pop(name)
