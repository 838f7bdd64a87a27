"""Guiders that push away from a weakened pass: blocks skipped, attention only to oneself, blurred queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from ...models import attention_modules, block_around, chosen, row_of
from .base import Act, Peer, layers_from
from .denoising import Pass, Step


@dataclass(frozen=True, kw_only=True)
class _Weakening(Peer):
    """scale: how far from the weakened pass with the prompt, beside the guidance; layers: those that are weakened, as
    enhance() counts them."""

    scale: float = 1.0
    layers: Any = (-1,)

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.number("scale", self.scale, 0, 1000)
        object.__setattr__(self, "layers", layers_from(self.layers))

    def weakened(self, model: nn.Module, video: Tensor) -> AbstractContextManager[Any]:
        """The scope in which forward calls of the model are weakened. video: its latents (B, C, T, H, W)."""
        raise NotImplementedError

    def weak(self, of: Pass, step: Step) -> Tensor:
        return of.again(within=self.weakened(of.model, step.latents))

    def begin(self) -> Act:
        def act(step: Step) -> tuple[Tensor, Tensor]:
            if not (self.covers(step) and self.scale):
                return step.prediction, step.latents
            return step.prediction + self.scale * (step.cond.prediction - self.weak(step.cond, step)), step.latents

        return act


@dataclass(frozen=True, kw_only=True)
class SkipLayer(_Weakening):
    """Blocks left out, by diffusers' own hooks: skip-layer guidance, and STG with its residual skip."""

    name: ClassVar[str] = "skip_layer"
    source: ClassVar[str] = "STG-R, arXiv 2411.18664; skip-layer guidance"

    def weakened(self, model: nn.Module, video: Tensor) -> AbstractContextManager[Any]:
        return skipped_blocks(model, self.layers)


@dataclass(frozen=True, kw_only=True)
class PerturbedAttention(_Weakening):
    """Each video token attends to itself alone in these layers: PAG, and STG with its attention skip."""

    name: ClassVar[str] = "perturbed_attention"
    source: ClassVar[str] = "PAG, arXiv 2403.17377; STG-A, arXiv 2411.18664"

    def weakened(self, model: nn.Module, video: Tensor) -> AbstractContextManager[Any]:
        return changed_attention(model, self.layers, video, to_itself)


@dataclass(frozen=True, kw_only=True)
class SmoothedEnergy(_Weakening):
    """Queries blurred over the sites of their frame in these layers; sigma in sites, None = the frame's mean.

    diffusers' own takes a whole video's tokens for one square picture, and the mean for any sigma.
    """

    sigma: float | None = None

    name: ClassVar[str] = "smoothed_energy"
    source: ClassVar[str] = "SEG, arXiv 2408.00760"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma is not None:
            limits.number("sigma", self.sigma, 0.01, 1000)

    def weakened(self, model: nn.Module, video: Tensor) -> AbstractContextManager[Any]:
        return changed_attention(model, self.layers, video, blurred(self.sigma))


@dataclass(frozen=True, kw_only=True)
class AutoGuidance(_Weakening):
    """A weakened pass without the prompt, blocks left out, in place of the pass without the prompt.

    scale: of the guidance; 0 = the pipeline's own.
    """

    scale: float = 0.0

    name: ClassVar[str] = "auto_guidance"
    source: ClassVar[str] = "AutoGuidance, arXiv 2406.02507"

    def weakened(self, model: nn.Module, video: Tensor) -> AbstractContextManager[Any]:
        return skipped_blocks(model, self.layers)

    def begin(self) -> Act:
        def act(step: Step) -> tuple[Tensor, Tensor]:
            if not self.covers(step):
                return step.prediction, step.latents
            weak, scale = self.weak(step.unguided, step), self.scale or step.scale
            return weak + scale * (step.cond.prediction - weak), step.latents

        return act


# -------------------------------------------------------------------------------------------- what is weakened


def attention_layers(model: nn.Module, layers: tuple[int, ...]) -> dict[str, tuple[nn.Module, Any]]:
    """name -> (module, its row) of the layers that enhance() would change, those with these numbers."""
    found = attention_modules(model, row_of(model).attention_with([axis_named("time")]))
    return {name: found[name] for name in chosen(list(found), layers, type(model).__name__)}


_HOOKED = ("forward", "_diffusers_hook")  # what diffusers' hooks leave on a module


@contextmanager
def skipped_blocks(model: nn.Module, layers: tuple[int, ...]) -> Iterator[None]:
    """The blocks around these layers return what they get."""
    from diffusers import LayerSkipConfig, apply_layer_skip

    names = {id(module): name for name, module in model.named_modules()}
    blocks = [block_around(model, kind, name) for name, (_, kind) in attention_layers(model, layers).items()]
    parts = [part for block in blocks for part in block.modules()]  # feed-forward layers get a hook of their own
    before = [{name: vars(part)[name] for name in _HOOKED if name in vars(part)} for part in parts]
    try:
        for block in blocks:
            stack, _, index = names[id(block)].rpartition(".")
            apply_layer_skip(model, LayerSkipConfig([int(index)], fqn=stack))
        yield
    finally:
        for part, kept in zip(parts, before, strict=True):
            registry: Any = getattr(part, "_diffusers_hook", None)
            if registry is not None:
                registry.remove_hook("layer_skip_hook", recurse=False)  # apply_layer_skip's own name
            for name in _HOOKED:
                vars(part).pop(name, None)
            vars(part).update(kept)


