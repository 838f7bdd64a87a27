"""What a peer is: a frozen dataclass with a name in JSON that acts on each step of a pipeline's denoising."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ... import limits
from ...errors import SettingsError

if TYPE_CHECKING:
    from .denoising import Step

Act = Callable[["Step"], tuple[Tensor, Tensor]]
"""A step -> the prediction and the latents that the scheduler gets in place of the pipeline's own."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A training-free method beside ours. Raises SettingsError for a knob out of its range.

    start, end    the part of the steps in which it acts, 0 the first and 1 the last
    """

    name: ClassVar[str]  # in JSON, study.yaml and on the command line
    source: ClassVar[str]  # where it was published

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            limits.number(name, getattr(self, name), 0, 1)
        if not self.start < self.end:
            raise SettingsError(f"start={self.start} must be smaller than end={self.end}: the window is empty.")

    def begin(self) -> Act:
        """What acts on the steps of one call of the pipeline, the first step first."""
        raise NotImplementedError

    def around(self, pipe: Any) -> AbstractContextManager[Any]:
        """What is changed in the model itself while the pipeline runs."""
        return nullcontext()

    def covers(self, step: Step) -> bool:
        return self.start <= step.index / step.total < self.end

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: {"name": its name, its knobs}. What is None by default and still is, is left out: such a knob may
        be added later without changing the key of a clip."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        unset = [field.name for field in fields(self) if field.default is None and values[field.name] is None]
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items() if key not in unset}
        return {"name": self.name, **plain}


def layers_from(given: Any, what: str = "layers") -> tuple[int, ...]:
    """Layer numbers from a number or a list of them, negative ones counted from the end."""
    found = given if isinstance(given, list | tuple) else [given]
    if not found or not all(type(one) is int for one in found):
        raise SettingsError(f"{what}={given!r}: give the number of a layer or a list of them.")
    return tuple(found)
