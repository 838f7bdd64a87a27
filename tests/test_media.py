"""Files as a player or a viewer shows them, and what is wrong with a file in one sentence."""

import io
import os
import re
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import TURNS, animation, moving, sound, turned, write
from PIL import Image

from enhance_a_video.errors import SettingsError, VideoFileError
from enhance_a_video.generation import media
from enhance_a_video.generation.media import open_picture, open_video, read_video
from enhance_a_video.generation.pipelines import generate
from enhance_a_video.generation.requests import ClipRequest
from enhance_a_video.generation.video import write_video

as_superuser = os.name != "posix" or os.geteuid() == 0


def near(one, other, most: int = 12) -> bool:
    """Whether two clips or pictures have one shape and nearly the same pixels: 4:2:0 softens the edges."""
    return one.shape == other.shape and float(np.abs(one.astype(int) - other).mean()) < most


# --------------------------------------------------------------------------------------------------------- pictures

SCENE = moving(1)[0]  # (48, 64, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_by_their_exif_orientation(tmp_path, orientation):
    corner = np.rot90(SCENE, 2)
    stored = [SCENE, SCENE[:, ::-1], corner, SCENE[::-1], SCENE.swapaxes(0, 1), np.rot90(SCENE, 1),
              corner.swapaxes(0, 1), np.rot90(SCENE, -1)][orientation - 1]  # fmt: skip
    picture = Image.fromarray(np.ascontiguousarray(stored))
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(open_picture(tmp_path / "phone.png"), SCENE)
    item = ClipRequest("a ball", 0, "plain", None, {"image": tmp_path / "phone.png"})
    assert np.array_equal(item.call()["image"], SCENE)
    Image.fromarray(SCENE).save(tmp_path / "upright.png")
    assert item.key == ClipRequest("a ball", 0, "plain", None, {"image": tmp_path / "upright.png"}).key
    assert near(read_video(tmp_path / "phone.png")[0][0], SCENE, 1)


def test_a_picture_that_was_opened_before_is_the_same_picture(tmp_path):
    """Its key as well: what `generate` gets from Python code is turned like what the command opens."""
    picture = Image.fromarray(np.rot90(SCENE, 1))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "phone.png", exif=exif)
    opened = ClipRequest("a ball", 0, "plain", None, {"image": Image.open(tmp_path / "phone.png")})
    assert opened.key == ClipRequest("a ball", 0, "plain", None, {"image": tmp_path / "phone.png"}).key

    class Pipe:
        components: dict = {}  # noqa: RUF012

        def __call__(self, prompt, image, generator=None, output_type=None):
            seen.append(np.asarray(image))
            raise ValueError("seen enough")

    seen: list[np.ndarray] = []
    with pytest.raises(SettingsError, match="seen enough"):
        generate(Pipe(), "a ball", image=Image.open(tmp_path / "phone.png"))
    assert np.array_equal(seen[0], SCENE)


GREY = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("name", "values", "mode"),
    [
        ("a.png", GREY.astype(np.uint16) * 257, "I;16"),
        ("a.tif", GREY.astype(np.uint16) * 257, "I;16"),
        ("big-endian.tif", (GREY.astype(np.uint16) * 257).astype(">u2"), "I;16B"),
        ("a.tif", GREY.astype(np.int32) * 257, "I"),
        ("a.tif", GREY.astype(np.float32) / 255, "F"),
        ("a.png", GREY, "L"),
    ],
)
def test_grey_of_any_depth_keeps_its_brightness(tmp_path, name, values, mode):
    Image.frombytes(mode, (16, 16), values.tobytes()).save(tmp_path / name)
    found = np.asarray(open_picture(tmp_path / name))
    assert np.array_equal(found, np.repeat(GREY[..., None], 3, -1))


def test_transparent_parts_are_white(tmp_path):
    clear = np.dstack([SCENE, np.full(SCENE.shape[:2], 255, np.uint8)])
    clear[:, :32, 3] = 0
    expected = SCENE.copy()
    expected[:, :32] = 255
    Image.fromarray(clear).save(tmp_path / "rgba.png")
    assert np.array_equal(open_picture(tmp_path / "rgba.png"), expected)
    Image.fromarray(clear).convert("LA").save(tmp_path / "la.png")
    assert np.asarray(open_picture(tmp_path / "la.png"))[:, :32].min() == 255
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 30, 40])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    found = np.asarray(open_picture(tmp_path / "palette.png"))
    assert tuple(found[0, 0]) == (255, 255, 255) and tuple(found[1, 1]) == (200, 30, 40)
    half = np.full((2, 2, 4), (100, 0, 0, 128), np.uint8)
    Image.fromarray(half).save(tmp_path / "half.png")
    assert np.abs(np.asarray(open_picture(tmp_path / "half.png")).astype(int) - (177, 127, 127)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "P"])
