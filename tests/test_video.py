"""Videos written and read back, and every way in which a file system refuses them."""

import errno
import os
import stat

import av
import numpy as np
import pytest

from enhance_a_video.embedded import world
from enhance_a_video.errors import OutputExistsError, SettingsError, VideoFileError
from enhance_a_video.generation import video
from enhance_a_video.lab import pictures


def ramp(frames: int = 9, height: int = 48, width: int = 64) -> np.ndarray:
    """A clip whose brightness numbers the frame and whose colours differ left and right, uint8 (T, H, W, 3)."""
    clip = np.zeros((frames, height, width, 3), np.uint8)
    clip[:, :, : width // 2, 0] = 200
    clip[:, :, width // 2 :, 2] = 220
    clip[..., 1] = (np.arange(frames) * 200 // max(frames - 1, 1))[:, None, None]
    return clip


@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("fps", [8, 16.0, 23.976])
def test_round_trip(tmp_path, frames, fps):
    clip = ramp(frames)
    path = video.write_video(tmp_path / "x.mp4", clip, fps)
    back, rate = video.read_video(path)
    assert back.shape == clip.shape and back.dtype == np.uint8
    assert rate == pytest.approx(fps, rel=1e-3)
    inner = np.abs(back.astype(int) - clip)[:, :, np.r_[0:28, 36:64]]  # away from the edge that 4:2:0 softens
    assert inner.max() <= 10


def test_the_same_frames_give_the_same_file(tmp_path):
    """x264's defaults do not, for small pictures: they read memory that nobody wrote."""
    frames, _ = world.render(world.sample_scene(np.random.default_rng(0)))
    noise = np.random.default_rng(0).normal(0, 12, frames.shape)
    frames = np.clip(frames + noise, 0, 255).astype(np.uint8)
    files = {video.write_video(tmp_path / "x.mp4", frames, 12, force=True).read_bytes() for _ in range(12)}
    assert len(files) == 1


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (47, 63)])
def test_odd_sizes_are_padded(tmp_path, size):
    clip = ramp(3, *size)
    back, _ = video.read_video(video.write_video(tmp_path / "x.mp4", clip, 8))
    assert back.shape == (3, 48, 64, 3)
    assert np.abs(back[:, -1].astype(int) - back[:, -2]).max() <= 12


def test_browsers_can_play_it(tmp_path):
    path = video.write_video(tmp_path / "x.mp4", ramp(), 8, comment="how it was made")
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.colorspace) == ("h264", "yuv420p", 1)
        assert container.metadata["comment"] == "how it was made"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is loaded
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444


def test_float_frames_are_rounded(tmp_path):
    assert (video.to_uint8(np.full((1, 2, 2, 3), 0.5)) == 128).all()
    with pytest.raises(SettingsError, match="NaN"):
        video.write_video(tmp_path / "x.mp4", np.full((2, 8, 8, 3), np.nan), 8)
    assert not list(tmp_path.iterdir())


def test_existing_file_is_kept_unless_forced(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="--force"):
        video.write_video(path, ramp(), 8)
    assert path.read_bytes() == b"precious"
    video.write_video(path, ramp(), 8, force=True)
    assert len(video.read_video(path)[0]) == 9
    assert os.listdir(tmp_path) == ["x.mp4"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_midway_leaves_no_partial_file(tmp_path, monkeypatch, existing):
    path = tmp_path / "x.mp4"
    if existing:
        path.write_bytes(b"precious")

    def full(*args, **kwargs):
        args[0].write_bytes(b"half a vid")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(video, "_encode", full)
    with pytest.raises(VideoFileError, match=r"x\.mp4: no space left"):
        video.write_video(path, ramp(), 8, force=existing)
    assert os.listdir(tmp_path) == (["x.mp4"] if existing else [])
    if existing:
        assert path.read_bytes() == b"precious"


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VideoFileError, match="file"):
        video.write_video(tmp_path / "file" / "x.mp4", ramp(), 8)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoFileError, match="folder"):
        video.write_video(tmp_path / "folder.mp4", ramp(), 8, force=True)


def test_missing_folders_are_made(tmp_path):
    assert video.write_video(tmp_path / "a" / "b" / "x.mp4", ramp(), 8).exists()


