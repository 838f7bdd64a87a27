"""In the manner of Open-Sora 1.2: spatial and temporal blocks in turns, q·kᵀ and softmax written out."""

from typing import Any

import torch
from torch import Tensor, nn


def rotary(x: Tensor) -> Tensor:
    """x (B, H, N, D) turned by the place of each token in its sequence."""
    angle = torch.arange(x.shape[2])[:, None] * 0.5 ** torch.arange(x.shape[-1] // 2)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, turn: bool):
        super().__init__()
        self.heads, self.turn, self.scale = heads, turn, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm, self.k_norm = nn.RMSNorm(dim // heads), nn.RMSNorm(dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, N, D) each
        q, k = self.q_norm(q), self.k_norm(k)
        if self.turn:
            q, k = rotary(q), rotary(k)
        attention = (q * self.scale @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(B, N, C))


def query_and_key(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What a user writes for it: (B, H, N, D) each, the rotary embedding included."""
    (x,) = args
    q, k, _ = module.qkv(x).unflatten(2, (3, module.heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = module.q_norm(q), module.k_norm(k)
    return (rotary(q), rotary(k)) if module.turn else (q, k)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, temporal: bool, turn: bool):
        super().__init__()
        self.temporal = temporal
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, temporal and turn)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, S, C)"""
        y = self.norm1(x)
        y = y.transpose(1, 2) if self.temporal else y
        y = self.attn(y.flatten(0, 1)).view(y.shape)  # (B S) T C or (B T) S C
        x = x + (y.transpose(1, 2) if self.temporal else y)
        return x + self.mlp(self.norm2(x))


class OpenSoraLike(nn.Module):
    """forward(x (B, C, T, H, W), timestep (B,)) -> (B, C, T, H, W); turn: rotary embedding over frames."""

    def __init__(self, dim: int = 16, heads: int = 2, depth: int = 2, channels: int = 4, turn: bool = False):
        super().__init__()
        self.embed, self.time = nn.Linear(channels, dim), nn.Linear(1, dim)
        self.spatial_blocks = nn.ModuleList(Block(dim, heads, False, turn) for _ in range(depth))
        self.temporal_blocks = nn.ModuleList(Block(dim, heads, True, turn) for _ in range(depth))
        self.final = nn.Linear(dim, channels)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        y = self.embed(x.flatten(3).permute(0, 2, 3, 1)) + self.time(timestep[:, None] / 1000)[:, None, None]
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            y = temporal(spatial(y))
        return self.final(y).permute(0, 3, 1, 2).view(x.shape)
