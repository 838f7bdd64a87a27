"""Guiders that combine the two passes of guidance in another way, at no cost, by diffusers' own classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ... import limits
from .base import Act, Peer
from .denoising import Step


@dataclass(frozen=True, kw_only=True)
class _Combining(Peer):
    """scale: of the guidance; None = the pipeline's own."""

    scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None:
            limits.number("scale", self.scale, 0, 1000)

    def guider(self, scale: float, numbers: int) -> Any:
        """diffusers' own, in force from the first step to the last. numbers: how many a clip's latents have."""
        raise NotImplementedError

    def begin(self) -> Act:
        guider: Any = None

        def act(step: Step) -> tuple[Tensor, Tensor]:
            nonlocal guider
            if not self.covers(step):
                return step.prediction, step.latents
            passes = step.cond.prediction, step.unguided.prediction
            if guider is None:
                guider = self.guider(step.scale if self.scale is None else self.scale, passes[0][0].numel())
                guider.set_state(0, step.total, None)
                guider.prepare_inputs({})  # where one with a momentum begins it
            guider.set_state(step.index, step.total, None)
            # (B, C, T*H*W): one of diffusers' guiders takes norms that torch has for two axes only
            found = guider.forward(*(one.flatten(2) for one in passes)).pred
            return found.reshape(step.prediction.shape), step.latents

        return act


@dataclass(frozen=True, kw_only=True)
class ZeroStar(_Combining):
    """The pass without the prompt scaled to fit the other best; the first `zero_steps` predictions are zero."""

    zero_steps: int = 1

    name: ClassVar[str] = "cfg_zero_star"
    source: ClassVar[str] = "CFG-Zero*, arXiv 2503.18886"

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.whole("zero_steps", self.zero_steps, 0, 1000)

    def guider(self, scale: float, numbers: int) -> Any:
        from diffusers.guiders import ClassifierFreeZeroStarGuidance

        return ClassifierFreeZeroStarGuidance(scale, zero_init_steps=self.zero_steps)


@dataclass(frozen=True, kw_only=True)
class AdaptiveProjected(_Combining):
    """The part of the guidance along the prediction times `eta`, its norm at most `norm`, with a momentum.

    As published: the prediction with the prompt + (scale - 1) * what is left of the guidance. diffusers' own default
    starts from the other prediction, which loses what is left out at any scale.

    norm: per number, so that it means the same at any size: the published 15 for SDXL's latents of 4 x 128 x 128 is
        15 / 256 = 0.059. None = no limit
    """

    eta: float = 0.0
    norm: float | None = 0.059
    momentum: float | None = -0.5

    name: ClassVar[str] = "adaptive_projected"
    source: ClassVar[str] = "APG, arXiv 2410.02416"

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.number("eta", self.eta, -100, 100)
        if self.norm is not None:
            limits.number("norm", self.norm, 1e-6, 1e6)
        if self.momentum is not None:
            limits.number("momentum", self.momentum, -1, 1)

    def guider(self, scale: float, numbers: int) -> Any:
        from diffusers.guiders import AdaptiveProjectedGuidance

        limit = 0.0 if self.norm is None else self.norm * numbers**0.5
        return AdaptiveProjectedGuidance(scale - 1, self.momentum, limit, eta=self.eta, use_original_formulation=True)


@dataclass(frozen=True, kw_only=True)
class Tangential(_Combining):
    """What the pass without the prompt does not share with the other is left out of it, by their singular vectors."""

    name: ClassVar[str] = "tangential"
    source: ClassVar[str] = "TCFG, arXiv 2503.18137"

    def guider(self, scale: float, numbers: int) -> Any:
        from diffusers.guiders import TangentialClassifierFreeGuidance

        return TangentialClassifierFreeGuidance(scale)


@dataclass(frozen=True, kw_only=True)
class MagnitudeAware(_Combining):
    """The guidance is less where it is large beside the pass without the prompt: times exp(-alpha * their ratio)."""

    alpha: float = 8.0

    name: ClassVar[str] = "magnitude_aware"
    source: ClassVar[str] = "MAMBO-G, arXiv 2508.03442"

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.number("alpha", self.alpha, 0, 1000)

    def guider(self, scale: float, numbers: int) -> Any:
        from diffusers.guiders import MagnitudeAwareGuidance

        return MagnitudeAwareGuidance(scale, alpha=self.alpha)


@dataclass(frozen=True, kw_only=True)
class ScaledGuidance(Peer):
    """Classifier-free guidance, stronger or weaker: 1 + factor * (scale - 1). The control of what only weakens it."""

    factor: float = 0.5

    name: ClassVar[str] = "scaled_guidance"
    source: ClassVar[str] = "classifier-free guidance, arXiv 2207.12598"

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.number("factor", self.factor, 0, 1000)

    def begin(self) -> Act:
        def act(step: Step) -> tuple[Tensor, Tensor]:
            if not self.covers(step) or self.factor == 1:
                return step.prediction, step.latents
            cond, uncond = step.cond.prediction, step.unguided.prediction
            return uncond + (1 + self.factor * (step.scale - 1)) * (cond - uncond), step.latents

        return act
