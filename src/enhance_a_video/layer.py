"""One attention layer of an enhanced model: what it sees becomes a gain, which acts and goes into the record."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import cross_frame
from .errors import TokenLayoutError, UnsupportedModelError
from .intensity import site_mass, temporal_attention_map, token_mass
from .parallel import Shards, by_heads, gathered, summed
from .policy import CROSS_FRAME, Moment
from .seam import KernelCall, Residual, Rows


def timed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Add the host time of a method to the record of self.denoiser; inside torch.compile there is none to measure."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any) -> Any:
        recorder = self.denoiser.recorder
        if torch.compiler.is_compiling():
            recorder.compiled = True
            return method(self, *args)
        begin = time.perf_counter()
        try:
            return method(self, *args)
        finally:
            recorder.seconds += time.perf_counter() - begin

    return wrapper


@dataclasses.dataclass
class Now:
    """What one forward call is about."""

    num_frames: int
    batch: int | None  # samples, where the call tells
    rows: Rows  # which tokens of a layer's stream are the video
    progress: Tensor  # () fp32
    active: Tensor  # () bool
    row: Tensor  # (1,) of the record


class Seen(NamedTuple):
    """What a layer saw in one kernel call.

    masses: of the sites (B, n), or of all heads and tokens (B, H, T, S) where the gain acts on each. maps: (B, T, T),
    if they are wanted. shards: where the tokens lie on several devices; then those heads are this rank's.
    """

    masses: Tensor
    maps: Tensor | None = None
    shards: Shards | None = None


class Layer:
    """The watch on one attention layer (see seam.Watch). What differs between layers is tensors: one compiled graph."""

    def __init__(self, name: str, index: int, depth: float, denoiser: Any):
        self.name, self.denoiser = name, denoiser
        self.tokens, self.query_key = denoiser.family.tokens, denoiser.family.query_key
        self.scaled_later = denoiser.family.scale_at is not None
        self.asks_share = denoiser.asks_share
        settings, self.attend = denoiser.settings, None
        self.ran = False  # whether its kernel was seen in a forward call; not known inside torch.compile
        self.whole = ""  # why the whole output is scaled although odds were asked for
        self.attends_compiled = self.attends_sharded = denoiser.enhancement.alternative is None
        if denoiser.enhancement.alternative is not None:
            self.attend = self._attend
        elif settings.scale == CROSS_FRAME and not settings.observe_only:
            self.attend = self._scale_cross_frame
        self.index = torch.tensor(index, device=denoiser.device)
        self.depth = torch.tensor(depth, device=denoiser.device)

    @property
    def by_token(self) -> bool:
        """Whether each token of each head has a gain of its own, which acts in the kernel's place."""
        return self.denoiser.settings.scale == CROSS_FRAME and not self.whole

    def fall_back(self, reason: str) -> bool:
        """Scale the whole output instead of its cross-frame part; not where that part was asked for by name."""
        if self.denoiser.settings.odds is None or self.denoiser.enhancement.alternative is not None:
            return False
        self.attend, self.whole = None, reason
        return True

    def to(self, device: torch.device) -> None:
        self.index, self.depth = self.index.to(device), self.depth.to(device)

    def rows(self) -> Rows:
        now = self.denoiser.now
        return None if now is None else now.rows

    @timed
    def look(self, query: Tensor, key: Tensor, scale: float | None, shards: Shards | None) -> Seen | None:
        """query, key (B, H, T*S, D) -> what there is to see; None: leave it alone."""
        now, wants_maps = self.denoiser.now, self.denoiser.settings.attention_maps
        if now is None:
            self.denoiser.warn_about_outside(self.name)
            return None
        if not torch.compiler.is_compiling():
            self.ran = True
        if now.num_frames == 1 or self._tried_gain is not None:
            return None if now.num_frames == 1 else Seen(query.new_ones(1, 1))
        T = now.num_frames
        query, key = query.detach(), key.detach()
        if self.tokens.place == "temporal":  # (B*S, H, T, D) -> (B, H, T, S, D)
            batch = self._check_temporal(query, now)
            query, key = (x.unflatten(0, (batch, -1)).permute(0, 2, 3, 1, 4) for x in (query, key))
        elif self.denoiser.described and query.shape[2] == T and query.shape[0] > 1:
            raise TokenLayoutError(
                f"{self.name}: {query.shape[0]} sequences of {T} tokens for {T} frames, one token a frame: this looks "
                f"like a temporal layer. Describe it as Tokens('temporal'), not {self.tokens.place!r}."
            )
        if self.by_token and shards is not None:
            self._check_heads(query.shape[1], shards)
        masses = maps = None
        if self.by_token:
            q, k = (query, key) if shards is None else (by_heads(query, shards), by_heads(key, shards))
            self._check_frames(q, T)
            masses = token_mass(q, k, T, scale=scale)  # (B, H, T, S)
        if wants_maps or masses is None:
            (q, k), sites = (query, key), self.denoiser.settings.sites
            if shards is not None:
                (q, k), sites = gathered(query, key, T, sites, shards), None  # (B, H, T, n, D): all that is left
            self._check_frames(q, T)
            masses = site_mass(q, k, T, sites=sites, scale=scale) if masses is None else masses  # (B, n)
            maps = temporal_attention_map(q, k, T, sites=sites, scale=scale) if wants_maps else None  # (B, T, T)
        return Seen(masses, maps, shards)

    @property
    def _tried_gain(self) -> float | None:
        """The gain of a trial (probe.py), while there is one."""
        probe = self.denoiser.probe
        return None if probe is None else probe.gain

    def _check_temporal(self, query: Tensor, now: Now) -> int:
        """The batch of a temporal layer's query (B*S, H, T, D). Raises TokenLayoutError for one that is not so."""
        if now.batch is None:
            raise TokenLayoutError(
                f"{self.name}: the forward call got no tensor, so the number of videos in it is unknown: give batch=..."
            )
        if query.shape[2] != now.num_frames:
            raise TokenLayoutError(
                f"{self.name}: a temporal layer of {now.num_frames} frames gets sequences of that many tokens, but the "
                f"kernel got {query.shape[2]}. Give frames=... or tokens=... as the layer has them, or leave it out "
                "with layers=..."
            )
        if query.shape[0] % now.batch:
            raise TokenLayoutError(
                f"{self.name}: {query.shape[0]} sequences do not divide among {now.batch} videos: give batch=..., the "
                "number of videos in a call"
            )
        return now.batch

    def _check_frames(self, query: Tensor, num_frames: int) -> None:
        if query.ndim == 4 and query.shape[2] % num_frames:
            raise TokenLayoutError(
                f"{self.name}: {query.shape[2]} video tokens do not divide into {num_frames} frames. Extra tokens "
                "(reference, history) are not supported here: remove the enhancement, or leave the layer out with "
                "layers=..."
            )

    def _check_heads(self, heads: int, shards: Shards) -> None:
        """Fall back, or raise UnsupportedModelError, where the ranks cannot share the heads evenly."""
        if not heads % shards.ranks:
            return
        reason = f"{heads} heads do not divide among {shards.ranks} devices"
        if not self.fall_back(reason):
            raise UnsupportedModelError(f"{self.name}: {reason}. Scale the whole output: enhance() with a strength.")

    def _attend(self, call: KernelCall, seen: Seen | None) -> Tensor | None:
        """An alternative's attention in the kernel's place; None outside its window: the kernel's own, to the bit."""
        denoiser, now = self.denoiser, self.denoiser.now
        alternative = denoiser.enhancement.alternative
        if alternative is None or seen is None or now is None or self._tried_gain is not None or not bool(now.active):
            return None
        amount = denoiser.policy(self._of_samples(seen.masses.flatten(1).mean(1)), self._moment(now))
        return alternative.attend(call, amount, now.num_frames)

    def _scale_cross_frame(self, call: KernelCall, seen: Seen | None) -> Tensor | None:
        """The attention with what comes from other frames multiplied by the gain: a gain of 1 outside the window."""
        now = self.denoiser.now
        if seen is None or now is None or self._tried_gain is not None:
            return None
        return self._cross_frame_scaled(call.whole(), call, seen, now)

    @timed  # the kernel's own work is not the method's
    def _cross_frame_scaled(self, output: Tensor, call: KernelCall, seen: Seen, now: Now) -> Tensor:
        """The output (B, H, L, D) scaled by each token's gain, which goes into the record."""
        gain = self._gain_of_tokens(seen, now)
        if self.tokens.place == "temporal":
            gain = gain.permute(0, 3, 1, 2).flatten(0, 1)  # (B*S, H, T)
        return cross_frame.scaled(output, call, gain.flatten(2), now.num_frames)

    def _gain_of_tokens(self, seen: Seen, now: Now) -> Tensor:
        """The gain of each token of each head, (B, H, T, S), as it acts now; the record gets the means over them."""
        each = self.denoiser.policy(seen.masses.flatten(), self._moment(now))  # (B*H*T*S,)
        mass = self._of_samples(seen.masses.flatten(1).mean(1))  # (B,) or (1,)
        numbers = self._of_all_ranks(seen.shards, mass, each.mean(0, keepdim=True), (each <= 1.0).float())
        self._record(now, *numbers)
        return torch.where(now.active, each, 1.0).view_as(seen.masses)

    def _record(self, now: Now, mass: Tensor, gain: Tensor, clipped: Tensor) -> None:
        self.denoiser.recorder.layer(now.row, self.index, mass, torch.where(now.active, gain, 1.0), clipped)

    def _of_samples(self, mass: Tensor) -> Tensor:
        """mass (B,) -> of each sample (B,), or of the batch (1,), as in the authors' code."""
        return mass if self.denoiser.settings.per_sample else mass.mean(0, keepdim=True)

    def _moment(self, now: Now) -> Moment:
        return Moment(num_frames=now.num_frames, layer=self.depth, progress=now.progress)

    @timed
    def gain(self, seen: list[Seen | None], residual: Residual | None = None) -> Tensor | None:
        """What look() saw, call by call -> gain (B,) or (1,); None = leave the output alone."""
        denoiser, now = self.denoiser, self.denoiser.now
        looks = [look for look in seen if look is not None]
        if now is None or not looks:
            return None
        if self._tried_gain is not None:
            return torch.full((1,), self._tried_gain, device=looks[0].masses.device)
        maps = [look.maps for look in looks if look.maps is not None]
        if maps:
            denoiser.recorder.layer_map(now.row, self.index, torch.cat(maps))
        if self.by_token:
            if self.attend is None:  # only observed: otherwise it has acted, and was recorded, in the kernel's place
                self._gain_of_tokens(looks[0], now)
            return None
        masses = looks[0].masses if len(looks) == 1 else torch.cat([look.masses for look in looks])
        mass = self._of_samples(masses.flatten(1).mean(1))  # (B,) or (1,)
        gain, each = self._of_whole(mass, masses, self._moment(now), residual)
        self._record(now, mass, gain, each <= 1.0)
        return None if denoiser.settings.observe_only else torch.where(now.active, gain, 1.0)

    @staticmethod
    def _of_all_ranks(shards: Shards | None, *numbers: Tensor) -> list[Tensor]:
        """Means over the ranks, whose heads are as many; to be recorded, so only their means over the rest matter."""
        if shards is None:
            return list(numbers)
        return [summed(number.mean(0, keepdim=True), shards) / shards.ranks for number in numbers]

    def _of_whole(
        self, mass: Tensor, masses: Tensor, moment: Moment, residual: Residual | None
    ) -> tuple[Tensor, Tensor]:
        """mass (B,) or (1,), masses (B, n) -> the whole output's gain (B,) or (1,), and that of each site (B*n,)."""
        policy = self.denoiser.policy_of_whole if self.whole else self.denoiser.policy
        if residual is None:
            return policy(mass, moment), policy(masses.flatten(), moment)
        share = residual.share(len(mass))  # (B,) or (1,)
        gain = policy(mass, dataclasses.replace(moment, share=share))
        share = share.repeat_interleave(masses.numel() // len(mass))  # each site has that of its sample
        return gain, policy(masses.flatten(), dataclasses.replace(moment, share=share))
