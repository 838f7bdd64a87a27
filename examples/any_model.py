"""A video model that is not in diffusers, described in the call that enhances it (see docs/guide/add-a-model.md).

python examples/any_model.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enhance_a_video import enhance_attention
from enhance_a_video.attention import Tokens
from enhance_a_video.attention.query_key import Kernel
from enhance_a_video.progress import Flow


# ------------------------------------------------------------------- the model, as somebody's repository may have it
def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, L, H, D) each, as the flash-attn package takes them."""
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.o = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).unbind(2)
        return self.o(flash_attention(q, k, v).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm, self.self_attn = nn.LayerNorm(dim), SelfAttention(dim, heads)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.self_attn(self.norm(x))


class VideoModel(nn.Module):
    """A list of videos (C, T, H, W) and their noise levels t (B,), 1000 = pure noise -> the velocities."""

    def __init__(self, dim: int = 32, heads: int = 4, layers: int = 3, channels: int = 4):
        super().__init__()
        self.embed, self.time = nn.Linear(channels, dim), nn.Linear(1, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.head = nn.Linear(dim, channels)

    def forward(self, x: list[Tensor], t: Tensor) -> list[Tensor]:
        tokens = self.embed(torch.stack(x).flatten(2).transpose(1, 2))  # (B, T*H*W, dim), all sites of frame 0 first
        tokens = tokens + self.time(t[:, None] / 1000)[:, None]
        for block in self.blocks:
            tokens = block(tokens)
        return [video.T.reshape(x[0].shape) for video in self.head(tokens)]


# ------------------------------------------------------------------------------------------------------ enhanced
torch.manual_seed(0)
model = VideoModel().eval().requires_grad_(False)
handle = enhance_attention(
    model,
    attention=r"^blocks\.\d+\.self_attn$",  # which modules are temporal or full 3D self-attention
    tokens=Tokens("video only"),  # how the tokens lie in them
    frames=lambda arguments: arguments["x"][0].shape[1],  # T, from the arguments of model.forward
    query_key=Kernel("flash_attention", "B L H D"),  # the function that gets query and key, and their axes
    noise=Flow(shift=5.0),  # what the model's timestep means
    timestep="t",  # which argument it is
    strength=0.7,  # from here on as in enhance()
)

video = torch.randn(4, 5, 8, 8)
for t in (1000.0, 750.0, 500.0, 250.0):
    (velocity,) = model([video], torch.tensor([t]))
    video = video - 0.25 * velocity
print(handle.summary())
handle.remove()
