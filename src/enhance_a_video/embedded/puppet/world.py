"""The scenes of the puppet world: what they consist of, how a seed gives one, and the sentences that describe them.

    scene = training_scene(7)
    frames, truth = paint.render(scene)        # (33, 128, 128, 3) uint8
    parse_caption(caption(scene))              # what the sentence names

A clip shows a puppet in gloves doing something, or one or two shapes that move, or a puppet and a shape, before one of
six backdrops, seen by a slow camera. Everything is deterministic in the seed.

Units: pixels of a 128 x 128 picture and frames, whatever size is rendered; positions are (x, y), y grows downward.
"Left" and "right" are the picture's, not the puppet's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import PromptError
from ..motion import FRAMES as FRAMES
from ..motion import WORDS, first_word, path_of

SIZE = 128  # pixels, height and width; also the unit of every position here
FPS = 12

# Saturated: no backdrop has such a colour, so that a checker finds every thing by its colour alone.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (216, 44, 52),
    "orange": (246, 136, 30),
    "yellow": (250, 212, 50),
    "green": (58, 168, 78),
    "blue": (44, 104, 220),
    "purple": (134, 66, 186),
    "pink": (246, 132, 180),
}
KINDS = ("ball", "box", "star", "heart", "ring")
TEXTURES = ("plain", "striped", "spotted")
SIZES = ("small", "large")
SIDES = ("left", "right")
RADII = {"small": (7.0, 8.5), "large": (12.5, 15.0)}  # of shapes
HEIGHTS = {"small": (58.0, 64.0), "large": (84.0, 92.0)}  # of puppets, feet to crown
MOTIONS: dict[str, tuple[str, ...]] = {  # of shapes; the first phrase is the plain one
    "right": ("moves to the right", "drifts to the right", "slides right"),
    "left": ("moves to the left", "drifts to the left", "slides left"),
    "up": ("rises", "floats up", "moves upwards"),
    "down": ("sinks", "falls slowly", "moves downwards"),
    "bounce": ("bounces up and down", "bounces", "hops up and down"),
    "swing": ("swings from side to side", "sways", "goes back and forth"),
    "circle": ("moves in a circle", "circles", "goes round and round"),
}
ACTIONS: dict[str, tuple[str, ...]] = {  # of puppets
    "wave": ("waves with the {side} hand", "waves its {side} hand"),
    "clap": ("claps its hands", "claps"),
    "juggle": ("juggles three {colour} balls", "is juggling three {colour} balls"),
    "walk": ("walks to the {side}", "is walking to the {side}"),
    "turn": ("turns to one side and the other", "turns left and right"),
    "pass": ("hands {object} from hand to hand", "passes {object} from hand to hand"),
}
BACKDROPS: dict[str, tuple[str, ...]] = {
    "stage": ("on a stage", "on the stage of a theatre"),
    "meadow": ("in a meadow", "in a green meadow"),
    "room": ("in a room with a papered wall", "in a papered room"),
    "beach": ("on a beach", "at the beach"),
    "night": ("at night in the snow", "in the snow at night"),
    "wall": ("in front of a brick wall", "before a brick wall"),
}
CAMERAS: dict[str, tuple[str, ...]] = {
    "still": ("", "the camera stands still"),
    "pan left": ("the camera pans to the left", "slow pan to the left"),
    "pan right": ("the camera pans to the right", "slow pan to the right"),
    "zoom in": ("the camera zooms in", "slow zoom in"),
    "zoom out": ("the camera zooms out", "slow zoom out"),
}
PAN, ZOOM = 18.0, 1.16  # how far a camera goes in a clip: pixels, factor
MARGIN = 26  # pixels of backdrop beyond the picture, left and right
FLOOR = (113.0, 119.0)  # where a puppet stands


@dataclass(frozen=True)
class Thing:
    """A shape. `radius`, `start` (x, y) and `reach` in pixels; `phase` in radians."""

    colour: str
    kind: str
    texture: str = "plain"
    size: str = "large"
    motion: str = "right"
    radius: float = 13.0
    start: tuple[float, float] = (64.0, 64.0)
    reach: float = 50.0
    phase: float = 0.0

    @property
    def noun(self) -> str:
        return _joined(self.size, "" if self.texture == "plain" else self.texture, self.colour, self.kind)


@dataclass(frozen=True)
class Puppet:
    """A puppet. `gloves`: the colours of its left and right one, in the picture, when the clip begins.

    `side`: which hand waves, or where it walks. `held`: what it juggles (three balls) or hands over: colour, kind.
    `height` and `start` (x, y of its feet) in pixels, `reach` (how far it walks) too, `tempo` (times an action is
    repeated in a clip), `phase` in radians.
    """

    colour: str
    texture: str
    size: str
    gloves: tuple[str, str]
    action: str
    side: str = "left"
    held: tuple[str, str] | None = None
    height: float = 88.0
    start: tuple[float, float] = (64.0, 116.0)
    reach: float = 0.0
    tempo: float = 3.0
    phase: float = 0.0

    @property
    def noun(self) -> str:
        return _joined(self.size, "" if self.texture == "plain" else self.texture, self.colour, "puppet")


@dataclass(frozen=True)
class Scene:
    """What a clip shows. Shapes are behind the puppet, the first before the second. `pan`: where the camera starts."""

    puppet: Puppet | None
    things: tuple[Thing, ...]
    backdrop: str
    camera: str = "still"
    pan: float = 0.0


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


# --- sampling ---------------------------------------------------------------------------------------------------


def sample_scene(rng: np.random.Generator) -> Scene:
    """A scene: a puppet (in 3 of 4), alone or with a shape, or one or two shapes. No two of its colours are alike."""
    colours = [str(c) for c in rng.permutation(list(COLOURS))]
    camera = str(rng.choice(list(CAMERAS)))
    puppet = _sample_puppet(rng, colours, _edge(camera)) if rng.random() < 0.75 else None
    if puppet is not None and puppet.action == "walk" and "pan" in camera:
        camera = "still"  # otherwise it would be unclear who moves
    count = int(rng.integers(1, 3)) if puppet is None else int(puppet.held is None and rng.random() < 0.6)
    kinds = [str(kind) for kind in rng.permutation(KINDS)]
    plans = [
        Thing(colours.pop(), kinds.pop(), _texture(rng), str(rng.choice(SIZES)), str(rng.choice(list(MOTIONS))))
        for _ in range(count)
    ]
    things: tuple[Thing, ...] = ()
    for _ in range(30):  # place them again while they hide each other for long
        things = tuple(_placed(plan, rng, _edge(camera), floor=100 if puppet else 116) for plan in plans)
        if _hidden(puppet, things) <= 0.3:
            break
    else:  # no room: leave the last one out
        things = things[:-1] if len(things) + (puppet is not None) > 1 else things
    return Scene(puppet, things, str(rng.choice(list(BACKDROPS))), camera, float(rng.uniform(-4, 4)))


def training_scene(index: int) -> Scene:
    """The scene of training clip `index`."""
    return sample_scene(np.random.default_rng((10, index)))


def held_out_scene(index: int) -> Scene:
    """Scene `index` of those that training never draws."""
    return sample_scene(np.random.default_rng((11, index)))


def _edge(camera: str) -> float:
    """How far from the picture's border everything has to stay in order to be seen whole all the time, in pixels."""
    return 7.0 + PAN / 2 * ("pan" in camera) + SIZE / 2 * (1 - 1 / ZOOM) * ("zoom" in camera)


