"""ByTheWay: temporal attention maps of later layers blended with the first layer's, their fast parts amplified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ... import limits
from ...axes import axis_named
from ...errors import SettingsError
from ...models import attention_modules, denoisers, row_of
from .base import Act, Peer


@dataclass(frozen=True, kw_only=True)
class BlendedMaps(Peer):
    """In models with temporal layers, which all have a map (T, T) at each site.

    alpha    how far a later layer's map goes towards the first one's
    beta     what the high frequencies of a map are multiplied by, along its keys: more motion above 1
    low      frequencies up to this one (0 is the mean) are left as they are
    """

    alpha: float = 0.6
    beta: float = 1.5
    low: int = 2

    name: ClassVar[str] = "blended_maps"
    source: ClassVar[str] = "ByTheWay, arXiv 2410.06241"

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.number("alpha", self.alpha, -10, 10)
        limits.number("beta", self.beta, 0, 100)
        limits.whole("low", self.low, 0, 1000)
        if (self.start, self.end) != (0.0, 1.0):
            raise SettingsError("blended_maps acts in every step: leave out start and end.")

    def begin(self) -> Act:
        return lambda step: (step.prediction, step.latents)

    def around(self, pipe: Any) -> AbstractContextManager[Any]:
        return _blending(list(denoisers(pipe).values()), self)


@contextmanager
def _blending(models: list[nn.Module], how: BlendedMaps) -> Iterator[None]:
    kernel = _Maps(how)
    with ExitStack() as stack:
        for model in models:
            layers = attention_modules(model, row_of(model).attention_with([axis_named("time")]))
            if any(kind.tokens.place != "temporal" for _, kind in layers.values()):
                raise SettingsError(f"blended_maps needs temporal layers, which {type(model).__name__} has not.")
            for number, (module, _) in enumerate(layers.values()):
                enter = module.register_forward_pre_hook(lambda *_, number=number: kernel.enter(number))
                leave = module.register_forward_hook(lambda *_: kernel.enter(None))
                stack.callback(enter.remove)
                stack.callback(leave.remove)
        stack.enter_context(kernel)
        yield


class _Maps(TorchFunctionMode):
    """Stands in for scaled_dot_product_attention inside temporal layers."""

    def __init__(self, how: BlendedMaps):
        super().__init__()
        self.how = how
        self.layer: int | None = None
        self.first: Tensor | None = None  # the first layer's map, (B*S, H, T, T)

    def enter(self, layer: int | None) -> None:
        self.layer = layer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or self.layer is None:
            return func(*args, **kwargs)
        values = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        query, key, value = values["query"], values["key"], values["value"]
        scale = values.get("scale") or query.shape[-1] ** -0.5
        weights = (query.float() @ key.float().transpose(-1, -2) * scale).softmax(-1)
        return (self._changed(weights) @ value.float()).to(value.dtype)

    def _changed(self, weights: Tensor) -> Tensor:
        if self.layer == 0:
            self.first = weights
        elif self.first is not None and self.first.shape == weights.shape:
            weights = weights + self.how.alpha * (self.first - weights)
        if self.how.beta == 1:
            return weights
        spectrum = torch.fft.rfft(weights, dim=-1)
        spectrum[..., self.how.low + 1 :] *= self.how.beta
        return torch.fft.irfft(spectrum, n=weights.shape[-1], dim=-1)
