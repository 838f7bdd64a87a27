"""Steps of any pipeline as peers use them: its own passes recorded, repeated at other latents, and what it hands on.

The transformer's calls are recorded by forward hooks; the scheduler's `step` is where a prediction and latents may be
exchanged. Both are given back when the scope ends. Which of the recorded passes has the prompt, and how strong the
guidance is, follows from the pipeline's own result, which has to be `uncond + scale * (cond - uncond)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SettingsError
from ...models import denoisers
from .base import Act, Peer

_NOISE = 0x5EED5EED  # added to a clip's seed for further noise; torch's CPU generator reads 32 bits of a seed


@dataclass(frozen=True)
class Pass:
    """A forward call of the transformer for one prompt per clip, which may be repeated with something changed."""

    model: nn.Module
    arguments: Mapping[str, Any]
    prediction: Tensor  # (B, C, T, H, W)
    name: str  # of diffusers' cache contexts

    def again(
        self, latents: Tensor | None = None, time: Any = None, within: AbstractContextManager[Any] | None = None
    ) -> Tensor:
        """The prediction at other latents (B, C, T, H, W), at another of the scheduler's timesteps, or in a scope."""
        changed = dict(self.arguments)
        if latents is not None:
            hidden = changed["hidden_states"].clone()
            hidden[:, : latents.shape[1]] = latents.to(hidden.dtype)  # behind them: conditions and masks
            changed["hidden_states"] = hidden
        if time is not None:
            changed["timestep"] = torch.full_like(changed["timestep"], float(time))
        named = getattr(self.model, "cache_context", None)
        with within or nullcontext(), named(self.name) if named else nullcontext():
            return _first(self.model(**changed))[:, : self.prediction.shape[1]]


