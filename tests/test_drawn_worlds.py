"""The frames of both drawn worlds stay what they are: the models were trained on them, and stored numbers compare with
them. To be equal on every machine, the test leaves room for a few pixels by one grey level.
"""

import numpy as np
import pytest

from enhance_a_video.embedded import world
from enhance_a_video.embedded.puppet import paint
from enhance_a_video.embedded.puppet import world as puppets

SHAPES = [198533598640, 111521052658, 194589168943, 82114568014]
PUPPETS = [117965265504, 116533983053, 169289558352, 90759754197]


def fingerprint(frames):
    """The sum of all values, each weighted by its place."""
    weights = 1 + np.arange(frames.size, dtype=np.int64) % 8191
    return int((frames.reshape(-1).astype(np.int64) * weights).sum())


@pytest.mark.parametrize("index", range(4))
def test_frames_stay_what_they_are(index):
    shapes = world.render(world.held_out_scene(index))[0]
    assert fingerprint(shapes) == pytest.approx(SHAPES[index], rel=1e-7)
    puppet = paint.render(puppets.held_out_scene(index), window=slice(0, 33, 8))[0]
    assert fingerprint(puppet) == pytest.approx(PUPPETS[index], rel=1e-7)


def test_a_small_change_shows():
    frames = world.render(world.held_out_scene(0))[0]
    frames[3, 20:22, 20:22] = 0
    assert fingerprint(frames) != pytest.approx(SHAPES[0], rel=1e-6)
