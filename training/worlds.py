"""The worlds of drawn clips that training uses, one row for each: the shapes (`world.py`) and the puppet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from enhance_a_video.embedded import world as shapes
from enhance_a_video.embedded.puppet import paint
from enhance_a_video.embedded.puppet import world as puppets

NOT_NAMED = -100  # an attribute that a noun does not have: what cross_entropy leaves out


@dataclass(frozen=True)
class World:
    """One world. `cover` arguments average a mask (n, F, H, W) over the frames of each latent frame: (n, T, H, W)."""

    size: int
    frames: int
    fps: float
    prompt: str  # an example
    scene: Callable[[int], Any]  # of training clip i
    held_out: Callable[[int], Any]  # scene i of those that training never draws
    caption: Callable[[Any, np.random.Generator], str]
    render: Callable[[Any], tuple[np.ndarray, Any]]  # frames (F, H, W, 3) uint8, truth
    things: Callable[[Any], np.ndarray]  # truth -> which pixels show no backdrop (F, H, W) bool
    windows: Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]
    # batch, frames -> that many frames of fresh clips (B, F, H, W, 3) uint8, and where things are: (B, F, H, W) bool
    truth_map: Callable[[Any, Any, Callable[[Tensor], Tensor]], np.ndarray]  # scene, truth, cover -> (tokens, W) uint8
    truth_width: int  # W
    words: tuple[str, ...]  # of the sentences; the tokenizer's vocabulary
    nouns: tuple[str, ...]  # whose text states hold their attributes
    attributes: tuple[int, ...]  # how many values each attribute of a noun has
    attributes_of: Callable[[Any], list[tuple[int, ...]]]  # scene -> of each noun of its caption


# --- shapes ------------------------------------------------------------------------------------------------------


def _shape_windows(rng: np.random.Generator, batch: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    starts = rng.integers(0, shapes.FRAMES - frames + 1, batch)
    clips = [shapes.render(shapes.sample_scene(rng), slice(s, s + frames)) for s in starts]
    return np.stack([clip for clip, _ in clips]), np.stack([truth.masks.any(0) for _, truth in clips])


def shape_map(scene: shapes.Scene, truth: shapes.Truth, cover: Callable[[Tensor], Tensor]) -> np.ndarray:
    """The content of a scene on the transformer's grid: (T·4·4, 89) uint8, shares of the area times 255.

    A token is 16 x 16 pixels of a latent frame: how much of each of its 4 x 4 parts is covered by each kind (5·16), how
    much of the whole by each colour (8) and by stripes (1).
    """
    parts = _parts(cover(torch.from_numpy(truth.masks).float()), shapes.SIZE // 16, 4)
    result = torch.zeros(parts.shape[1], SHAPES.truth_width)
    for thing, share in zip(scene.things, parts, strict=True):
        kind, colour = shapes.KINDS.index(thing.kind), list(shapes.COLOURS).index(thing.colour)
        result[:, 16 * kind : 16 * kind + 16] += share
        result[:, 80 + colour] += share.mean(1)
        result[:, 88] += share.mean(1) * (thing.texture == "striped")
    return (255 * result).round().byte().numpy()


def _parts(covered: Tensor, grid: int, side: int) -> Tensor:
    """Shares (n, T, H, W) -> shares of the side x side parts of each of grid x grid tokens: (n, T·grid², side²)."""
    pooled = F.avg_pool2d(covered, covered.shape[-1] // (grid * side))
    pooled = pooled.unflatten(3, (grid, side)).unflatten(2, (grid, side))  # (n, T, row, part, column, part)
    return pooled.transpose(3, 4).reshape(len(covered), -1, side**2)


def _attributes_of_shapes(scene: shapes.Scene) -> list[tuple[int, ...]]:
    names = (list(shapes.MOTIONS), list(shapes.COLOURS), list(shapes.TEXTURES))
    return [
        tuple(n.index(v) for n, v in zip(names, (t.motion, t.colour, t.texture), strict=True)) for t in scene.things
    ]


def _words(phrases: Sequence[str], *more: str) -> tuple[str, ...]:
    return tuple(sorted({word for phrase in phrases for word in phrase.split()} | set(more)))


SHAPES = World(
    size=shapes.SIZE, frames=shapes.FRAMES, fps=shapes.FPS,
    prompt="A red ball bounces up and down while a striped blue star moves to the left over a green meadow.",
    scene=shapes.training_scene, held_out=shapes.held_out_scene, things=lambda truth: truth.masks.any(0),
    caption=shapes.caption, render=shapes.render, windows=_shape_windows,
    truth_map=shape_map, truth_width=16 * len(shapes.KINDS) + len(shapes.COLOURS) + 1,
    words=tuple(sorted({*shapes.words(), ".", ","})),
    nouns=shapes.KINDS, attributes=(len(shapes.MOTIONS), len(shapes.COLOURS), len(shapes.TEXTURES)),
    attributes_of=_attributes_of_shapes,
)  # fmt: skip


# --- puppets -----------------------------------------------------------------------------------------------------

CROP = 64  # pixels: the VAE is trained on parts of the picture, of which one scene gives several
_CROPS = 4


def _puppet_windows(rng: np.random.Generator, batch: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts of the picture, 64 x 64 pixels, two of three of them with something in it; whole clips are not cut."""
    clips = []
    for n in range(batch):
        if n % _CROPS == 0 or frames == puppets.FRAMES:
            start = int(rng.integers(0, puppets.FRAMES - frames + 1))
            clip, truth = paint.render(puppets.sample_scene(rng), window=slice(start, start + frames))
        part = _part(rng, truth.labels) if frames < puppets.FRAMES else np.s_[:]
        clips.append((clip[part], truth.labels[part] > 0))
    return np.stack([clip for clip, _ in clips]), np.stack([things for _, things in clips])


