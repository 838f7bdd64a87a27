"""The paper's way: the layer's whole output is multiplied by the gain, after its output projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..intensity import DEFAULT_SITES, site_mass
from ..sharding import gathered
from .base import Operator
from .call import AttentionCall


@dataclass(frozen=True)
class Output(Operator):
    """All that the layer puts out for the video, by one gain for each sample; sites: as cross_frame_intensity()."""

    sites: int | None = DEFAULT_SITES

    name: ClassVar[str] = "output"
    mass_needed = "sites"
    acts = "output"

    def mass(self, call: AttentionCall) -> Tensor:
        query, key = call.video_query_key()
        return mass_of_sites(call, query, key, self.sites)


def mass_of_sites(call: AttentionCall, query: Tensor, key: Tensor, sites: int | None) -> Tensor:
    """The mass at some sites of the video's query and key, (B, n) fp32, the same on every rank."""
    if call.shards is not None:
        query, key = gathered(query, key, call.num_frames, sites, call.shards)  # (B, H, T, n, D): all that is left
        sites = None
    return site_mass(query, key, call.num_frames, sites=sites, scale=call.scale)


def scaled(output: Any, gain: Tensor, rows: slice | Tensor | None = None, part: int = 0) -> Any:
    """Scale the video: in the tensor (…, N, C), or in one part of a tuple. Computed in fp32, kept in its own dtype.

    gain is (B,) or (1,); for temporal layers the output is (B*S, T, C). rows: the video's among the N tokens.
    """
    if isinstance(output, tuple):
        return (*output[:part], scaled(output[part], gain, rows), *output[part + 1 :])
    gain = gain.to(output.device)
    if output.ndim > 2 and gain.shape[0] not in (1, output.shape[0]):
        gain = gain.repeat_interleave(output.shape[0] // gain.shape[0])  # (B*S,)
    factor = gain.view(-1, *[1] * (output.ndim - 1))  # (B or 1, 1, 1) fp32
    if rows is not None:
        every = torch.ones(*factor.shape[:-2], output.shape[-2], 1, device=output.device)  # (B or 1, N, 1)
        every[..., rows, :] = factor
        factor = every
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or output.dtype == factor.dtype:
        return (output * factor).to(output.dtype)  # (B, N, C)
    return torch.mul(output, factor, out=torch.empty_like(output))  # the same numbers, no fp32 copy in memory
