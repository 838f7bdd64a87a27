"""One layer of an enhanced model: can its operator act? -> mass -> policy -> operator -> record."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .attention import Rows
from .axes import Axis, Time
from .errors import TokenLayoutError, UnsupportedModelError
from .intensity import temporal_attention_map
from .models import Attention
from .operators import AttentionCall, Operator, usable
from .policies import GainContext, Policy
from .record import Recorder
from .settings import Settings
from .sharding import Shards, gathered, summed


def timed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Add the host time of a method to self.recorder; inside torch.compile there is none to measure."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any) -> Any:
        recorder: Recorder = self.recorder
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
class ForwardContext:
    """What one forward call is about."""

    num_frames: int
    batch: int | None  # samples, where the call shows it
    rows: tuple[Rows, ...]  # which tokens of a layer's stream are the video, for each kind of attention
    facts: tuple[dict[str, Any], ...]  # what else an AttentionCall has of it, for each kind of attention
    progress: Tensor  # () fp32
    active: Tensor  # () bool
    row: Tensor  # (1,) of the record
    plain: bool = False  # whether it is left alone: the unconditional pass, where only the conditional one is changed
    conditional: Tensor | None = None  # (B,) bool, where both passes are in one batch


class Observation(NamedTuple):
    """What was measured in one kernel call: masses (B, n) of its sites, None where an operator has acted in its place;
    maps (B, T, T), if they are wanted."""

    masses: Tensor | None
    maps: Tensor | None = None


class Shared(Protocol):
    """What all layers of an enhanced transformer share, as a layer uses it; `Denoiser` has it."""

    settings: Settings
    described: bool  # by its user: the layout is checked more closely
    device: torch.device
    recorder: Recorder
    policy: Policy
    policy_of_whole: Policy  # where the whole output is scaled in place of a part of it

    @property
    def now(self) -> ForwardContext | None:
        """The forward call that is running in this thread."""

    @property
    def tried_gain(self) -> float | None:
        """The gain of a trial (probe.py), while there is one."""

    def ran_outside(self, layer: str) -> None:
        """A layer of this name runs outside of a forward call."""


class EnhancedLayer:
    """The observer of one attention layer. What differs between layers is tensors, so all share one compiled graph."""

    def __init__(
        self, name: str, columns: list[int], depth: float, kind: Attention, kind_index: int, axes: tuple[Axis, ...],
        operator: Operator, shared: Shared,
    ):  # fmt: skip
        """columns: those of the record, one for each of the layer's axes. kind, kind_index: its kind of attention, and
        the place of that in the tuples of a ForwardContext."""
        self.name, self.shared = name, shared
        self.kind, self.kind_index, self.axes = kind, kind_index, axes
        self.needs_frames = all(axis.needs == "frames" for axis in axes)
        self.tokens, self.query_key = kind.tokens, kind.query_key
        self.scaled_later = kind.scale_at is not None
        self.ran = False  # whether its kernel was seen in a forward call; not known inside torch.compile
        self.operator = operator  # or what stands in for it here
        self.reason = ""  # why another operator stands in
        self.indices = [torch.tensor(column, device=shared.device) for column in columns]
        self.depth = torch.tensor(depth, device=shared.device)
        odds = shared.settings.odds_by_axis
        self.odds = torch.tensor([odds.get(str(axis), 1.0) for axis in axes], device=shared.device)  # of Biased

    @property
    def recorder(self) -> Recorder:
        return self.shared.recorder

    def to(self, device: torch.device) -> None:
        self.indices = [index.to(device) for index in self.indices]
        self.depth, self.odds = self.depth.to(device), self.odds.to(device)

    # --------------------------------------------------------------------------------- what the patched layer reads
    @property
    def acts_at_kernel(self) -> bool:
        return self.operator.acts == "kernel"

    @property
    def whole(self) -> str:
        """Why the whole output is scaled in place of a part of it, or ""."""
        return self.reason if self.operator.acts == "output" else ""

    @property
    def num_frames(self) -> int:
        now = self.shared.now
        return 1 if now is None else now.num_frames

    @property
    def samples(self) -> int | None:
        now = self.shared.now
        return now.batch if now is not None and self.tokens.place == "temporal" else None

    def rows(self) -> Rows:
        now = self.shared.now
        return None if now is None else now.rows[self.kind_index]

    def facts(self) -> dict[str, Any]:
        now = self.shared.now
        return {} if now is None else now.facts[self.kind_index]

    def fall_back(self, reason: str) -> None:
        """To the first fallback that acts on the output. Raises UnsupportedModelError where there is none."""
        operator: Operator | None = self.operator
        while operator is not None and operator.acts == "kernel":
            operator = operator.fallback
        if operator is None:
            raise UnsupportedModelError(
                f"{self.name}: {reason}, so it cannot be replaced by another attention. {self._way_out}"
            )
        self.operator, self.reason = operator, reason

    @property
    def _way_out(self) -> str:
        """What to do where the layer's attention cannot be changed."""
        whole = ", or scale its whole output: enhance() with a strength can." if self.axes == (Time(),) else ""
        return f"Leave the layer out with layers=...{whole}"

    # -------------------------------------------------------------------------------------------- a kernel is called
    def observe(self, call: AttentionCall) -> tuple[Observation | None, Tensor | None]:
        """Measure, and act where that is in the kernel's place: what was measured, and the kernel's new output."""
        now = self.shared.now
        if now is None:
            self.shared.ran_outside(self.name)
            return None, None
        if not torch.compiler.is_compiling():
            self.ran = True
        if now.plain or (now.num_frames == 1 and self.needs_frames):
            return None, None
        if self.shared.tried_gain is not None:
            return Observation(call.query.new_ones(1, 1)), None
        self._choose(call, now)
        maps = self._maps(call) if self.shared.settings.attention_maps else None
        if self.operator.acts == "output":
            return Observation(self._mass(call), maps), None
        if self.shared.settings.observe_only or self._inactive(now):  # the kernel's own, to the bit
            self._gains(self._mass(call), call.shards, now)
            return Observation(None, maps), None
        begun = self.operator.begin(call)
        return Observation(None, maps), self._finish(call, begun, now)

    def _inactive(self, now: ForwardContext) -> bool:
        """Whether the call is known to be outside the window, without making a graph or waiting for a device."""
        if torch.compiler.is_compiling():
            return False
        if self.shared.settings.always:
            return False
        exact = self.operator.mass_needed in ("log-sum-exp", "shares")
        on_host = exact and now.active.device.type == "cpu"  # waits for nothing
        other_kernel = self.operator.mass_needed == "shares"  # a bias of zeros may lead to another kernel
        return (on_host or other_kernel or not self.operator.compiles) and not bool(now.active)

    @timed
    def _choose(self, call: AttentionCall, now: ForwardContext) -> None:
        """Check how the tokens lie and whether the operator can act on them, before anything is measured."""
        self._check(call, now)
        try:
            operator, reasons = usable(self.operator, call)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{self.name}: {error}. {self._way_out}") from None
        if reasons:
            self.operator, self.reason = operator, reasons[-1]

    @timed
    def _maps(self, call: AttentionCall) -> Tensor:
        """The layer's temporal attention map of each sample, (B, T, T)."""
        (query, key), sites = call.video_query_key(), self.shared.settings.sites
        if call.shards is not None:
            query, key = gathered(query, key, call.num_frames, sites, call.shards)
            sites = None
        return temporal_attention_map(query, key, call.num_frames, sites=sites, scale=call.scale)

    @timed
    def _mass(self, call: AttentionCall) -> Tensor:
        return self.operator.mass(call)

    @timed
    def _finish(self, call: AttentionCall, begun: Any, now: ForwardContext) -> Tensor:
        """The kernel's output by the operator, (B, H, L, D); the numbers go into the record."""
        return self.operator.finish(call, begun, lambda mass: self._gains(mass, call.shards, now))

    # --------------------------------------------------------------------------------------------------- the gains
    def _gains(self, mass: Tensor, shards: Shards | None, now: ForwardContext) -> Tensor:
        """The gain as it acts now, recorded: of masses of tokens (B, H, T*S) one for each, of sites (B, n) one for
        each sample, (B,) or (1,). Of shares (axes, B) it is the odds, (axes, B) or (axes, 1)."""
        if self.operator.mass_needed == "shares":
            return self._odds(mass, now)
        if mass.ndim == 2:
            return self._of_samples(mass, now)
        each = self.shared.policy(mass.flatten(), self._moment(now))  # (B*H*T*S,)
        found, gain = mass.detach(), each.detach()
        numbers = self._of_all_ranks(
            shards, found.flatten(1).mean(1), gain.mean(0, keepdim=True), (gain <= 1.0).float()
        )
        self._record(now, *numbers)
        acting = torch.where(now.active, each, 1.0).view_as(mass)
        if now.conditional is None:
            return acting
        rows = now.conditional.repeat_interleave(len(mass) // len(now.conditional))  # temporal layers have B*S
        return torch.where(rows[:, None, None], acting, 1.0)

    def _odds(self, shares: Tensor, now: ForwardContext) -> Tensor:
        """shares (axes, B) -> the odds of each axis as they act now; share and gain are recorded, axis by axis."""
        odds = self.odds[:, None]  # (axes, 1)
        gains = odds / (1 + (odds - 1) * shares)  # (axes, B)
        for index, share, gain in zip(self.indices, shares, gains, strict=True):
            self._record(now, share, gain, (gain <= 1.0).float(), index)
        acting = torch.where(now.active, odds, 1.0)
        return acting if now.conditional is None else torch.where(now.conditional, acting, 1.0)

    def _of_samples(self, masses: Tensor, now: ForwardContext) -> Tensor:
        """masses (B, n) -> the gain of each sample (B,), or (1,) of the batch, as it acts now, recorded."""
        per_sample = self.shared.settings.per_sample
        mass = masses.mean(1) if per_sample else masses.mean().reshape(1)  # (B,), or (1,) as in the authors' code
        moment = self._moment(now)
        both = torch.cat([mass, masses.flatten()])  # (B + B*n,) the policy is evaluated once
        policy = self.shared.policy_of_whole if self.whole else self.shared.policy
        gain, each = policy(both, moment).split([len(mass), masses.numel()])
        self._record(now, mass, gain, (each <= 1.0).float())
        acting = torch.where(now.active, gain, 1.0)
        return acting if now.conditional is None else torch.where(now.conditional, acting, 1.0)

    def _record(
        self, now: ForwardContext, mass: Tensor, gain: Tensor, clipped: Tensor, index: Tensor | None = None
    ) -> None:
        index = self.indices[0] if index is None else index
        self.recorder.layer(now.row, index, mass, torch.where(now.active, gain, 1.0), clipped)

    def _moment(self, now: ForwardContext) -> GainContext:
        return GainContext(num_frames=now.num_frames, layer=self.depth, progress=now.progress)

    @staticmethod
    def _of_all_ranks(shards: Shards | None, *numbers: Tensor) -> list[Tensor]:
        """Means over the ranks, whose heads are as many; to be recorded, so only their means over the rest matter."""
        if shards is None:
            return list(numbers)
        return [summed(number.mean(0, keepdim=True), shards) / shards.ranks for number in numbers]

    # ------------------------------------------------------------------------------------------ the layer has run
    @timed
    def gain(self, seen: list[Observation | None]) -> Tensor | None:
        """What was measured, call by call -> the whole output's gain (B,) or (1,); None = leave the output alone."""
        now = self.shared.now
        found = [each for each in seen if each is not None]
        if now is None or not found:
            return None
        if self.shared.tried_gain is not None:
            return (
                None if found[0].masses is None else torch.full((1,), self.shared.tried_gain, device=self.shared.device)
            )
        maps = [each.maps for each in found if each.maps is not None]
        if maps:
            self.recorder.layer_map(now.row, self.indices[0], torch.cat(maps))
        masses = [each.masses for each in found if each.masses is not None]
        if not masses:
            return None
        gain = self._of_samples(masses[0] if len(masses) == 1 else torch.cat(masses), now)
        return None if self.shared.settings.observe_only else gain

    # -------------------------------------------------------------------------------------------------- the layout
    def _check(self, call: AttentionCall, now: ForwardContext) -> None:
        """Raise TokenLayoutError for tokens that do not lie as the row describes."""
        if self.tokens.place == "cross":
            return
        sequences, _, tokens, _ = call.query.shape
        if self.tokens.place == "temporal":
            self._check_temporal(sequences, tokens, now)
            return
        video = call.num_video
        if self.shared.described and video == now.num_frames and sequences > 1:
            raise TokenLayoutError(
                f"{self.name}: {sequences} sequences of {now.num_frames} tokens for {now.num_frames} frames, one token "
                f"a frame: this seems to be a temporal layer. Describe it as Tokens('temporal'), not "
                f"{self.tokens.place!r}."
            )
        if call.shards is None and video % now.num_frames:
            raise TokenLayoutError(
                f"{self.name}: {video} video tokens do not divide into {now.num_frames} frames. Extra tokens "
                "(reference, history) are not supported here: remove the enhancement, or leave the layer out with "
                "layers=..."
            )

    def _check_temporal(self, sequences: int, tokens: int, now: ForwardContext) -> None:
        if now.batch is None:
            raise TokenLayoutError(
                f"{self.name}: the forward call got no tensor, so the number of videos in it is unknown: give batch=..."
            )
        if tokens != now.num_frames:
            raise TokenLayoutError(
                f"{self.name}: a temporal layer of {now.num_frames} frames gets sequences of that many tokens, but the "
                f"kernel got {tokens}. Give frames=... or tokens=... as the layer has them, or leave it out with "
                "layers=..."
            )
        if sequences % now.batch:
            raise TokenLayoutError(
                f"{self.name}: {sequences} sequences do not divide among {now.batch} videos: give batch=..., the "
                "number of videos in a call"
            )
