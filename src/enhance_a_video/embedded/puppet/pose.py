"""The joints of a puppet in every frame of each action: for drawing and for the truth.

Lengths are in puppet heights: the floor is y = 0, the crown y = -1, x = 0 between the feet; y grows downward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .world import FRAMES, Puppet

SHOULDER = np.array([0.125, -0.545])  # of the right arm
UPPER_ARM, FOREARM = 0.185, 0.185
REACH = UPPER_ARM + FOREARM
HAND = 0.075  # radius of a glove
HEAD = np.array([0.0, -0.78])
HEAD_RADII = (0.205, 0.195)
HIP = np.array([0.07, -0.22])


@dataclass(frozen=True)
class Pose:
    """A puppet's joints over a clip. Sides: 0 left, 1 right. `yaw`: radians, positive to the right."""

    bob: np.ndarray  # (F,) how far head, body and arms are below their place
    tilt: np.ndarray  # (F,) radians, of the head
    yaw: np.ndarray  # (F,)
    shoulders: np.ndarray  # (2, F, 2)
    elbows: np.ndarray  # (2, F, 2)
    hands: np.ndarray  # (2, F, 2)
    feet: np.ndarray  # (2, F, 2)
    held: np.ndarray  # (things, F, 2)
    blink: np.ndarray  # (F,) bool


def pose(puppet: Puppet, frames: int = FRAMES) -> Pose:
    """The joints of a puppet in each frame."""
    u = np.linspace(0, 1, frames)
    beat = 2 * np.pi * puppet.tempo * u + puppet.phase  # of the action
    slow = 2 * np.pi * 1.3 * u + puppet.phase
    zero = np.zeros(frames)
    sway = 0.012 * np.sin(slow)
    rest = [_points(-0.26 - 0.4 * sway, -0.33 + sway), _points(0.26 - 0.4 * sway, -0.33 - sway)]
    bob, tilt, yaw = 0.008 * np.sin(slow + 1), 0.06 * np.sin(slow), zero
    feet = [_points(zero - 0.075, zero), _points(zero + 0.075, zero)]
    held: list[np.ndarray] = []
    hands = rest
    if puppet.action == "wave":
        side = -1.0 if puppet.side == "left" else 1.0
        swing = np.sin(beat)
        hands[int(side > 0)] = _points(side * (0.365 + 0.06 * swing), -0.76 + 0.03 * np.abs(swing))
        tilt = tilt + 0.09 * side
    elif puppet.action == "clap":
        gap = 0.076 + 0.15 * (0.5 + 0.5 * np.cos(beat))
        hands = [_points(-gap, -0.43 + zero), _points(gap, -0.43 + zero)]
        bob = bob + 0.012 * np.cos(beat)
    elif puppet.action == "juggle":
        lift = 0.05 * np.sin(beat)
        hands = [_points(-0.29 + 0.02 * np.cos(beat), -0.40 - lift), _points(0.29 + 0.02 * np.cos(beat), -0.40 + lift)]
        held = [_toss(puppet.tempo * u + puppet.phase / (2 * np.pi) + n * 2 / 3) for n in range(3)]
        tilt = 0.5 * tilt
    elif puppet.action == "walk":
        step, ahead = np.sin(beat), 1.0 if puppet.side == "right" else -1.0
        hands = [_points(-0.25 + 0.075 * step, -0.34 - 0.03 * np.abs(step)),
                 _points(0.25 - 0.075 * step, -0.34 - 0.03 * np.abs(step))]  # fmt: skip
        lift = 0.05 * np.cos(beat) * ahead
        feet = [
            _points(-0.06 - 0.085 * step, -np.maximum(0, -lift)),
            _points(0.06 + 0.085 * step, -np.maximum(0, lift)),
        ]
        bob = 0.02 * np.cos(2 * beat)
        yaw = zero + 0.6 * ahead
        tilt = 0.05 * np.sin(beat)
    elif puppet.action == "turn":
        yaw = 0.95 * np.sin(beat)
        ahead, wide = 0.19, 0.235  # the hands are held in front of the body
        hands = [_points(s * wide * np.cos(yaw) + ahead * np.sin(yaw), -0.40 + 0.03 * s * np.sin(yaw)) for s in (-1, 1)]
    elif puppet.action == "pass":
        near = 0.5 - 0.5 * np.cos(2 * beat - 2 * puppet.phase)  # they meet twice a cycle: there and back
        gap = 0.30 - 0.20 * near
        hands = [_points(-gap, -0.40 - 0.02 * near), _points(gap, -0.40 - 0.02 * near)]
        over = np.array([0.0, -0.125])
        share = 0.5 - 0.5 * np.tanh(9 * np.cos(beat - puppet.phase)) / np.tanh(
            9
        )  # 0: in the left, 1: in the right hand
        held = [hands[0] * (1 - share[:, None]) + hands[1] * share[:, None] + over]
    blink = (np.arange(frames) + int(7 * puppet.phase)) % 29 < 2
    arms = np.stack(hands) + np.stack([zero, bob], axis=1)  # (2, F, 2)
    across = np.cos(yaw)
    shoulders = np.stack([_points(s * SHOULDER[0] * across, SHOULDER[1] + bob) for s in (-1, 1)])
    elbows = np.stack([_elbow(shoulders[n], arms[n], (-1.0, 1.0)[n]) for n in (0, 1)])
    things = np.stack(held) + np.stack([zero, bob], axis=1) if held else np.zeros((0, frames, 2))
    return Pose(bob, tilt, yaw, shoulders, elbows, arms, np.stack(feet), things, blink)


def _points(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    return np.stack(np.broadcast_arrays(x, y), axis=1)


def _toss(turns: np.ndarray) -> np.ndarray:
    """A ball that is thrown from hand to hand in arcs, (F, 2); a turn is there and back."""
    flight = np.mod(2 * turns, 2)
    u, back = np.mod(flight, 1), flight >= 1
    return np.stack([np.where(back, -1, 1) * (0.58 * u - 0.29), -0.47 - 0.62 * 4 * u * (1 - u)], axis=1)


def _elbow(shoulder: np.ndarray, hand: np.ndarray, side: float) -> np.ndarray:
    """Where an arm of fixed length bends, (F, 2): outward."""
    along = hand - shoulder
    far = np.linalg.norm(along, axis=1, keepdims=True).clip(1e-6)
    bend = np.sqrt(np.clip(UPPER_ARM**2 - (far / 2) ** 2, 0, None))
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / far
    outward = normal * np.where(normal @ np.array([side, 0.15]) >= 0, 1.0, -1.0)[:, None]
    return shoulder + along / 2 + outward * bend