@dataclass(frozen=True)
class Level:
    """A noise level: latents = clean * x0 + noisy * noise; the prediction is a velocity of one of two kinds."""

    clean: float
    noisy: float
    flow: bool  # noise - x0; else v = clean * noise - noisy * x0

    def split(self, latents: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Clean latents and noise, fp32."""
        x, v = latents.float(), prediction.float()
        if self.flow:
            return x - self.noisy * v, x + self.clean * v
        return self.clean * x - self.noisy * v, self.noisy * x + self.clean * v

    def join(self, clean: Tensor, noise: Tensor) -> Tensor:
        return self.clean * clean + self.noisy * noise


@dataclass(frozen=True)
class Step:
    """One step of the denoising, before the scheduler takes it.

    prediction: what the pipeline hands to the scheduler. scale: of its guidance. uncond: None without guidance.
    """

    index: int
    total: int
    latents: Tensor  # (B, C, T, H, W)
    prediction: Tensor
    cond: Pass
    uncond: Pass | None
    scale: float
    scheduler: Any
    generators: Sequence[torch.Generator]

    @property
    def unguided(self) -> Pass:
        """The pass without the prompt. SettingsError where guidance is off."""
        if self.uncond is None:
            raise SettingsError("This guider needs classifier-free guidance: give --guidance above 1.")
        return self.uncond

    def guided(self, latents: Tensor, index: int | None = None) -> Tensor:
        """What the pipeline would predict at other latents, here or at another step's noise level."""
        time = None if index is None else self.scheduler.timesteps[index]
        cond = self.cond.again(latents, time)
        if self.uncond is None:
            return cond
        uncond = self.uncond.again(latents, time)
        return uncond + self.scale * (cond - uncond)

    def level(self, index: int | None = None) -> Level:
        """Of a step's latents; that after the last step is clean. SettingsError where the scheduler is not known."""
        index, scheduler = self.index if index is None else index, self.scheduler
        if index >= self.total:
            return Level(1.0, 0.0, self.is_flow)
        if self.is_flow:
            sigma = float(scheduler.sigmas[index])
            return Level(1 - sigma, sigma, True)
        alpha = float(scheduler.alphas_cumprod[int(scheduler.timesteps[index])])
        return Level(alpha**0.5, (1 - alpha) ** 0.5, False)

    @property
    def is_flow(self) -> bool:
        kind = self.scheduler.config.get("prediction_type", "flow_prediction")
        if kind == "flow_prediction" and hasattr(self.scheduler, "sigmas"):
            return True
        if kind == "v_prediction" and hasattr(self.scheduler, "alphas_cumprod"):
            return False
        raise SettingsError(
            f"This sampler takes flow matching and v-prediction, not {type(self.scheduler).__name__} with {kind}."
        )

    def noise(self) -> Tensor:
        """Fresh noise like the latents, of each clip's own generator, fp32."""
        shape = self.latents.shape[1:]
        drawn = [torch.randn(shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.latents.device)


class _Run:
    """One call of a pipeline under a peer."""

    def __init__(self, pipe: Any, act: Act, seeds: Sequence[int]):
        self.pipe, self.act = pipe, act
        self.calls: list[tuple[nn.Module, dict[str, Any], Tensor]] = []
        self.recording, self.index = True, 0
        self.generators = [torch.Generator().manual_seed((seed + _NOISE) % 2**64) for seed in seeds]

    def record(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self.recording:
            named = dict(zip(inspect.signature(model.forward).parameters, args, strict=False))
            self.calls.append((model, {**named, **kwargs}, _first(output)))

    def exchange(self, prediction: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """What the scheduler gets in place of these two."""
        calls, self.calls, self.recording = self.calls, [], False
        try:
            cond, uncond, scale = _passes(calls, prediction, len(latents))
            step = Step(
                self.index, len(self.pipe.scheduler.timesteps), latents, prediction, cond, uncond, scale,
                self.pipe.scheduler, self.generators,
            )  # fmt: skip
            found, at = self.act(step)
        finally:
            self.recording = True
        self.index += 1
        return found.to(prediction.dtype), at.to(latents.dtype)


@contextmanager
def attached(pipe: Any, peer: Peer, seeds: Sequence[int]) -> Iterator[None]:
    """Calls of `pipe` in this scope run under `peer`; leaving it gives pipeline, model and scheduler back.

    Args:
        seeds: of the clips of a call, for noise that a sampler draws besides the pipeline's own.

    Raises:
        UnsupportedModelError: no video transformer in the pipeline. SettingsError, while it runs: a pipeline or
            scheduler that is not known well enough.
    """
    scheduler, run = pipe.scheduler, _Run(pipe, peer.begin(), seeds)
    original = scheduler.step

    def exchange(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        found, at = run.exchange(model_output, sample)
        return original(found, timestep, at, *args, **kwargs)

    hooks = [model.register_forward_hook(run.record, with_kwargs=True) for model in denoisers(pipe).values()]
    scheduler.step = exchange
    try:
        with peer.around(pipe):
            yield
    finally:
        del scheduler.step
        for hook in hooks:
            hook.remove()


@dataclass
class Count:
    """Forward passes of single clips."""

    passes: int = 0


@contextmanager
def counted(pipe: Any) -> Iterator[Count]:
    """Counts what a call of the pipeline costs: forward passes of its transformer, a batch of n as n."""
    count = Count()

    def add(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        count.passes += len(_first(output))

    hooks = [model.register_forward_hook(add, with_kwargs=True) for model in denoisers(pipe).values()]
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output.sample


def _passes(
    calls: Sequence[tuple[nn.Module, dict[str, Any], Tensor]], prediction: Tensor, clips: int
) -> tuple[Pass, Pass | None, float]:
    """The passes with and without the prompt, and the scale of the guidance. SettingsError where that is unclear."""
    channels = prediction.shape[1]  # some models predict a variance behind them
    made = [Pass(model, kwargs, output[:, :channels], "pred_cond") for model, kwargs, output in calls]
    if len(made) == 1 and len(made[0].prediction) == 2 * clips:
        made = [_part(made[0], slice(None, clips)), _part(made[0], slice(clips, None))]
    if len(made) == 1 and len(made[0].prediction) == clips:
        return made[0], None, 1.0
    if len(made) == 2:
        for cond, uncond in (made, made[::-1]):
            scale = _scale(cond.prediction, uncond.prediction, prediction)
            if scale is not None:
                return cond, replace(uncond, name="pred_uncond"), scale
    raise SettingsError(
        f"The pipeline makes {len(calls)} forward calls a step and combines them in a way that is not known: guiders "
        "and samplers need one call, or two under classifier-free guidance."
    )


def _part(both: Pass, rows: slice) -> Pass:
    """One of two passes that the pipeline makes in one batch."""
    size = len(both.prediction)
    kept = {
        name: value[rows] if isinstance(value, Tensor) and value.ndim and len(value) == size else value
        for name, value in both.arguments.items()
    }
    return Pass(both.model, kept, both.prediction[rows], both.name)


def _scale(cond: Tensor, uncond: Tensor, combined: Tensor) -> float | None:
    """The guidance scale by which `combined` was made; None where it was not, or the passes are exchanged."""
    c, u, m = cond.double(), uncond.double(), combined.double()
    difference = c - u
    power = float((difference * difference).sum())
    scale = float(((m - u) * difference).sum()) / power if power else 1.0
    error = (m - u - scale * difference).norm() / m.norm().clamp(min=1e-12)
    return round(scale, 2) if scale >= 0.9 and error < 0.02 else None
