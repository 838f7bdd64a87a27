"""In the manner of Wan's own repository: a list of videos in, tokens padded to one length, rotary by hand."""

from typing import Any

import torch
from torch import Tensor, nn

from .kernels import flash_attention

PATCH = (1, 2, 2)


def angles(grid: tuple[int, int, int], width: int) -> Tensor:
    """Rotary angles of a grid of T*h*w tokens, (T*h*w, width): a share of the width for each axis."""
    place = torch.cartesian_prod(*[torch.arange(n) for n in grid]).float()  # (T*h*w, 3)
    frequency = 100.0 ** -torch.linspace(0, 1, width // 3)
    return (place[:, :, None] * frequency).flatten(1)


def rope_apply(x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """x (B, L, H, D): its first T*h*w tokens are turned, the padding behind them is not."""
    turned, padding = x.split([grid[0] * grid[1] * grid[2], x.shape[1] - grid[0] * grid[1] * grid[2]], 1)
    angle = angles(grid, x.shape[-1] // 2)[:, None]  # (T*h*w, 1, D/2)
    a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1).flatten(-2)
    return torch.cat([turned, padding], 1)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(dim), nn.RMSNorm(dim)

    def forward(self, x: Tensor, seq_len: int, grid: tuple[int, int, int]) -> Tensor:
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(x)), self.v(x)
        q, k, v = (y.unflatten(2, (self.heads, -1)) for y in (q, k, v))  # (B, L, H, D)
        x = flash_attention(q=rope_apply(q, grid), k=rope_apply(k, grid), v=v, k_length=seq_len)
        return self.o(x.flatten(2))


class CrossAttention(SelfAttention):
    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (y.unflatten(2, (self.heads, -1)) for y in (self.q(x), self.k(context), self.v(context)))
        return self.o(flash_attention(q, k, v).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.self_attn, self.cross_attn = SelfAttention(dim, heads), CrossAttention(dim, heads)
        self.ffn = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, time: Tensor, context: Tensor, seq_len: int, grid: tuple[int, int, int]) -> Tensor:
        x = x + time * self.self_attn(self.norm1(x), seq_len, grid)
        x = x + self.cross_attn(self.norm3(x), context)
        return x + self.ffn(self.norm2(x))


class WanLike(nn.Module):
    """forward(x: list of videos (C, F, H, W), t (B,), context (B, N, dim), seq_len) -> list of (C, F, H, W)."""

    def __init__(self, dim: int = 24, heads: int = 2, layers: int = 2, channels: int = 4):
        super().__init__()
        self.patch_embedding = nn.Conv3d(channels, dim, PATCH, PATCH)
        self.time = nn.Linear(1, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.head = nn.Linear(dim, channels * 4)

    def forward(self, x: list[Tensor], t: Tensor, context: Tensor, seq_len: int) -> list[Tensor]:
        y = torch.cat([self.patch_embedding(video[None]) for video in x])  # (B, dim, F, h, w)
        grid: Any = tuple(y.shape[2:])
        tokens = y.flatten(2).transpose(1, 2)  # (B, F*h*w, dim)
        count = tokens.shape[1]
        tokens = nn.functional.pad(tokens, (0, 0, 0, seq_len - count))
        time = self.time(t[:, None] / 1000)[:, None].sigmoid()  # (B, 1, dim)
        for block in self.blocks:
            tokens = block(tokens, time, context, count, grid)
        return list(self._unpatch(self.head(tokens[:, :count]), grid))

    def _unpatch(self, y: Tensor, grid: tuple[int, int, int]) -> Tensor:
        y = y.unflatten(1, grid).unflatten(4, (-1, 2, 2))  # (B, F, h, w, C, 2, 2)
        return y.permute(0, 4, 1, 2, 5, 3, 6).flatten(3, 4).flatten(4, 5)  # (B, C, F, H, W)
