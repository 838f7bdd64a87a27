"""Paints a scene of the puppet world: the frames of a clip, and the truth about every frame.

Everything is drawn as soft felt at twice the size with OpenCV's antialiased polygons, and then made smaller.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import cv2
import numpy as np

from ..motion import path_of
from . import pose as poses
from .backdrops import TOP, backdrop
from .world import COLOURS, FRAMES, MARGIN, SIZE, Puppet, Scene, Thing, camera_path, puppet_path

FINE = 2  # subpixels along a side of a pixel
BACKDROP, HEAD, BODY, LEFT_HAND, RIGHT_HAND, ARMS, FEET = range(7)  # values of Truth.labels
HELD, THINGS = 8, 12  # the first of what a puppet holds, and of the shapes
_SHIFT = 4  # fractional bits of the coordinates given to OpenCV
_NOTHING = cv2.BORDER_CONSTANT
_LAMP = np.array([[-2.3, -2.6, -0.3], [-2.0, 0, 2.0], [0.3, 2.6, 2.3]], np.float32)  # Sobel: along x and 1.3 along y
_CREAM, _INK, _SHOE = (244, 236, 220), (46, 40, 44), (84, 70, 66)


@dataclass(frozen=True)
class Truth:
    """The content of every frame. Positions and lengths in pixels of the 128 x 128 picture, as the camera sees them.

    `labels` (F, H, W) uint8: which part each pixel shows. `hands` (F, 2) bool: the left and the right hand are visible,
    that is, at least half of their area is. `glove_colours` (F, 2, 3): what they are painted with. `hand_centres`
    (F, 2, 2); `arm_lengths` (F, 2): from shoulder over elbow to hand; `head` (F, 3): centre x, y, radius.
    `centres` (things, F, 2): of the shapes, then of what the puppet holds. `camera` (F, 2): pan and magnification.
    Without a puppet its arrays have no hands: `hands` is all False and the positions are NaN.
    """

    labels: np.ndarray = field(repr=False)
    hands: np.ndarray
    glove_colours: np.ndarray = field(repr=False)
    hand_centres: np.ndarray = field(repr=False)
    arm_lengths: np.ndarray = field(repr=False)
    head: np.ndarray = field(repr=False)
    centres: np.ndarray = field(repr=False)
    camera: np.ndarray = field(repr=False)

    @property
    def hand_count(self) -> np.ndarray:
        """How many hands each frame shows, (F,)."""
        return self.hands.sum(axis=1)


class _Canvas:
    """One frame while it is painted: `image` (S, S, 3) float32 and `labels` (S, S) uint8, in subpixels."""

    def __init__(self, image: np.ndarray):
        self.image = image
        self.labels = np.zeros(image.shape[:2], np.uint8)

    def fill(
        self,
        points: np.ndarray,
        colour: tuple[float, float, float] | np.ndarray,
        label: int | None = None,
        puff: float = 0.0,
        pattern: _Pattern | None = None,
        hole: np.ndarray | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Fill a polygon (N, 2) of subpixels. `puff`: how far its edge bends away from the light, in subpixels."""
        size = self.image.shape[0]
        x0, y0 = (max(int(v) - 2, 0) for v in points.min(0))
        x1, y1 = (min(int(v) + 3, size) for v in points.max(0))
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        outline = [((p - (x0, y0)) * (1 << _SHIFT)).round().astype(np.int32) for p in (points, hole) if p is not None]
        cv2.fillPoly(mask, outline, 255, cv2.LINE_AA, _SHIFT)
        alpha = mask.astype(np.float32) * (opacity / 255)
        paint: np.ndarray = np.asarray(colour, np.float32)
        if pattern is not None:
            paint = pattern.over(paint, x0, y0, mask.shape)
        if puff:
            paint = paint * _felt(mask, puff, points[0])[..., None]
        part = self.image[y0:y1, x0:x1]
        part += (paint - part) * alpha[..., None]
        if label is not None:
            self.labels[y0:y1, x0:x1][mask > 127] = label


