"""The two extension points of ComfyUI that the patch uses, small and faithful, for tests without a checkout.

A model's calls go through wrappers under the name "apply_model", a sampling run through those under "outer_sample"; an
attention function calls `optimized_attention_override` of the transformer_options where there is one.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, skip_reshape: bool = False,
              skip_output_reshape: bool = False, **kwargs: Any) -> Tensor:  # fmt: skip
    """Like ComfyUI's attention functions: the override, if there is one, gets the function itself in front."""
    options = kwargs.get("transformer_options") or {}
    given = {"mask": mask, "skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape, **kwargs}
    if "_inside_attn_wrapper" not in kwargs and "optimized_attention_override" in options:
        given["_inside_attn_wrapper"] = True
        return options["optimized_attention_override"](attention, q, k, v, heads, **given)
    if not skip_reshape:
        size = q.shape[-1] // heads
        q, k, v = (x.unflatten(2, (-1, size)).transpose(1, 2) for x in (q, k, v))
    if mask is not None:
        mask = mask[None] if mask.ndim == 2 else mask
        mask = mask[:, None] if mask.ndim == 3 else mask
    out = F.scaled_dot_product_attention(q, k, v, mask, scale=kwargs.get("scale"), enable_gqa=q.shape[1] != k.shape[1])
    return out if skip_output_reshape else out.transpose(1, 2).flatten(2)


class Executor:
    """One wrapper after the other, then the original."""

    def __init__(self, original: Any, class_obj: Any, wrappers: list[Any]):
        self.original, self.class_obj, self.wrappers = original, class_obj, wrappers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.wrappers:
            return self.original(*args, **kwargs)
        return self.wrappers[0](Executor(self.original, self.class_obj, self.wrappers[1:]), *args, **kwargs)


class Sampling:
    """Flow without a shift: a share of the denoising is a noise level."""

    def percent_to_sigma(self, percent: float) -> float:
        return 1.0 - percent


class Model:
    """ComfyUI's BaseModel: apply_model(x, sigma, c_concat, c_crossattn, control, transformer_options)."""

    def __init__(self, diffusion_model: nn.Module):
        self.diffusion_model, self.model_sampling = diffusion_model, Sampling()

    def apply_model(self, x: Tensor, t: Tensor, text: Tensor, options: dict[str, Any], **kwargs: Any) -> Tensor:
        wrappers = [w for each in options.get("wrappers", {}).get("apply_model", {}).values() for w in each]
        return Executor(self._apply_model, self, wrappers)(x, t, None, text, None, options, **kwargs)

    def _apply_model(self, x: Tensor, t: Tensor, c_concat: Any, text: Tensor, control: Any, options: dict[str, Any],
                     **kwargs: Any) -> Tensor:  # fmt: skip
        return self.diffusion_model(x, text, transformer_options=dict(options))


class Patcher:
    """ComfyUI's ModelPatcher: clones share the model and have options and wrappers of their own."""

    def __init__(self, model: Model):
        self.model, self.wrappers, self.model_options = model, {}, {"transformer_options": {}}

    def clone(self) -> "Patcher":
        other = Patcher(self.model)
        other.wrappers = {kind: {key: list(w) for key, w in keys.items()} for kind, keys in self.wrappers.items()}
        other.model_options = {"transformer_options": dict(self.model_options["transformer_options"])}
        return other

    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Any) -> None:
        self.wrappers.setdefault(kind, {}).setdefault(key, []).append(wrapper)

    def sample(self, noise: Tensor, text: Tensor, sigmas: tuple[float, ...] = (1.0, 0.5)) -> Tensor:
        """Euler steps of all samples in one call."""
        outer = [w for each in self.wrappers.get("outer_sample", {}).values() for w in each]

        def run() -> Tensor:
            x = noise
            for sigma in sigmas:
                options = {**self.model_options["transformer_options"], "wrappers": self.wrappers}
                x = x - 0.5 * self.model.apply_model(x, torch.full((len(x),), sigma), text, options)
            return x

        return Executor(run, self, outer)()


class WanModel(nn.Module):
    """Self-attention over the video, then cross-attention to the text; q, k, v as (B, L, H*D)."""

    patch_size = (1, 2, 2)

    def __init__(self, blocks: int = 2, heads: int = 2, width: int = 16):
        super().__init__()
        torch.manual_seed(0)
        self.heads = heads
        self.embed = nn.Conv3d(4, width, self.patch_size, self.patch_size)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(blocks))
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, 16)
        self.requires_grad_(False)

    def forward(self, x: Tensor, text: Tensor, transformer_options: dict[str, Any]) -> Tensor:
        tokens = self.embed(x)
        grid = tokens.shape[2:]
        h = tokens.flatten(2).transpose(1, 2)
        for i, (qkv, cross) in enumerate(zip(self.qkv, self.cross, strict=True)):
            transformer_options["block_index"] = i
            h = h + attention(*(3 * qkv(h)).chunk(3, -1), self.heads, transformer_options=transformer_options)
            h = h + attention(cross(h), text, text, self.heads, transformer_options=transformer_options)
        out = self.head(h).unflatten(1, grid).unflatten(-1, (4, 2, 2)).permute(0, 4, 1, 2, 5, 3, 6)
        return out.flatten(5, 6).flatten(3, 4)


class HunyuanVideo(WanModel):
    """Text in front of the video in one attention; q, k, v as (B, H, L, D)."""

    def forward(self, x: Tensor, text: Tensor, transformer_options: dict[str, Any]) -> Tensor:
        tokens = self.embed(x)
        grid = tokens.shape[2:]
        attention(text, text, text, self.heads, transformer_options=transformer_options)  # the text refiner
        options = dict(transformer_options)  # as the real one: what it adds is not in the caller's
        h = torch.cat([text, tokens.flatten(2).transpose(1, 2)], 1)
        for i, qkv in enumerate(self.qkv):
            options["block_index"] = i
            q, k, v = (p.unflatten(2, (self.heads, -1)).transpose(1, 2) for p in (3 * qkv(h)).chunk(3, -1))
            h = h + attention(q, k, v, self.heads, skip_reshape=True, transformer_options=options)
        video = h[:, text.shape[1] :]
        out = self.head(video).unflatten(1, grid).unflatten(-1, (4, 2, 2)).permute(0, 4, 1, 2, 5, 3, 6)
        return out.flatten(5, 6).flatten(3, 4)