def _part(rng: np.random.Generator, labels: np.ndarray) -> tuple[slice, slice, slice]:
    rows, columns = np.nonzero(labels[len(labels) // 2])
    if len(rows) and rng.random() < 2 / 3:
        n = int(rng.integers(len(rows)))
        corner = np.array([rows[n], columns[n]]) - rng.integers(8, CROP - 8, 2)
    else:
        corner = rng.integers(0, puppets.SIZE - CROP + 1, 2)
    top, left = np.clip(corner, 0, puppets.SIZE - CROP)
    return np.s_[:, top : top + CROP, left : left + CROP]


_COATED = (paint.HEAD, paint.BODY, paint.ARMS, paint.FEET)
_PARTS = (*_COATED, paint.LEFT_HAND, paint.RIGHT_HAND)


def puppet_map(scene: puppets.Scene, truth: paint.Truth, cover: Callable[[Tensor], Tensor]) -> np.ndarray:
    """The content of a scene on the transformer's grid: (T·8·8, 53) uint8, shares of the area times 255.

    A token is 16 x 16 pixels of a latent frame: how much of each of its 2 x 2 parts shows each part of a puppet (6·4)
    and each kind of shape (5·4), how much of the whole each colour (7), stripes and spots (2).
    """
    what: list[tuple[int, str, str | None, str | None]] = []  # label, colour, kind, texture
    if scene.puppet:
        left, right = scene.puppet.gloves
        coat, cloth = scene.puppet.colour, scene.puppet.texture
        what += [(part, coat, None, cloth if part == paint.BODY else None) for part in _COATED]
        what += [(paint.LEFT_HAND, left, None, None), (paint.RIGHT_HAND, right, None, None)]
        if scene.puppet.held:
            held = (*scene.puppet.held, None)
            what += [(paint.HELD + n, *held) for n in range(3 if scene.puppet.action == "juggle" else 1)]
    what += [(paint.THINGS + n, t.colour, t.kind, t.texture) for n, t in enumerate(scene.things)]
    masks = torch.from_numpy(np.stack([truth.labels == label for label, *_ in what])).float()
    parts = _parts(cover(masks), puppets.SIZE // 16, 2)
    result = torch.zeros(parts.shape[1], PUPPETS.truth_width)
    for (label, colour, kind, texture), share in zip(what, parts, strict=True):
        row = _PARTS.index(label) if kind is None else len(_PARTS) + puppets.KINDS.index(kind)
        result[:, 4 * row : 4 * row + 4] += share
        result[:, 44 + list(puppets.COLOURS).index(colour)] += share.mean(1)
        if texture not in (None, "plain"):
            result[:, 51 + (texture == "spotted")] += share.mean(1)
    return (255 * result.clamp(max=1)).round().byte().numpy()


def _attributes_of_puppets(scene: puppets.Scene) -> list[tuple[int, ...]]:
    """Does or moves how, colour, texture, size, left and right glove, side."""
    does, colours = (*puppets.ACTIONS, *puppets.MOTIONS), list(puppets.COLOURS)
    result = []
    if puppet := scene.puppet:
        side = puppets.SIDES.index(puppet.side) if puppet.action in ("wave", "walk") else NOT_NAMED
        result.append((
            does.index(puppet.action), colours.index(puppet.colour), puppets.TEXTURES.index(puppet.texture),
            puppets.SIZES.index(puppet.size), *(colours.index(glove) for glove in puppet.gloves), side,
        ))  # fmt: skip
        if puppet.held:
            result.append((NOT_NAMED, colours.index(puppet.held[0]), *(NOT_NAMED,) * 5))
    for thing in scene.things:
        texture, size = puppets.TEXTURES.index(thing.texture), puppets.SIZES.index(thing.size)
        result.append((does.index(thing.motion), colours.index(thing.colour), texture, size, *(NOT_NAMED,) * 3))
    return result


def _phrases_of_puppets() -> list[str]:
    phrases = [
        *puppets.MOTIONS.values(),
        *puppets.ACTIONS.values(),
        *puppets.BACKDROPS.values(),
        *puppets.CAMERAS.values(),
    ]
    return [
        phrase.replace("{side}", "").replace("{colour}", "").replace("{object}", "")
        for row in phrases
        for phrase in row
    ]


PUPPETS = World(
    size=puppets.SIZE, frames=puppets.FRAMES, fps=puppets.FPS,
    prompt="A large striped green puppet with a red left glove and a yellow right glove waves with the right hand "
    "while a small blue ball rises on a stage.",
    scene=puppets.training_scene, held_out=puppets.held_out_scene, things=lambda truth: truth.labels > 0,
    caption=puppets.caption, render=paint.render, windows=_puppet_windows,
    truth_map=puppet_map, truth_width=4 * (len(_PARTS) + len(puppets.KINDS)) + len(puppets.COLOURS) + 2,
    words=_words(
        _phrases_of_puppets(), *puppets.COLOURS, *puppets.KINDS, *puppets.TEXTURES, *puppets.SIZES, *puppets.SIDES,
        "puppet", "with", "in", "glove", "gloves", "a", "an", "and", "while", ".", ",", ":",
    ),
    nouns=("puppet", "balls", *puppets.KINDS),
    attributes=(len(puppets.ACTIONS) + len(puppets.MOTIONS), len(puppets.COLOURS), len(puppets.TEXTURES),
                len(puppets.SIZES), len(puppets.COLOURS), len(puppets.COLOURS), len(puppets.SIDES)),
    attributes_of=_attributes_of_puppets,
)  # fmt: skip
