"""The embedded world: short captioned videos that are drawn, not filmed, so that the truth about them is known.

A `Scene` is the content of a clip: one or two things, each with a colour, a kind, a texture and a motion, before
one of five backdrops. `sample_scene` draws one from a random generator, `caption` puts it into a sentence,
`parse_caption` reads a sentence back, and `render` paints the frames and returns where everything is.
Everything is deterministic in the seed. Units: pixels and frames; positions are (x, y), y grows downward.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ..errors import PromptError
from .motion import FRAMES as FRAMES
from .motion import WORDS, first_word, path_of

SIZE = 64  # pixels, height and width
FPS = 12

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 44),
    "orange": (250, 140, 20),
    "yellow": (252, 224, 50),
    "green": (44, 186, 70),
    "blue": (36, 92, 236),
    "purple": (150, 56, 204),
    "pink": (252, 130, 190),
    "white": (246, 246, 250),
}
KINDS = ("ball", "box", "star", "heart", "ring")
TEXTURES = ("plain", "striped")
MOTIONS: dict[str, tuple[str, ...]] = {  # the first phrase is the plain one
    "right": ("moves to the right", "slides right", "drifts to the right"),
    "left": ("moves to the left", "slides left", "drifts to the left"),
    "up": ("rises", "floats up", "moves upwards"),
    "down": ("sinks", "falls down", "moves downwards"),
    "bounce": ("bounces up and down", "bounces", "hops up and down"),
    "swing": ("swings from side to side", "sways left and right", "goes back and forth"),
    "circle": ("moves in a circle", "circles", "goes round and round"),
}
BACKDROPS: dict[str, str] = {
    "meadow": "over a green meadow",
    "night": "in the night sky",
    "wall": "in front of a brick wall",
    "desert": "in the desert",
    "sea": "above the sea",
}
# What a reader may write for each backdrop. Order matters: the first hit wins.
_BACKDROP_WORDS = {"meadow": "meadow|grass|field", "night": "night|stars?\\b.*sky|space", "wall": "brick|wall",
                   "desert": "desert|sand|dune", "sea": "sea|ocean|water"}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """One object of a scene. `radius`, `start` (x, y) and `reach` in pixels; `phase` in radians."""

    colour: str
    kind: str
    texture: str
    motion: str
    radius: float = 14.0
    start: tuple[float, float] = (32.0, 32.0)
    reach: float = 28.0
    phase: float = 0.0

    @property
    def noun(self) -> str:
        return f"{'striped ' if self.texture == 'striped' else ''}{self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """The content of a clip. The first thing is in front."""

    things: tuple[Thing, ...]
    backdrop: str


@dataclass(frozen=True)
class Truth:
    """Where everything is: `centres` (things, frames, 2) as (x, y); `masks` (things, frames, H, W) bool."""

    centres: np.ndarray
    masks: np.ndarray = field(repr=False)


# --- drawing by chance ------------------------------------------------------------------------------------------


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: one or two things of different colours and kinds."""
    count = int(rng.integers(1, 3))
    colours = rng.permutation(list(COLOURS))[:count]
    kinds = rng.permutation(KINDS)[:count]
    plans = [
        Thing(str(colour), str(kind), str(rng.choice(TEXTURES, p=(0.65, 0.35))), str(rng.choice(list(MOTIONS))))
        for colour, kind in zip(colours, kinds, strict=True)
    ]
    for _ in range(20):  # place them again while they hide each other in more than 40 % of the frames
        things = tuple(_place(plan, rng, float(rng.uniform(*((13, 16), (11, 13.5))[count - 1]))) for plan in plans)
        if count == 1 or _overlap(*things) <= 0.4:
            break
    return Scene(things, str(rng.choice(list(BACKDROPS))))


def training_scene(index: int) -> Scene:
    """The scene of training clip `index`."""
    return sample_scene(np.random.default_rng((0, index)))


def held_out_scene(index: int) -> Scene:
    """Scene `index` of those that training never draws."""
    return sample_scene(np.random.default_rng((1, index)))


def _overlap(a: Thing, b: Thing) -> float:
    """Share of frames in which two things touch."""
    return float((np.linalg.norm(path_of(a) - path_of(b), axis=1) < 0.9 * (a.radius + b.radius)).mean())


def _place(thing: Thing, rng: np.random.Generator, radius: float) -> Thing:
    """Give a thing a size, a start and a reach that keep it inside the picture."""
    low, high = radius + 1, SIZE - radius - 1
    reach = float(rng.uniform(0.65, 0.95) * (high - low))
    free = float(rng.uniform(low, high))  # the coordinate that the motion leaves alone
    slack = float(rng.uniform(low, high - reach))  # where a straight path begins
    start = {
        "right": (slack, free),
        "left": (slack + reach, free),
        "up": (free, slack + reach),
        "down": (free, slack),
        "bounce": (free, high),
        "swing": (SIZE / 2 + float(rng.uniform(-3, 3)), free),
        "circle": (SIZE / 2 + float(rng.uniform(-3, 3)), SIZE / 2 + float(rng.uniform(-3, 3))),
    }[thing.motion]
    if thing.motion in ("swing", "circle"):
        reach = float(rng.uniform(9, 31 - radius - 3))
    phase = float(rng.uniform(0, 2 * np.pi))
    return Thing(thing.colour, thing.kind, thing.texture, thing.motion, radius, start, reach, phase)


