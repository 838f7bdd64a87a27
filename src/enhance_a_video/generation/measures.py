"""`Measure`: name, label, unit and direction of something that is measured on a clip. For a new measure, start here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

NAMED = ("name", "label", "better", "unit", "source", "needs")


@dataclass(frozen=True)
class Measure:
    """One measure of a clip.

    better: which way is better; "neither" for what steadiness is paid with. source: where its definition comes from.
    needs: "frames" alone; the "truth" of what the prompt required, which only an embedded world has; "vbench", VBench's
    own code and weights.
    """

    name: str
    label: str
    better: Literal["higher", "lower", "neither"]
    unit: str
    source: str = ""
    needs: Literal["frames", "truth", "vbench"] = "frames"

    @property
    def truth(self) -> bool:
        """Whether it compares with what the prompt required."""
        return self.needs == "truth"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: getattr(self, name) for name in NAMED}
