"""Tests once, for a described model, whether a gain on an attention layer reaches the output of its block.

A norm behind the attention takes every gain back (original Mochi), and where that norm is a function no module can be
named behind it. So in the first forward call of a model that its user described, one block runs three times more, on
copies of its inputs, with the gains -1, 1 and 4 on its layers: if 1 and 4 differ by next to nothing and -1 and 1 do
differ, a gain does nothing there.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .models import block_around

_TRIED = (-1.0, 1.0, 4.0)
_UNDONE = 0.05  # so little of the change from -1 to 1 is left from 1 to 4


class Probe:
    """The trial of one block of a denoiser: attach() waits for the first block that runs, detach() gives up."""

    def __init__(self, denoiser: Any):
        self.denoiser = denoiser
        self.gain: float | None = None  # while it is tried
        self.done = False
        self.hooks: list[Any] = []

    def attach(self) -> None:
        """Hooks on all blocks, so that they stay alike for torch.compile; they stay, as taking one off recompiles."""
        denoiser = self.denoiser
        if denoiser.settings.observe_only:
            return
        layers = [layer for layer in denoiser.layers if not layer.acts_at_kernel]
        blocks = [block_around(denoiser.model, layer.kind, layer.name) for layer in layers]
        for block in {id(block): block for block in blocks}.values():
            self.hooks.append(block.register_forward_pre_hook(_Trial(self), with_kwargs=True))

    def detach(self) -> None:
        while self.hooks:
            self.hooks.pop().remove()

    def run(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Try the block. A model whose arguments may be changed by a run (caches, objects) is left alone."""
        now = self.denoiser.now
        if self.done or now is None or now.num_frames == 1:
            return
        self.done = True
        if not (_is_plain(args) and _is_plain(kwargs)):
            return
        with contextlib.suppress(Exception):  # whatever is wrong, the block's own run reports it
            outputs = [self._output(block, args, kwargs, gain) for gain in _TRIED]
            if undone(*outputs):
                self.denoiser.notices.no_effect(
                    "undone",
                    f"a gain on its layers does not change what {type(block).__name__} puts out: a norm behind it "
                    "takes every gain back. Name a module behind that norm with scale_at=...; where the norm is a "
                    "function, give query_key=Kernel(...) at torch's scaled_dot_product_attention, where odds can act.",
                )

    def _output(self, block: nn.Module, args: Any, kwargs: Any, gain: float) -> Tensor | None:
        """What the block puts out, as one vector, with this gain on its layers."""
        device = self.denoiser.device
        devices = [device] if device.type == "cuda" else []
        self.gain = gain
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):
                output = block.forward(*_copied(args), **_copied(kwargs))
        finally:
            self.gain = None
        found = [x.flatten().float() for x in _tensors(output) if x.is_floating_point()]
        return torch.cat(found) if found else None


class _Trial:
    """The forward pre-hook of a block. Copies and pickles of it do nothing."""

    def __init__(self, probe: Probe):
        self.probe = probe

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.compiler.is_compiling():
            self.probe.run(block, args, kwargs)

    def __reduce__(self) -> Any:
        return _nothing_tried, ()


def _nothing_tried() -> Callable[..., None]:
    return _ignore


def _ignore(*args: Any) -> None:
    """What is left of the trial in a copy of the model."""


def undone(minus: Tensor | None, one: Tensor | None, four: Tensor | None) -> bool:
    """Whether outputs with the gains -1, 1 and 4 mean that the size of a gain does not matter while its sign does."""
    if minus is None or one is None or four is None:
        return False
    sign, size = (one - minus).norm(), (four - one).norm()
    return bool(sign > 0.01 * one.norm()) and bool(size < _UNDONE * sign)


def first_tensor(values: Sequence[Any]) -> Tensor | None:
    """The first tensor with dimensions among arguments, inside sequences, mappings and objects with attributes too."""
    for value in values:
        while isinstance(value, (list, tuple)) and value:
            value = value[0]
        if isinstance(value, Tensor) and value.ndim > 0:
            return value
    return next((x for x in _tensors(values, depth=3) if x.ndim > 0), None)


def _tensors(value: Any, depth: int = 2) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if depth == 0 or isinstance(value, (str, bytes, nn.Module, type)):
        return []
    if isinstance(value, Mapping):
        value = list(value.values())
    elif not isinstance(value, Sequence):
        value = list(vars(value).values()) if hasattr(value, "__dict__") and not callable(value) else []
    return [x for inner in value for x in _tensors(inner, depth - 1)]


def _is_plain(value: Any) -> bool:
    """Whether copies of the tensors in it are copies of all that a run could change."""
    if isinstance(value, dict):
        return all(_is_plain(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, (Tensor, int, float, str, slice, torch.dtype, torch.device, torch.Size))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(v) for v in value)
    return value