# --- words ------------------------------------------------------------------------------------------------------


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """A scene as a sentence; with a generator, in one of several ways a person would choose."""
    pick = (lambda options: options[0]) if rng is None else (lambda options: options[int(rng.integers(len(options)))])
    parts = [f"a {thing.noun} {pick(MOTIONS[thing.motion])}" for thing in scene.things]
    place = BACKDROPS[scene.backdrop]
    body = pick((" while ", " and ")).join(parts)
    sentence = pick((f"{body} {place}", f"{place}, {body}")).replace("a orange", "an orange")
    return sentence[0].upper() + sentence[1:] + "."


def parse_caption(prompt: str) -> Scene:
    """The scene that a sentence describes (`radius`, `start`, … keep their defaults: a sentence has none).

    Raises PromptError if the sentence names no object, colour, motion or backdrop of this world.
    """
    found = _parsed(prompt)
    if isinstance(found, str):
        raise PromptError(f"{prompt!r}: {found}. {vocabulary()}")
    return found


def outside(prompt: str) -> str:
    """What a sentence lacks to be a scene of this world; "" where it is one."""
    found = _parsed(prompt)
    return found if isinstance(found, str) else ""


def _parsed(prompt: str) -> Scene | str:
    """The scene, or why there is none."""
    text = prompt.lower()
    nouns = list(re.finditer(rf"(striped )?\b({'|'.join(COLOURS)}) (striped )?({'|'.join(KINDS)})\b", text))
    if not 1 <= len(nouns) <= 2:
        return f"found {len(nouns)} objects, expected one or two"
    things = []
    for noun, after in zip(nouns, [*nouns[1:], None], strict=True):
        rest = text[noun.end() : after.start() if after else None]
        motion = first_word(WORDS, rest)
        if motion is None:
            return f"no known motion for the {noun.group(0)}"
        texture = "striped" if noun.group(1) or noun.group(3) else "plain"
        things.append(Thing(noun.group(2), noun.group(4), texture, motion))
    remainder = re.sub(rf"(striped )?\b({'|'.join(COLOURS)}) (striped )?({'|'.join(KINDS)})\b", " ", text)
    backdrop = first_word(_BACKDROP_WORDS, remainder)
    return Scene(tuple(things), backdrop) if backdrop is not None else "no known backdrop"


def words() -> set[str]:
    """The words of this world's sentences: those that its models have a token for."""
    sentences = [phrase for phrases in MOTIONS.values() for phrase in phrases] + list(BACKDROPS.values())
    found = {word for sentence in sentences for word in sentence.split()}
    return found | {*COLOURS, *KINDS, *TEXTURES, "a", "an", "and", "while"}


def vocabulary() -> str:
    """Everything that a prompt for the embedded world may name, in a sentence."""
    motions, places = ", ".join(phrases[0] for phrases in MOTIONS.values()), ", ".join(BACKDROPS.values())
    return (
        f"This world has the colours {', '.join(COLOURS)}; the objects {', '.join(KINDS)} (plain or striped); "
        f"motions such as {motions}; and backdrops {places}. "
        "Example: 'A red ball bounces up and down while a striped blue star moves to the left over a green meadow.'"
    )


# --- paint ------------------------------------------------------------------------------------------------------


