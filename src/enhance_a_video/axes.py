"""Axes: partitions of an attention layer's keys into a query's own and the others; needed to add or to choose one.

The library has one idea: multiply the odds that a query attends outside its own group. Which keys are outside is an
axis. Time is the first: a frame's own keys are those of the frame. An axis is a frozen dataclass with a name, and
others(places) is the partition; on plain tensors, without model or handle.

    axis_named("time")      other frames                                          steadiness; the paper's axis
    axis_named("near:2")    other frames at most 2 away                           flicker
    axis_named("far:2")     frames more than 2 away                               identity over a clip
    axis_named("reference") reference tokens, or the first frame without any      identity in image-to-video
    axis_named("prompt")    the prompt's tokens                                   prompt following
    axis_named("sound")     of video the sound, of sound the video                sound that fits
    axis_named("space:2")   places of the own frame more than 2 rows or columns away   global shape against detail

What each is worth was measured: docs/results/axes.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from . import limits
from .errors import SettingsError


@dataclass(frozen=True)
class Places:
    """What the tokens of one attention call are: L queries and K keys.

    query_frame, key_frame   (L,), (K,) int64: the latent frame; -1 = no video
    query_site, key_site     (L,), (K,) int64: the place within its frame, row by row
    width                    columns of a frame's grid of tokens; None = not known
    prompt                   (K,) or (B, 1, K) bool: which keys are the prompt
    reference                (K,) bool: which keys are reference images or history
    query_sound, key_sound   (L,), (K,) bool: which are sound
    """

    query_frame: Tensor
    key_frame: Tensor
    query_site: Tensor
    key_site: Tensor
    width: int | None
    prompt: Tensor
    reference: Tensor
    query_sound: Tensor
    key_sound: Tensor

    def of(self, rows: slice | Tensor) -> Places:
        """The places of some queries and all keys."""
        return replace(
            self, query_frame=self.query_frame[rows], query_site=self.query_site[rows],
            query_sound=self.query_sound[rows],
        )  # fmt: skip

    @property
    def apart(self) -> Tensor:
        """How many frames lie between query and key, (L, K); -1 where one of them is no video."""
        apart = (self.query_frame[:, None] - self.key_frame).abs()
        return torch.where((self.query_frame >= 0)[:, None] & (self.key_frame >= 0), apart, -1)


@dataclass(frozen=True)
class Axis:
    """needs: what a kind of attention must have for it, as Attention.has lists it. The fields are its numbers."""

    name: ClassVar[str]
    needs: ClassVar[str]
    purpose: ClassVar[str]

    def others(self, places: Places) -> Tensor:
        """Which keys are not a query's own, (L, K) or (B, L, K) bool; none for queries that are not video."""
        raise NotImplementedError

    def __str__(self) -> str:
        return ":".join([self.name, *(str(getattr(self, field.name)) for field in fields(self))])


@dataclass(frozen=True)
class Time(Axis):
    """A query's own keys: its frame, and what is not video."""

    name: ClassVar[str] = "time"
    needs: ClassVar[str] = "frames"
    purpose: ClassVar[str] = "steadiness"

    def others(self, places: Places) -> Tensor:
        return places.apart > 0


@dataclass(frozen=True)
class Near(Axis):
    """The others: frames at most `frames` away. A query's own keys: its frame, those further away, what is no video."""

    frames: int = 2

    name: ClassVar[str] = "near"
    needs: ClassVar[str] = "frames"
    purpose: ClassVar[str] = "flicker"

    def others(self, places: Places) -> Tensor:
        apart = places.apart
        return (apart > 0) & (apart <= self.frames)


@dataclass(frozen=True)
class Far(Axis):
    """The others: frames more than `frames` away."""

    frames: int = 2

    name: ClassVar[str] = "far"
    needs: ClassVar[str] = "frames"
    purpose: ClassVar[str] = "identity over a clip"

    def others(self, places: Places) -> Tensor:
        return places.apart > self.frames


@dataclass(frozen=True)
class Reference(Axis):
    """The others: tokens of reference images or history; without any, the first frame, for the frames behind it."""

    name: ClassVar[str] = "reference"
    needs: ClassVar[str] = "frames"
    purpose: ClassVar[str] = "identity of the first frame or of references"

    def others(self, places: Places) -> Tensor:
        first = (places.key_frame == 0) & ~places.reference.any()
        return (places.query_frame > 0)[:, None] & first | (places.query_frame >= 0)[:, None] & places.reference


@dataclass(frozen=True)
class Prompt(Axis):
    """The others: the prompt's tokens. A query's own: the picture or video; of cross-attention, the padding."""

    name: ClassVar[str] = "prompt"
    needs: ClassVar[str] = "prompt"
    purpose: ClassVar[str] = "prompt following"

    def others(self, places: Places) -> Tensor:
        return (places.query_frame >= 0)[:, None] & places.prompt


@dataclass(frozen=True)
class Sound(Axis):
    """The others: of video the sound, of sound the video, where a model has both in one sequence."""

    name: ClassVar[str] = "sound"
    needs: ClassVar[str] = "sound"
    purpose: ClassVar[str] = "sound that fits the video"

    def others(self, places: Places) -> Tensor:
        query_video, key_video = places.query_frame >= 0, places.key_frame >= 0
        return query_video[:, None] & places.key_sound | places.query_sound[:, None] & key_video


@dataclass(frozen=True)
class Space(Axis):
    """The others: places of the query's own frame more than `reach` rows or columns away."""

    reach: int = 2

    name: ClassVar[str] = "space"
    needs: ClassVar[str] = "grid"
    purpose: ClassVar[str] = "global shape against detail"

    def others(self, places: Places) -> Tensor:
        if places.width is None:
            raise SettingsError("axis 'space' needs the rows and columns of a frame's tokens, which are not known here")
        rows, columns = (
            (divided(places.query_site)[:, None] - divided(places.key_site)).abs()
            for divided in (lambda x: x // places.width, lambda x: x % places.width)
        )  # (L, K)
        return (places.apart == 0) & (torch.maximum(rows, columns) > self.reach)


AXES: dict[str, type[Axis]] = {kind.name: kind for kind in (Time, Near, Far, Reference, Prompt, Sound, Space)}
"""By their names in settings and JSON."""


def axis_named(name: str) -> Axis:
    """An axis from its name in settings: "time", or with a number "near:2". Raises SettingsError for an unknown one."""
    word, _, number = str(name).partition(":")
    kind = AXES.get(word)
    if kind is None:
        raise SettingsError(f"axis {name!r} is unknown: give {', '.join(map(repr, AXES))}")
    names = [field.name for field in fields(kind)]
    if not number:
        return kind()
    if not names or not number.isdecimal():
        example = f"'{word}:2', with a whole number" if names else f"{word!r}, without a number"
        raise SettingsError(f"axis {name!r}: give {example}")
    return kind(**{names[0]: limits.whole(f"the number of axis {word!r}", int(number), 1)})