def test_other_modes_are_converted(tmp_path, mode):
    name = {"P": "a.gif", "YCbCr": "a.jpg"}.get(mode, "a.tif")  # Pillow 12 does not read its own YCbCr TIFF
    Image.fromarray(SCENE).convert(mode).save(tmp_path / name)
    found = open_picture(next(tmp_path.iterdir()))
    assert found.mode == "RGB" and near(np.asarray(found), SCENE, 256 if mode == "1" else 20)


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.png", "a.tif"])
def test_the_first_picture_of_several(tmp_path, name):
    first, second = Image.fromarray(SCENE), Image.fromarray(255 - SCENE)
    first.save(tmp_path / name, save_all=True, append_images=[second], **({"lossless": True} if "webp" in name else {}))
    assert near(np.asarray(open_picture(tmp_path / name)), SCENE)


def damaged_picture(how: str, path):
    Image.fromarray(SCENE).save(path, "PNG")
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "text":
        path.write_text("a picture of a cat")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "garbled":  # Pillow: SyntaxError
        path.write_bytes(data[:8] + b"\xff" * 40)
    elif how == "dark":
        Image.fromarray(np.full((4, 4), 4000.0, np.float32)).save(path, "TIFF")
    elif how == "nan":
        Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path, "TIFF")
    elif how in ("none", "folder"):
        path.unlink()
        if how == "folder":
            path.mkdir()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "truncated|damaged"),
        ("text", "PNG or JPEG"),
        ("empty", "PNG or JPEG"),
        ("garbled", "damaged|PNG or JPEG"),
        ("dark", r"4000\.\.4000.*8 or 16 bits"),
        ("nan", "8 or 16 bits"),
        ("none", "no such file"),
        ("folder", "directory|denied"),
    ],
)
def test_pictures_that_cannot_be_read(tmp_path, how, says):
    damaged_picture(how, tmp_path / "a.png")
    with pytest.raises(SettingsError, match=rf"a\.png cannot be read: .*({says})"):
        open_picture(tmp_path / "a.png")


def test_a_picture_that_does_not_fit_in_memory(tmp_path, monkeypatch):
    Image.fromarray(SCENE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SettingsError, match="megapixels"):
        open_picture(tmp_path / "a.png")


# ------------------------------------------------------------------------------------------------- as a player shows it


@pytest.mark.parametrize("turn", TURNS)
def test_videos_are_turned_by_their_display_matrix(tmp_path, turn):
    clip = moving(3)
    path = turned(write(tmp_path / "phone.mp4", clip), turn)
    found, rate = read_video(path)
    assert rate == 12 and near(found, np.stack([TURNS[turn](frame) for frame in clip]))
    with open_video(path) as opened:
        assert (len(list(opened)), opened.as_stored) == (3, turn == (1, 0, 0, 1))


@pytest.mark.parametrize(("aspect", "size"), [((2, 1), (48, 128)), ((1, 2), (96, 64)), ((16, 15), (48, 68))])
def test_pixels_become_square(tmp_path, aspect, size):
    path = write(tmp_path / "wide.mp4", moving(3), aspect=Fraction(*aspect))
    found, _ = read_video(path)
    assert found.shape[1:3] == size
    tall = TURNS[0, 1, -1, 0]
    assert near(read_video(turned(path, (0, 1, -1, 0)))[0], np.stack([tall(frame) for frame in found]), 3)


def test_an_aspect_that_no_pixel_has(tmp_path, monkeypatch):
    monkeypatch.setattr(media.reader, "_MOST_ASPECT", 1)
    with pytest.raises(VideoFileError, match=r"pixels of 2:1.*damaged"):
        read_video(write(tmp_path / "a.mp4", moving(2), aspect=Fraction(2, 1)))


