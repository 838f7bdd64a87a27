"""A UNet's temporal layer by hand: it gets a video, makes sequences of frames of it, and a method calls the kernel."""

import torch
from torch import Tensor, nn


class TemporalAttention(nn.Module):
    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(2, channels)
        self.to_qk, self.to_v = nn.Linear(channels, 2 * channels, bias=False), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W)"""
        y = self.norm(x).permute(0, 3, 4, 2, 1)  # (B, H, W, T, C)
        return self.attend(y.flatten(0, 2)).view(y.shape).permute(0, 4, 3, 1, 2)

    def attend(self, y: Tensor) -> Tensor:
        q, k, v = torch.cat([self.to_qk(y), self.to_v(y)], -1).chunk(3, -1)  # (B*S, T, C) each, heads side by side
        q, k, v = (z.unflatten(2, (self.heads, -1)).transpose(1, 2).flatten(0, 1) for z in (q, k, v))  # (B*S*h, T, D)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)
        return y.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)


class TemporalUNet(nn.Module):
    """forward(context, noisy (B, C, T, H, W), sigma) -> (B, C, T, H, W); its first tensor is not the video."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.conv_in, self.conv_out = nn.Conv3d(4, channels, (1, 3, 3), 1, (0, 1, 1)), nn.Conv3d(channels, 4, 1)
        self.temporal = TemporalAttention(channels, 2)

    def forward(self, context: Tensor, noisy: Tensor, sigma: float) -> Tensor:
        y = self.conv_in(noisy * (1 - sigma)) + context.mean()
        return self.conv_out(y + self.temporal(y))
