"""`Screen`, rich's console as the commands use it: for any file here that prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from ..generation.terminal import reader_left


class Screen(Console):
    """rich's console, without the two readings of a user's text that nobody expects: ":cat:" stays as it is, and a pipe
    that is closed (| head) does not end the work."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)

    def on_broken_pipe(self) -> None:
        reader_left(self.file)