def _felt(mask: np.ndarray, puff: float, anchor: np.ndarray) -> np.ndarray:
    """Brightness of a stuffed piece of felt: lit from the upper left, dark along its edge, with a grain of its own."""
    width = (
        max(1, round(1.6 * puff)),
    ) * 2  # two box blurs: nearly a Gaussian one, at a price that puff does not raise
    height = cv2.blur(cv2.blur(mask, width, borderType=_NOTHING), width, borderType=_NOTHING)
    slope = cv2.filter2D(height, cv2.CV_32F, _LAMP)
    shade = 0.62 + (0.42 / 255) * height + (0.10 / 255 * puff) * slope
    rows, columns = mask.shape
    grain = _grain()
    top, left = int(anchor[1]) % 64, int(anchor[0]) % 64
    return np.clip(shade, 0.45, 1.18) + grain[64 - top : 64 - top + rows, 64 - left : 64 - left + columns]


@cache
def _grain() -> np.ndarray:
    rng = np.random.default_rng(13)
    return 0.018 * cv2.GaussianBlur(rng.standard_normal((1400, 1400)).astype(np.float32), (0, 0), 1.2)


@dataclass(frozen=True)
class _Pattern:
    """Stripes or spots of a lighter tint, fixed to the thing they are on: `origin` and `unit` in subpixels."""

    kind: str
    origin: tuple[float, float]
    unit: float
    shift: float = 0.0  # along x, in units: a turning body carries them along

    def over(self, colour: np.ndarray, x0: int, y0: int, shape: tuple[int, ...]) -> np.ndarray:
        v = (np.arange(y0, y0 + shape[0], dtype=np.float32)[:, None] - self.origin[1]) / self.unit
        u = (np.arange(x0, x0 + shape[1], dtype=np.float32)[None] - self.origin[0]) / self.unit + self.shift
        soft = self.unit / 1.5  # subpixels to units, for an edge about one and a half subpixels wide
        if self.kind == "striped":
            share = np.clip(0.5 + (np.abs(np.mod(v, 1) - 0.5) - 0.25) * soft, 0, 1) + 0 * u
        else:
            row = np.floor(v / 0.8)
            du, dv = np.mod(u + 0.5 * np.mod(row, 2), 1) - 0.5, np.mod(v, 0.8) - 0.4
            share = np.clip(0.5 - (np.hypot(du, dv) - 0.25) * soft, 0, 1)
        tint = 0.22 * colour + 0.78 * np.array(_CREAM, np.float32)
        return colour + (tint - colour) * share[..., None]


# --- outlines, unit size, (N, 2) -----------------------------------------------------------------------------------


@cache
def _circle(points: int = 28) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@cache
def outline(kind: str) -> np.ndarray:
    """The outline of a kind of shape with radius 1, (N, 2)."""
    if kind in ("ball", "ring"):
        return 0.95 * _circle(36)
    if kind == "box":
        return _rounded(np.array([[-0.84, -0.84], [0.84, -0.84], [0.84, 0.84], [-0.84, 0.84]]), 0.22)
    if kind == "star":
        angle = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.16, 0.54)
        return _rounded(np.stack([radius * np.sin(angle), 0.06 - radius * np.cos(angle)], axis=1), 0.10)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    heart = np.stack(
        [16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))], 1
    )
    return heart / 15.5 + np.array([0, -0.1])


def _rounded(corners: np.ndarray, cut: float) -> np.ndarray:
    """Corners (N, 2) rounded: each replaced by a short curve that begins `cut` before it."""
    t = np.linspace(0, 1, 5)[:, None]
    result = []
    for before, corner, after in zip(np.roll(corners, 1, 0), corners, np.roll(corners, -1, 0), strict=True):
        a, b = (corner + (p - corner) * min(0.5, cut / np.linalg.norm(p - corner)) for p in (before, after))
        result.append((1 - t) ** 2 * a + 2 * t * (1 - t) * corner + t**2 * b)
    return np.concatenate(result)


_CAP = np.linspace(0, np.pi, 6)[1:-1]


def _tube(path: np.ndarray, radius: float) -> np.ndarray:
    """The outline of a thick line along a path (N, 2) with round ends."""
    steps = path[1:] - path[:-1]
    along = np.concatenate([steps[:1], steps[1:] + steps[:-1], steps[-1:]])
    along /= np.sqrt((along**2).sum(axis=1, keepdims=True)) + 1e-6
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) * radius
    start, end = (np.arctan2(normal[n, 1], normal[n, 0]) for n in (0, -1))
    ends = [path[-1] + radius * np.stack([np.cos(end - _CAP), np.sin(end - _CAP)], 1),
            path[0] + radius * np.stack([np.cos(start + np.pi - _CAP), np.sin(start + np.pi - _CAP)], 1)]  # fmt: skip
    return np.concatenate([path + normal, ends[0], (path - normal)[::-1], ends[1]])


