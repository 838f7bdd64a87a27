"""Shared by the cells: four families, the reference written out by hand, the three things every cell asserts."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_enhancement import anatomy
from test_pipelines_enhanced import PROMPT, cog_pipeline, generate, hunyuan_pipeline, ltx_pipeline, wan_pipeline
from tiny_models import TINY, Tiny, run
from torch import Tensor, nn

from enhance_a_video import Enhancement, enhance

ON = {"temperature": 8.0, "sites": None, "start": 0.0, "end": 1.0}  # exact over all sites: to compare to 1e-5
CLOSE = 1e-5  # relative, of fp32 sums in another order


@dataclass(frozen=True)
class Family:
    """One column of the matrix."""

    tiny: Tiny
    attention: str  # the video self-attention modules
    frames: Callable[[dict[str, Any]], int]  # from the transformer's keyword arguments
    pipeline: Callable[[], tuple[Any, dict[str, Any]]]  # () -> a tiny pipeline and its prompt arguments
    text_first: bool = False

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        return {n: m for n, m in model.named_modules() if re.fullmatch(self.attention, n)}


FAMILIES = {
    "Wan": Family(
        TINY["wan"], r"blocks\.\d+\.attn1", lambda x: x["hidden_states"].shape[2], lambda: (wan_pipeline(), PROMPT)
    ),
    "CogVideoX": Family(
        TINY["cogvideox_5b"], r"transformer_blocks\.\d+\.attn1", lambda x: x["hidden_states"].shape[1],
        cog_pipeline, text_first=True,
    ),
    "HunyuanVideo": Family(
        TINY["hunyuan"], r"(single_)?transformer_blocks\.\d+\.attn", lambda x: x["hidden_states"].shape[2],
        hunyuan_pipeline,
    ),
    "LTX-Video": Family(
        TINY["ltx"], r"transformer_blocks\.\d+\.attn1", lambda x: x["num_frames"], ltx_pipeline
    ),
}  # fmt: skip


def same(a: Tensor, b: Tensor, tolerance: float = CLOSE) -> bool:
    return float((a - b).norm()) <= tolerance * float(b.norm())


def acts(enhanced: Tensor, plain: Tensor) -> bool:
    return not same(enhanced, plain, 1e-3)


# ------------------------------------------------------------------------------------------ the reference
@contextlib.contextmanager
def by_hand(family: Family, model: nn.Module, temperature: float = ON["temperature"]) -> Iterator[None]:
    """The paper written into the processors of a plain model: float64, every site, one gain for each sample.

    Query and key are caught at the process-wide kernels, so nothing here is shared with enhance().
    """
    now: dict[str, Any] = {"caught": [], "frames": None}

    def catching(kernel, transposed):
        def call(query, key, *args, **kwargs):
            now["caught"][:] = [x.transpose(1, 2) if transposed else x for x in (query, key)]
            return kernel(query, key, *args, **kwargs)

        return call

    def count(module, args, kwargs):
        now["frames"] = family.frames(kwargs)

    modules = family.modules(model).values()
    counting = model.register_forward_pre_hook(count, with_kwargs=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", catching(F.scaled_dot_product_attention, False))
        for home in {sys.modules[type(m.processor).__module__] for m in modules}:
            if hasattr(home, "dispatch_attention_fn"):
                patch.setattr(home, "dispatch_attention_fn", catching(home.dispatch_attention_fn, True))
        wrapped: dict[int, Any] = {}  # a processor may serve several modules
        for module in modules:
            if id(module.processor) not in wrapped:
                wrapped[id(module.processor)] = _written_out(module.processor, now, family.text_first, temperature)
            patch.setattr(module, "processor", wrapped[id(module.processor)])
        try:
            yield
        finally:
            counting.remove()


def _written_out(processor: Any, now: dict[str, Any], text_first: bool, tau: float) -> Any:
    class ByHand:
        @functools.wraps(type(processor).__call__)
        def __call__(self, attn, hidden_states, *args, **kwargs):
            output = processor(attn, hidden_states, *args, **kwargs)
            video = output[0] if isinstance(output, tuple) else output
            gain = paper_gain(now["caught"], video.shape[1], now["frames"], text_first, tau)
            video = (video * gain[:, None, None]).to(video.dtype)
            return (video, *output[1:]) if isinstance(output, tuple) else video

    return ByHand()


def paper_gain(caught: list[Tensor], length: int, frames: int, text_first: bool, tau: float) -> Tensor:
    """Eq. 5-7: query, key (B, H, L, D) with `length` video tokens in `frames` frames -> (B,)."""
    rows = slice(-length, None) if text_first else slice(0, length)
    q, k = (x[:, :, rows].double().unflatten(2, (frames, -1)).transpose(2, 3) for x in caught)  # (B, H, S, T, D)
    attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    off_diagonal = attention.masked_fill(torch.eye(frames, dtype=torch.bool), 0.0)
    intensity = off_diagonal.sum((-1, -2)).mean((1, 2)) / (frames * frames - frames)  # (B,)
    return (intensity * (frames + tau)).clamp(min=1.0).float()


# ------------------------------------------------------------------------------------- what a cell asserts
@dataclass
class Result:
    """What check() saw, for what a cell asserts besides."""

    plain: Tensor
    enhanced: Tensor
    handle: Enhancement


def check(
    model: nn.Module,
    call: Callable[[], Tensor],
    reference: Tensor | None = None,
    tolerance: float = CLOSE,
    target: Any = None,
    **settings: Any,
) -> Result:
    """It acts, it equals the reference, undo is complete: in the output to the bit, and in the model's anatomy.

    call: () -> output. target: what is enhanced, the model by default. reference: None where there is none.
    """
    plain = call()
    before = anatomy(model)
    with enhance(target if target is not None else model, **{**ON, **settings}) as handle:
        enhanced = call()
    assert acts(enhanced, plain)
    if reference is not None:
        assert same(enhanced, reference, tolerance), float((enhanced - reference).norm() / reference.norm())
    assert torch.equal(call(), plain)
    assert anatomy(model) == before
    return Result(plain, enhanced, handle)


def enhanced_output(model: nn.Module, call: Callable[[], Tensor], **settings: Any) -> Tensor:
    with enhance(model, **{**ON, **settings}):
        return call()


__all__ = [
    "CLOSE", "FAMILIES", "ON", "Family", "Result", "acts", "anatomy", "by_hand", "check", "enhanced_output",
    "generate", "run", "same",
]  # fmt: skip