def _texture(rng: np.random.Generator) -> str:
    return str(rng.choice(TEXTURES, p=(0.5, 0.25, 0.25)))


def _sample_puppet(rng: np.random.Generator, colours: list[str], edge: float) -> Puppet:
    """A puppet; takes its colours out of `colours`."""
    colour, left = colours.pop(), colours.pop()
    right = colours.pop() if rng.random() < 0.5 else left
    action, size = str(rng.choice(list(ACTIONS))), str(rng.choice(SIZES))
    side, height = str(rng.choice(SIDES)), float(rng.uniform(*HEIGHTS[size]))
    held = None
    if action in ("juggle", "pass"):
        held = (colours.pop(), "ball" if action == "juggle" else str(rng.choice(KINDS)))
    wide = {"wave": 0.51, "walk": 0.36}.get(action, 0.41) * height  # half of the widest pose
    room = max(SIZE - 2 * edge - 2 * wide, 0.0)
    reach = float(rng.uniform(0.8, 1.0) * room) if action == "walk" else 0.0
    slack = float(rng.uniform(-0.5, 0.5) * room) if action != "walk" else 0.0
    tempo = {"wave": (2.5, 3.5), "clap": (2.6, 3.6), "juggle": (1.2, 1.6), "walk": (2.0, 2.6), "turn": (1.0, 1.3),
             "pass": (0.9, 1.15)}[action]  # fmt: skip
    phase = float(rng.uniform(0, 2 * np.pi))
    start = (SIZE / 2 + slack, float(rng.uniform(*FLOOR)))
    texture = _texture(rng)
    return Puppet(
        colour,
        texture,
        size,
        (left, right),
        action,
        side,
        held,
        height,
        start,
        reach,
        float(rng.uniform(*tempo)),
        phase,
    )


