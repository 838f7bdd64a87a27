"""The method's mathematics: how much a video's frames attend to each other in one attention layer.

Source: Luo et al., "Enhance-A-Video: Better Generated Video for Free" (arXiv 2502.07508), section 3.2, eq. 3 to 6.
Letters: B batch, H heads, T latent frames, S sites per frame, L = T·S video tokens, D head dimension.

At one site, softmax over frames gives A[t, t'], a (T, T) matrix whose rows sum to 1. The paper adds up A off its
diagonal and divides by T(T-1). As the rows sum to 1, what is off the diagonal is one minus what is on it:

    mass       m   = 1 - mean over t of A[t, t]       0: every frame attends only to itself; 1: only the others
    intensity  CFI = m / (T - 1)                      the paper's Cross-Frame Intensity

So no mask is needed, and m being a plain mean over sites, a spread subset of them estimates it
(docs/reference/method.md).
Everything here is tensors in, tensor out: no model, no host synchronisation, no branch on data.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .errors import SettingsError, TokenLayoutError

DEFAULT_SITES = 24
"""Sites that each head measures unless given otherwise; the error table is printed by benchmarks/sites_error.py."""

_PIECE_BYTES = 2**20  # fp32 bytes of q in one piece: small enough to stay in a core's cache
_MAX_PIECES = 32  # and no more pieces than this: on an accelerator each one costs kernel launches
_GOLDEN = 40503  # 2**16 times the golden ratio's fraction: its multiples spread best over an interval


def cross_frame_intensity(
    query: Tensor,
    key: Tensor,
    num_frames: int,
    *,
    sites: int | None = DEFAULT_SITES,
    scale: float | None = None,
) -> Tensor:
    """Cross-Frame Intensity of one attention layer, for each sample (the paper's eq. 5).

    Args:
        query, key: (B, H, L, D), any float dtype and any strides: the **video tokens only**, frame-major
            (L = T·S, all sites of frame 0 first), after q/k normalisation and rotary embedding.
        num_frames: T, the number of latent frames.
        sites: how many of the S sites each head measures, evenly spread; ``None`` is exact (all of them).
        scale: the softmax scale of the layer; D ** -0.5 unless given.

    Returns:
        (B,) fp32, between 0 and 1/(T-1); 0 for a single frame. Computed in fp32 whatever the input's dtype.

    Raises:
        TokenLayoutError: the tokens do not divide into ``num_frames`` frames, or the shapes do not belong together.
        SettingsError: ``sites`` is below 1.
    """
    return cross_frame_mass(query, key, num_frames, sites=sites, scale=scale) / max(num_frames - 1, 1)


def cross_frame_mass(
    query: Tensor,
    key: Tensor,
    num_frames: int,
    *,
    sites: int | None = DEFAULT_SITES,
    scale: float | None = None,
) -> Tensor:
    """Share of temporal attention that leaves its own frame, (B,) fp32: the mean of `site_mass` (same arguments)."""
    return site_mass(query, key, num_frames, sites=sites, scale=scale).mean(1)


def site_mass(
    query: Tensor,
    key: Tensor,
    num_frames: int,
    *,
    sites: int | None = DEFAULT_SITES,
    scale: float | None = None,
) -> Tensor:
    """Cross-frame mass site by site, (B, n) fp32, the mean over heads and frames; arguments as `cross_frame_intensity`.

    query and key may be divided already, (B, H, T, S, D), as a temporal attention layer has them.
    n is S when exact. When sampled, entry i is the mean over heads of a site each in the i-th of n stretches of the
    frame: the heads measure different sites of it, see `spread_sites`.
    """
    q, k, pieces, scale = _prepare(query, key, num_frames, sites, scale)
    masses = []
    for piece in pieces:
        attention = _temporal_attention(q, k, piece, scale)  # (B, n, H, T, T)
        masses.append(1 - attention.diagonal(dim1=-2, dim2=-1).mean((2, 3)))  # (B, n)
    return torch.cat(masses, 1)


def token_mass(query: Tensor, key: Tensor, num_frames: int, *, scale: float | None = None) -> Tensor:
    """Cross-frame mass of each head and token, (B, H, T, S) fp32: what `site_mass` of all sites is the mean of.

    How much of the attention that a token pays to its own place in all frames leaves its frame. Arguments as
    `cross_frame_intensity`; query and key may be divided already, (B, H, T, S, D).
    """
    q, k, pieces, scale = _prepare(query, key, num_frames, None, scale)
    masses = [1 - _temporal_attention(q, k, piece, scale).diagonal(dim1=-2, dim2=-1) for piece in pieces]
    return torch.cat(masses, 1).permute(0, 2, 3, 1)  # from (B, S, H, T)


def temporal_attention_map(
    query: Tensor,
    key: Tensor,
    num_frames: int,
    *,
    sites: int | None = DEFAULT_SITES,
    scale: float | None = None,
) -> Tensor:
    """Temporal attention, mean over heads and sites, (B, T, T) fp32: row t is how frame t divides its attention.

    Rows sum to 1. Arguments as `cross_frame_intensity`.
    """
    q, k, pieces, scale = _prepare(query, key, num_frames, sites, scale)
    total, seen = torch.zeros((), device=q.device), 0
    for piece in pieces:
        attention = _temporal_attention(q, k, piece, scale).flatten(1, 2)  # (B, n·H, T, T)
        total, seen = total + attention.sum(1), seen + attention.shape[1]
    return total / seen


def spread_sites(count: int, num_sites: int, heads: int, device: torch.device | str = "cpu") -> Tensor:
    """A fixed choice of ``count`` of ``num_sites`` sites for each head: (count, heads) int64, distinct within a head.

    The frame's row-major sites are cut in ``count`` equal stretches and each head takes one of each. Inside its
    stretch it sits at a multiple of the golden ratio, because a plain stride falls on the same few columns of the
    grid in every row whenever it nearly divides the width, which is not known here. Heads are shifted against each
    other, so that together they see many more sites than any of them: measured, that cuts the error several times.
    """
    i = torch.arange(count, device=device)[:, None]  # (n, 1)
    head = torch.arange(heads, device=device)[None]  # (1, H)
    start = i * num_sites // count
    length = (i + 1) * num_sites // count - start
    place = (i * _GOLDEN + head * 2**16 // heads) % 2**16  # where in the stretch, in 1/65536 of its length
    return start + place * length // 2**16


def _prepare(
    query: Tensor, key: Tensor, num_frames: int, sites: int | None, scale: float | None
) -> tuple[Tensor, Tensor, list[slice] | list[Tensor], float]:
    """Checked q and k as (B, H, T, S, D) views, the sites to measure in bounded pieces, and the softmax scale."""
    if sites is not None and sites < 1:
        raise SettingsError(f"sites={sites}: give at least 1 site, or sites=None for all of them (exact).")
    if not (isinstance(query, Tensor) and isinstance(key, Tensor)):
        kinds = f"{type(query).__name__} and {type(key).__name__}"
        raise TokenLayoutError(f"query and key are {kinds}: both must be tensors of shape (B, H, T·S, D).")
    if isinstance(num_frames, bool | float | str) or num_frames is None:
        raise TokenLayoutError(f"num_frames={num_frames!r}: give the number of latent frames, a whole number.")
    T = num_frames
    if query.shape != key.shape or query.ndim not in (4, 5) or (query.ndim == 5 and query.shape[2] != T):
        raise TokenLayoutError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)}: both must have one shape (B, H, T·S, D) or "
            f"(B, H, T, S, D) with T = {T}; pass the video tokens of a self-attention only, without text."
        )
    if query.ndim == 4:
        L = query.shape[2]
        if T < 1 or L < 1 or L % T:
            raise TokenLayoutError(
                f"{L} tokens do not divide into {T} frames: pass video tokens only, "
                "and num_frames as the number of latent frames after patching."
            )
        query, key = query.unflatten(2, (T, L // T)), key.unflatten(2, (T, L // T))
    q, k = query, key  # (B, H, T, S, D)
    B, H, T, S, D = q.shape
    size = max(_PIECE_BYTES // (B * H * T * D * 4), -(-S // _MAX_PIECES), 1)  # sites in a piece
    scale = D**-0.5 if scale is None else scale
    if sites is None or sites >= S:
        return q, k, [slice(s, s + size) for s in range(0, S, size)], scale
    return q, k, list(spread_sites(sites, S, H, query.device).split(size)), scale


def _temporal_attention(q: Tensor, k: Tensor, piece: slice | Tensor, scale: float) -> Tensor:
    """Softmax over frames at the sites of one piece: (B, n, H, T, T) fp32."""
    B, H, T = q.shape[:3]
    with _without_autocast(q.device.type):
        q, k = _rows(q, piece), _rows(k, piece)  # (T, B·n·H, D) fp32
        logits = torch.bmm(q.transpose(0, 1), k.permute(1, 2, 0)) * scale  # (B·n·H, T, T)
        return logits.softmax(-1).view(B, -1, H, T, T)


def _rows(x: Tensor, piece: slice | Tensor) -> Tensor:
    """(B, H, T, S, D) at the sites of one piece as (T, B·n·H, D) fp32; only these sites are ever copied.

    With T in front and sites and heads side by side, as attention layers usually store their tokens, a batched
    matrix product reads the rows where they lie: all sites in fp32 are not copied at all.
    """
    if isinstance(piece, slice):
        return x[:, :, :, piece].permute(2, 0, 3, 1, 4).flatten(1, 3).float()
    B, H, T, _, D = x.shape
    head = torch.arange(H, device=x.device)
    memory = x if x.is_contiguous() else x.permute(0, 2, 3, 1, 4)  # head-major or token-major
    if not memory.is_contiguous():  # part of something bigger, such as a joint sequence with text
        return x[:, head, :, piece].permute(3, 2, 0, 1, 4).flatten(1, 3).float()  # from (n, H, B, T, D)
    batch, heads, frames, sites = (stride // D for stride in x.stride()[:4])  # in rows of D, gathered fastest
    start = torch.arange(T, device=x.device)[:, None] * frames + torch.arange(B, device=x.device) * batch  # (T, B)
    rows = start[..., None] + (piece * sites + head * heads).flatten()  # (T, B, n·H)
    return memory.flatten(0, 3).index_select(0, rows.flatten()).view(T, -1, D).float()


def _without_autocast(device_type: str) -> AbstractContextManager:
    """Autocast would run the matrix product in half precision."""
    # Not read while tracing: dynamo before torch 2.10 cannot follow it, and every device that compiles has autocast.
    available = torch.compiler.is_compiling() or torch.amp.autocast_mode.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if available else nullcontext()
