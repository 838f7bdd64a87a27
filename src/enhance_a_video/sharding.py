"""Context parallelism: one video's tokens lie on several devices, and the few that the method measures are gathered.

Every rank holds a contiguous part of the sequence, with all heads, which may end in the middle of a frame. Query and
key at the sites that are looked at are summed over the ranks (zeros where a rank does not hold them), so that all
ranks compute the same mass from the same numbers as one device would: with 24 sites, 21 frames and 12 heads of 128
that is 3 MB each, whatever the size of the frames.

Odds need every token, and each frame apart. For them the ranks exchange parts, as Ulysses attention does: from
some tokens with all heads to all tokens with some heads, and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import TokenLayoutError
from .intensity import spread_sites


@dataclass(frozen=True)
class Shards:
    """This rank's place among those that share one sequence. uneven: their parts may differ in length."""

    rank: int
    ranks: int
    group: Any
    uneven: bool = False

    @classmethod
    def of(cls, parallel_config: Any) -> Shards | None:
        """From a diffusers ParallelConfig; None without context parallelism."""
        config = getattr(parallel_config, "context_parallel_config", None)
        if config is None:
            return None
        group = config._flattened_mesh.get_group()
        uneven = getattr(config, "ulysses_anything", False) or getattr(config, "ring_anything", False)
        return cls(dist.get_rank(group), dist.get_world_size(group), group, uneven)

    def spans(self, length: int, device: torch.device) -> tuple[int, int]:
        """Where this rank's `length` tokens begin in the whole sequence, and how long that is."""
        every = self.lengths(length, device)
        return sum(every[: self.rank]), sum(every)

    def lengths(self, length: int, device: torch.device) -> list[int]:
        """How many tokens each rank holds, this one `length`."""
        if not self.uneven:
            return [length] * self.ranks
        lengths = torch.zeros(self.ranks, dtype=torch.int64, device=device)
        lengths[self.rank] = length
        dist.all_reduce(lengths, group=self.group)
        found: list[int] = lengths.tolist()  # waits for the device: only where the parts are uneven
        return found


def summed(x: Tensor, shards: Shards) -> Tensor:
    """The sum of x over the ranks, on every rank."""
    x = x.clone()
    dist.all_reduce(x, group=shards.group)
    return x


def gathered(query: Tensor, key: Tensor, num_frames: int, sites: int | None, shards: Shards) -> tuple[Tensor, Tensor]:
    """This rank's query and key (B, H, L, D) -> those of the whole video at n sites, (B, H, T, n, D), on every rank.

    sites: how many sites of each head (as `cross_frame_intensity`); None = all of them.
    Raises TokenLayoutError when the tokens of all ranks do not divide into frames.
    """
    heads, length = query.shape[1:3]
    first, total = shards.spans(length, query.device)
    if total % num_frames:
        raise TokenLayoutError(
            f"{total} video tokens on {shards.ranks} devices do not divide into {num_frames} frames. Extra tokens "
            "(reference, history) are not supported together with context parallelism."
        )
    S = total // num_frames
    n = S if sites is None else min(sites, S)
    frame = torch.arange(num_frames, device=query.device)[:, None, None] * S  # (T, 1, 1)
    row = frame + spread_sites(n, S, heads, query.device) - first  # (T, n, H), in this rank's rows
    here = ((row >= 0) & (row < length))[..., None]  # (T, n, H, 1)
    row, head = row.clamp(0, length - 1), torch.arange(heads, device=query.device)
    both = torch.stack([x[:, head, row] * here for x in (query, key)])  # (2, B, T, n, H, D)
    dist.all_reduce(both, group=shards.group)
    q, k = both.permute(0, 1, 4, 2, 3, 5)  # (B, H, T, n, D) each
    return q, k


def by_heads(x: Tensor, shards: Shards) -> Tensor:
    """This rank's tokens with all heads (B, H, its L, D) -> all tokens with this rank's heads (B, H/ranks, L, D).

    The number of ranks must divide that of heads.
    """
    B, H, _, D = x.shape
    h, lengths = H // shards.ranks, shards.lengths(x.shape[2], x.device)
    sent = x.unflatten(1, (shards.ranks, h)).transpose(0, 1).flatten(1)  # (ranks, B*h*L of this rank*D)
    sizes = [B * h * length * D for length in lengths]
    parts = _exchanged(sent.flatten(), sizes, [sent.shape[1]] * shards.ranks, shards).split(sizes)
    return torch.cat([part.view(B, h, -1, D) for part in parts], 2)


def by_tokens(x: Tensor, length: int, shards: Shards) -> Tensor:
    """The way back: all tokens, this rank's heads (B, H/ranks, L, D) -> this rank's `length` tokens with all heads."""
    B, h, _, D = x.shape
    parts = x.split(shards.lengths(length, x.device), 2)
    sizes = [part.numel() for part in parts]
    received = [B * h * length * D] * shards.ranks
    found = _exchanged(torch.cat([part.flatten() for part in parts]), received, sizes, shards)
    return found.view(shards.ranks, B, h, length, D).transpose(0, 1).flatten(1, 2)


def _exchanged(x: Tensor, received: list[int], sent: list[int], shards: Shards) -> Tensor:
    """Each rank's part of x (sum of sent,) goes to it; what comes, in the order of the ranks, (sum of received,)."""
    found = x.new_empty(sum(received))
    dist.all_to_all_single(found, x.contiguous(), received, sent, group=shards.group)
    return found
