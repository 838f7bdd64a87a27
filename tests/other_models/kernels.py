"""A repository's own attention function: tokens before heads, lengths instead of masks."""

import torch
import torch.nn.functional as F
from torch import Tensor


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, k_length: int | None = None, softmax_scale: float | None = None
) -> Tensor:
    """q, k, v (B, L, H, D), of whose keys the first k_length count -> (B, L, H, D)."""
    mask = None if k_length is None else (torch.arange(k.shape[1], device=k.device) < k_length)[None, None, None]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask, scale=softmax_scale).transpose(1, 2)
