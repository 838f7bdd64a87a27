"""Other ways to make frames attend to each other more, inside the attention, to compare the method with.

    with Enhancement(pipe, LogitTemperature(tau=1.1)): ...          # as a scope, like enhance()

Source: Luo et al. (arXiv 2502.07508), section 3.3 and appendix A. With s the method's gain, CFI_enhanced (eq. 7):

    LogitTemperature   softmax(QK^T / (tau * sqrt(d))) V          eq. 5 and 9; tau = 1.1 in the paper's figure 13 (a)
    CfiTemperature     softmax(QK^T / (s * sqrt(d))) V            eq. 10, "CFI attention scaling", figure 13 (b)
    MapScaling         (A * W) V, W = s where query and key lie in different frames, else 1; A = softmax(QK^T / sqrt(d))

How the paper is read, and what it leaves open:

- Eq. 10 has s where eq. 9 has tau, so there "CFI scaling" is a temperature that each layer and step sets itself: it
  flattens the map, which agrees with the weakened diagonal of figure 13 (b). `MapScaling` is the other thing the
  words can mean, the cross-frame entries of the map amplified as they are, and is in no equation of the paper.
- Which logits are divided is not stated. Here: those of video queries with video keys, so that in a joint stream the
  logits with text keep their size; queries of text tokens are left alone. In full 3D attention the logits within a
  frame are divided too (eq. 5 and 9 have no mask), at all sites, not only between the same sites of two frames.
- s is measured on the layer's own query and key before they are changed, in the same way as the method does it.
- Rows of A * W sum to more than 1: MapScaling is not renormalised, because the sum is what is amplified. If it were,
  it would move attention from a frame to the others and be a kind of temperature again.
- When they act is not stated; by default always, as in the authors' code. The method's window is for `start` and `end`.

What they cost: LogitTemperature and CfiTemperature a kernel call more where there is text, MapScaling one kernel call
for each frame (together as many products as before) and a copy of the values for each. The layer's own kernel computes
all of it. Eager mode only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from . import limits
from .axes import Axis, Time
from .errors import SettingsError
from .intensity import DEFAULT_SITES
from .operators import AttentionMap, Logits, Operator
from .policies import DEFAULT_STRENGTH, Constant
from .settings import Layers, Settings


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """What all have: where and when, as in Settings. Raises SettingsError for a value out of range."""

    name: ClassVar[str]  # in JSON and study.yaml

    start: float = 0.0
    end: float = 1.0
    layers: Layers = None
    attention_maps: bool = False  # record the layers' maps as they are before the change

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", self.settings.layers)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Time, the only one that they have."""
        return (Time(),)

    @property
    def settings(self) -> Settings:
        """Where, when and how much: their policy gives tau or s, which is what a summary calls the gain."""
        raise NotImplementedError

    @property
    def operator(self) -> Operator:
        """What that number does."""
        raise NotImplementedError

    def operator_on(self, axes: tuple[Axis, ...]) -> Operator:
        """The same for the axis of time, the only one that they have."""
        return self.operator

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: {"alternative": its name, ...}."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"alternative": self.name, **found, "layers": self.settings.to_dict()["layers"]}


@dataclass(frozen=True)
class LogitTemperature(Alternative):
    """Plain temperature on the logits, the paper's eq. 5 and 9: above 1 it flattens the map. tau is above 0."""

    tau: float = 1.1

    name: ClassVar[str] = "logit_temperature"

    def __post_init__(self) -> None:
        limits.number("tau", self.tau, 0.01, 1000)  # 1.1 flattens a little, 1 changes nothing
        super().__post_init__()

    @property
    def settings(self) -> Settings:
        return Settings(
            policy=Constant(float(self.tau)), start=self.start, end=self.end, layers=self.layers,
            attention_maps=self.attention_maps,
        )  # fmt: skip

    @property
    def operator(self) -> Operator:
        return Logits()


@dataclass(frozen=True)
class _BySize(Alternative):
    """Those that take the method's gain, s = max(1, (1 + strength) * mass): see Settings for its knobs."""

    strength: float | None = None
    temperature: float | None = None
    sites: int | None = DEFAULT_SITES
    per_sample: bool = True

    def __post_init__(self) -> None:
        if self.strength is None and self.temperature is None:
            object.__setattr__(self, "strength", DEFAULT_STRENGTH)
        super().__post_init__()

    @property
    def settings(self) -> Settings:
        return Settings(
            strength=self.strength, temperature=self.temperature, start=self.start, end=self.end, layers=self.layers,
            sites=self.sites, per_sample=self.per_sample, attention_maps=self.attention_maps,
        )  # fmt: skip


@dataclass(frozen=True)
class CfiTemperature(_BySize):
    """The method's gain as a temperature on the logits, the paper's eq. 10."""

    name: ClassVar[str] = "cfi_temperature"

    @property
    def operator(self) -> Operator:
        return Logits(self.sites)


@dataclass(frozen=True)
class MapScaling(_BySize):
    """The cross-frame entries of the attention map multiplied by the method's gain; not renormalised."""

    name: ClassVar[str] = "map_scaling"

    @property
    def operator(self) -> Operator:
        return AttentionMap(self.sites)


ALTERNATIVES: dict[str, type[Alternative]] = {c.name: c for c in (LogitTemperature, CfiTemperature, MapScaling)}


Change = Settings | Alternative
"""What may be done to a model: the method, or what it is compared with."""


def alternative_from_dict(data: Mapping[str, Any]) -> Alternative:
    """The inverse of to_dict(). SettingsError for an unknown name or key, and for values that do not fit."""
    name = data.get("alternative")
    if name not in ALTERNATIVES:
        near = difflib.get_close_matches(str(name), ALTERNATIVES, 1, 0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SettingsError(f"alternative: {name!r} is unknown. {hint}Known: {', '.join(ALTERNATIVES)}.")
    kind = ALTERNATIVES[name]
    values = {key: value for key, value in data.items() if key != "alternative"}
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        raise SettingsError(f"unknown settings {unknown} of {name}: known are {sorted(known)}")
    if "layers" in values:
        values["layers"] = Settings.from_dict({"layers": values["layers"]}).layers
    return kind(**values)
