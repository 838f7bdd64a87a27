"""The names that the fuzz's Python calls may use: the package as its users import it, a quick pipeline, tiny models."""

from __future__ import annotations

import copy
import json
import math
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from enhance_a_video import Settings, Strength, Temperature, cross_frame_intensity, enhance, enhance_attention, policies
from enhance_a_video.attention import Tokens
from enhance_a_video.attention.query_key import Kernel, Outputs
from enhance_a_video.generation import batch as batches
from enhance_a_video.generation import pipelines, video  # fmt: skip
from enhance_a_video.generation import requests as plan
from enhance_a_video.generation.media import in_pieces, open_video
from enhance_a_video.generation.pipelines import generate
from enhance_a_video.lab import metrics, pictures, stats
from enhance_a_video.lab import score as scores
from enhance_a_video.lab.comparison import compare, compare_seeds
from enhance_a_video.lab.stats import paired
from enhance_a_video.lab.study.definition import parse_study, read_study
from enhance_a_video.lab.vote import Ballots, find_pairs, results
from enhance_a_video.policies import Constant
from enhance_a_video.progress import Flow
from enhance_a_video.web import uploads
from enhance_a_video.web.form import Form, form_from_link, forms_from
from enhance_a_video.web.gallery import Gallery

from .materials import frames

torch.set_num_threads(1)
torch.set_grad_enabled(False)
torch.manual_seed(0)
nan, inf = math.nan, math.inf
x, t = torch.randn(1, 24, 16), torch.tensor([900.0])
clip = frames()
SAY: dict[str, Any] = {
    "attention": r"blocks\.\d+$", "tokens": Tokens("video only"), "frames": 4,
    "strength": 3.0, "start": 0.0, "end": 1.0,
}  # fmt: skip


class A(nn.Module):
    """An attention layer as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class M(nn.Module):
    """A model of two of them, always of the same weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.ModuleList([A(), A()])

    def forward(self, x, t):
        for block in self.blocks:
            x = x + block(x)
        return x


class B(M):
    """A norm that is a function stands behind each layer, as in Mochi's own code."""

    def forward(self, x, t):
        for block in self.blocks:
            x = x + F.rms_norm(block(x), (16,))
        return x


class T(M):
    """Its layers get (B*S, T, C): temporal attention."""


class D(nn.Module):
    """Takes an object in place of tensors, as LTX-2's own code."""

    def __init__(self) -> None:
        super().__init__()
        self.m = M()

    def forward(self, video):
        return self.m(video.latent, video.sigma)


class O(nn.Module):  # noqa: E742
    """Its forward is an attribute, as in Open-Sora 2."""

    def __init__(self) -> None:
        super().__init__()
        self.m = M()
        self.forward = self.run

    def run(self, x, t):
        return self.m(x, t)


def described(value: float = 900.0, **changes: Any) -> Any:
    """A model is described with these changes and called once, at this timestep."""
    m = M()
    handle = enhance_attention(m, **(SAY | changes))
    m(x, torch.tensor([value]))
    return handle


def hooked(m: nn.Module) -> None:
    """accelerate's hooks: `forward` becomes an attribute of each layer."""
    from accelerate.hooks import ModelHook, add_hook_to_module

    for block in m.blocks:
        add_hook_to_module(block, ModelHook())


def own(m: nn.Module) -> None:
    """`self.forward = ...` in the layers, as VideoCrafter does with xformers."""
    for block in m.blocks:
        block.forward = types.MethodType(A.forward, block)


def differs(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).norm() > 1e-4 * other.norm())


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one, other)


def acted_or_warned(enhanced: torch.Tensor, plain: torch.Tensor) -> None:
    """Prints that the enhancement acted; without it there has to be a warning that it did not."""
    if differs(enhanced, plain):
        print("it acted")


pipelines.quiet()
pipe = pipelines.load()


def run(**options: Any) -> np.ndarray:
    """The embedded model at one step of five small frames."""
    quick = {"steps": 1, "frames": 5, "height": 32, "width": 32}
    return generate(pipe, options.pop("prompt", "a red ball moves left over a green meadow"), **(quick | options))


__all__ = [
    "SAY", "A", "B", "Ballots", "Constant", "D", "F", "Flow", "Form", "Gallery",
    "Image", "Kernel", "M", "O", "Outputs", "Path",
    "Settings", "Strength", "T", "Temperature", "Tokens", "acted_or_warned", "batches", "clip", "compare",
    "compare_seeds", "copy", "cross_frame_intensity", "described", "differs", "enhance", "enhance_attention",
    "find_pairs",
    "form_from_link", "forms_from", "generate", "hooked", "in_pieces", "inf", "json", "metrics", "nan", "nn", "np",
    "open_video",
    "own", "paired", "parse_study", "pictures", "pipe", "pipelines", "plan", "policies", "read_study", "results",
    "run", "same", "scores", "stats", "t", "torch", "types", "uploads", "video", "warnings", "x",
]  # fmt: skip
