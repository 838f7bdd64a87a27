"""One call of an attention kernel as plain tensors: what an operator gets.

No model, patch or handle: whoever can give query, key, value and the number of frames can use the operators, as a node
of another program does. Keys that are not video (text, references) are every query's own, like those of its frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..axes import Places
from ..sharding import Shards

Rows = slice | Tensor
"""Places among a call's tokens: a slice, or int64 indices."""


@dataclass(frozen=True)
class AttentionCall:
    """query, key, value (B, H, L, D): all that is joined, text too; keys and values may have fewer heads. value is None
    where only query and key are known: then the kernel's place cannot be taken.

    num_frames    T; 1 for pictures
    video         which of the queries are the video, T*S of them, frame-major
    video_keys    which of the keys those are; None = the same places
    mask          as scaled_dot_product_attention takes it, or None; causal: whether the kernel masks by order
    scale         of the softmax; None = D ** -0.5
    samples       of temporal layers, whose query is (B*S, H, T, D): the number of videos B; None = no such layer
    kernel        the layer's own, (query, key, value, mask) -> (B, H, L, D), on this device alone; None = torch's
    kernel_is_torchs   whether it computes what scaled_dot_product_attention does, by the same kernels
    columns       tokens in a row of a frame; None = not known
    stream        which of the keys are the layer's own stream: what lies outside is the prompt; None = all of them
    sound         which of the stream's tokens are sound, beside video in one sequence; None = none
    prompt        of cross-attention: (B, K) bool, which keys are words of the prompt and not padding; None = no such
    shared        for what the calls of one forward call of the model may share; None = nothing
    shards        where these are this rank's part of the tokens, all of them video
    run_all_ranks   then: the call as it was, of all ranks
    """

    query: Tensor
    key: Tensor
    value: Any
    num_frames: int
    video: Rows = field(default_factory=lambda: slice(None))
    video_keys: Rows | None = None
    mask: Any = None
    causal: bool = False
    scale: float | None = None
    samples: int | None = None
    columns: int | None = None
    stream: Rows | None = None
    sound: Rows | None = None
    prompt: Tensor | None = None
    shared: dict[Any, Any] | None = None
    kernel: Callable[..., Tensor] | None = None
    kernel_is_torchs: bool = False
    shards: Shards | None = None
    run_all_ranks: Callable[[], Tensor] | None = None

    @property
    def num_video(self) -> int:
        """T*S, of this device."""
        return len(self.video) if isinstance(self.video, Tensor) else self.query[:, :, self.video].shape[2]

    @property
    def rows(self) -> Tensor:
        """The video's places among the queries, (T*S,) int64."""
        every = torch.arange(self.query.shape[2], device=self.query.device)
        return every[self.video]

    @property
    def other_rows(self) -> Tensor:
        """The places of the queries that are not video, (L - T*S,) int64."""
        if isinstance(self.video, slice):  # without waiting for the device
            every = torch.arange(self.query.shape[2], device=self.query.device)
            start, stop, _ = self.video.indices(len(every))
            return torch.cat([every[:start], every[stop:]])
        left = torch.ones(self.query.shape[2], dtype=torch.bool, device=self.query.device)
        left[self.video] = False
        return left.nonzero().flatten()

    @property
    def places(self) -> Places:
        """What each query and key is, for axes."""
        device, queries, keys = self.query.device, self.query.shape[2], self.key.shape[2]
        sites = max(self.num_video // self.num_frames, 1)
        index = torch.arange(self.num_video, device=device)

        def placed(values: Tensor, rows: Rows, tokens: int) -> Tensor:
            every = torch.full((tokens,), -1, dtype=torch.int64, device=device)
            every[rows] = values
            return every

        def marked(rows: Rows, tokens: int) -> Tensor:
            every = torch.zeros(tokens, dtype=torch.bool, device=device)
            every[rows] = True
            return every

        frame, site, nothing = index // sites, index % sites, slice(0)
        query_frame, query_site = placed(frame, self.video, queries), placed(site, self.video, queries)
        if self.prompt is not None:
            none = torch.full((keys,), -1, dtype=torch.int64, device=device)
            return Places(
                query_frame, none, query_site, none, self.columns, self.prompt[:, None], marked(nothing, keys),
                marked(nothing, queries), marked(nothing, keys),
            )  # fmt: skip
        at = self.video if self.video_keys is None else self.video_keys
        key_frame = placed(frame, at, keys)
        inside = marked(slice(None) if self.stream is None else self.stream, keys)
        query_sound = marked(nothing if self.sound is None else self.sound, queries)
        key_sound = torch.cat([marked(nothing, keys - queries), query_sound]) if keys > queries else query_sound
        return Places(
            query_frame, key_frame, query_site, placed(site, at, keys), self.columns, ~inside,
            inside & (key_frame < 0) & ~key_sound, query_sound, key_sound,
        )  # fmt: skip

    def video_query_key(self) -> tuple[Tensor, Tensor]:
        """Query and key of the video alone, for measuring: (B, H, T*S, D) each, without gradients.

        Temporal layers' as (B, H, T, S, D).
        """
        query, key = self.query.detach(), self.key.detach()
        if key.shape[1] != query.shape[1]:  # grouped queries share a key head
            key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        query, key = query[:, :, self.video], key[:, :, self.video if self.video_keys is None else self.video_keys]
        if self.samples is None:
            return query, key
        q, k = (x.unflatten(0, (self.samples, -1)).permute(0, 2, 3, 1, 4) for x in (query, key))
        return q, k

    def run(self) -> Tensor:
        """What the layer's own kernel gives, (B, H, L, D)."""
        if self.run_all_ranks is not None:
            return self.run_all_ranks()
        return self.compute(self.query, self.key, self.value, self.mask)

    def run_rows(self, rows: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        """What the layer's own kernel gives for these queries, (B, H, len(rows), D), perhaps of other keys, values.

        Softmax works row by row, so rows alone are what they are in the whole.
        """
        mask = self.mask
        if mask is not None and mask.ndim > 1 and mask.shape[-2] > 1:
            mask = mask[..., rows, :]
        every = len(rows) == self.query.shape[2]
        query = self.query if every else self.query[:, :, rows]
        return self.compute(query, self.key if key is None else key, self.value if value is None else value, mask)

    def compute(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """The layer's own kernel on other tensors, (B, H, queries, D)."""
        if self.kernel is not None:
            return self.kernel(query, key, value, mask)
        grouped = key.shape[1] != query.shape[1]
        return F.scaled_dot_product_attention(query, key, value, mask, scale=self.scale, enable_gqa=grouped)

    def for_each(self, amount: Tensor) -> Tensor:
        """(B,) or (1,), a number for each sample -> what broadcasts over (B, H, L, D); temporal layers have B*S."""
        amount, batch = amount.to(self.query.device), self.query.shape[0]
        if len(amount) not in (1, batch):
            amount = amount.repeat_interleave(batch // len(amount))
        return amount.view(-1, 1, 1, 1)

    @property
    def takes_no_mask(self) -> str:
        """Why no bias can be added to its logits, or ""."""
        if self.causal:
            return "its attention is causal"
        if self.mask is not None and not isinstance(self.mask, Tensor):
            return f"its mask is a {type(self.mask).__name__}"
        return ""

    @property
    def inseparable(self) -> str:
        """Why the keys of one frame cannot be left out of this call, or ""."""
        query, key = self.query.shape, self.key.shape
        if reason := self.takes_no_mask:
            return reason
        if query[0] != key[0] or query[2:] != key[2:]:
            return f"its keys {tuple(key)} are not those of its queries {tuple(query)}"
        return ""
