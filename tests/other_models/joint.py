"""In the manner of HunyuanVideo's own repository: a block of two streams is its own attention, projected inside it."""

import torch
from torch import Tensor, nn

from . import kernels


class DoubleBlock(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.video_qkv, self.text_qkv = nn.Linear(dim, 3 * dim), nn.Linear(dim, 3 * dim)
        self.video_proj, self.text_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, video: Tensor, text: Tensor, early: bool = False) -> tuple[Tensor, Tensor]:
        """early: project first, which no model does"""
        if early:
            self.video_proj(video)
        both = torch.cat([self.video_qkv(video), self.text_qkv(text)], 1)  # (B, L + N, 3*dim)
        q, k, v = both.unflatten(2, (3, self.heads, -1)).unbind(2)
        out = kernels.flash_attention(q, k, v).flatten(2)
        return video + self.video_proj(out[:, : video.shape[1]]), text + self.text_proj(out[:, video.shape[1] :])


class SingleBlock(nn.Module):
    """Video and text in one sequence (B, T*S + N, dim) -> the same; the projection behind its attention is linear2."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.linear1, self.linear2 = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.linear1(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, L, H, D)
        return x + self.linear2(kernels.flash_attention(q, k, v).flatten(2))


class JointModel(nn.Module):
    """forward(video (B, T*S, dim), text (B, N, dim), frames) -> (video, text)

    single: how many blocks over the joint sequence follow those of two streams.
    """

    def __init__(self, dim: int = 16, heads: int = 2, layers: int = 2, single: int = 0):
        super().__init__()
        self.double_blocks = nn.ModuleList(DoubleBlock(dim, heads) for _ in range(layers))
        self.single_blocks = nn.ModuleList(SingleBlock(dim, heads) for _ in range(single))

    def forward(self, video: Tensor, text: Tensor, frames: int, early: bool = False) -> tuple[Tensor, Tensor]:
        for block in self.double_blocks:
            video, text = block(video, text, early)
        joint = torch.cat([video, text], 1)
        for block in self.single_blocks:
            joint = block(joint)
        return joint[:, : video.shape[1]], joint[:, video.shape[1] :]
