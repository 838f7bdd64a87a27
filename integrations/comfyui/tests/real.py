"""Real ComfyUI code on a CPU: how it is started from a checkout, and tiny random native models of every family.

ENHANCE_A_VIDEO_COMFYUI is the checkout's folder; this Python needs ComfyUI's requirements, torchaudio excepted, and of
torchvision its Python part alone (README.md of the pack). Without it the tests are skipped with the reason.
"""

import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

CHECKOUT = "ENHANCE_A_VIDEO_COMFYUI"


def start() -> None:
    """Import ComfyUI, or skip the tests of this module."""
    folder = os.environ.get(CHECKOUT)
    if not folder:
        pytest.skip(f"{CHECKOUT} is not set: give the folder of a ComfyUI checkout", allow_module_level=True)
    if not (Path(folder) / "comfy").is_dir():
        pytest.skip(f"{CHECKOUT}={folder} has no folder comfy", allow_module_level=True)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    _without_torchvision()
    before, sys.argv = sys.argv, ["comfyui", "--cpu", "--use-pytorch-cross-attention"]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.sample
        import comfy.supported_models
    except ImportError as error:
        pytest.skip(f"this Python lacks one of ComfyUI's requirements: {error}", allow_module_level=True)
    finally:
        sys.argv = before


def start_or_exit() -> None:
    """The same for a command: one sentence and exit code 1."""
    try:
        start()
    except pytest.skip.Exception as reason:
        raise SystemExit(str(reason)) from None


def _without_torchvision() -> None:
    """Two operators that a torchvision without its binary part requires, and empty modules in torchaudio's place."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
    if importlib.util.find_spec("torchaudio") is None:
        for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
            module = types.ModuleType(name)
            module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
            sys.modules[name] = module


_kept: list[Any] = []


@dataclass(frozen=True)
class Family:
    """A tiny model of one native class, and a latent and conditions for it."""

    name: str
    config: str  # class in comfy.supported_models
    unet: dict[str, Any]
    latent: tuple[int, ...]  # (C, frames, height, width)
    grid: tuple[int, int]  # T and S that its video must have
    text: tuple[int, int] = (7, 32)  # tokens, width
    conditions: Callable[[], dict[str, Any]] = dict  # more of a conditioning's entries
    audio: tuple[int, ...] | None = None  # of the sound latent: (C, frames, ...)
    first: int = 0  # latent frames in front that are no video
    layers: int = 2  # attention layers of the video
    width: int = 48  # numbers in a query
    from_latent: bool = False  # it turns one video into another: sampling begins at the latent, without noise


def model(family: Family, dtype: torch.dtype = torch.float32) -> Any:
    """A ModelPatcher of the family's class with random weights; a few layers stay in fp32 whatever the dtype."""
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, family.config)({**_config_of(family), **family.unet})
    config.unet_config["dtype"] = dtype
    config.set_inference_dtype(dtype, None)
    made = config.get_model({}, device=torch.device("cpu"))
    made.diffusion_model.requires_grad_(False)
    fill(made.diffusion_model, torch.Generator().manual_seed(1))
    made.eval()
    return comfy.model_patcher.ModelPatcher(made, torch.device("cpu"), torch.device("cpu"))


def fill(network: torch.nn.Module, generator: torch.Generator) -> None:
    """Random weights: ComfyUI leaves them as they were in memory."""
    for name, weight in sorted(network.named_parameters()):
        if weight.ndim > 1:
            weight.normal_(0.0, 1.5 * weight[0].numel() ** -0.5, generator=generator)
        else:
            weight.normal_(0.0 if name.endswith("bias") else 1.0, 0.1, generator=generator)  # a norm's weight
    for name, buffer in network.named_buffers():
        if name.endswith("inv_freq"):  # MiniMax-H3 reads it from its checkpoint
            buffer.copy_(10000.0 ** -torch.linspace(0, 1, len(buffer)))


PAIRS = (("q", "k"), ("to_q", "to_k"), ("q_proj", "k_proj"), ("to_query", "to_key"), ("norm_q", "norm_k"),
         ("q_norm", "k_norm"), ("query_norm", "key_norm"), ("q_norm_x", "k_norm_x"), ("query", "key"))  # fmt: skip
JOINED = ("qkv", "qkv_proj", "qkv_x", "linear1")  # query, key, value (and more) in one matrix


def tie(network: torch.nn.Module, size: int) -> None:
    """Keys like queries, of `size` numbers each: tokens that are alike attend to each other, and others little.

    Then frames that are all alike have a large cross-frame mass, and unrelated ones a small one.
    """
    for module in network.modules():
        for query, key in PAIRS:
            if hasattr(module, query) and hasattr(module, key) and isinstance(getattr(module, query), torch.nn.Module):
                mine, theirs = getattr(module, query).state_dict(), getattr(module, key).state_dict()
                if [w.shape for w in mine.values()] == [w.shape for w in theirs.values()]:
                    getattr(module, key).load_state_dict(mine)
        for name in JOINED:
            inner = getattr(module, name, None)
            for weight in inner.parameters() if isinstance(inner, torch.nn.Module) else ():
                if len(weight) >= 3 * size:
                    weight[size : 2 * size] = weight[:size]


def _config_of(family: Family) -> dict[str, Any]:
    import comfy.supported_models

    return dict(getattr(comfy.supported_models, family.config).unet_config)


def conditioning(family: Family, seed: int) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, *family.text, generator=generator)
    extra = {"pooled_output": torch.randn(1, 16, generator=generator), **family.conditions()}
    return [[text, extra]]


def latent(family: Family, batch: int = 1) -> Any:
    import comfy.nested_tensor

    video = torch.zeros(batch, *family.latent)
    if family.audio is None:
        return video
    return comfy.nested_tensor.NestedTensor([video, torch.zeros(batch, *family.audio)])


def noise(family: Family, batch: int = 1, seed: int = 5) -> Any:
    import comfy.nested_tensor

    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(batch, *family.latent, generator=generator)
    if family.audio is None:
        return video
    return comfy.nested_tensor.NestedTensor([video, torch.randn(batch, *family.audio, generator=generator)])


def sample(
    patcher: Any, family: Family, noise: Any, steps: int = 2, cfg: float = 3.0, batch: int = 1, **more: Any
) -> Tensor:
    """comfy.sample.sample with Euler; the video latent that comes out."""
    import comfy.sample

    begin = noise if family.from_latent else latent(family, batch)
    out = comfy.sample.sample(
        patcher, noise, steps, cfg, "euler", "simple", conditioning(family, 2), conditioning(family, 3),
        begin, seed=0, disable_pbar=True, **more,
    )  # fmt: skip
    return out.unbind()[0] if getattr(out, "is_nested", False) else out
