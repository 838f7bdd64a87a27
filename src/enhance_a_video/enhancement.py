"""enhance(model or pipeline) -> Enhancement: attach, act, report, remove."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from .alternatives import Alternative, Change
from .attention import calls_of
from .denoiser import Denoiser
from .errors import NoEffectWarning
from .intensity import DEFAULT_SITES
from .models import Model, denoisers, row_of, unwrapped
from .policies import name_of, not_finite
from .record import Summary
from .settings import Layers, Settings


def enhance(
    target: Any,
    *,
    strength: float | None = None,
    temperature: float | None = None,
    odds: float | Mapping[str, float] | None = None,
    axis: str | None = None,
    policy: Callable[..., Any] | Mapping[str, Any] | str | Path | None = None,
    start: float | None = None,
    end: float | None = None,
    scale: str | None = None,
    layers: Layers = None,
    passes: Literal["conditional"] | None = None,
    sites: int | None = DEFAULT_SITES,
    per_sample: bool = True,
    observe_only: bool = False,
    attention_maps: bool = False,
) -> "Enhancement":
    """Enhance-A-Video (arXiv 2502.07508) on a diffusers pipeline, every denoiser in it, or a transformer.

        handle = enhance(pipe)                    # until handle.remove()
        with enhance(pipe, strength=0.5): ...     # or as a scope

    The arguments are explained at Settings. Raises SettingsError for arguments that conflict or are out of range,
    UnsupportedModelError for a class no row describes, NoLayersError when no layer matches and
    AlreadyEnhancedError when an enhancement is present; then nothing was changed.
    """
    settings = Settings(
        strength=strength, temperature=temperature, odds=odds, axis=axis, policy=policy, start=start, end=end,
        scale=scale, layers=layers, passes=passes, sites=sites, per_sample=per_sample, observe_only=observe_only,
        attention_maps=attention_maps,
    )  # fmt: skip
    return Enhancement(target, settings)


def enhancement_of(target: Any) -> "Enhancement | None":
    """The enhancement present on a pipeline or model, for when the handle was not kept."""
    models = [unwrapped(target)] if isinstance(target, nn.Module) else denoisers(target).values()
    found = [calls_of(model) for model in models]
    return next((calls.denoiser.enhancement for calls in found if calls is not None), None)


class Enhancement:
    """The handle of enhance(): a context manager with summary(), remove() and settings."""

    def __init__(self, target: Any, settings: Change, row: Model | None = None):
        """settings: or an alternative to the method, to compare it with. row: for this model alone."""
        self.change = settings
        self.settings = settings.settings if isinstance(settings, Alternative) else settings
        pipeline = None if isinstance(target, nn.Module) else target
        models = denoisers(target) if row is None else {row.name: unwrapped(target)}
        described = row is not None
        self._denoisers = [Denoiser(n, m, row or row_of(m), self, pipeline, described) for n, m in models.items()]
        try:
            for denoiser in self._denoisers:
                denoiser.attach()
                denoiser.notices.fallbacks()
        except BaseException:
            self.remove()
            raise

    def summary(self) -> Summary:
        """What has been done since enhance(), also after remove(). Waits for the device."""
        recorded = {d.name: (d.column_names, d.recorder) for d in self._denoisers}
        acted = [{layer.name: (layer.operator.name, layer.reason) for layer in d.layers} for d in self._denoisers]
        undone = any("undone" in d.notices.given for d in self._denoisers)
        summary = Summary.of(self.change.to_dict(), recorded, acted, undone)
        return replace(summary, not_finite=self._not_finite())

    def _not_finite(self) -> int:
        """How many calls of the policy returned NaN or infinity, with a warning if any did."""
        calls = sum(not_finite(denoiser.policy) for denoiser in self._denoisers)
        if calls:
            warnings.warn(
                f"The policy {name_of(self.settings.gain_policy)} returned NaN or infinity in {calls} calls: "
                "those gains acted as 1.",
                RuntimeWarning,
                stacklevel=3,
            )
        return calls

    def remove(self) -> None:
        """Give every class and forward back. Safe to call twice.

        Warns (NoEffectWarning) if there were forward calls and nothing was changed in any of them; this waits for the
        device.
        """
        attached = [denoiser for denoiser in self._denoisers if denoiser.attached]
        for denoiser in self._denoisers:
            denoiser.detach()
        if attached and not any(denoiser.notices.any_no_effect for denoiser in attached):
            summary = self.summary()
            if summary.no_effect and summary.calls_made:
                warnings.warn(f"the enhancement acted nowhere: {summary.no_effect}.", NoEffectWarning, stacklevel=2)

    def __enter__(self) -> "Enhancement":
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        where = ", ".join(f"{len(d.layers)} layers of {d.name}" for d in self._denoisers)
        return f"<Enhancement of {where}>"
