"""The world's encoder: it recognises the world, its Fréchet distance is one, and it ranks planted damage."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from enhance_a_video.embedded import world
from enhance_a_video.embedded.encoder import (
    FEATURES,
    PLACED,
    WEIGHTS,
    Encoder,
    as_input,
    drawn_clips,
    features,
    frechet_distance,
    packaged_encoder,
)
from enhance_a_video.lab.metrics.damage import DAMAGES
from training import train_encoder

CLIPS = 32


@pytest.fixture(scope="module")
def real():
    return features(drawn_clips(range(CLIPS)))


@pytest.fixture(scope="module")
def others():
    return list(drawn_clips(range(CLIPS, 2 * CLIPS)))


def distance(real, clips, name, amount) -> float:
    damaged = (np.rint(255 * DAMAGES[name](clip / 255.0, amount).clip(0, 1)).astype(np.uint8) for clip in clips)
    return frechet_distance(real, features(damaged))


@pytest.mark.parametrize("name", DAMAGES)
def test_the_distance_ranks_planted_damage(real, others, name):
    values = [frechet_distance(real, features(others)), *(distance(real, others, name, amount) for amount in (0.5, 1))]
    assert values == sorted(values) and values[2] > 1.1 * values[0], values


def test_a_world_of_few_scenes_is_far(real, others):
    """What no single clip can show: that all are alike."""
    same, alike = frechet_distance(real, features(others)), features(others[:2] * (CLIPS // 2))
    assert frechet_distance(real, alike) > 2 * same


def test_frechet_distance_of_gaussians():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((20_000, 3))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + np.array([3.0, 0.0, 4.0])) == pytest.approx(25)
    assert frechet_distance(one, 3 * one) == pytest.approx((3 - 1) ** 2 * np.trace(np.cov(one, rowvar=False)), rel=1e-2)
    turned = one @ np.linalg.qr(rng.standard_normal((3, 3)))[0] * [1, 2, 3]  # the definition, by a general square root
    product = np.cov(one, rowvar=False) @ np.cov(turned, rowvar=False)
    traces = np.trace(np.cov(one, rowvar=False)) + np.trace(np.cov(turned, rowvar=False))
    expected = traces - 2 * np.sqrt(np.linalg.eigvals(product).real).sum()
    assert frechet_distance(one, turned) == pytest.approx(expected + np.sum((one.mean(0) - turned.mean(0)) ** 2))
    assert frechet_distance(one, turned) == pytest.approx(frechet_distance(turned, one))
    with pytest.raises(ValueError, match="two or more rows"):
        frechet_distance(one[:1], one)
    with pytest.raises(ValueError, match="one width"):
        frechet_distance(one, one[:, :2])


def test_features_are_checked(others):
    assert features(others[:2]).shape == (2, FEATURES)
    for bad in (others[0][:, :32], others[0].astype(np.float32), others[0][0]):
        with pytest.raises(ValueError, match="uint8"):
            features([bad])
    with pytest.raises(ValueError, match="no clips"):
        features([])


def test_the_packaged_encoder_recognises_the_world():
    assert WEIGHTS.stat().st_size < 1_000_000
    right = train_encoder.accuracy(packaged_encoder(), 32)
    assert right["colour"] > 0.9 and right["backdrop"] > 0.9 and right["texture"] > 0.7
    assert right["kind"] > 0.4 and right["motion"] > 0.3  # chance: 0.2 and 0.14


def test_cover_is_the_share_of_each_cell():
    scene = world.Scene((world.Thing("red", "box", "striped", "left", radius=12),), "sea")
    _, truth = world.render(scene)
    shares = train_encoder.cover(truth)
    assert shares.shape == (2, world.FRAMES, 4, 4) and not shares[1].any()
    assert shares[0, 0].sum() == pytest.approx(truth.masks[0, 0].sum() / 256)
    names = {name for name, value in zip(PLACED, train_encoder.placed(scene.things[0]), strict=True) if value}
    assert names == {"red", "box", "striped", "left"}


def test_training_learns_and_writes_what_can_be_loaded(tmp_path, capsys):
    out = tmp_path / "encoder.safetensors"
    train_encoder.main(["--out", str(out), "--clips", "8", "--steps", "30"])
    assert "colour" in capsys.readouterr().out
    encoder = Encoder().eval()
    encoder.load_state_dict(load_file(out))
    clips = [world.render(world.sample_scene(np.random.default_rng((4, 0, n)))) for n in range(8)]  # what it saw
    rows = features([frames for frames, _ in clips], encoder)
    assert np.abs(rows.mean(0)).max() < 1e-3 and np.median(rows.std(0, ddof=1)) == pytest.approx(1, abs=0.05)

    scenes = [world.sample_scene(np.random.default_rng((4, 0, n))) for n in range(8)]
    seen = as_input(np.stack([frames[:17] for frames, _ in clips]))
    where = np.stack([train_encoder.cover(truth)[:, :17:8] for _, truth in clips])
    with torch.no_grad():
        after = float(train_encoder.loss(encoder, seen, where, scenes))
        torch.manual_seed(0)
        before = float(train_encoder.loss(Encoder().eval(), seen, where, scenes))
    assert after < 0.5 * before
