"""How large what a layer puts out is beside the stream that enters the block around it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..sharding import Shards, summed
from .observer import Rows


@dataclass(frozen=True)
class Residual:
    """What a layer puts out for the video and the stream at the entry of its block: (B, N, C), (B*S, T, C) or any shape
    whose first dimension holds the samples one after the other; with one sample it may be its tokens.

    With shards, both are this rank's part of their tokens.
    """

    video: Tensor
    stream: Tensor
    shards: Shards | None = None

    def share(self, samples: int) -> Tensor:
        """rms(video) / rms(stream) of each sample, (B,) fp32; 0 where both are 0."""
        both = (self.video, self.stream)
        squares = [_squares(x, samples) for x in both]  # (B,) each
        every = torch.stack([*squares, *(torch.full_like(squares[0], x.numel() / samples) for x in both)])  # (4, B)
        video, stream, tokens, entered = (every if self.shards is None else summed(every, self.shards)).unbind()
        return (video / tokens).sqrt() / (stream / entered).sqrt().clamp(min=1e-12)


def _squares(x: Tensor, samples: int) -> Tensor:
    """The sum of squares of each sample, (B,) fp32, without a copy of x in fp32 where there is a kernel for that."""
    x = x.detach()
    norms = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), dtype=torch.promote_types(x.dtype, torch.float32))
    return norms.float().square().view(samples, -1).sum(1)


def video_of(output: Any, rows: Rows, part: int) -> Tensor:
    """The video in what a layer returns: in the tensor (…, N, C), or in one part of a tuple."""
    video: Tensor = output[part] if isinstance(output, tuple) else output
    return video if rows is None else video[..., rows, :]