def _placed(thing: Thing, rng: np.random.Generator, edge: float, floor: float) -> Thing:
    """Give a shape a size, a start and a reach that keep it `edge` pixels inside the picture and above `floor`."""
    radius = float(rng.uniform(*RADII[thing.size]))
    low, right, bottom = radius + edge, SIZE - radius - edge, floor - radius
    high = right if thing.motion in ("right", "left", "swing") else bottom
    reach = float(rng.uniform(0.6, 0.95) * (high - low))
    x, y = (
        float(rng.uniform(low, right)),
        float(rng.uniform(low, bottom)),
    )  # the coordinate that the motion leaves alone
    slack = float(rng.uniform(low, high - reach))  # where a straight path begins
    if thing.motion in ("swing", "circle"):
        reach = float(rng.uniform(16, 26 if thing.motion == "circle" else 36))
    inside = (min(max(x, low + reach), right - reach), min(max(y, low + reach), bottom - reach))
    start = {
        "right": (slack, y),
        "left": (slack + reach, y),
        "up": (x, slack + reach),
        "down": (x, slack),
        "bounce": (x, bottom),
        "swing": (inside[0], y),
        "circle": inside,
    }[thing.motion]
    return replace(thing, radius=radius, start=start, reach=reach, phase=float(rng.uniform(0, 2 * np.pi)))


def _hidden(puppet: Puppet | None, things: Sequence[Thing]) -> float:
    """Largest share of the frames in which a shape is behind something."""
    shares = [0.0]
    paths = [path_of(thing) for thing in things]
    if puppet is not None:
        x, half = puppet_path(puppet)[:, 0], 0.2 * puppet.height
        for thing, path in zip(things, paths, strict=True):
            near = np.abs(path[:, 0] - x) < half + thing.radius
            shares.append(float((near & (path[:, 1] + thing.radius > puppet.start[1] - puppet.height)).mean()))
    if len(things) == 2:
        apart = np.linalg.norm(paths[0] - paths[1], axis=1)
        shares.append(float((apart < 0.9 * (things[0].radius + things[1].radius)).mean()))
    return max(shares)


# --- where things are -------------------------------------------------------------------------------------------


def puppet_path(puppet: Puppet, frames: int = FRAMES) -> np.ndarray:
    """Where the puppet stands in each frame, (frames, 2) as (x, y), before the camera."""
    along = np.linspace(-0.5, 0.5, frames) * puppet.reach * (1 if puppet.side == "right" else -1)
    return np.stack([puppet.start[0] + along, np.full(frames, puppet.start[1])], axis=1)


