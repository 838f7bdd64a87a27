"""The knobs of enhance() as one frozen, validated value that survives a round trip through JSON."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from . import limits, policies
from .axes import Axis, Time, axis_named
from .errors import SettingsError
from .intensity import DEFAULT_SITES
from .operators import Biased, CrossFrame, Exact, Operator, Output

Layers = Sequence[int] | slice | str | None


@dataclass(frozen=True)
class Settings:
    """What to do, where and when. Raises SettingsError for a field that is out of range or conflicts with another.

    strength      largest amplification g of a layer, s = max(1, (1 + g) * mass); the same at any frame count
    temperature   the paper's tau (eq. 7), s = max(1, (tau + T) * CFI), at least -1; at most one of the four
    odds          by how much the odds that attention leaves its frame are multiplied: 1.5 = half as much again, 1 =
                  nothing. It scales what a frame takes from the others, not the whole output
                  (operators/cross_frame.py). The default. A layer in which that part cannot be separated is scaled
                  by the default strength, with a WholeOutputWarning. Several axes at once: {"time": 2, "prompt": 1.5}
    axis          which keys are the others: "time", other frames, the default; "near:2", "far:2", "reference",
                  "prompt", "space:2" (axes.py). All but time take odds or a policy, by the true share of attention
    policy        in place of these three, any callable (mass (B,), GainContext) -> gain (B,): one of `policies`,
                  one as JSON ({"name": "constant", "gain": 1.2}), the path of a profile, or your own, which
                  enhance() calls once with a few masses to check it; it may return one number for all, and a gain that
                  is not finite acts as 1
    start, end    the part of the denoising in which the gain acts: 0 = pure noise, 1 = clean.
                  (0, 1) acts in every forward call; it is the default with odds, which need no end, and with a policy,
                  which sets by itself when it acts
    scale         what the gain multiplies: "output", all that the layer puts out, as the paper does; "cross-frame", the
                  part that comes from other frames, as odds do, by the mass at a token's own place in all frames;
                  "exact", the same part by each token's true share of attention for other frames, read off the
                  kernel's log-sum-exp (torch's kernels; elsewhere as "cross-frame"). A policy may be given any;
                  without, it is the policy's attribute `scales`, or "output". With the last two it is evaluated for
                  each token of each head at once: mass (B*H*T*S,)
    passes        "conditional" = under classifier-free guidance of weight w only the pass with the prompt is changed,
                  at half the cost, and the prediction by w times what that pass changes by; None = both passes.
                  Where the pass cannot be known both are changed, with an UnknownPassWarning
    layers        which matched layers: indices (negative counts from the end), a slice, or a regular
                  expression searched in their names; None = all
    sites         how many spatial sites estimate the mass; None = all of them (exact). Used with scale="output":
                  else every token of every head has a gain of its own, so that all are measured
    per_sample    one gain for each sample; False = one for the batch, as in the authors' code
    observe_only  record and change nothing
    attention_maps  record each layer's mean (T, T) temporal attention map as well
    """

    strength: float | None = None
    temperature: float | None = None
    odds: float | Mapping[str, float] | None = None
    axis: str | None = None
    policy: Callable[..., Any] | Mapping[str, Any] | str | Path | None = None
    start: float | None = None
    end: float | None = None
    scale: str | None = None
    layers: Layers = None
    passes: Literal["conditional"] | None = None
    sites: int | None = DEFAULT_SITES
    per_sample: bool = True
    observe_only: bool = False
    attention_maps: bool = False

    def __post_init__(self) -> None:
        self._check_axes()
        self._check_gain()
        self._check_scale()
        whole = self.policy is not None or self.odds is not None
        start, end = (0.0, 1.0) if whole else (policies.DEFAULT_START, policies.DEFAULT_END)
        start, end = start if self.start is None else self.start, end if self.end is None else self.end
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "end", end)
        for name in ("start", "end"):
            limits.number(name, getattr(self, name), 0, 1)
        if not start < end:
            raise SettingsError(f"start={start} must be smaller than end={end}: the window is empty")
        if self.sites is not None:
            object.__setattr__(self, "sites", limits.whole("sites", self.sites, 1))
        for name in ("per_sample", "observe_only", "attention_maps"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"{name}={getattr(self, name)!r}: give True or False")
        if self.passes not in (None, "conditional"):
            raise SettingsError(f"passes={self.passes!r} is unknown: give 'conditional', or None for both passes")
        object.__setattr__(self, "layers", _checked_layers(self.layers))

    def _check_axes(self) -> None:
        """The names of the axes, and what can be requested on them."""
        if isinstance(self.odds, Mapping):
            if self.axis is not None:
                raise SettingsError(f"axis={self.axis!r} and odds by axis were given together: give one of them")
            if not self.odds:
                raise SettingsError("odds={}: name an axis, such as {'time': 2}")
            named = {str(axis_named(name)): odds for name, odds in self.odds.items()}
            if len(named) < len(self.odds):
                raise SettingsError(f"odds={dict(self.odds)!r} name an axis twice")
            object.__setattr__(self, "odds", named)
        elif self.axis is not None:
            object.__setattr__(self, "axis", str(axis_named(self.axis)))
        if self.axes != (Time(),):
            refused = [n for n in ("strength", "temperature") if getattr(self, n) is not None]
            refused += [f"scale={self.scale!r}"] if self.scale not in (None, policies.EXACT) else []
            refused += ["attention_maps"] if self.attention_maps else []
            if refused:
                raise SettingsError(
                    f"{refused[0]} acts on the axis of time alone: give odds, or a policy, on {self._axis_names}"
                )

    def _check_gain(self) -> None:
        given = [n for n in ("strength", "temperature", "odds", "policy") if getattr(self, n) is not None]
        if len(given) > 1:
            raise SettingsError(f"{' and '.join(given)} were given together: give at most one of them")
        if not given and self.scale == policies.OUTPUT:
            object.__setattr__(self, "strength", policies.DEFAULT_STRENGTH)
        elif not given:
            object.__setattr__(self, "odds", policies.DEFAULT_ODDS)
        for name in ("strength", "temperature", "odds"):
            if isinstance(value := getattr(self, name), Mapping):
                for axis, odds in value.items():
                    limits.number(f"odds of {axis}", odds, 0, policies.LARGEST)
            elif value is not None:
                limits.number(name, value, -1 if name == "temperature" else 0, policies.LARGEST)
        object.__setattr__(self, "policy", _policy(self.policy))

    def _check_scale(self) -> None:
        default = policies.scale_of(self.gain_policy) if self.axes == (Time(),) else policies.EXACT
        scale = default if self.scale is None else self.scale
        known = (policies.OUTPUT, policies.CROSS_FRAME, policies.EXACT)
        if scale not in known:
            raise SettingsError(f"scale={scale!r} is unknown: give {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")
        if self.odds is not None and scale == policies.OUTPUT:
            raise SettingsError(f"odds scale what comes from other frames: leave out scale={policies.OUTPUT!r}")
        object.__setattr__(self, "scale", scale)

    @property
    def gain_policy(self) -> Callable[..., Any]:
        """The policy of these settings."""
        if callable(self.policy):
            return self.policy
        if self.odds is not None:
            return policies.Odds(float(next(iter(self.odds_by_axis.values()))))
        if self.strength is not None:
            return policies.Strength(self.strength)
        return policies.Temperature(float(self.temperature or 0.0))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Those that are acted on, in the order given."""
        names = list(self.odds) if isinstance(self.odds, Mapping) else [self.axis or Time.name]
        return tuple(axis_named(name) for name in names)

    @property
    def _axis_names(self) -> str:
        return ", ".join(map(str, self.axes))

    @property
    def odds_by_axis(self) -> dict[str, float]:
        """The odds of each axis; none where another policy acts."""
        if isinstance(self.odds, Mapping):
            return dict(self.odds)
        return {} if self.odds is None else {self._axis_names: self.odds}

    def operator_on(self, axes: tuple[Axis, ...]) -> Operator:
        """What the gain does in a layer that has these of the axes."""
        if self.axes == (Time(),):
            return self.operator
        return Biased(axes) if self.odds is not None else Exact(None, axes[0])

    @property
    def operator(self) -> Operator:
        """What the gain does on the axis of time. Odds have a fallback; what is requested by name has none."""
        whole = Output(self.sites)
        if self.scale == whole.name:
            return whole
        estimate = CrossFrame(whole if self.odds is not None else None)
        return Exact(estimate) if self.scale == Exact.name else estimate

    @property
    def always(self) -> bool:
        """Whether the window covers the whole denoising, so that nothing about timesteps is needed."""
        return self.start == 0.0 and self.end == 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; a policy of your own becomes its repr(), which from_dict refuses."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        if isinstance(self.layers, slice):
            out["layers"] = {"slice": [self.layers.start, self.layers.stop, self.layers.step]}
        elif isinstance(self.layers, tuple):
            out["layers"] = list(self.layers)
        if self.policy is not None:
            out["policy"] = policies.to_dict(self.policy) or repr(self.policy)
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Settings":
        """The inverse of to_dict(). Unknown keys and a policy of your own are refused with SettingsError."""
        if not isinstance(data, Mapping):
            raise SettingsError(f"settings are a dict of names and values; found {data!r}")
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(data) - set(known), key=str)
        if unknown:
            raise SettingsError(f"unknown settings {unknown}: known are {known}")
        values = dict(data)
        if isinstance(values.get("layers"), Mapping):
            values["layers"] = _slice(values["layers"])
        return cls(**values)


