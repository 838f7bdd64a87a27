"""Passes of guidance: finds which one a forward call is, and so which of its samples passes="conditional" changes."""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Pipelines of diffusers that name no pass; their one call a step has the negative prompt's samples, then the prompt's.
IN_ONE_BATCH = frozenset(
    {
        "AllegroPipeline", "ConsisIDPipeline", "EasyAnimatePipeline", "EasyAnimateControlPipeline",
        "EasyAnimateInpaintPipeline", "LattePipeline",
    }
)  # fmt: skip


class CallPasses(NamedTuple):
    """What passes="conditional" makes of one forward call."""

    plain: bool  # the call is left alone
    conditional: Tensor | None = None  # (B,) bool: the samples that are changed, where both passes are in one batch
    known: bool = True  # False: the pass could not be found out, and all samples are changed


class _InThread(threading.local):
    name: str | None = None


class Passes:
    """The passes of one transformer, by the names that diffusers' pipelines and guiders give them (cache_context).

    In a pipeline that names none: by its order of samples in one batch, where that is known (IN_ONE_BATCH).
    """

    def __init__(self, wanted: str | None, pipeline: weakref.ref[Any] | None):
        """wanted: Settings.passes; pipeline: the one that runs the transformer, if there is one."""
        self.wanted, self.pipeline = wanted, pipeline
        self.in_one_batch = _in_one_batch(pipeline() if pipeline is not None else None)
        self.latest: str | None = None  # for dynamo, which cannot read a threading.local
        self.in_thread = _InThread()

    @contextlib.contextmanager
    def named(self, name: str) -> Iterator[None]:
        """While it lasts, forward calls of this thread belong to that pass of guidance."""
        around, self.in_thread.name = self.in_thread.name, name
        self.latest = name
        try:
            yield
        finally:
            self.in_thread.name = self.latest = around

    def of_call(self, batch: int | None, device: torch.device) -> CallPasses:
        """Of the forward call of `batch` samples that begins. Without guidance every call is conditional."""
        if self.wanted is None:
            return CallPasses(plain=False)
        name = self.latest if torch.compiler.is_compiling() else self.in_thread.name
        guided = is_guided(self.pipeline() if self.pipeline is not None else None)
        if name in ("cond", "pred_cond") or guided is False:
            return CallPasses(plain=False)
        together = name == "cond_uncond" or (name is None and self.in_one_batch)
        if together and guided and batch is not None and batch % 2 == 0:
            later = torch.arange(batch, device=device) >= batch // 2  # diffusers: the negative prompt comes first
            return CallPasses(plain=False, conditional=later)
        if name is not None and name.startswith(("uncond", "pred_")):
            return CallPasses(plain=True)
        return CallPasses(plain=False, known=False)


def _in_one_batch(pipeline: Any) -> bool:
    """Whether a pipeline's class, or one that it is made from, is of IN_ONE_BATCH."""
    names = {kind.__name__ for kind in type(pipeline).__mro__ if kind.__module__.startswith("diffusers.")}
    return not IN_ONE_BATCH.isdisjoint(names)


def is_guided(pipeline: Any) -> bool | None:
    """Whether a pipeline runs with classifier-free guidance now; None where it cannot be known."""
    guided = getattr(pipeline, "do_classifier_free_guidance", None)
    if isinstance(guided, bool):
        return guided
    scale = getattr(pipeline, "_guidance_scale", None)
    return scale > 1 if isinstance(scale, (int, float)) else None
