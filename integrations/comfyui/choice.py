"""The node's settings as one checked value. ComfyUI shows the ValueError of a wrong one on the node."""

import re
from dataclasses import dataclass
from typing import Any

from enhance_a_video.policies import Odds, Strength, Temperature

ODDS, TEMPERATURE, STRENGTH = "odds", "temperature", "strength"
POLICIES = {ODDS: Odds, TEMPERATURE: Temperature, STRENGTH: Strength}


@dataclass(frozen=True)
class Choice:
    """What to do, when and where.

    kind, value   ODDS, TEMPERATURE or STRENGTH, and its number; see the library's Settings
    start, end    the part of the denoising in which it acts: 0 = pure noise, 1 = clean, as in ComfyUI's own nodes
    blocks        the blocks in which it acts, counted from 0; None = all
    observe_only  measure and change nothing
    conditional   under guidance, change only the samples with the prompt, not those with the negative prompt
    """

    kind: str = ODDS
    value: float = 2.0
    start: float = 0.0
    end: float = 1.0
    blocks: frozenset[int] | None = None
    observe_only: bool = False
    conditional: bool = False

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"start_percent={self.start} must be smaller than end_percent={self.end}")
        _ = self.policy  # raises for a number that it does not take

    @property
    def policy(self) -> Any:
        """The library's policy: mass -> gain."""
        return POLICIES[self.kind](self.value)

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}" + (" with the prompt alone" if self.conditional else "")

    def to_dict(self) -> dict[str, Any]:
        """The names and values that the library's Settings use for the same."""
        passes = {"passes": "conditional"} if self.conditional else {}
        window = {"start": self.start, "end": self.end}
        return {self.kind: self.value, **window, **passes, "observe_only": self.observe_only}


def blocks_of(text: str) -> frozenset[int] | None:
    """'10-19, 25' -> those numbers; empty -> None, all blocks. ValueError for anything else."""
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last > 9999:
            raise ValueError(f"blocks={text!r}: {part!r} is no block; give numbers counted from 0, such as 10-19, 25")
        found.update(range(first, last + 1))
    return frozenset(found) or None