def camera_path(scene: Scene, frames: int = FRAMES) -> np.ndarray:
    """The camera in each frame, (frames, 2): how far to the right it points in pixels, and its magnification."""
    u = np.linspace(-0.5, 0.5, frames)
    pan = {"pan left": -PAN, "pan right": PAN}.get(scene.camera, 0.0) * u + scene.pan
    zoom = {"zoom in": ZOOM ** (u + 0.5), "zoom out": ZOOM ** (0.5 - u)}.get(scene.camera, np.ones(frames))
    return np.stack([pan, zoom], axis=1)


# --- words ------------------------------------------------------------------------------------------------------


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """A sentence about a scene that names everything in it; with a generator, in one of several ways to put it."""

    def pick(options: Sequence[str]) -> str:
        return options[0] if rng is None else options[int(rng.integers(len(options)))]

    parts = [] if scene.puppet is None else [_puppet_words(scene.puppet, pick)]
    parts += [f"a {thing.noun} {pick(MOTIONS[thing.motion])}" for thing in scene.things]
    body, place = pick((" while ", " and ")).join(parts), pick(BACKDROPS[scene.backdrop])
    sentence = pick((f"{body} {place}", f"{place}, {body}"))
    camera = pick(CAMERAS[scene.camera])
    if camera:
        sentence = pick((f"{sentence}, {camera}", f"{camera}: {sentence}"))
    sentence = re.sub(r"\ba orange", "an orange", sentence)
    return sentence[0].upper() + sentence[1:] + "."


def _puppet_words(puppet: Puppet, pick: Callable[[Sequence[str]], str]) -> str:
    left, right = puppet.gloves
    if left == right:
        gloves = pick((f"in {left} gloves", f"with {left} gloves"))
    else:
        gloves = pick(
            (f"with a {left} left glove and a {right} right glove", f"in a {left} left and a {right} right glove")
        )
    colour, kind = puppet.held or ("", "")
    action = pick(ACTIONS[puppet.action]).format(side=puppet.side, colour=colour, object=f"a {colour} {kind}")
    return f"a {puppet.noun} {gloves} {action}"


_COLOUR = f"({'|'.join(COLOURS)})"
_LOOK = rf"(?:(small|large|little|big) )?(?:({'|'.join(TEXTURES)}) )?{_COLOUR}"
_PUPPET = re.compile(rf"\b{_LOOK} puppet\b")
_ONE_PAIR = re.compile(rf"\b{_COLOUR} gloves\b")
_TWO_GLOVES = re.compile(rf"\b{_COLOUR} left(?: glove)? and an? {_COLOUR} right glove\b")
_JUGGLE = re.compile(rf"\bjuggl\w+ (?:three )?{_COLOUR} balls\b")
_PASS = re.compile(rf"\b(?:hand|pass)\w* an? {_COLOUR} ({'|'.join(KINDS)}) from hand to hand\b")
_THING = re.compile(rf"\b{_LOOK} ({'|'.join(KINDS)})\b")
_CAMERA = re.compile(r"\b(?:the camera |slow )(pan|zoom|stands)s?\b(?:.*?\b(left|right|in|out|still)\b)?")
_ACTION_WORDS = {"wave": r"wav(e|es|ing)\b", "clap": r"clap", "juggle": r"juggl", "walk": r"walk", "turn": r"turn",
                 "pass": r"from hand to hand"}  # fmt: skip
_BACKDROP_WORDS = {"stage": "stage|theatre", "meadow": "meadow|grass", "room": "room|paper", "beach": "beach|sand",
                   "night": "night|snow", "wall": "brick"}  # fmt: skip


