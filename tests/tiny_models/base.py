"""`Variant`, a tiny model with random weights, and how one is run."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

diffusers.utils.logging.set_verbosity_error()

T, H, W = 4, 4, 6  # frames, rows and columns of tokens
TEXT = H * W  # as many as in a frame: text that is taken for video is a frame beside it
SHARED = (
    "indices_",
    "image_rotary_emb",
    "position_ids",
    "img_ids",
    "txt_ids",
)  # arguments that have no batch dimension


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal; sample b of a batch does not depend on how many samples there are."""
    return torch.stack(
        [torch.randn(shape[1:], generator=torch.Generator().manual_seed(1000 * seed + b)) for b in range(shape[0])]
    )


def absent(transformer: str) -> str:
    """Why a class cannot be tested with the installed diffusers; empty when it can."""
    return "" if hasattr(diffusers, transformer) else f"diffusers {diffusers.__version__} has no {transformer}"


def _same(value: Any) -> Any:
    return value


def with_attention(row: Any, **changes: Any) -> Any:
    """A model's row with these fields of its video self-attention changed."""
    (kind,) = row.self_attention
    others = tuple(each for each in row.attention if each is not kind)
    return dataclasses.replace(row, attention=(dataclasses.replace(kind, **changes), *others))


@dataclass(frozen=True, eq=False)
class Tiny:
    """One variant of a class. `video` is always (B, channels, F * patch_t, height, width), F the frames of the row."""

    transformer: str  # the class, by name: a diffusers without it skips its tests
    build: Callable[[], nn.Module]
    make_inputs: Callable[[int, int], dict[str, Any]]  # (batch, frames)
    layers: int  # video self-attention layers
    latents: Callable[[Tensor], Any] = _same  # video -> what the class takes
    stream: str = "hidden_states"  # the argument that is the video
    channels: int = 4
    size: tuple[int, int] = (2 * H, 2 * W)
    patch_t: int = 1
    timestep: str = "timestep"
    top: float = 1000.0  # the timestep of pure noise
    counts_up: bool = False  # whether that is 0 and the clean video at the top
    frames: tuple[int, ...] = (T, 2, 1)  # numbers of frames to try
    batches: bool = True  # whether it takes several samples
    sharpen: Callable[[nn.Module], None] | None = None  # key = query projections, where it takes more than the usual
    since: str = ""  # an argument that older versions of the class lack

    @property
    def absent(self) -> str:
        """Why the tests cannot run; empty when they can."""
        missing = absent(self.transformer)
        if not missing and self.since not in ("", *inspect.signature(getattr(diffusers, self.transformer)).parameters):
            missing = f"diffusers {diffusers.__version__}: {self.transformer} has no {self.since}"
        return missing

    def model(self) -> nn.Module:
        if self.absent:
            pytest.skip(self.absent)
        torch.manual_seed(0)
        model = self.build().eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        for p in model.parameters():  # gates are initialised to zero, which would hide the attention
            if p.numel() > 1 and not p.any():
                p.data.normal_(0, 0.05, generator=generator)
        return model

    def inputs(
        self, batch: int = 2, frames: int = T, timestep: float = 500.0, video: Tensor | None = None
    ) -> dict[str, Any]:
        """The forward arguments; timestep in thousandths of pure noise."""
        inputs = self.make_inputs(batch, frames)
        share = 1 - timestep / 1000 if self.counts_up else timestep / 1000
        inputs[self.timestep] = torch.full_like(inputs[self.timestep], share * self.top, dtype=torch.float32)
        if video is not None:
            inputs[self.stream] = self.latents(video)
        return inputs

    def clip(self, letters: str, loud: float = 3.0) -> dict[str, Any]:
        """The arguments for one video whose frames are named by letters: equal letters are equal frames."""
        still = {letter: loud * noise(1, self.channels, 1, *self.size, seed=ord(letter)) for letter in letters}
        video = torch.cat([still[letter].expand(-1, -1, self.patch_t, -1, -1) for letter in letters], 2)
        return self.inputs(batch=1, frames=len(letters), video=video.contiguous())

    def sharpened(self) -> nn.Module:
        """The model with key = query projections: a token attends to tokens like itself."""
        from enhance_a_video import models

        model = self.model()
        if self.sharpen is not None:
            self.sharpen(model)
            return model
        for module, _ in models.attention_modules(model, models.row_of(model).self_attention).values():
            if getattr(module, "norm_q", None) is None:  # nothing else makes the logits large
                module.to_q.weight.mul_(2)
            else:
                module.norm_k.load_state_dict(module.norm_q.state_dict())
            module.to_k.load_state_dict(module.to_q.state_dict())
        return model

    @property
    def name(self) -> str:
        from . import TINY

        return next(name for name, tiny in TINY.items() if tiny is self)


def run(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The model's prediction, (B, ...)."""
    with torch.no_grad():
        output = model(**inputs, return_dict=False)
    output = output[0] if isinstance(output, tuple) else output
    return torch.stack(output) if isinstance(output, list) else output


def take(inputs: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """Some samples of a batch of inputs."""
    size = len(next(inputs[name] for name in ("hidden_states", "sample", "x") if name in inputs))

    def part(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.ndim > 1 and len(value) > size and len(value) % size == 0:  # so many rows of a sample
                return value.unflatten(0, (size, -1))[rows].flatten(0, 1)
            return value[rows] if value.ndim > 0 and len(value) == size else value
        if isinstance(value, list) and len(value) == size:
            return value[rows]
        return tuple(part(v) for v in value) if isinstance(value, tuple) else value

    return {k: v if k.startswith(SHARED) else part(v) for k, v in inputs.items()}