Grid = tuple[int, int, int]
"""(T, h, w) of the video's tokens."""

Change = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, Grid], Tensor]
"""(kernel of a query, query, value, grid) -> what the layer gets in place of the kernel's output, for the video's
tokens alone: (B, H, T*h*w, D)."""


def to_itself(kernel: Callable[[Tensor], Tensor], query: Tensor, value: Tensor, grid: Grid) -> Tensor:
    """Each token's attention is to itself."""
    return value


def blurred(sigma: float | None) -> Change:
    """Queries blurred over their frame."""

    def change(kernel: Callable[[Tensor], Tensor], query: Tensor, value: Tensor, grid: Grid) -> Tensor:
        frames, height, width = grid
        pictures = query.unflatten(2, (frames, height, width)).movedim(-1, 3)  # (B, H, T, D, h, w)
        if sigma is None:
            smooth = pictures.mean((-2, -1), keepdim=True).expand_as(pictures)
        else:
            smooth = _blur(pictures.flatten(0, 2), sigma).view_as(pictures)
        return kernel(smooth.movedim(3, -1).flatten(2, 4))

    return change


def _blur(pictures: Tensor, sigma: float) -> Tensor:
    """Pictures (N, C, h, w) under a Gaussian, edges repeated."""
    reach = min(int(3 * sigma + 0.5), min(pictures.shape[-2:]) - 1)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pictures.device) / sigma) ** 2)
    weights = (weights / weights.sum()).to(pictures.dtype)
    channels = pictures.shape[1]
    padded = F.pad(pictures, (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(rows, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


@contextmanager
def changed_attention(model: nn.Module, layers: tuple[int, ...], video: Tensor, change: Change) -> Iterator[None]:
    """In these layers `change` gives what torch's attention kernel would. SettingsError where none runs in them."""
    kernel = _Kernel(change, _grid(model, video))
    with ExitStack() as stack:
        for module, kind in attention_layers(model, layers).values():
            enter = module.register_forward_pre_hook(lambda *_, place=kind.tokens.place: kernel.enter(place))
            leave = module.register_forward_hook(lambda *_: kernel.enter(None))
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(kernel)
        yield
    if not kernel.acted:
        raise SettingsError(
            f"{type(model).__name__} does not compute its attention by torch's kernel: nothing changes."
        )


class _Kernel(TorchFunctionMode):
    """Stands in for scaled_dot_product_attention between enter(place) and enter(None)."""

    def __init__(self, change: Change, grid: Grid):
        super().__init__()
        self.change, self.grid, self.acted = change, grid, False
        self.place: str | None = None

    def enter(self, place: str | None) -> None:
        self.place = place

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or self.place is None:
            return func(*args, **kwargs)
        values = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        rest = args[3:]
        named = {name: value for name, value in kwargs.items() if name not in ("query", "key", "value")}
        query, key, value = values["query"], values["key"], values["value"]
        if not self._whole(query, key):
            return func(*args, **kwargs)
        self.acted = True
        return self._changed(lambda q: func(q, key, value, *rest, **named), query, value)

    def _whole(self, query: Tensor, key: Tensor) -> bool:
        """Whether this is the layer's own call: not one of a part of it, such as a frame alone."""
        frames, height, width = self.grid
        tokens = frames if self.place == "temporal" else frames * height * width
        return query.shape[2] >= tokens and query.shape == key.shape

    def _changed(self, kernel: Any, query: Tensor, value: Tensor) -> Tensor:
        frames, height, width = self.grid
        if self.place == "temporal":  # (B*S, H, T, D) -> (B, H, T*S, D) and back

            def whole(x: Tensor) -> Tensor:
                return x.unflatten(0, (-1, height * width)).permute(0, 2, 3, 1, 4).flatten(2, 3)

            def parts(x: Tensor) -> Tensor:
                return x.unflatten(2, (frames, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)

            return parts(self.change(lambda q: whole(kernel(parts(q))), whole(query), whole(value), self.grid))
        count = frames * height * width
        first = query.shape[2] - count if self.place == "text first" else 0
        inside = slice(first, first + count)

        def run(q: Tensor) -> Tensor:
            every = query.clone()
            every[:, :, inside] = q
            return kernel(every)[:, :, inside]

        found = self.change(run, query[:, :, inside], value[:, :, inside], self.grid)
        if count == query.shape[2]:
            return found
        output = kernel(query).clone()
        output[:, :, inside] = found
        return output


def _grid(model: nn.Module, video: Tensor) -> Grid:
    config: Any = model.config
    patch = config["patch_size"]
    time, height, width = patch if isinstance(patch, list | tuple) else (config.get("patch_size_t") or 1, patch, patch)
    return video.shape[2] // time, video.shape[3] // height, video.shape[4] // width