def outline(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (in radii, negative inside) of a unit-size kind at (x, y)."""
    r = np.hypot(x, y)
    if kind == "ball":
        return r - 0.95
    if kind == "ring":
        return np.abs(r - 0.72) - 0.27
    if kind == "box":
        return np.maximum(np.abs(x), np.abs(y)) - 0.82
    if kind == "star":
        angle = np.mod(np.arctan2(x, -y), 2 * np.pi / 5)
        angle = np.minimum(angle, 2 * np.pi / 5 - angle)  # fold into one arm
        px, py = r * np.cos(angle), r * np.sin(angle)
        tip, notch = 1.12, 0.50
        ax, ay = notch * np.cos(np.pi / 5), notch * np.sin(np.pi / 5)
        nx, ny = ay, tip - ax  # outward normal of the edge tip -> notch
        return ((px - tip) * nx + py * ny) / np.hypot(nx, ny)
    px, py = (
        np.abs(x) / 1.8,
        (1.0 - y) / 1.8,
    )  # heart: its tip at (0, 0), its lobes near y = 1; y up from here on
    lobe = np.hypot(px - 0.25, py - 0.75) - np.sqrt(2) / 4
    along = 0.5 * np.maximum(px + py, 0)
    edge = np.minimum(np.hypot(px, py - 1), np.hypot(px - along, py - along)) * np.sign(px - py)
    return 1.8 * np.where(px + py > 1, lobe, edge)


def render(scene: Scene, window: slice = slice(None)) -> tuple[np.ndarray, Truth]:
    """Paint a scene, or a window of its frames: frames (F, 64, 64, 3) uint8, and the truth about them."""
    centres = np.stack([path_of(thing)[window] for thing in scene.things])  # (things, F, 2)
    frames = centres.shape[1]
    canvas: np.ndarray = np.repeat(backdrop(scene.backdrop)[None].astype(np.float32), frames, axis=0)  # (F, H, W, 3)
    yy, xx = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + np.float32(0.5)
    masks = np.zeros((len(scene.things), frames, SIZE, SIZE), bool)
    for i in reversed(range(len(scene.things))):  # the first thing is painted last: in front
        thing = scene.things[i]
        x = (xx[None] - centres[i, :, 0, None, None]) / thing.radius  # (F, H, W), in radii
        y = (yy[None] - centres[i, :, 1, None, None]) / thing.radius
        distance = outline(thing.kind, x, y) * thing.radius  # pixels
        alpha = np.clip(0.5 - distance, 0, 1)[..., None]  # (F, H, W, 1), antialiased edge
        canvas = canvas * (1 - alpha) + _paint(thing, x, y, distance) * alpha
        masks[i] = alpha[..., 0] > 0.5
        masks[i + 1 :] &= ~masks[i]
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), Truth(centres, masks)


def _paint(thing: Thing, x: np.ndarray, y: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Colour of a thing at (x, y), in radii: lit from the upper left, with a darker rim and perhaps stripes."""
    light = 1.0 - 0.16 * (x + y) / np.sqrt(2) * 0.9
    rim = np.where(distance > -1.2, 0.82, 1.0)
    stripes = np.where(np.mod(x + y, 1.0) < 0.5, 0.58, 1.0) if thing.texture == "striped" else 1.0
    return np.asarray(COLOURS[thing.colour], np.float32) * (light * rim * stripes)[..., None]


@cache
def backdrop(name: str) -> np.ndarray:
    """The picture behind a scene, (64, 64, 3) uint8: the same for every clip, so errors can be measured exactly."""
    rng = np.random.default_rng(sorted(BACKDROPS).index(name))
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    picture = _PAINTERS[name](x, y, rng)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _mix(a: tuple[int, ...], b: tuple[int, ...], t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)[..., None]
    return np.asarray(a) * (1 - t) + np.asarray(b) * t


def _meadow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sky = _mix((168, 196, 214), (214, 222, 220), y / 0.55)
    hill = 0.52 + 0.07 * np.sin(2 * np.pi * (x + 0.1)) + 0.03 * np.sin(2 * np.pi * 2.3 * x)
    grass = _mix((118, 138, 84), (84, 108, 62), (y - 0.5) * 2)
    grass += 6 * np.sin(2 * np.pi * (5 * x + 0.6 * np.sin(7 * y)))[..., None] * np.clip((y - hill) * 4, 0, 1)[..., None]
    return np.where((y > hill)[..., None], grass, sky)


def _night(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sky = _mix((14, 16, 40), (44, 40, 74), y)
    for _ in range(14):
        star = np.exp(-((x - rng.uniform(0, 1)) ** 2 + (y - rng.uniform(0, 1)) ** 2) * SIZE**2 / 2)
        sky += rng.uniform(70, 120) * star[..., None]
    moon = np.clip((0.10 - np.hypot(x - 0.82, y - 0.17)) * 40, 0, 1)[..., None]
    return sky * (1 - moon) + np.array((186, 182, 160)) * moon


def _wall(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = np.floor(y * 6).astype(int)
    u = x * 3 + 0.5 * (row % 2)
    column = np.floor(u).astype(int)
    shade = rng.uniform(-12, 12, (7, 5))[row, column % 5]
    brick = np.array((136, 98, 84)) + shade[..., None]
    mortar = (np.mod(u, 1) < 0.09) | (np.mod(y * 6, 1) < 0.18)
    return np.where(mortar[..., None], np.array((164, 150, 138)), brick)


def _desert(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = _mix((232, 206, 170), (214, 190, 160), y / 0.5)
    for base, height, shift, near in ((0.50, 0.07, 0.2, 0), (0.64, 0.06, 0.7, 1), (0.80, 0.05, 0.4, 2)):
        crest = base + height * np.sin(2 * np.pi * (x * (1 + 0.3 * near) + shift))
        sand = np.array((196 - 18 * near, 160 - 17 * near, 112 - 14 * near)) - 60 * (y - crest)[..., None]
        picture = np.where((y > crest)[..., None], sand, picture)
    return picture


def _sea(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sky = _mix((226, 206, 196), (196, 204, 210), y / 0.4)
    depth = np.clip((y - 0.42) / 0.58, 0, 1)
    water = _mix((108, 160, 166), (32, 92, 108), depth)
    water += (12 * np.sin(2 * np.pi * (1.5 * x + 5 * depth**0.7)) * (0.4 + 0.6 * depth))[..., None]
    return np.where((y > 0.42)[..., None], water, sky)


_PAINTERS = {"meadow": _meadow, "night": _night, "wall": _wall, "desert": _desert, "sea": _sea}