def _policy(given: Any) -> Any:
    """A policy from what it may be given as."""
    if isinstance(given, type):
        raise SettingsError(f"policy={given.__name__} is a class: give one of it, with its numbers.")
    if given is None or callable(given):
        return given
    if isinstance(given, Mapping):
        return policies.from_dict(given)
    if isinstance(given, str | Path) and str(given).endswith(".json"):
        return policies.read_profile(given).policy
    raise SettingsError(
        f"policy={given!r}: give a function (mass, moment) -> gain, an object with the name of a policy "
        f"({', '.join(policies.names())}) or the path of a profile (.json). A function cannot be read from JSON."
    )


def _slice(given: Mapping[str, Any]) -> slice:
    """A slice from what to_dict() makes of one."""
    ends: Any = given.get("slice")
    good = isinstance(ends, list | tuple) and len(ends) == 3 and len(given) == 1
    if good and ends[2] != 0 and all(end is None or type(end) is int for end in ends):
        return slice(*ends)
    raise SettingsError(f"layers={dict(given)!r}: a slice is written {{'slice': [start, stop, step]}}")


def _checked_layers(layers: Any) -> Any:
    if isinstance(layers, slice):
        return _slice({"slice": [layers.start, layers.stop, layers.step]})
    if layers is None:
        return None
    if isinstance(layers, str):
        try:
            re.compile(layers)
        except re.error as error:
            raise SettingsError(f"layers={layers!r} is not a regular expression: {error}") from None
        return layers
    if (
        isinstance(layers, Sequence)
        and not isinstance(layers, bytes)
        and layers
        and all(type(i) is int for i in layers)
    ):
        return tuple(layers)
    raise SettingsError(
        f"layers={limits.shown(layers)}: give layer indices, a slice or a regular expression, or None for all"
    )