def parse_caption(prompt: str) -> Scene:
    """The scene that a sentence describes. Numbers (`radius`, `start`, ...) keep their defaults: a sentence has none.

    Raises:
        PromptError: the sentence names nothing of this world, or leaves out an action, a motion, a glove or a place.
    """
    text = re.sub(r"\s+", " ", prompt.lower())
    camera, text = _parse_camera(text)
    puppet, text = _parse_puppet(text, prompt)
    nouns = list(_THING.finditer(text))
    if len(nouns) > (2 if puppet is None else 1) or (puppet is None and not nouns):
        raise PromptError(
            f"{prompt!r}: found {len(nouns)} shapes and {int(puppet is not None)} puppets. {vocabulary()}"
        )
    things = []
    ends = [after.start() for after in nouns[1:]] + [len(text)] * bool(nouns)
    for noun, end in zip(nouns, ends, strict=True):
        motion = first_word(WORDS, text[noun.end() : end])
        if motion is None:
            raise PromptError(f"{prompt!r}: no known motion for the {noun.group(0)}. {vocabulary()}")
        size, texture, colour, kind = noun.groups()
        things.append(Thing(colour, kind, texture or "plain", _size(size), motion))
    backdrop = first_word(_BACKDROP_WORDS, text)
    if backdrop is None:
        raise PromptError(f"{prompt!r}: no known backdrop. {vocabulary()}")
    return Scene(puppet, tuple(things), backdrop, camera)


def _size(word: str | None) -> str:
    return "small" if word in ("small", "little") else "large"


def _parse_camera(text: str) -> tuple[str, str]:
    """The camera, and the text without it."""
    found = _CAMERA.search(text)
    if not found:
        return "still", text
    name = f"{found.group(1)} {found.group(2)}"
    return name if name in CAMERAS else "still", text[: found.start()] + " " + text[found.end() :]


def _parse_puppet(text: str, prompt: str) -> tuple[Puppet | None, str]:
    """The puppet, and the text with everything about it blanked out."""
    found = _PUPPET.search(text)
    if not found:
        return None, text
    one, two = _ONE_PAIR.search(text), _TWO_GLOVES.search(text)
    gloves = two or one
    if gloves is None:
        raise PromptError(f"{prompt!r}: no gloves for the puppet. {vocabulary()}")
    rest = text[gloves.end() :]
    held: tuple[str, str] | None = None
    side = "left"
    # The puppet's own action comes first after its gloves; "turns left and right" names no side.
    action = first_word(_ACTION_WORDS, rest)
    if action is None:
        raise PromptError(f"{prompt!r}: no known action for the puppet. {vocabulary()}")
    end = gloves.end()
    if action in ("wave", "walk"):
        hit = re.search(r"(?:wav|walk)\w* .*?\b(left|right)\b", rest)
        if hit is None:
            raise PromptError(f"{prompt!r}: which side, left or right? {vocabulary()}")
        side, end = hit.group(1), end + hit.end()
    elif action in ("juggle", "pass"):
        hit = (_JUGGLE if action == "juggle" else _PASS).search(rest)
        if hit is None:
            raise PromptError(f"{prompt!r}: what does the puppet hold? {vocabulary()}")
        held = (hit.group(1), "ball" if action == "juggle" else hit.group(2))
        end += hit.end()
    elif action == "turn":
        hit = re.search(r"turn\w*(?: left and right| to one side and the other)?", rest)
        end += hit.end() if hit else 0
    size, texture, colour = found.groups()
    pair = (two.group(1), two.group(2)) if two else (gloves.group(1), gloves.group(1))
    puppet = Puppet(colour, texture or "plain", _size(size), pair, action, side, held)
    return puppet, text[: found.start()] + " " + text[end:]


def vocabulary() -> str:
    """Everything that a prompt for this world may name, in a sentence."""
    motions, places = (", ".join(row[0] for row in rows.values()) for rows in (MOTIONS, BACKDROPS))
    return (
        f"This world has puppets and shapes ({', '.join(KINDS)}), small or large, {', '.join(TEXTURES)}, in "
        f"{', '.join(COLOURS)}; gloves; what a puppet does ({', '.join(ACTIONS)}); how a shape moves ({motions}); "
        f"places ({places}); and cameras ({', '.join(CAMERAS)}). Example: 'A large striped green puppet in red gloves "
        "waves with the left hand while a small blue ball rises on a stage.'"
    )
