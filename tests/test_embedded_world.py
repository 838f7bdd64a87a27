"""The embedded world: deterministic, described by its captions; its checker right about clips whose truth is known."""

import numpy as np
import pytest

from enhance_a_video.embedded import world
from enhance_a_video.embedded.checker import TRUTH_MEASURES, check
from enhance_a_video.errors import PromptError


def scene(index: int) -> world.Scene:
    return world.sample_scene(np.random.default_rng((7, index)))


def contents(scene: world.Scene) -> list[tuple[str, ...]]:
    return [(t.colour, t.kind, t.texture, t.motion) for t in scene.things] + [(scene.backdrop,)]


def test_same_seed_same_clip():
    assert scene(3) == scene(3)
    assert np.array_equal(world.render(scene(3))[0], world.render(scene(3))[0])
    assert scene(3) != scene(4)


@pytest.mark.parametrize("index", range(60))
def test_a_caption_describes_the_scene_and_is_read_back(index):
    for k in range(4):
        sentence = world.caption(scene(index), np.random.default_rng(k))
        assert contents(world.parse_caption(sentence)) == contents(scene(index)), sentence


@pytest.mark.parametrize(
    "prompt, missing",
    [
        ("A dog runs over a green meadow.", "0 objects"),
        ("A red ball over a green meadow.", "motion"),
        ("A red ball rises.", "backdrop"),
        ("", "0 objects"),
    ],
)
def test_other_sentences_are_refused_with_the_vocabulary(prompt, missing):
    with pytest.raises(PromptError, match=missing) as error:
        world.parse_caption(prompt)
    assert "Example" in str(error.value)


def test_a_window_of_a_clip_is_that_part_of_it():
    frames, truth = world.render(scene(5))
    part, part_truth = world.render(scene(5), slice(4, 13))
    assert frames.shape == (world.FRAMES, 64, 64, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames[4:13], part)
    assert np.array_equal(truth.masks[:, 4:13], part_truth.masks)


def test_the_thing_in_front_hides_the_other():
    for index in range(20):
        _, truth = world.render(scene(index))
        assert not (truth.masks.sum(axis=0) > 1).any()


def test_the_checker_is_right_about_true_clips():
    rows = [check(world.render(scene(i))[0], scene(i)) for i in range(40)]
    assert set(rows[0]) == {m.name for m in TRUTH_MEASURES}
    for name in ("colour_right", "kind_right", "texture_right", "motion_right", "backdrop_right"):
        assert np.mean([row[name] for row in rows]) >= 0.97, name
    assert max(row["backdrop_error"] for row in rows) < 1e-3
    assert max(row["debris"] for row in rows) < 1e-3


@pytest.mark.parametrize("attribute", ["colour", "kind", "texture", "motion", "backdrop"])
def test_the_checker_notices_a_wrong_attribute(attribute):
    """Ask for something that the clip does not show: only that attribute may be wrong."""
    from dataclasses import replace

    options = {"colour": list(world.COLOURS), "kind": world.KINDS, "texture": world.TEXTURES,
               "motion": list(world.MOTIONS), "backdrop": list(world.BACKDROPS)}[attribute]  # fmt: skip
    wrong = 0
    shown = [s for s in map(scene, range(40)) if len(s.things) == 1][:12]
    for clip in shown:
        now = clip.backdrop if attribute == "backdrop" else getattr(clip.things[0], attribute)
        other = options[(list(options).index(now) + 1) % len(options)]
        lie = (
            replace(clip, backdrop=other)
            if attribute == "backdrop"
            else replace(clip, things=(replace(clip.things[0], **{attribute: other}),))
        )
        wrong += check(world.render(clip)[0], lie)[f"{attribute}_right"] == 0
    assert wrong >= 11


def damaged(kind: str, frames: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    moved = frames.astype(float)
    if kind == "backdrop flicker":
        moved += rng.normal(0, 6, (len(frames), 1, 1, 1))
    elif kind == "noise":
        moved += rng.normal(0, 8, frames.shape)
    elif kind == "jitter":
        moved = np.stack([np.roll(f, rng.integers(-2, 3, 2), (0, 1)) for f in frames]).astype(float)
    elif kind == "colour":
        moved *= 1 + 0.15 * np.sin(np.arange(len(frames)))[:, None, None, None] * np.array([1, -1, 0])
    return np.clip(moved, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "damage, measure",
    [
        ("backdrop flicker", "backdrop_flicker"),
        ("noise", "backdrop_error"),
        ("jitter", "jerk"),
        ("colour", "colour_drift"),
    ],
)
def test_planted_damage_is_measured(damage, measure):
    clips = [s for s in map(scene, range(30)) if len(s.things) == 1 and s.backdrop == "desert"][:4]
    assert clips
    for clip in clips:
        frames, _ = world.render(clip)
        assert check(damaged(damage, frames), clip)[measure] > 1.3 * check(frames, clip)[measure]


def test_frames_of_another_world_are_refused():
    with pytest.raises(ValueError, match="expected frames"):
        check(np.zeros((33, 32, 32, 3), np.uint8), scene(0))


def test_an_empty_clip_shows_nothing_that_was_requested():
    row = check(np.full((33, 64, 64, 3), 128, np.uint8), scene(0))
    assert row["colour_right"] == row["kind_right"] == row["motion_right"] == 0
