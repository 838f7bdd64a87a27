"""Each measure against planted damage: the right one must notice it, and in the right direction."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from enhance_a_video.errors import SettingsError
from enhance_a_video.metrics import MEASURES, Clip, measure


def moving_clip(frames: int = 17, side: int = 64) -> np.ndarray:
    """A textured disc that drifts over a textured ground, float (T, H, W, 3) in [0, 1]."""
    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.random((side, side, 3)).astype(np.float32), (0, 0), 2)
    ground = (ground - ground.min()) / np.ptp(ground)
    clip = []
    for t in range(frames):
        frame = 0.6 * ground.copy()
        centre = (int((12 + 1.5 * t) * 16), int((32 + 6 * np.sin(t / 4)) * 16))
        cv2.circle(frame, centre, 9 * 16, (0.9, 0.3, 0.1), -1, cv2.LINE_AA, 4)
        clip.append(frame)
    return np.stack(clip)


def flickered(clip):
    return clip * (1 - 0.1 * (np.arange(len(clip)) % 2))[:, None, None, None]


def frozen(clip):
    return np.repeat(clip[:1], len(clip), axis=0)


def blurred(clip):
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in clip])


def noisy(clip):
    return np.clip(clip + 0.04 * np.random.default_rng(1).standard_normal(clip.shape), 0, 1)


def grey(clip):
    return clip.mean(-1, keepdims=True).repeat(3, -1)


CLIP = moving_clip()


@pytest.mark.parametrize(
    ("name", "damage", "sign"),
    [
        ("temporal_flicker", flickered, -1),
        ("temporal_flicker", noisy, -1),
        ("temporal_flicker", frozen, +1),  # steady by standing still ...
        ("motion", frozen, -1),  # ... which this one shows
        ("warping_error", flickered, +1),
        ("warping_error", noisy, +1),
        ("sharpness", blurred, -1),
        ("sharpness", noisy, +1),
        ("contrast", blurred, -1),
        ("saturation", grey, -1),
    ],
)
def test_planted_damage_is_ranked(name, damage, sign):
    clean, damaged = measure(CLIP, [name])[name], measure(damage(CLIP), [name])[name]
    assert np.sign(damaged - clean) == sign, (clean, damaged)


@pytest.mark.parametrize("name", ["warping_error", "temporal_flicker"])
def test_more_flicker_costs_more(name):
    values = [
        measure(CLIP * (1 - a * (np.arange(len(CLIP)) % 2))[:, None, None, None], [name])[name]
        for a in (0, 0.05, 0.1, 0.2)
    ]
    assert values == sorted(values, reverse=MEASURES[name].better == "higher")


def test_a_static_clip_is_perfect():
    values = measure(frozen(CLIP))
    assert values["temporal_flicker"] == 1
    assert values["warping_error"] < 0.01
    assert values["motion"] < 0.01


@pytest.mark.parametrize("side", [48, 64, 320])
def test_motion_is_in_pixels_of_the_clip(side):
    shift = side / 32  # px per frame
    picture = moving_clip(1, 2 * side)[0]
    pan = np.stack([picture[:side, round(shift * t) : round(shift * t) + side] for t in range(6)])
    assert measure(pan, ["motion"])["motion"] == pytest.approx(shift, rel=0.15)
    assert measure(pan, ["warping_error"])["warping_error"] < 3  # motion that the flow explains costs (nearly) nothing


def test_flicker_is_vbench_definition():
    clip = np.zeros((2, 4, 4, 3), np.uint8)
    clip[1] = 51
    assert measure(clip, ["temporal_flicker"])["temporal_flicker"] == pytest.approx((255 - 51) / 255)


def test_uint8_and_float_agree():
    as_bytes = np.rint(CLIP * 255).astype(np.uint8)
    first, second = measure(as_bytes), measure(as_bytes / 255.0)
    assert first == pytest.approx(second, rel=1e-4)


@pytest.mark.parametrize("size", [(2, 8, 8, 3), (3, 17, 23, 3), (2, 2, 2, 3), (2, 16, 200, 3)])
def test_odd_and_tiny_sizes(size):
    values = measure(np.random.default_rng(0).random(size))
    assert all(np.isfinite(value) for value in values.values())


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (CLIP[:1], "at least 2"),
        (CLIP[0], "shape"),
        (CLIP.transpose(0, 3, 1, 2), "shape"),
        (CLIP[:0], "shape"),
        ((CLIP * 255).astype(np.int32), "int32"),
        (CLIP * 2 - 1, "-1..1"),
        (np.where(CLIP > 0.5, np.nan, CLIP), "NaN"),
    ],
)
def test_bad_frames_are_explained(frames, says):
    with pytest.raises(SettingsError, match=says):
        measure(frames)


def test_one_frame_has_its_own_measures():
    assert set(measure(CLIP[:1], [m.name for m in MEASURES.values() if m.min_frames == 1])) >= {
        "sharpness",
        "contrast",
    }


def test_unknown_measure():
    with pytest.raises(SettingsError, match=r"beauty.*temporal_flicker"):
        measure(CLIP, ["beauty"])


def test_registry_is_complete():
    for name, row in MEASURES.items():
        assert row.name == name
        assert row.better in {"higher", "lower", "neither"}
        assert row.unit and row.source and row.label


def test_a_clip_is_measured_as_its_frames():
    assert measure(Clip(CLIP)) == measure(CLIP)


def test_metrics_do_not_load_a_model_library():
    code = (
        "import sys, numpy as np, enhance_a_video.metrics as m;"
        "m.measure(np.zeros((2, 8, 8, 3))); print('diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