@pytest.mark.parametrize(("name", "codec", "pixels"), [("a.mov", "qtrle", "argb"), ("a.nut", "ffv1", "yuva444p")])
def test_transparent_parts_of_a_video_are_white(tmp_path, name, codec, pixels):
    clip = np.concatenate([moving(2), np.full((2, 48, 64, 1), 255, np.uint8)], -1)
    clip[:, :, :32, 3] = 0
    found, _ = read_video(write(tmp_path / name, clip, codec, pixels))
    assert (found[:, :, :32] >= 253).all() and near(found[:, :, 32:], clip[:, :, 32:, :3], 4)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "height", "width"),
    [
        ("a.mkv", "ffv1", "yuv420p10le", 48, 64),
        ("a.mkv", "ffv1", "yuv444p", 47, 63),
        ("a.mkv", "ffv1", "yuv420p", 1, 1),
        ("a.mov", "png", "rgb48be", 9, 7),
    ],
)
def test_depths_and_odd_sizes(tmp_path, name, codec, pixels, height, width):
    clip = moving(3, height, width)
    assert near(read_video(write(tmp_path / name, clip, codec, pixels))[0], clip)


def test_animated_webp(tmp_path):
    """FFmpeg before 8.1 reads none of these."""
    clip = moving(4)
    path = animation(tmp_path / "a.webp", clip, [100, 100, 300, 100])
    found, rate = read_video(path)
    assert np.array_equal(found, clip) and rate == pytest.approx(4 / 0.6)
    with open_video(path) as opened:
        list(opened)
        assert opened.times == pytest.approx([0, 0.1, 0.2, 0.5]) and opened.declared == 4


@pytest.mark.parametrize(
    ("frames", "rate", "times", "duration"),
    [
        (12, 12, None, 1.0),
        (1, 12, None, 1 / 12),
        (2, 24000, None, 2 / 24000),
        (4, 10, [0, 100, 200, 700], None),  # a rate that varies: the last frame has an unknown duration
        (3, 10, [5000, 5100, 5200], 0.3),  # does not begin at 0
    ],
)
def test_frames_and_duration(tmp_path, frames, rate, times, duration):
    with open_video(write(tmp_path / "a.mp4", moving(frames), rate=rate, times=times)) as clip:
        assert clip.frames == 0 and clip.duration is None and clip.fps is None
        assert len(list(clip)) == clip.frames == frames
        if duration is None:
            assert 0.7 < clip.duration < 1.3
        else:
            assert clip.duration == pytest.approx(duration, rel=1e-3)
        assert clip.fps == pytest.approx(frames / clip.duration)


def test_a_picture_has_no_duration(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / "a.png")
    with open_video(tmp_path / "a.png") as clip:
        assert len(list(clip)) == 1 and clip.duration is clip.fps is None
    assert read_video(tmp_path / "a.png")[1] == 0


# ------------------------------------------------------------------------------------------------------ what is wrong

NAMES = [
    "12:30:45.mp4",
    "-x.mp4",
    "100%.mp4",
    "a%03d.mp4",
    "pipe:0",
    "http:a.mp4",
    "concat:a|b.mp4",
    "a?[b]*.mp4",
    "a b\n.mp4",
]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video("plain.mp4", moving(3), 12)
    os.rename("plain.mp4", name)
    assert len(read_video(name)[0]) == 3 and media.read_comment(name) == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_such_names_can_be_written_and_numbers_in_a_picture_s_name_are_no_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("12:30:45.mp4", "-x.mp4", "a%03d.mp4"):
        assert len(read_video(write_video(name, moving(3), 12, comment="x"))[0]) == 3
    Image.fromarray(SCENE).save("a1.png")
    Image.fromarray(255 - SCENE).save("a%d.png")
    assert np.array_equal(read_video("a%d.png")[0][0], 255 - SCENE)


