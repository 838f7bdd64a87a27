"""The interface between a patched attention layer and its observer; where the layer's tokens lie."""

from __future__ import annotations

import difflib
import threading
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from ..errors import SettingsError
from ..operators import AttentionCall
from ..sharding import Shards
from .query_key import QueryKey

Rows = slice | Tensor | None
"""Which tokens of a layer's stream are the video: a slice, int64 indices (T*S,), or None for all of them."""


Place = Literal["video only", "text first", "video first", "temporal", "cross"]
Keys = Literal["none", "last", "first"]


@dataclass(frozen=True)
class Tokens:
    """How the tokens of one attention layer lie. Its stream is the sequence of video tokens (and perhaps history,
    reference or sound tokens) that it gets as `hidden_states` and returns.

    place      where the stream stands in the query that the kernel gets: "video only" (it is all of it), "text first",
               "video first", or "temporal": the kernel gets one sequence of T tokens for each site, (B*S, H, T, D);
               "cross": its keys are not the stream's but the prompt's
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


OBSERVER = "_enhance_a_video"  # the only attribute an enhanced processor or module carries besides its own
ENTRY = "_enhance_a_video_calls"  # and the only one of the model around them: the Calls of attention/entry.py


class AttentionObserver(Protocol):
    """What a patched attention layer reports to, and reads from."""

    name: str
    tokens: Tokens
    query_key: QueryKey  # where query and key are observed
    scaled_later: bool  # whether another module's output is scaled instead

    @property
    def acts_at_kernel(self) -> bool:
        """Whether observe() may return what takes the place of the kernel's output."""

    @property
    def num_frames(self) -> int:
        """T of the present forward call."""

    @property
    def samples(self) -> int | None:
        """The number of videos in it, for temporal layers; else None."""

    def rows(self) -> Rows:
        """Which tokens of the stream are the video in the present forward call."""

    def facts(self) -> dict[str, Any]:
        """More facts of the present forward call for an AttentionCall: columns, prompt, shared."""

    def fall_back(self, reason: str) -> None:
        """The kernel's place cannot be taken. Raises UnsupportedModelError where nothing else will do."""

    def observe(self, call: AttentionCall) -> tuple[Any, Tensor | None]:
        """A kernel is called: anything, for gain(), and what takes the place of its output, (B, H, L, D), or None."""

    def gain(self, observations: list[Any]) -> Tensor | None:
        """What observe() returned first, once for each kernel call -> gain (B,) or (1,), or None = leave it alone."""


class _Call:
    """What a running layer, its kernel and the place where it is scaled pass to each other."""

    observer: AttentionObserver | None = None
    length: int = 0  # tokens of the stream
    shards: Shards | None = None  # where the tokens lie on several devices
    kernel_calls: int = 0
    query: Tensor | None = None  # what the modules put out at which query and key are observed
    key: Tensor | None = None
    observations: list[Any]
    late: list[Any] | None = None  # what was observed, until the module that is to be scaled has run
    done: bool = False  # whether that was one inside the layer


class _CallInThread(_Call, threading.local):
    pass


_eager, _traced = _CallInThread(), _Call()


def running() -> _Call:
    """This thread's call. A graph holds one call after the other, and dynamo is not at home in a threading.local."""
    return _traced if torch.compiler.is_compiling() else _eager
