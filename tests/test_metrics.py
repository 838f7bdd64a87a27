"""Each measure against planted damage: the right one must notice it, and in the right direction."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from enhance_a_video.errors import SettingsError
from enhance_a_video.lab.metrics import MEASURES, OVERLAP, Clip, measure, measure_pieces
from enhance_a_video.lab.metrics.damage import DAMAGES


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


CLIP = moving_clip()


@pytest.mark.parametrize(
    ("name", "damage", "sign"),
    [
        ("temporal_flicker", "flicker", -1),
        ("temporal_flicker", "noise", -1),
        ("temporal_flicker", "jitter", -1),
        ("temporal_flicker", "boil", -1),
        ("temporal_flicker", "drift", -1),
        ("temporal_flicker", "freeze", +1),  # steady by standing still ...
        ("motion", "freeze", -1),  # ... which these two show
        ("dynamic_degree", "freeze", -1),
        ("motion", "jitter", +1),
        ("dynamic_degree", "jitter", +1),
        ("warping_error", "flicker", +1),
        ("warping_error", "noise", +1),
        ("warping_error", "boil", +1),
        ("warping_error", "blur", -1),  # blind: what is soft differs less
        ("motion_smoothness", "flicker", -1),
        ("motion_smoothness", "noise", -1),
        ("motion_smoothness", "jitter", -1),
        ("motion_smoothness", "boil", -1),
        ("motion_smoothness", "stutter", -1),
        ("motion_smoothness", "freeze", +1),  # blind
        ("tone_drift", "drift", +1),
        ("tone_drift", "freeze", -1),  # blind
        ("sharpness", "blur", -1),
        ("sharpness", "noise", +1),
        ("contrast", "blur", -1),
        ("contrast", "flatten", -1),
        ("saturation", "fade", -1),
    ],
)
def test_planted_damage_is_ranked(name, damage, sign):
    values = [measure(DAMAGES[damage](CLIP, amount), [name])[name] for amount in (0, 0.5, 1)]
    assert all(np.sign(np.diff(values)) == sign), values


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_none_at_zero_and_a_clip_at_one(name):
    assert np.abs(DAMAGES[name](CLIP, 0.0) - CLIP).max() < 1e-6
    damaged = DAMAGES[name](CLIP, 1.0)
    assert damaged.shape == CLIP.shape and np.abs(damaged - CLIP).max() > 0.01
    assert measure(damaged, ["contrast"])["contrast"] > 0  # frames in 0..1, or this raises
    assert (DAMAGES[name](CLIP, 1.0) == damaged).all()


def test_jitter_is_what_warping_cannot_see_and_smoothness_can():
    """The flow explains a shaking picture, so warping it back costs little; that it was not to be expected shows."""
    shaken, flickering = (DAMAGES[name](CLIP, 1.0) for name in ("jitter", "flicker"))
    clean, shaken, flickering = (measure(c, ["warping_error", "motion_smoothness"]) for c in (CLIP, shaken, flickering))
    warping = [c["warping_error"] - clean["warping_error"] for c in (shaken, flickering)]
    smoothness = [clean["motion_smoothness"] - c["motion_smoothness"] for c in (shaken, flickering)]
    assert warping[0] < 0.2 * warping[1] and smoothness[0] > 0.2 * smoothness[1]


def test_steady_motion_is_smooth_and_acceleration_is_less_so():
    picture = moving_clip(1, 160)[0]

    def pan(places):
        return np.stack([picture[:96, x : x + 96] for x in places])

    steady, jerky = (
        measure(pan(places), ["motion_smoothness"])["motion_smoothness"]
        for places in (range(0, 36, 4), [0, 2, 8, 10, 16, 18, 24, 26, 32])
    )
    assert jerky < steady and steady > 0.99


def test_dynamic_degree_is_the_fastest_twentieth_in_percent_of_the_side():
    clip = Clip(np.zeros((2, 40, 50, 3)))
    flow = np.zeros((1, 40, 50, 2))
    flow[0, :10, :10] = (3, 4)  # exactly 5 % of the pixels, 5 px long
    flow[0, 20:, :] = (0, 1)
    clip.forward_flow = flow
    assert measure(clip, ["dynamic_degree"])["dynamic_degree"] == pytest.approx(100 * 5 / 40)
    assert measure(clip, ["motion"])["motion"] == pytest.approx(0.05 * 5 + 0.5 * 1)


def test_tone_drift_is_the_distance_of_mean_colours():
    grey = np.repeat(np.linspace(0.4, 0.4, 9)[:, None, None, None], 3, axis=-1) * np.ones((1, 8, 8, 1))
    assert measure(grey, ["tone_drift"])["tone_drift"] == 0
    white = grey.copy()
    white[-3:], white[:3] = 1.0, 0.0  # L* from 0 to 100
    assert measure(white, ["tone_drift"])["tone_drift"] == pytest.approx(100, rel=1e-3)
    swing = np.concatenate([white[:3], white[-3:], white[:3]])
    assert measure(swing, ["tone_drift"])["tone_drift"] == 0  # blind: there and back again


@pytest.mark.parametrize("length", [4, 5, 7, 11, 17])
def test_pieces_give_the_numbers_of_the_whole(length):
    """Pieces that overlap by OVERLAP frames: every frame, pair and triple counts once."""
    starts = range(0, len(CLIP) - OVERLAP, length - OVERLAP)
    pieces = [CLIP[at : at + length] for at in starts]
    assert measure_pieces(pieces) == pytest.approx(measure(CLIP), rel=1e-6)


@pytest.mark.parametrize("name", ["warping_error", "temporal_flicker", "motion_smoothness"])
def test_more_flicker_costs_more(name):
    values = [measure(DAMAGES["flicker"](CLIP, amount), [name])[name] for amount in (0, 0.5, 1, 2)]
    assert values == sorted(values, reverse=MEASURES[name].better == "higher")


def test_a_static_clip_is_perfect():
    values = measure(DAMAGES["freeze"](CLIP, 1.0))
    assert values["temporal_flicker"] == values["motion_smoothness"] == 1 and values["tone_drift"] == 0
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
    short = {row.name for row in MEASURES.values() if row.min_frames > size[0]}
    assert {name for name, value in values.items() if not np.isfinite(value)} == short


@pytest.mark.parametrize(
    ("frames", "says"),
    [
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
    values = measure(CLIP[:1])
    assert {name for name, value in values.items() if np.isfinite(value)} == {"sharpness", "contrast", "saturation"}
    with pytest.raises(SettingsError, match="at least 2"):
        measure(CLIP[:1], ["sharpness", "warping_error"])
    with pytest.raises(SettingsError, match="at least 3"):
        measure(CLIP[:2], ["motion_smoothness"])


@pytest.mark.parametrize("names", [["beauty"], "beauty", [7], [None], [["beauty"]], []])
def test_unknown_measure(names):
    with pytest.raises(SettingsError, match=r"measure.*temporal_flicker"):
        measure(CLIP, names)
    assert measure(CLIP[:1], "sharpness") == measure(CLIP[:1], ["sharpness"])


@pytest.mark.parametrize(("pieces", "says"), [([], "no frames"), ([CLIP, CLIP[:, :-2]], "one size")])
def test_pieces_that_are_no_clip(pieces, says):
    with pytest.raises(SettingsError, match=says):
        measure_pieces(pieces)


def test_registry_is_complete():
    for name, row in MEASURES.items():
        assert row.name == name
        assert row.better in {"higher", "lower", "neither"}
        assert row.unit and row.source and row.label


def test_a_clip_is_measured_as_its_frames():
    assert measure(Clip(CLIP)) == measure(CLIP)


def test_metrics_do_not_load_a_model_library():
    code = (
        "import sys, numpy as np, enhance_a_video.lab.metrics as m;"
        "m.measure(np.zeros((2, 8, 8, 3))); print('diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