WRITERS = {
    "index-first.mp4": lambda path: write_video(path, moving(24), 12),
    "index-last.mp4": lambda path: write(path, moving(24)),
    "fragments.mp4": lambda path: write(path, moving(24), movflags="frag_every_frame+empty_moov"),
    "a.mov": lambda path: write(path, moving(24)),
    "vp8.webm": lambda path: write(path, moving(24), "libvpx"),
    "vp9.webm": lambda path: write(path, moving(24), "libvpx-vp9"),
    "live.webm": lambda path: write(path, moving(24), "libvpx", live="1"),
    "a.mkv": lambda path: write(path, moving(24)),
    "a.avi": lambda path: write(path, moving(24), "mpeg4"),
    "a.gif": lambda path: write(path, moving(24), "gif", "rgb8"),
    "a.apng": lambda path: write(path, moving(24), "apng", "rgb24"),
    "a.webp": lambda path: animation(path, moving(24), [80] * 24),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_was_cut_off_is_noticed(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    with open_video(path) as whole:
        pictures = [frame[0, 0].copy() for frame in whole]
    assert len(pictures) == 24
    data = path.read_bytes()
    for share in (0.97, 0.6, 0.1):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(VideoFileError, match=r"cut off|damaged|cannot be read") as caught:
            found = []
            with open_video(path) as clip:
                found += [frame[0, 0].copy() for frame in clip]
        assert len(found) < 24 and str(path) in str(caught.value)
    path.write_bytes(data + b"what another program has appended")
    if path.suffix in (".mp4", ".mov", ".mkv", ".webm"):
        assert len(read_video(path)[0]) == 24


def test_the_frames_before_the_cut_are_read(tmp_path):
    path = write(tmp_path / "a.webm", moving(24), "libvpx")
    path.write_bytes(path.read_bytes()[:-500])
    pieces = []
    with open_video(path) as clip, pytest.raises(VideoFileError, match=r"cut off after \d+ frames"):
        for piece in media.in_pieces(clip, 2, megapixels=4 * 48 * 64 / 1e6):
            pieces.append(piece)
    assert 4 < clip.frames < 24 and clip.fps == pytest.approx(12)
    assert sum(map(len, pieces)) - 2 * (len(pieces) - 1) == clip.frames
    assert near(np.concatenate([pieces[0], *(piece[2:] for piece in pieces[1:])]), moving(24)[: clip.frames])


_SIZES = ((48, 64), (64, 96))


def odd_file(kind: str, path):
    """A file that is no good video, of each kind that folders hold."""
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "sound":
        sound(path)
    elif kind == "cover":
        file = io.BytesIO()
        Image.fromarray(SCENE).save(file, "PNG")
        sound(path, file.getvalue())
    elif kind == "no frames":
        path.write_bytes(b"YUV4MPEG2 W64 H48 F12:1 Ip C420jpeg\n")
    elif kind == "sizes":
        both = [write(path, moving(8, *size), "mjpeg", "yuvj420p", form="mjpeg").read_bytes() for size in _SIZES]
        path.write_bytes(b"".join(both))
    elif kind == "unreadable":
        write_video(path, moving(2), 12).chmod(0)
    return path


KINDS = {
    "missing": "There is no video at",
    "empty": "is empty",
    "folder": "is a folder|denied",
    "text": "cannot be read as a video",
    "sound": "no video stream",
    "cover": "no video stream",
    "no frames": "no complete frame",
    "sizes": "changes its size after 8 frames, from 64x48 to 96x64",
    "unreadable": "[Pp]ermission denied",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_video(tmp_path, kind):
    if kind == "unreadable" and as_superuser:
        pytest.skip("permissions do not hold the superuser")
    path = odd_file(kind, tmp_path / "odd.mp4")
    with pytest.raises(VideoFileError, match=KINDS[kind]) as caught:
        read_video(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_frames_that_are_too_large(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", moving(2))
    monkeypatch.setattr(media.reader, "_MOST_PIXELS", 48 * 64 - 1)
    with pytest.raises(VideoFileError, match=r"64x48.*not read"):
        read_video(path)


FFMPEG_ERRORS = [
    kind for kind in vars(av.error).values() if isinstance(kind, type) and issubclass(kind, av.error.FFmpegError)
]


def test_every_error_of_pyav_is_one_sentence(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", moving(2), 12)
    neither = [kind for kind in FFMPEG_ERRORS if not issubclass(kind, OSError | ValueError)]
    assert len(neither) > 20
    for kind in FFMPEG_ERRORS:

        def fail(*args, kind=kind, **options):
            raise kind(1094995529, "something in FFmpeg")

        monkeypatch.setattr(av, "open", fail)
        for read in (read_video, media.read_comment):
            with pytest.raises(VideoFileError, match=re.escape(str(path))):
                read(path)
        with pytest.raises(VideoFileError, match=r"b\.mp4"):
            write_video(tmp_path / "b.mp4", moving(2), 12)


def test_metadata_in_another_encoding(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(2), 12, comment="a caf\u00e9!")
    data = path.read_bytes()
    path.write_bytes(data.replace("caf\u00e9!".encode(), "caf\u00e9!!".encode("latin-1")))
    assert len(read_video(path)[0]) == 2 and media.read_comment(path).startswith("a caf")
