"""The checker of the puppet world: right on its own clips; each planted damage is found by its own measure."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from enhance_a_video.embedded.motion import path_of
from enhance_a_video.embedded.puppet import paint, world
from enhance_a_video.embedded.puppet.checker import PUPPET_MEASURES, check, motion_of
from enhance_a_video.embedded.puppet.damage import DAMAGES, found
from enhance_a_video.embedded.puppet.finding import find

RIGHT = [m.name for m in PUPPET_MEASURES if m.name.endswith("_right")]


def scene(index: int) -> world.Scene:
    return world.sample_scene(np.random.default_rng((17, index)))


@cache
def clip(index: int) -> tuple[np.ndarray, paint.Truth]:
    return paint.render(scene(index))


@cache
def clean(index: int) -> dict[str, float]:
    return check(clip(index)[0], world.parse_caption(world.caption(scene(index))))


def textured(count: int) -> list[int]:
    """Scenes of puppets in stripes or spots."""
    found = [i for i in range(80) if (p := scene(i).puppet) and p.texture != "plain" and p.action in ("wave", "juggle")]
    return found[:count]


ACTIONS = [next(i for i in range(80) if (p := scene(i).puppet) and p.action == action) for action in world.ACTIONS]
SHAPES = [i for i in range(80) if not scene(i).puppet][:3]


def test_the_checker_is_right_about_true_clips():
    rows = [clean(i) for i in ACTIONS + SHAPES]
    assert all(set(row) == {m.name for m in PUPPET_MEASURES} for row in rows)
    assert np.mean([row["attributes_right"] for row in rows]) >= 0.98
    for name in RIGHT:
        values = [row[name] for row in rows if np.isfinite(row[name])]
        assert values and np.mean(values) >= 0.8, name
    for row in rows[: len(ACTIONS)]:
        assert row["hands_present"] == 1 and row["hands_extra"] == 0 and row["arm_stretch"] < 0.05
        assert row["glove_drift"] < 3 and row["flicker"] < 0.003


@pytest.mark.parametrize("index", ACTIONS[:3])
def test_it_finds_things_where_the_truth_has_them(index):
    seen, truth = find(clip(index)[0], scene(index)), clip(index)[1]
    assert np.abs(seen.hands - truth.hand_centres).max() < 3
    assert np.array_equal(seen.hand_count, truth.hand_count)
    assert np.abs(seen.head - truth.head).max() < 0.4 * truth.head[0, 2]
    assert np.abs(seen.camera[[0, -1]] - truth.camera[[0, -1]]).max() < 1


def test_planted_damage_is_found_by_its_own_measure_and_no_other():
    for index in textured(2):
        frames, truth = clip(index)
        for name, damage in DAMAGES.items():
            broken = check(damage.plant(frames, truth, np.random.default_rng(index)), scene(index))
            assert found(clean(index), broken) == {name}, (index, name)
    assert clean(index)["hands_missing"] == 0


def test_a_hand_too_many_and_a_hand_too_far_are_found():
    index = ACTIONS[0]
    frames, truth = clip(index)
    copied = frames.copy()
    for t in range(len(frames)):
        glove = np.argwhere(truth.labels[t] == paint.LEFT_HAND)
        copied[t][tuple((glove - glove.min(0) + (2, 2)).T)] = frames[t][tuple(glove.T)]
    assert check(copied, scene(index))["hands_extra"] > 0.9
    moved = np.where(np.isin(truth.labels, (paint.LEFT_HAND,))[..., None], np.uint8(128), copied)
    assert check(moved, scene(index))["arm_stretch"] > 0.3


def lies(index: int) -> dict[str, world.Scene]:
    """Scenes that differ from the true one in what one measure is for."""
    true = scene(index)
    puppet = true.puppet
    assert puppet is not None

    def other(value: str, options: object) -> str:
        names = list(options)  # type: ignore[call-overload]
        return names[(names.index(value) + 1) % len(names)]

    free = [c for c in world.COLOURS if c not in (puppet.colour, *puppet.gloves)]
    return {
        "puppet_right": replace(true, puppet=replace(puppet, colour=free[0])),
        "gloves_right": replace(true, puppet=replace(puppet, gloves=(free[0], puppet.gloves[1]))),
        "action_right": replace(true, puppet=replace(puppet, action="clap" if puppet.action != "clap" else "turn")),
        "size_right": replace(true, puppet=replace(puppet, size=other(puppet.size, world.SIZES))),
        "texture_right": replace(true, puppet=replace(puppet, texture=other(puppet.texture, world.TEXTURES))),
        "backdrop_right": replace(true, backdrop=other(true.backdrop, world.BACKDROPS)),
        "camera_right": replace(true, camera=other(true.camera, world.CAMERAS)),
    }


@pytest.mark.parametrize("measure", lies(textured(1)[0]))
def test_the_checker_notices_a_wrong_attribute(measure):
    """Ask for something that the clip does not show."""
    index = textured(1)[0]
    assert clean(index)[measure] == 1
    assert check(clip(index)[0], lies(index)[measure])[measure] < 1


@pytest.mark.parametrize("motion", world.MOTIONS)
def test_motions_are_read_off_paths(motion):
    rng = np.random.default_rng(0)
    for _ in range(20):
        thing = world._placed(world.Thing("red", "ball", motion=motion, size="small"), rng, edge=7, floor=110)
        path = path_of(thing) + rng.normal(0, 0.2, (33, 2))
        path[10:14] = np.nan  # hidden for a while
        assert motion_of(path) == motion


def test_an_empty_clip_shows_nothing_that_was_requested():
    row = check(np.full((9, 128, 128, 3), 128, np.uint8), scene(ACTIONS[0]))
    assert row["puppet_right"] == row["action_right"] == row["hands_present"] == 0 and row["hands_missing"] == 1


@pytest.mark.parametrize(
    "frames, message",
    [
        (np.zeros((33, 128, 96, 3), np.uint8), "expected frames"),
        (np.zeros((33, 128, 128, 3)), "expected frames"),
        (np.zeros((1, 128, 128, 3), np.uint8), "two frames"),
    ],
)
def test_frames_that_cannot_be_checked_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        check(frames, scene(0))