def _curve(a: np.ndarray, b: np.ndarray, c: np.ndarray, points: int = 9) -> np.ndarray:
    """A bent line from a to c that passes near b, (points, 2)."""
    t = np.linspace(0, 1, points)[:, None]
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * (1.35 * b - 0.175 * (a + c)) + t**2 * c


# --- a clip ------------------------------------------------------------------------------------------------------


def render(
    scene: Scene, size: int = SIZE, window: slice = slice(None), frames: int = FRAMES
) -> tuple[np.ndarray, Truth]:
    """Paint a scene.

    Args:
        scene: from world.sample_scene.
        size: pixels of height and width.
        window: which of the clip's frames.
        frames: into how many frames the clip is divided.

    Returns:
        (F, size, size, 3) uint8, and the truth about these frames.

    Raises:
        ValueError: size below 32.
    """
    if size < 32:
        raise ValueError(f"size is {size}: the puppet world is drawn at 32 pixels or more")
    painter = _Painter(scene, size, frames)
    painted = [painter.frame(t) for t in range(*window.indices(frames))]
    return np.stack([frame for frame, _ in painted]), painter.truth(np.stack([labels for _, labels in painted]), window)


class _Painter:
    """Paints the frames of one scene. `scale`: subpixels for each pixel of the world."""

    def __init__(self, scene: Scene, size: int, frames: int):
        self.scene, self.size = scene, size
        self.scale = size * FINE / SIZE
        self.camera = camera_path(scene, frames)
        zoom = self.camera[:, 1] * self.scale
        origin = self._seen(np.zeros((frames, 2)), slice(None)) * self.scale - 0.5
        self.fine = list(zip(zoom, origin, strict=True))  # world pixels -> subpixels, in each frame
        self.paths = np.array([path_of(thing, frames) for thing in scene.things]).reshape(-1, frames, 2)
        self.pose = poses.pose(scene.puppet, frames) if scene.puppet else None
        self.stand = puppet_path(scene.puppet, frames) if scene.puppet else None

    # -- coordinates

    def _seen(self, points: np.ndarray, t: int | slice) -> np.ndarray:
        """World pixels -> pixels of the picture, as the camera sees them."""
        pan, zoom = self.camera[t].T
        middle = np.array([SIZE / 2, 0.62 * SIZE])
        return (points - np.stack([pan, 0 * pan], axis=-1) - middle) * np.asarray(zoom)[..., None] + middle

    def _subpixels(self, points: np.ndarray, t: int) -> np.ndarray:
        zoom, shift = self.fine[t]
        return points * zoom + shift

    def _of_puppet(self, points: np.ndarray, t: int | slice) -> np.ndarray:
        """Puppet heights -> world pixels."""
        assert self.stand is not None and self.scene.puppet is not None
        return points * self.scene.puppet.height + self.stand[t]

    # -- painting

    def frame(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame (size, size, 3) uint8, and its labels (size, size)."""
        canvas = _Canvas(self._backdrop(t))
        self._shadows(canvas, t)
        for n in reversed(range(len(self.scene.things))):
            self._thing(canvas, self.scene.things[n], self.paths[n, t], t, THINGS + n)
        if self.scene.puppet:
            _PuppetPainter(self, canvas, t).paint()
        small = cv2.resize(canvas.image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.clip(small + 0.5, 0, 255).astype(np.uint8), canvas.labels[1::FINE, 1::FINE]

    def _backdrop(self, t: int) -> np.ndarray:
        picture = backdrop(self.scene.backdrop, self.scale)
        zoom = self.camera[t, 1]
        corner = self._seen(np.array([-MARGIN, -TOP], float), t) * self.scale  # where the backdrop's corner is seen
        shift = np.array([[zoom, 0, corner[0]], [0, zoom, corner[1]]])
        return cv2.warpAffine(
            picture, shift, (self.size * FINE,) * 2, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )

    def _shadows(self, canvas: _Canvas, t: int) -> None:
        """What stands before the backdrop darkens it, softly, to the lower right; a puppet darkens the floor too."""
        small = np.zeros((self.size // 2,) * 2, np.uint8)
        shrink = 1 / (2 * FINE)

        def cast(points: np.ndarray) -> None:
            cv2.fillPoly(small, [(points * shrink * 16).round().astype(np.int32)], 255, cv2.LINE_AA, 4)

        for thing, path in zip(self.scene.things, self.paths[:, t], strict=True):
            cast(self._subpixels(path + thing.radius * outline(thing.kind) + (3.0, 4.5), t))
        if self.pose is not None:
            away = np.array([4.0, 5.0])
            joints = [self.pose.shoulders[:, t], self.pose.elbows[:, t], self.pose.hands[:, t]]
            for n in (0, 1):
                cast(self._subpixels(self._of_puppet(_tube(_curve(*(j[n] for j in joints)), 0.05), t) + away, t))
            body = np.concatenate([0.2 * _circle() + (0, -0.78), 0.16 * _circle() + (0, -0.36)])
            for part in np.split(body, 2):
                cast(self._subpixels(self._of_puppet(part, t) + away, t))
        soft = cv2.GaussianBlur(small, (0, 0), 1.6 * self.size / SIZE)
        dark = cv2.resize(soft, (self.size * FINE,) * 2, interpolation=cv2.INTER_LINEAR).astype(np.float32)
        if self.pose is not None:
            floor = np.zeros_like(small)
            cast_on = self._subpixels(self._of_puppet(_circle() * (0.24, 0.035) + (0.03, 0.0), t), t)
            cv2.fillPoly(floor, [(cast_on * shrink * 16).round().astype(np.int32)], 255, cv2.LINE_AA, 4)
            soft = cv2.GaussianBlur(floor, (0, 0), 1.3 * self.size / SIZE)
            dark += 1.5 * cv2.resize(soft, (self.size * FINE,) * 2, interpolation=cv2.INTER_LINEAR)
        canvas.image *= (1 - (0.22 / 255) * dark)[..., None]

    def _thing(self, canvas: _Canvas, thing: Thing, centre: np.ndarray, t: int, label: int) -> None:
        shape, zoom = outline(thing.kind), self.camera[t, 1]
        points = self._subpixels(centre + thing.radius * shape, t)
        unit = thing.radius * self.scale * zoom
        middle = self._subpixels(centre, t)
        pattern = None
        if thing.texture != "plain":
            width = 0.52 if thing.size == "large" else 0.68
            pattern = _Pattern(thing.texture, (float(middle[0]), float(middle[1])), width * unit, 0.25)
        hole = self._subpixels(centre + 0.45 * thing.radius * _circle(), t) if thing.kind == "ring" else None
        canvas.fill(points, COLOURS[thing.colour], label, 0.22 * unit, pattern, hole)
        if thing.kind == "ball":
            canvas.fill(middle + unit * (_circle(12) * (0.2, 0.15) - (0.34, 0.42)), (255, 252, 244), None, opacity=0.4)

    # -- truth

    def truth(self, labels: np.ndarray, window: slice) -> Truth:
        count = len(labels)
        span = range(len(self.camera))[window]
        camera = self.camera[window]
        paths = [self._seen(path[window], window) for path in self.paths] if len(self.scene.things) else []
        nothing = np.full((count, 2), np.nan)
        if self.pose is None or self.scene.puppet is None:
            pairs = np.full((count, 2, 2), np.nan)
            return Truth(labels, np.zeros((count, 2), bool), np.full((count, 2, 3), np.nan), pairs,
                         nothing, np.full((count, 3), np.nan), np.stack(paths), camera)  # fmt: skip
        puppet, body = self.scene.puppet, self.pose
        zoom = camera[:, 1]
        hands = np.stack([self._seen(self._of_puppet(body.hands[n][window], window), window) for n in (0, 1)], axis=1)
        joints = (body.shoulders, body.elbows, body.hands)
        bones = [np.linalg.norm(b - a, axis=-1) for a, b in pairwise(joints)]  # (2, F) each
        lengths = (bones[0] + bones[1])[:, window].T * puppet.height * zoom[:, None]
        area = np.stack([(labels == part).sum(axis=(1, 2)) for part in (LEFT_HAND, RIGHT_HAND)], axis=1)
        full = np.pi * (poses.HAND * puppet.height * zoom * self.size / SIZE) ** 2
        colours = np.broadcast_to(np.array([COLOURS[c] for c in puppet.gloves], float), (count, 2, 3))
        head = self._seen(
            self._of_puppet(np.stack([0 * body.bob, poses.HEAD[1] + body.bob], 1)[window], window), window
        )
        radius = poses.HEAD_RADII[0] * puppet.height * zoom
        held = [self._seen(self._of_puppet(path[window], window), window) for path in body.held]
        centres = np.stack(paths + held) if paths or held else np.zeros((0, len(span), 2))
        return Truth(labels, area >= 0.5 * full[:, None], colours, hands, lengths,
                     np.concatenate([head, radius[:, None]], 1), centres, camera)  # fmt: skip


class _PuppetPainter:
    """Paints a puppet in one frame, from the back to the front."""

    def __init__(self, painter: _Painter, canvas: _Canvas, t: int):
        assert painter.pose is not None and painter.scene.puppet is not None
        self.painter, self.canvas, self.t = painter, canvas, t
        self.puppet: Puppet = painter.scene.puppet
        self.pose = painter.pose
        self.colour = np.array(COLOURS[self.puppet.colour], np.float32)
        self.unit = self.puppet.height * painter.scale * painter.camera[t, 1]  # subpixels of a puppet height

    def _place(self, points: np.ndarray) -> np.ndarray:
        return self.painter._subpixels(self.painter._of_puppet(points, self.t), self.t)

    def _fill(
        self, points: np.ndarray, colour: np.ndarray | tuple, label: int | None, puff: float = 0.0, **more
    ) -> None:  # type: ignore[no-untyped-def,type-arg]
        self.canvas.fill(self._place(points), colour, label, puff * self.unit, **more)

    def paint(self) -> None:
        self._legs()
        self._body()
        self._head()
        for n in (0, 1):
            self._arm(n)
        for n, path in enumerate(self.pose.held):
            self._held(path[self.t], HELD + n)
        for n in (0, 1):
            self._glove(n)

    def _legs(self) -> None:
        bob, yaw = self.pose.bob[self.t], self.pose.yaw[self.t]
        for n, side in enumerate((-1.0, 1.0)):
            foot = self.pose.feet[n, self.t]
            hip = np.array([side * poses.HIP[0], poses.HIP[1] + bob])
            ankle = foot + np.array([0, -0.055])
            self._fill(_tube(_curve(hip, (hip + ankle) / 2, ankle), 0.048), 0.80 * self.colour, FEET, 0.02)
            turned = 0.03 * side * np.cos(yaw) + 0.035 * np.sin(yaw)
            self._fill(foot + _circle() * (0.082, 0.046) + (turned, -0.034), _SHOE, FEET, 0.022)

    def _body(self) -> None:
        bob, yaw = self.pose.bob[self.t], self.pose.yaw[self.t]
        wide = 0.82 + 0.18 * np.cos(yaw)
        half = np.array([[0.09, -0.61], [0.135, -0.56], [0.155, -0.42], [0.18, -0.25], [0.17, -0.19], [0.0, -0.175]])
        corners = np.concatenate([half, half[-2::-1] * (-1, 1)]) * (wide, 1) + (0, bob)
        pattern = None
        if self.puppet.texture != "plain":
            origin = self._place(np.array([0.0, -0.39 + bob]))
            width = 0.105 if self.puppet.texture == "striped" else 0.125
            pattern = _Pattern(self.puppet.texture, tuple(origin), width * self.unit, -yaw * 0.16 / width)  # type: ignore[arg-type]
        self._fill(_rounded(corners, 0.06), 0.90 * self.colour, BODY, 0.05, pattern=pattern)

    def _head(self) -> None:
        bob, tilt, yaw = self.pose.bob[self.t], self.pose.tilt[self.t], self.pose.yaw[self.t]
        cos, sin = np.cos(tilt), np.sin(tilt)
        turn = np.array([[cos, sin], [-sin, cos]])

        def on_head(points: np.ndarray) -> np.ndarray:  # about the head's centre, tilted about the neck
            neck = np.array([0, 0.16])
            return (points - neck) @ turn + neck + np.array([0, poses.HEAD[1] + bob])

        def on_face(x: float, y: float, rx: float, ry: float, points: int = 20) -> np.ndarray:
            angle = np.clip(np.arcsin(x / 0.2) + yaw, -1.4, 1.4)  # where on the round head
            return on_head(_circle(points) * (rx * (0.45 + 0.55 * np.cos(angle)), ry) + (0.2 * np.sin(angle), y))

        for x, lean in ((-0.07, -0.05), (0.0, 0.0), (0.07, 0.05)):  # a tuft of hair
            lock = _curve(np.array([0.4 * x, -0.16]), np.array([0.8 * x, -0.2]), np.array([x + lean, -0.235]))
            self._fill(on_head(_tube(lock, 0.026)), 0.72 * self.colour, HEAD, 0.012)
        for side in (-1.0, 1.0):  # ears
            x = side * 0.195 * np.cos(yaw) - 0.03 * np.sin(yaw)
            self._fill(on_head(0.05 * _circle() + (x, 0.01)), 0.86 * self.colour, HEAD, 0.02)
        self._fill(on_head(_circle(40) * poses.HEAD_RADII), self.colour, HEAD, 0.07)
        for side in (-1.0, 1.0):
            blush = 0.55 * self.colour + np.array((115, 90, 86), np.float32)
            self._fill(on_face(side * 0.125, 0.055, 0.036, 0.026), blush, None, opacity=0.55)
            if self.pose.blink[self.t]:
                self._fill(on_face(side * 0.075, -0.03, 0.046, 0.010), _INK, None, opacity=0.8)
                continue
            self._fill(on_face(side * 0.075, -0.035, 0.050, 0.056), (250, 248, 242), None)
            gaze = 0.014 * np.sign(yaw) * (abs(yaw) > 0.2)
            self._fill(on_face(side * 0.07 + gaze, -0.03, 0.026, 0.030), _INK, None)
            self._fill(on_face(side * 0.07 + gaze - 0.01, -0.043, 0.009, 0.010, 10), (255, 255, 255), None)
        self._fill(on_face(0.0, 0.018, 0.032, 0.027), 0.70 * self.colour, None, 0.012)
        xs = np.linspace(-0.07, 0.07, 9)
        angle = np.clip(np.arcsin(xs / 0.2) + yaw, -1.4, 1.4)
        smile = np.stack([0.2 * np.sin(angle), 0.105 - 9 * xs**2 * 0.9], axis=1)
        self._fill(on_head(_tube(smile, 0.0105)), 0.35 * np.array(_INK) + 0.25 * self.colour, None)

    def _arm(self, n: int) -> None:
        shoulder, elbow, hand = (joint[n, self.t] for joint in (self.pose.shoulders, self.pose.elbows, self.pose.hands))
        self._fill(_tube(_curve(shoulder, elbow, hand), 0.048), 0.84 * self.colour, ARMS, 0.02)

    def _glove(self, n: int) -> None:
        hand, elbow = self.pose.hands[n, self.t], self.pose.elbows[n, self.t]
        colour = np.array(COLOURS[self.puppet.gloves[n]], np.float32)
        label, side = (LEFT_HAND, RIGHT_HAND)[n], (-1.0, 1.0)[n]
        along = (hand - elbow) / max(float(np.linalg.norm(hand - elbow)), 1e-6)
        across = np.array([-along[1], along[0]]) * side
        inward = across if across[0] * side < 0 else -across
        thumb = hand + 0.055 * inward + 0.025 * along
        self._fill(_tube(np.linspace(hand, thumb + 0.02 * inward, 4), 0.026), 0.94 * colour, label, 0.012)
        self._fill(hand + 0.012 * along + poses.HAND * _circle(24) * (0.96, 1.0), colour, label, 0.028)
        cuff = hand - 0.062 * along
        self._fill(_tube(np.linspace(cuff - 0.05 * across, cuff + 0.05 * across, 4), 0.02), 0.86 * colour, label, 0.01)

    def _held(self, centre: np.ndarray, label: int) -> None:
        assert self.puppet.held is not None
        colour, kind = self.puppet.held
        radius = 0.062 if self.puppet.action == "juggle" else 0.085
        hole = self._place(centre + 0.45 * radius * _circle()) if kind == "ring" else None
        self._fill(centre + radius * outline(kind), COLOURS[colour], label, 0.02, hole=hole)
