"""The puppet world: deterministic, described by its captions, and its truth right about every frame."""

import numpy as np
import pytest

from enhance_a_video.embedded.puppet import paint, world
from enhance_a_video.embedded.puppet.pose import REACH, pose
from enhance_a_video.errors import PromptError
from training.recipe import build_tokenizer
from training.worlds import NOT_NAMED, PUPPETS, puppet_map

EVERY_EIGHTH = slice(0, 33, 8)


def scene(index: int) -> world.Scene:
    return world.sample_scene(np.random.default_rng((17, index)))


def with_puppet(action: str, start: int = 0) -> world.Scene:
    return next(s for s in map(scene, range(start, 1000)) if s.puppet and s.puppet.action == action)


def named(scene: world.Scene) -> list[tuple]:
    """Everything that a caption names."""
    things = [(t.colour, t.kind, t.texture, t.size, t.motion) for t in scene.things]
    p = scene.puppet
    side = p and (p.side if p.action in ("wave", "walk") else "")
    puppet = [p and (p.colour, p.texture, p.size, p.gloves, p.action, side, p.held)]
    return [*puppet, *things, (scene.backdrop, scene.camera)]


def test_same_seed_same_clip():
    assert scene(3) == scene(3) != scene(4)
    one, two = (paint.render(scene(3), 64, EVERY_EIGHTH)[0] for _ in range(2))
    assert np.array_equal(one, two)


def test_training_and_held_out_scenes_differ():
    assert not {world.training_scene(i) for i in range(50)} & {world.held_out_scene(i) for i in range(50)}


def test_every_attribute_occurs():
    scenes = [scene(i) for i in range(300)]
    puppets = [s.puppet for s in scenes if s.puppet]
    things = [t for s in scenes for t in s.things]
    assert {p.action for p in puppets} == set(world.ACTIONS)
    assert {p.texture for p in puppets} == set(world.TEXTURES) and {p.size for p in puppets} == set(world.SIZES)
    assert {t.kind for t in things} == set(world.KINDS) and {t.motion for t in things} == set(world.MOTIONS)
    assert {s.backdrop for s in scenes} == set(world.BACKDROPS) and {s.camera for s in scenes} == set(world.CAMERAS)
    assert 0.4 < np.mean([p.gloves[0] == p.gloves[1] for p in puppets]) < 0.6
    assert {len(s.things) + (s.puppet is not None) for s in scenes} == {1, 2}


def test_a_caption_names_the_scene_and_is_understood():
    tokenizer = build_tokenizer(PUPPETS)
    for index in range(80):
        for k in range(2):
            sentence = world.caption(scene(index), np.random.default_rng(k))
            assert named(world.parse_caption(sentence)) == named(scene(index)), sentence
            ids = tokenizer(sentence).input_ids
            assert tokenizer.unk_token_id not in ids and len(ids) <= 64, sentence
    assert len({world.caption(scene(0), np.random.default_rng(k)) for k in range(20)}) > 5


@pytest.mark.parametrize(
    "prompt, missing",
    [
        ("A dog runs in a meadow.", "0 shapes and 0 puppets"),
        ("A red puppet claps in a meadow.", "no gloves"),
        ("A red puppet in blue gloves in a meadow.", "no known action"),
        ("A red puppet in blue gloves waves in a meadow.", "left or right"),
        ("A red puppet in blue gloves juggles in a meadow.", "hold"),
        ("A small red ball in a meadow.", "motion"),
        ("A red puppet in blue gloves claps.", "backdrop"),
    ],
)
def test_other_sentences_are_refused_with_the_vocabulary(prompt, missing):
    with pytest.raises(PromptError, match=missing) as error:
        world.parse_caption(prompt)
    assert "Example" in str(error.value)
    world.parse_caption(str(error.value).split("Example: '")[1].rstrip("'"))


def test_a_window_of_a_clip_is_that_part_of_it():
    frames, truth = paint.render(scene(5), 64, slice(2, 12))
    part, part_truth = paint.render(scene(5), 64, slice(4, 7))
    assert frames.shape == (10, 64, 64, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames[2:5], part) and np.array_equal(truth.labels[2:5], part_truth.labels)
    assert np.allclose(truth.hand_centres[2:5], part_truth.hand_centres, equal_nan=True)


def test_any_size_shows_the_same_picture():
    small, large = (paint.render(scene(8), size, slice(16, 17))[0][0].astype(float) for size in (64, 192))
    assert abs(large.reshape(64, 3, 64, 3, 3).mean((1, 3)) - small).mean() < 4
    with pytest.raises(ValueError, match="32"):
        paint.render(scene(8), 16)


