"""Pictures that show steadiness, on clips whose motion and flicker are planted."""

import io

import numpy as np
import pytest
from PIL import Image

from enhance_a_video.errors import SettingsError
from enhance_a_video.lab import pictures

T, H, W = 12, 24, 36


def still(grey=100):
    """A picture with some structure that does not change, uint8 (T, H, W, 3)."""
    frame = np.full((H, W, 3), grey, np.uint8)
    frame[::4] += 40
    return np.repeat(frame[None], T, 0)


def moving_edge(row=7):
    """Row `row` is bright from the left up to an edge that moves two pixels a frame; all else stands still."""
    frames = still()
    for t in range(T):
        frames[t, row, : 4 + 2 * t] = 255
    return frames


def flickering(frames, rows, columns, by=30):
    """Every second frame brighter in one rectangle."""
    frames = frames.copy()
    frames[::2, rows, columns] += np.uint8(by)
    return frames


def test_the_busiest_line_is_where_something_moves():
    assert pictures.busiest_line(moving_edge(row=7)) == pictures.Line("row", 7)
    assert pictures.busiest_line(moving_edge(row=7).swapaxes(1, 2)) == pictures.Line("column", 7)


def test_a_moving_edge_is_a_slanted_line_and_what_stands_still_a_stripe():
    edge = pictures.temporal_slice(moving_edge(row=7), pictures.Line("row", 7))
    assert edge.shape == (W, T, 3)
    assert [int((edge[:, t, 0] == 255).sum()) for t in range(T)] == [4 + 2 * t for t in range(T)]
    stripe = pictures.temporal_slice(moving_edge(row=7), pictures.Line("row", 12))
    assert (stripe == stripe[:, :1]).all()


def test_a_slice_along_a_column_runs_from_top_to_bottom():
    frames = still()
    along = pictures.temporal_slice(frames, pictures.Line("column", 3))
    assert along.shape == (H, T, 3)
    assert (along[:, 5] == frames[5, :, 3]).all()


def test_planted_flicker_is_bright_where_it_was_planted():
    found = pictures.flicker_map(flickering(still(), slice(4, 9), slice(10, 20), by=30))
    assert found.shape == (H, W)
    inside = np.zeros((H, W), bool)
    inside[4:9, 10:20] = True
    assert found[inside] == pytest.approx(60, abs=0.1)  # |0 - 2·30 + 0| and |30 - 0 + 30|
    assert found[~inside] == pytest.approx(0, abs=1e-3)


def test_a_steady_change_of_brightness_is_no_flicker():
    frames = np.repeat(np.arange(20, 20 + 5 * T, 5, dtype=np.uint8), H * W * 3).reshape(T, H, W, 3)
    assert pictures.flicker_map(frames).max() == pytest.approx(0, abs=1e-3)


def test_lines_and_lengths_that_a_clip_does_not_have_are_refused():
    with pytest.raises(SettingsError, match="no row 24: it is 36 pixels wide and 24 high"):
        pictures.temporal_slice(still(), pictures.Line("row", H))
    with pytest.raises(SettingsError, match="no diagonal 0"):
        pictures.temporal_slice(still(), pictures.Line("diagonal", 0))
    with pytest.raises(SettingsError, match="three frames or more; this clip has 2"):
        pictures.flicker_map(still()[:2])


def test_the_slice_picture_keeps_every_frame_a_column_of_its_own():
    image = pictures.slice_picture([moving_edge(), still()], ["without", "with"], height=72, width=5 * T)
    assert image.dtype == np.uint8 and image.shape[1:] == (5 * T, 3)
    bar = (image.shape[0] - 2 * 72) // 2
    first = image[bar : bar + 72]
    assert (first.reshape(72, T, 5, 3) == first.reshape(72, T, 5, 3)[:, :, :1]).all()  # five equal columns a frame
    assert not (first[:, 0] == first[:, -1]).all()
    second = image[2 * bar + 72 :]
    assert (second == second[:, :1]).all()  # the same line of a clip that stands still


def test_the_flicker_picture_has_one_scale_and_shows_the_change():
    strong = flickering(still(), slice(4, 9), slice(10, 20), by=60)
    weak = flickering(still(), slice(4, 9), slice(10, 20), by=20)
    image = pictures.flicker_picture([strong, weak], ["without", "with"], height=2 * H).astype(int)
    bar = image.shape[0] - 2 * H
    without, with_, change = (image[bar:, n * (2 * W + 8) :][:, : 2 * W] for n in range(3))
    inside, outside = (slice(12, 14), slice(26, 36)), slice(30, None)
    assert without[inside].sum(-1).mean() > with_[inside].sum(-1).mean() + 50 > with_[outside].sum(-1).mean() + 100
    assert change[inside][..., 2].mean() > change[inside][..., 0].mean() + 50  # blue: steadier
    assert abs(change[outside][..., 2].mean() - change[outside][..., 0].mean()) < 10
    back = pictures.flicker_picture([weak, strong], ["without", "with"], height=2 * H).astype(int)[bar:, -2 * W :]
    assert back[inside][..., 0].mean() > back[inside][..., 2].mean() + 50  # red: less steady


def test_slices_and_maps_stand_beside_each_other_and_two_frames_have_slices_only():
    plain, other = moving_edge(), flickering(still(), slice(4, 9), slice(10, 20))
    both, slices = (pictures.steadiness_picture([plain[:n], other[:n]], ["without", "with"]) for n in (T, 2))
    assert both.shape[0] == slices.shape[0] and both.shape[1] > slices.shape[1] == 528
    assert not (both[-1] == both[-1, -1]).all()  # the maps reach the lower edge


def test_the_grid_holds_all_clips_in_motion():
    plain, other = moving_edge(), flickering(still(), slice(4, 9), slice(10, 20))
    grid = pictures.clip_grid([[plain, other]] * 3, ["without", "with"], columns=2, side=48)
    assert grid.shape[0] == T and grid.dtype == np.uint8
    assert grid.shape[2] == 2 * (2 * 72 + 2) + 8
    assert not (grid[0] == grid[1]).all()
    with pytest.raises(SettingsError, match="1 clip and 2 labels"):
        pictures.clip_grid([[plain]], ["without", "with"])


def test_resizing_keeps_a_flat_picture_flat_and_smooths_an_edge():
    assert (pictures.resized(np.full((2, 8, 8, 3), 77, np.uint8), 40, 40) == 77).all()
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 200
    assert len(np.unique(pictures.resized(edge, 64, 64))) > 4  # more than two grey levels: no pixel squares


def test_an_animated_webp_has_all_frames_and_its_length(tmp_path):
    path = pictures.write_webp(tmp_path / "a.webp", moving_edge(), fps=12)
    with Image.open(path) as image:
        assert image.n_frames == T and image.size == (W, H)
        lengths = []
        for n in range(T):
            image.seek(n)
            image.load()
            lengths.append(image.info["duration"])
    assert sum(lengths) == 1000 * T / 12


def test_an_animated_webp_is_made_to_fit_or_refused():
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    large = pictures.webp_bytes(noise, 12)
    small = pictures.webp_bytes(noise, 12, limit=len(large) // 2)
    assert len(small) <= len(large) // 2
    with Image.open(io.BytesIO(small)) as image:
        assert image.n_frames == 4
    with pytest.raises(SettingsError, match="do not fit into 100 bytes"):
        pictures.webp_bytes(noise, 12, limit=100)
