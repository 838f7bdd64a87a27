"""What an enhanced layer and the one who watches it have to tell each other."""

import difflib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from ..errors import SettingsError
from ..parallel import Shards
from ..query_key import QueryKey

Rows = slice | Tensor | None
"""Which tokens of a layer's stream are the video: a slice, int64 indices (T*S,), or None for all of them."""


Place = Literal["video only", "text first", "video first", "temporal"]
Keys = Literal["none", "last", "first"]


@dataclass(frozen=True)
class Tokens:
    """How the tokens of one attention layer lie. Its stream is the sequence of video tokens (and perhaps history,
    reference or sound tokens) that it gets as `hidden_states` and returns.

    place      where the stream stands in the query that the kernel gets: "video only" (it is all of it), "text first",
               "video first", or "temporal": the kernel gets one sequence of T tokens for each site, (B*S, H, T, D)
    keys       where the keys of the query's own tokens stand when there are more keys than queries (cached or text
               keys): "none" = that does not happen, "last", "first"
    skips      whether the layer may leave its kernel out (perturbed guidance); then there is nothing to scale
    call       which of the layer's kernel calls is the one, counted from 0; None = one for each sample of the batch
    argument   which positional argument of the processor is the stream, and which part of a tuple it returns; None =
               the layer gets no stream (..., N, C) but a picture or other shape, which is scaled as a whole

    Raises SettingsError for a word or a number that is none of these.
    """

    place: Place
    keys: Keys = "none"
    call: int | None = 0
    argument: int | None = 0
    skips: bool = False

    def __post_init__(self) -> None:
        for name, words in (("place", get_args(Place)), ("keys", get_args(Keys))):
            value = getattr(self, name)
            if value not in words:
                near = difflib.get_close_matches(str(value), words, 1, 0.5)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                raise SettingsError(f"Tokens({name}={value!r}) is unknown. {hint}Known: {', '.join(map(repr, words))}.")
        for name in ("call", "argument"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 0):
                raise SettingsError(f"Tokens({name}={value!r}): give a number counted from 0, or None")
        if not isinstance(self.skips, bool):
            raise SettingsError(f"Tokens(skips={self.skips!r}): give True or False")


WATCH = "_enhance_a_video"  # the only attribute an enhanced processor or module carries besides its own
ENTRY = "_enhance_a_video_calls"  # and the only one of the model around them: the Calls of seam/entry.py


class Watch(Protocol):
    """What an enhanced layer asks while it runs."""

    name: str
    tokens: Tokens
    query_key: QueryKey  # where query and key are seen
    scaled_later: bool  # whether another module's output is scaled instead

    def rows(self) -> Rows:
        """Which tokens of the stream are the video in the present forward call."""

    def look(self, query: Tensor, key: Tensor, scale: float | None, shards: Shards | None) -> Any:
        """Video-only query, key (B, H, T*S, D) and the kernel's own softmax scale -> anything; see gain().

        For temporal layers (B*S, H, T, D). With shards, this rank's part of the T*S tokens.
        """

    def gain(self, seen: list[Any]) -> Tensor | None:
        """What look() returned, once for each kernel call -> gain (B,) or (1,), or None = leave the output alone."""

    # A watch may have one thing more, to compute what the kernel would: attend(call, seen) with a KernelCall and what
    # look() returned -> (B, H, L, D), or None = the kernel's own; attends_compiled says whether dynamo may trace that,
    # attends_sharded whether it can where the tokens lie on several devices.
    # fall_back(reason) -> whether it does without, where that is not possible. And asks_share: gain(seen, residual)
    # also gets a Residual, for which the block around the layer has to be watched too (Entrance).


@dataclass(frozen=True)
class KernelCall:
    """One call of an attention kernel, for a watch that computes it in another way.

    query, key, value (B, H, L, D): text and all that is joined included; keys and values may have fewer heads. video:
    which of the L tokens are the video. mask: as scaled_dot_product_attention takes it, or None.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    video: slice | Tensor
    kernel: Callable[..., Tensor]  # the layer's own, its other arguments filled in; on this device alone
    shards: Shards | None = None  # where these are this rank's part of the tokens, all of them video
    together: Callable[[], Tensor] | None = None  # then: the call as it was, of all ranks

    @property
    def rows(self) -> Tensor:
        """The video's places, (T*S,) int64."""
        every = torch.arange(self.query.shape[2], device=self.query.device)
        return every[self.video]

    @property
    def others(self) -> Tensor:
        """The places of the tokens that are not video, (L - T*S,) int64."""
        if isinstance(self.video, slice):  # without waiting for the device
            every = torch.arange(self.query.shape[2], device=self.query.device)
            start, stop, _ = self.video.indices(len(every))
            return torch.cat([every[:start], every[stop:]])
        left = torch.ones(self.query.shape[2], dtype=torch.bool, device=self.query.device)
        left[self.video] = False
        return left.nonzero().flatten()

    def whole(self) -> Tensor:
        """What the layer's own kernel gives, (B, H, L, D)."""
        if self.together is not None:
            return self.together()
        return self.kernel(self.query, self.key, self.value, self.mask)

    def for_each(self, amount: Tensor) -> Tensor:
        """(B,) or (1,), a number for each sample -> what broadcasts over (B, H, L, D); temporal layers have B*S."""
        amount, batch = amount.to(self.query.device), self.query.shape[0]
        if len(amount) not in (1, batch):
            amount = amount.repeat_interleave(batch // len(amount))
        return amount.view(-1, 1, 1, 1)

    def at(self, rows: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        """What the layer's own kernel says for these query tokens, (B, H, len(rows), D), perhaps of other keys, values.

        Softmax works row by row, so rows alone are what they are in the whole.
        """
        mask = self.mask
        if mask is not None and mask.ndim > 1 and mask.shape[-2] > 1:
            mask = mask[..., rows, :]
        every = len(rows) == self.query.shape[2]
        query = self.query if every else self.query[:, :, rows]
        return self.kernel(query, self.key if key is None else key, self.value if value is None else value, mask)


def fell_back(watch: Any, reason: str) -> bool:
    """Whether a watch that would take the kernel's place does without, for this reason."""
    fall_back = getattr(watch, "fall_back", None)
    return fall_back is not None and bool(fall_back(reason))


class _Call:
    """What the layer that is running, the kernel it calls and the place where it is scaled have to tell each other."""

    watch: Watch | None = None
    length: int = 0  # tokens of the stream
    shards: Shards | None = None  # where the tokens lie on several devices
    kernel_calls: int = 0
    query: Tensor | None = None  # what the modules put out at which query and key are seen
    key: Tensor | None = None
    seen: list[Any]
    late: list[Any] | None = None  # what was seen, until the module that is to be scaled has run
    done: bool = False  # whether that was one inside the layer
    stream: Tensor | None = None  # what entered the innermost of the watched blocks that are running


class _CallInThread(_Call, threading.local):
    pass


_eager, _traced = _CallInThread(), _Call()


def running() -> _Call:
    """This thread's call. A graph holds one call after the other, and dynamo is not at home in a threading.local."""
    return _traced if torch.compiler.is_compiling() else _eager
