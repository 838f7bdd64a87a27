"""Content credentials: the content of signed clips, a changed byte detected, whose certificate, and inspect."""

import json
import subprocess
import sys

import numpy as np
import pytest

from enhance_a_video.errors import SettingsError, UnlabelledWarning, VideoFileError
from enhance_a_video.generation import again, video
from enhance_a_video.generation.credentials import OFF, Claim, chosen, identity, read_credentials, signing
from enhance_a_video.lab.vote import blinding
from enhance_a_video.settings import Settings
from tests import media_files

RECORD = {
    "model": "embedded", "prompt": "a cat of mine", "seed": 3, "settings": Settings(odds=3).to_dict(),
    "options": {"steps": 4, "negative": "dogs of mine", "image": "/home/me/private.png"},
    "about": {"torch": "2", "host": "my-computer"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without a certificate, whose folder for settings is this one."""
    monkeypatch.setenv(identity.HOME, str(tmp_path / "home"))
    for name in (OFF, identity.CERTIFICATE, identity.KEY):
        monkeypatch.delenv(name, raising=False)
    signing._warn_once.cache_clear()
    return tmp_path / "home"


@pytest.fixture
def signed(tmp_path):
    return video.write_video(
        tmp_path / "clip.mp4", media_files.moving(), 12, comment=json.dumps(RECORD), claim=Claim(RECORD)
    )


def test_a_signed_clip_carries_what_it_is(signed):
    found = read_credentials(signed)
    assert found.present and found.valid and not found.trusted and found.self_made and not found.problems
    assert found.sources == ("trainedAlgorithmicMedia",) and found.actions == ("c2pa.created",)
    assert "self-made" in found.signed_by and "not trusted" in found.signed_by
    assert found.generator.startswith("Enhance-A-Video ")
    assert found.claims["model"] == "embedded" and found.claims["seed"] == 3 and found.claims["settings"]["odds"] == 3
    assert found.claims["options"] == {"steps": 4}


def test_neither_the_prompt_nor_the_computer_is_in_the_claims(signed):
    text = json.dumps(read_credentials(signed).to_dict())
    assert "of mine" not in text and "my-computer" not in text and "private" not in text
    assert len(read_credentials(signed).claims["prompt_sha256"]) == 64


def test_numbers_that_c2pa_does_not_take_are_text(tmp_path):
    record = {"seed": 2**64 - 1, "enhancement": {"mean_gain": float("nan")}, "model": "embedded"}
    path = video.write_video(tmp_path / "x.mp4", media_files.moving(), 12, claim=Claim(record))
    claims = read_credentials(path).claims
    assert claims["seed"] == "18446744073709551615" and claims["enhancement"] == {"mean_gain": "nan"}


def test_a_clip_that_cannot_be_signed_is_kept_and_that_is_reported(tmp_path, monkeypatch):
    """With a certificate that C2PA refuses: one that may not sign."""
    pem = identity._new()
    at = pem.index(b"-----BEGIN CERTIFICATE")
    issuer = pem[pem.index(b"-----BEGIN CERTIFICATE", at + 1) :]
    monkeypatch.setattr(signing, "identity", lambda: identity.Identity(issuer, pem[:at], "es256", False))
    with pytest.warns(UnlabelledWarning, match="could not be signed"):
        path = video.write_video(tmp_path / "x.mp4", media_files.moving(), 12, claim=Claim(RECORD))
    assert video.read_video(path)[0].shape == (12, 48, 64, 3) and not read_credentials(path).present


def test_a_folder_of_the_computer_is_named_by_its_last_part(tmp_path):
    (tmp_path / "my-model").mkdir()
    assert Claim({"model": str(tmp_path / "my-model")}).data()["model"] == "my-model"
    assert Claim({"model": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"}).data()["model"] == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


def test_a_signed_clip_is_read_as_one_that_is_not(signed, tmp_path):
    """Frames, comment, and the record with its key."""
    plain = video.write_video(tmp_path / "plain.mp4", media_files.moving(), 12, comment=json.dumps(RECORD))
    np.testing.assert_array_equal(video.read_video(signed)[0], video.read_video(plain)[0])
    assert json.loads(video.read_comment(signed)) == RECORD
    assert not read_credentials(plain).present
    assert not list(tmp_path.glob("*.signed")) and not list(tmp_path.glob(".*"))


def test_a_copy_is_valid_and_one_flipped_byte_is_not(signed, tmp_path):
    data = signed.read_bytes()
    (tmp_path / "copy.mp4").write_bytes(data)
    assert read_credentials(tmp_path / "copy.mp4").valid
    pictures, index = data.index(b"mdat") + 100, data.index(b"moov") + 100
    for at in (pictures, index, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        (tmp_path / "changed.mp4").write_bytes(changed)
        found = read_credentials(tmp_path / "changed.mp4")
        assert found.present and not found.valid and found.problems, f"byte {at}"


def test_an_independent_tool_reads_the_clip(signed, tmp_path):
    """FFmpeg copies it: the pictures stay, the credentials do not hold for the copy or are gone."""
    import imageio_ffmpeg

    out = tmp_path / "remuxed.mp4"
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", signed, "-c", "copy", out], check=True)
    np.testing.assert_array_equal(video.read_video(out)[0], video.read_video(signed)[0])
    assert not read_credentials(out).valid


def test_an_edited_clip_names_its_source_and_keeps_its_credentials(signed, tmp_path):
    edited = video.write_video(tmp_path / "e.mp4", media_files.moving(), 12, claim=Claim(RECORD, signed))
    found = read_credentials(edited)
    assert found.valid and found.sources == ("compositeWithTrainedAlgorithmicMedia",)
    assert found.actions == ("c2pa.opened", "c2pa.edited")
    assert [(one["relationship"], one["has_credentials"]) for one in found.ingredients] == [("parentOf", True)]


@pytest.mark.parametrize("name", ["in.webm", "in.mkv", "in.mov", "in.avi", "in.nut"])
def test_sources_of_other_containers_are_named(tmp_path, name):
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    source = media_files.write(tmp_path / name, media_files.moving(), codec)
    edited = video.write_video(tmp_path / "e.mp4", media_files.moving(), 12, claim=Claim(RECORD, source))
    found = read_credentials(edited)
    assert found.valid and [one["has_credentials"] for one in found.ingredients] == [False]


def test_a_source_of_another_kind_than_its_name_is_named_all_the_same(tmp_path):
    source = media_files.write(tmp_path / "in.mkv", media_files.moving()).rename(tmp_path / "in.mp4")
    edited = video.write_video(tmp_path / "e.mp4", media_files.moving(), 12, claim=Claim(RECORD, source))
    assert read_credentials(edited).valid and len(read_credentials(edited).ingredients) == 1


# ------------------------------------------------------------------------------------------------- certificates


def test_the_self_made_certificate_is_made_once_and_private(home):
    first = identity.identity()
    identity._self_made.cache_clear()
    assert identity.identity() == first and first.self_made
    (file,) = home.iterdir()
    if sys.platform != "win32":
        assert file.stat().st_mode & 0o077 == 0


def test_where_nothing_can_be_written_clips_are_signed_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(identity.HOME, str(tmp_path / "file"))
    path = video.write_video(tmp_path / "x.mp4", media_files.moving(), 12, claim=Claim(RECORD))
    assert read_credentials(path).valid


def test_the_users_own_certificate_signs(tmp_path, monkeypatch):
    pem = identity._new()
    at = pem.index(b"-----BEGIN CERTIFICATE")
    (tmp_path / "key.pem").write_bytes(pem[:at])
    (tmp_path / "chain.pem").write_bytes(pem[at:])
    monkeypatch.setenv(identity.CERTIFICATE, str(tmp_path / "chain.pem"))
    with pytest.raises(SettingsError, match="go together"):
        identity.identity()
    monkeypatch.setenv(identity.KEY, str(tmp_path / "key.pem"))
    assert not identity.identity().self_made and identity.identity().chain == pem[at:]
    other = identity._new()
    (tmp_path / "other.pem").write_bytes(other[: other.index(b"-----BEGIN CERTIFICATE")])
    monkeypatch.setenv(identity.KEY, str(tmp_path / "other.pem"))
    with pytest.raises(SettingsError, match="does not belong"):
        identity.identity()
    (tmp_path / "broken.pem").write_text("nonsense")
    monkeypatch.setenv(identity.KEY, str(tmp_path / "broken.pem"))
    with pytest.raises(SettingsError, match="PEM"), chosen(True, print):
        pass


# ------------------------------------------------------------------------------------------------- without labels


def test_no_credentials_writes_none_and_leaves_nothing_switched_off(tmp_path):
    messages = []
    with chosen(False, messages.append):
        path = video.write_video(tmp_path / "x.mp4", media_files.moving(), 12, claim=Claim(RECORD))
    assert not read_credentials(path).present and messages == []
    again_ = video.write_video(tmp_path / "y.mp4", media_files.moving(), 12, claim=Claim(RECORD))
    assert read_credentials(again_).present


def test_without_the_extra_one_warning_and_clips_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr("enhance_a_video.extras._there", lambda module: module not in ("c2pa", "cryptography"))
    messages = []
    with chosen(True, messages.append):
        video.write_video(tmp_path / "x.mp4", media_files.moving(), 12, claim=Claim(RECORD))
    assert len(messages) == 1 and "enhance-a-video[credentials]" in messages[0]
    with pytest.warns(UnlabelledWarning) as warned:
        for name in ("y.mp4", "z.mp4"):
            video.write_video(tmp_path / name, media_files.moving(), 12, claim=Claim(RECORD))
    assert len(warned) == 1


def test_voters_see_no_label(signed, tmp_path):
    """The pictures as they are, and nothing of the credentials, in either of the two ways to strip a clip."""
    copied = blinding.neutral((signed, signed), (blinding.inspect(signed),) * 2)
    other = media_files.write(tmp_path / "x.webm", media_files.moving(), "libvpx-vp9")
    encoded = blinding.neutral((signed, other), (blinding.inspect(signed), blinding.inspect(other)))
    for data in (*copied, *encoded):
        (tmp_path / "seen.mp4").write_bytes(data)
        assert not read_credentials(tmp_path / "seen.mp4").present
        assert b"c2pa" not in data and b"Enhance" not in data and b"a cat of mine" not in data


# --------------------------------------------------------------------------------------------------------- inspect


def test_inspect_shows_credentials_settings_and_the_command(command, tiny_folder, tmp_path):
    out = tmp_path / "x.mp4"
    words = ("generate", "-m", tiny_folder, "-p", "a red ball", "--seed", 5, "--odds", 3, "--end", 0.5, "--steps", 2)
    assert command(*words, "-o", out)[0] == 0
    code, printed, _ = command("inspect", out, "--json")
    found = json.loads(printed)
    assert code == 0 and found["credentials"]["valid"] and found["record"]["prompt"] == "a red ball"
    assert found["credentials"]["claims"]["model"] == tiny_folder.name
    first = video.read_video(out)[0]
    import shlex

    code, _, _ = command(*shlex.split(found["command_to_make_it"])[1:-1], out, "--force")
    assert code == 0
    np.testing.assert_array_equal(video.read_video(out)[0], first)
    code, printed, _ = command("inspect", out)
    assert code == 0 and "valid: unchanged" in printed and "nobody vouches" in printed and "--odds 3" in printed
    lines = [line.strip() for line in printed.splitlines()]
    assert {"prompt: a red ball", "seed: 5", "steps: 2", "odds: 3", "end: 0.5"} <= set(lines), "one option a line"
    assert not any("{" in line or "None" in line or line.startswith(("sites", "scale")) for line in lines)


def test_inspect_of_a_changed_file_fails(command, signed):
    data = bytearray(signed.read_bytes())
    data[data.index(b"mdat") + 100] ^= 1
    signed.write_bytes(data)
    code, printed, _ = command("inspect", signed)
    assert code == 1 and "NOT VALID" in printed


def test_inspect_of_other_files(command, tmp_path):
    plain = media_files.write(tmp_path / "plain.mkv", media_files.moving())
    code, printed, _ = command("inspect", plain)
    assert code == 0 and "none" in printed
    (tmp_path / "text.mp4").write_text("no video")
    code, _, messages = command("inspect", tmp_path / "text.mp4")
    assert code == 1 and messages.startswith("Error:") and "Traceback" not in messages
    with pytest.raises(VideoFileError):
        read_credentials(tmp_path / "nothing.mp4")


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        (None, "--no-enhance"),
        (Settings(), "--odds 2"),
        (Settings(strength=0.5), "--strength 0.5"),
        (Settings(temperature=4, start=0, end=1), "--temperature 4 --end 1"),
        (Settings(odds=1.5, scale="exact", passes="conditional"), "--odds 1.5 --scale exact --passes conditional"),
    ],
)
def test_the_command_has_the_flags_that_matter(settings, flags):
    record = {"prompt": "x", "seed": 0, "settings": settings and settings.to_dict(), "options": {}}
    assert again.command_for(record, "o.mp4") == f"enhance-a-video generate --prompt x --seed 0 {flags} --out o.mp4"


def test_settings_without_a_flag_are_reported():
    record = {"prompt": "x", "seed": 0, "settings": Settings(layers=[1]).to_dict(), "options": {}}
    with pytest.raises(SettingsError, match="layers"):
        again.command_for(record, "o.mp4")
    record["settings"] = Settings(policy={"name": "constant", "gain": 1.2}).to_dict()
    with pytest.raises(SettingsError, match="profile"):
        again.command_for(record, "o.mp4")
