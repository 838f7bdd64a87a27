"""Voting on files of every kind: shown as they are meant, and one that cannot be read takes only its own pairs away."""

import json
from fractions import Fraction

import numpy as np
import pytest
from media_files import TURNS, animation, moving, turned, write
from vote_folders import clip, folder_of_folders

from enhance_a_video.errors import VideoFileError
from enhance_a_video.generation.media import open_video, read_video
from enhance_a_video.lab.vote import FILE, Ballots, Server, find_pairs
from enhance_a_video.lab.vote.blinding import inspect, neutral

GOOD = {"consistency": "left", "prompt": "equal", "quality": "right"}


def shown(folder, *files):
    """The neutral clips of two files, (frames, times) of each; they are H.264 that every browser plays."""
    found = []
    for data in neutral(files, tuple(map(inspect, files))):
        (folder / "neutral.mp4").write_bytes(data)
        with open_video(folder / "neutral.mp4") as opened:
            frames = np.stack(list(opened))
            assert opened.as_stored and inspect(folder / "neutral.mp4").plays_everywhere
        found.append((frames, np.asarray(opened.times)))
    return found


def test_a_phone_s_video_stands_upright_and_square(tmp_path):
    frames = moving(4)
    phone = turned(write(tmp_path / "phone.mp4", frames), (0, 1, -1, 0))
    wide = write(tmp_path / "wide.mp4", frames, aspect=Fraction(2, 1))
    assert (inspect(phone).width, inspect(phone).height, inspect(phone).plays_everywhere) == (48, 64, False)
    assert (inspect(wide).width, inspect(wide).height, inspect(wide).plays_everywhere) == (128, 48, False)
    (upright, _), (square, _) = shown(tmp_path, phone, wide)
    expected = np.stack([TURNS[0, 1, -1, 0](frame) for frame in frames])
    assert upright.shape == expected.shape and np.abs(upright.astype(int) - expected).mean() < 12
    assert square.shape == (4, 48, 128, 3)


def test_a_rate_that_varies_and_an_animated_picture_keep_their_times(tmp_path):
    frames = moving(4)
    varying = animation(tmp_path / "a.webp", frames, [100, 100, 500, 100])
    steady = write(tmp_path / "b.gif", moving(8), "gif", "rgb8", rate=10)
    (first, times), (second, _) = shown(tmp_path, varying, steady)
    assert len(second) == 8 and times[-1] + np.diff(times)[-1] == pytest.approx(0.8, abs=0.01)
    for time, expected in ((0.05, 0), (0.15, 1), (0.25, 2), (0.65, 2), (0.75, 3)):
        seen = first[np.searchsorted(times, time, side="right") - 1].astype(int)
        distances = [np.abs(seen - frame).mean() for frame in frames]
        assert int(np.argmin(distances)) == expected


@pytest.mark.parametrize(("form", "copied"), [("matroska", True), ("mpegts", False), ("avi", False)])
def test_h264_in_other_containers(tmp_path, form, copied):
    path = write(tmp_path / "a", moving(6), form=form)
    assert inspect(path).plays_everywhere
    (first, _), (second, _) = shown(tmp_path, path, path)
    assert np.array_equal(first, second)
    assert np.abs(first.astype(int) - read_video(path)[0]).max() <= (0 if copied else 40)


def spoil(folder):
    """Of four pairs one has a video that is cut off, one an empty one."""
    folder_of_folders(folder, 4)
    path = folder / "take-1" / "enhanced.mp4"
    path.write_bytes(path.read_bytes()[:-300])
    (folder / "take-2" / "baseline.mp4").write_bytes(b"")
    return folder


def test_a_bad_video_takes_only_its_own_pair_away(tmp_path):
    found = find_pairs(spoil(tmp_path))
    assert [pair.seed for pair in found.pairs] == [0, 3]
    first, second = sorted(found.unreadable)
    assert "take-1" in first and "cut off" in first and "take-2" in second and "empty" in second
    for seed in (0, 3):
        (tmp_path / f"take-{seed}" / "enhanced.mp4").write_text("words")
    with pytest.raises(VideoFileError, match=r"take-0.* And 1 more like these"):
        find_pairs(tmp_path)


def test_a_listed_video_that_is_gone_takes_only_its_own_pair_away(tmp_path):
    folder_of_folders(tmp_path, 2)
    videos = [{"a": f"take-{n}/baseline.mp4", "b": f"take-{n}/enhanced.mp4"} for n in range(3)]
    (tmp_path / "pairs.json").write_text(json.dumps({"pairs": [{"videos": entry} for entry in videos]}))
    found = find_pairs(tmp_path)
    assert len(found.pairs) == 2 and "no video at" in found.unreadable[0] and "take-2" in found.unreadable[0]


def test_the_command_serves_the_others_and_exits_with_an_error(tmp_path, command, monkeypatch):
    def stop(server, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", stop)
    code, out, err = command("vote", spoil(tmp_path), "--port", 0, "--json")
    facts = json.loads(out)
    assert code == 1 and facts["pairs"] == 2 and len(facts["unreadable"]) == 2
    assert err.count("Error:") == 2 and err.count("left out") == 2
    ballots = Ballots(tmp_path / FILE, find_pairs(tmp_path).pairs)
    seat = ballots.join("Ada")
    ballots.vote(seat.voter, seat.queue[0].id, GOOD)
    code, out, _ = command("vote", tmp_path, "--results", "--json")
    assert code == 0 and json.loads(out)["pairs"] == 1 and "not as they were" in json.loads(out)["note"]
    code, out, _ = command("vote", tmp_path, "--results", "--against", "without", "--json")
    assert code == 0 and json.loads(out)["pairs"] == 1 and "take-1" in json.loads(out)["note"]


def test_a_pair_that_goes_while_people_vote_is_left_out(tmp_path):
    ballots = Ballots(tmp_path / FILE, find_pairs(folder_of_folders(tmp_path, 2)).pairs)
    seat = ballots.join("Ada")
    first, second = seat.queue
    first.files[1].unlink()
    with Server(ballots) as server:
        with pytest.raises(VideoFileError, match="no video at"):
            server.clip(first, 0)
        assert server.clip(second, 0)
    after = ballots.seat(seat.voter)
    assert [pair.id for pair in after.queue] == [second.id] and after.total == 1


def test_pairs_of_other_lengths_are_noticed_in_any_format(tmp_path):
    for name, length in (("a", 8), ("b", 6)):
        write(tmp_path / f"{name}.webm", clip((40, 60, 200), frames=length), "libvpx", rate=8)
    (tmp_path / "pairs.json").write_text(json.dumps({"pairs": [{"videos": {"x": "a.webm", "y": "b.webm"}}]}))
    (note,) = find_pairs(tmp_path).notes
    assert "length (8 frames and 6 frames)" in note