@pytest.mark.parametrize("action", world.ACTIONS)
def test_the_truth_about_hands_is_what_is_painted(action):
    """Both hands are seen in each frame, where the truth has them, in their gloves' colours; arms keep their length."""
    for start in (0, 100):
        drawn = with_puppet(action, start)
        puppet = drawn.puppet
        frames, truth = paint.render(drawn, window=EVERY_EIGHTH)
        assert truth.hands.all() and (truth.hand_count == 2).all()
        for t in range(len(frames)):
            for n, label in enumerate((paint.LEFT_HAND, paint.RIGHT_HAND)):
                ys, xs = np.nonzero(truth.labels[t] == label)
                assert np.hypot(*(truth.hand_centres[t, n] - (xs.mean() + 0.5, ys.mean() + 0.5))) < 0.08 * puppet.height
                core = frames[t][ys, xs][np.hypot(xs - xs.mean(), ys - ys.mean()) < 2].mean(0)
                assert np.abs(core - truth.glove_colours[t, n]).mean() < 40
        assert np.allclose(truth.arm_lengths, truth.camera[:, 1:] * puppet.height * REACH, rtol=0.02)
        assert not (truth.labels[:, :3] > 0).any() or action == "juggle"  # nothing is cut off
        assert not (truth.labels[:, :, [0, -1]] > 0).any()


def test_hands_never_leave_the_reach_of_their_arms():
    for index in range(200):
        if (puppet := scene(index).puppet) is not None:
            joints = pose(puppet)
            assert np.linalg.norm(joints.hands - joints.shoulders, axis=-1).max() <= REACH + 1e-6, puppet.action


def test_shapes_are_where_the_truth_has_them_and_hardly_hidden():
    checked = 0
    for index in range(16):
        drawn = scene(index)
        if not drawn.things:
            continue
        truth = paint.render(drawn, window=EVERY_EIGHTH)[1]
        shown = [(truth.labels == paint.THINGS + n).sum((1, 2)) > 20 for n in range(len(drawn.things))]
        assert np.mean(shown) >= 0.6
        if len(drawn.things) == 1 and drawn.puppet is None:
            ys, xs = np.nonzero(truth.labels[0] == paint.THINGS)
            assert np.hypot(*(truth.centres[0, 0] - (xs.mean() + 0.5, ys.mean() + 0.5))) < 0.25 * drawn.things[0].radius
            checked += 1
    assert checked > 0


def test_backdrops_are_muted_so_that_colours_find_things():
    import cv2

    from enhance_a_video.embedded.puppet.backdrops import backdrop
    from enhance_a_video.embedded.puppet.finding import CHROMA

    for name in world.BACKDROPS:
        lab = cv2.cvtColor(backdrop(name, 1.0) / 255, cv2.COLOR_RGB2LAB)
        assert np.hypot(lab[..., 1], lab[..., 2]).max() < CHROMA, name
    for colour in world.COLOURS.values():
        lab = cv2.cvtColor(np.float32([[colour]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]
        assert np.hypot(lab[1], lab[2]) > 1.5 * CHROMA


def test_the_truth_map_names_parts_colours_and_kinds():
    drawn = with_puppet("juggle")
    _, truth = paint.render(drawn)
    found = puppet_map(drawn, truth, lambda masks: masks[:, ::4]).reshape(9, 8, 8, 53) / 255
    left = found[..., 16:20].sum((1, 2, 3)) * 64  # pixels of the left hand: the fifth part
    assert np.allclose(left, (truth.labels[::4] == paint.LEFT_HAND).sum((1, 2)), rtol=0.05)
    balls = found[..., 24:28].sum() * 64
    assert 0.9 < balls / np.isin(truth.labels[::4], (8, 9, 10)).sum() < 1.1
    colour = list(world.COLOURS).index(drawn.puppet.held[0])
    assert abs(found[..., 44 + colour].sum() * 256 - balls) < 0.1 * balls


def test_each_noun_of_a_caption_has_its_attributes():
    tokenizer = build_tokenizer(PUPPETS)
    nouns = set(tokenizer.convert_tokens_to_ids(list(PUPPETS.nouns)))
    for index in range(50):
        rows = PUPPETS.attributes_of(scene(index))
        ids = tokenizer(world.caption(scene(index), np.random.default_rng(index))).input_ids
        assert sum(token in nouns for token in ids) == len(rows)
        for row in rows:
            assert all(v == NOT_NAMED or 0 <= v < n for v, n in zip(row, PUPPETS.attributes, strict=True))