@pytest.mark.parametrize(
    ("name", "fps", "says"), [("x.avi", 8, "mp4"), ("x.mp4", 0, "from 0.01 to"), ("x.mp4", float("nan"), "nan")]
)
def test_bad_arguments(tmp_path, name, fps, says):
    with pytest.raises(SettingsError, match=says):
        video.write_video(tmp_path / name, ramp(), fps)


def test_unreadable_videos(tmp_path):
    with pytest.raises(VideoFileError, match="no video at"):
        video.read_video(tmp_path / "none.mp4")
    (tmp_path / "x.mp4").write_bytes(b"not a video at all")
    with pytest.raises(VideoFileError, match="cannot be read"):
        video.read_video(tmp_path / "x.mp4")
    whole = video.write_video(tmp_path / "whole.mp4", ramp(), 8).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:200])
    with pytest.raises(VideoFileError, match=r"cut\.mp4"):
        video.read_video(tmp_path / "cut.mp4")


def test_side_by_side_enlarges_each_frame_smoothly_and_holds_the_last():
    clip = ramp(5)
    both = pictures.side_by_side([clip, clip[:3]], ["without", "with τ = 4"], min_side=256)
    factor = 6  # the smallest whole factor that brings 48 to at least 256
    assert len(both) == 5
    picture = both[:, -48 * factor :, : 64 * factor].astype(float)
    means = picture.reshape(5, 48, factor, 64, factor, 3).mean((2, 4))  # of the pixels that one pixel became
    assert (
        np.abs(means - clip).mean() < 2 and np.abs(np.diff(picture, axis=2)).max() < np.abs(np.diff(clip, axis=2)).max()
    )
    held = both[-1, -48 * factor :, -64 * factor :].astype(float)
    assert np.abs(held.reshape(48, factor, 64, factor, 3).mean((1, 3)) - clip[2]).mean() < 2
    assert both.shape[1] % 2 == both.shape[2] % 2 == 0


def test_labels_are_drawn_and_fit():
    bar = pictures.label_bar("a very long label that cannot possibly fit in such a narrow bar", 100, 16)
    assert bar.shape == (30, 100, 3)
    assert bar.max() > 200 and (bar[:, -4:] == bar[0, -1]).all()
    assert (pictures.label_bar("without", 200, 16) != pictures.label_bar("with", 200, 16)).any()


def test_film_strip(tmp_path):
    strip = pictures.film_strip([ramp(9), ramp(9)], ["without", "with"], count=4)
    assert strip.ndim == 3 and strip.dtype == np.uint8
    path = video.write_png(tmp_path / "strip.png", strip)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("panels", "labels", "says"),
    [
        ([ramp()], ["a", "b"], "1 clip and 2 labels"),
        ([], [], "0 clips"),
        ([ramp(), ramp(9, 32, 32)], ["a", "b"], "one size"),
    ],
)
def test_panels_that_do_not_match(panels, labels, says):
    with pytest.raises(SettingsError, match=says):
        pictures.side_by_side(panels, labels)


@pytest.mark.parametrize("crf", [-1, 52, 1.5, "x", float("nan")])
def test_a_quality_that_the_encoder_does_not_have(tmp_path, crf):
    with pytest.raises(SettingsError, match="crf="):
        video.write_video(tmp_path / "x.mp4", np.zeros((2, 8, 8, 3), np.uint8), 8, crf=crf)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001, 1e-9, "8", None, True])
def test_a_frame_rate_that_is_none(tmp_path, fps):
    with pytest.raises(SettingsError, match="Frames per second="):
        video.write_video(tmp_path / "x.mp4", np.zeros((2, 8, 8, 3), np.uint8), fps)


def test_pictures_of_nothing_are_refused(tmp_path):
    clip = np.zeros((2, 8, 8, 3), np.uint8)
    for image in (clip, clip[0, 0], clip[0, :0], clip[0] / 255, None):
        with pytest.raises(SettingsError, match="An image is uint8"):
            video.write_png(tmp_path / "x.png", image)
    with pytest.raises(SettingsError, match="count="):
        pictures.film_strip([clip], ["a"], count=0)


def test_a_label_of_several_lines_stands_on_one():
    assert (pictures.label_bar("a\nb\x00", 200, 16) == pictures.label_bar("a b\x00", 200, 16)).all()
