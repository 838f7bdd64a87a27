"""Voting without a browser: what a folder may be, the votes' file, the server, the command."""

import http.client
import json
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from vote_folders import clip, comment_of, compared, folder_of_folders, manifest, record, write

from enhance_a_video.errors import OutputExistsError, SettingsError, VideoFileError, VoteError
from enhance_a_video.generation import video
from enhance_a_video.lab.study import parse_study
from enhance_a_video.lab.study import run as run_study
from enhance_a_video.lab.vote import FILE, Ballots, Server, find_pairs, results
from enhance_a_video.lab.vote.blinding import inspect, neutral

GOOD = {"consistency": "left", "prompt": "equal", "quality": "right"}


# ------------------------------------------------------------------------------------------------------ folders


def test_what_compare_wrote(tmp_path):
    (pair,) = find_pairs(compared(tmp_path, 3)).pairs
    assert (pair.prompt, pair.seed, pair.labels) == ("a bar moves right", 3, ("without", "with"))
    assert [path.name for path in pair.files] == ["baseline.mp4", "enhanced.mp4"]


def test_a_third_panel_is_compared_with_the_first(tmp_path):
    compared(tmp_path)
    write(tmp_path / "panel-3.mp4", "paper", comment=comment_of("paper"))
    assert [pair.labels for pair in find_pairs(tmp_path).pairs] == [("without", "with"), ("without", "paper")]
    assert [pair.labels for pair in find_pairs(tmp_path, "paper").pairs] == [("paper", "without"), ("paper", "with")]
    with pytest.raises(SettingsError, match=r"'plain'.*paper, with, without"):
        find_pairs(tmp_path, "plain")


def test_a_folder_of_such_folders(tmp_path):
    found = find_pairs(folder_of_folders(tmp_path, 3))
    assert found.source == "3 folders" and not found.notes
    assert [pair.seed for pair in found.pairs] == [0, 1, 2] and len({pair.id for pair in found.pairs}) == 3


def test_videos_of_ones_own_need_no_comment(tmp_path):
    for name in ("baseline", "enhanced"):
        write(tmp_path / f"{name}.mp4", name)
    (pair,) = find_pairs(tmp_path).pairs
    assert (pair.prompt, pair.labels) == (None, ("baseline", "enhanced"))


def test_a_comment_that_makes_no_sense_is_reported(tmp_path):
    for name in ("baseline", "enhanced"):
        write(tmp_path / f"{name}.mp4", name, comment=comment_of(name, prompt=["a bar"]))
    with pytest.raises(SettingsError, match=r"baseline\.mp4: a prompt is text"):
        find_pairs(tmp_path)


def test_a_list_of_pairs(tmp_path):
    for name, label in (("a", "without"), ("b", "with"), ("c", "more")):
        write(tmp_path / "clips" / f"{name}.mp4", label)
    entry = {"prompt": " a bar ", "seed": 4, "videos": {"x": "clips/a.mp4", "y": "clips/b.mp4", "z": "clips/c.mp4"}}
    (tmp_path / "pairs.json").write_text(json.dumps({"pairs": [entry]}))
    found = find_pairs(tmp_path)
    assert [(pair.prompt, pair.seed, pair.labels) for pair in found.pairs] == [
        ("a bar", 4, ("x", "y")),
        ("a bar", 4, ("x", "z")),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "lists no pairs; the form is"),
        ("{nonsense", "is not JSON .*the form is"),
        ('{"pairs": [3]}', "pair 1.*videos"),
        ('{"pairs": [{"videos": {"a": "x.mp4"}}]}', "two labels"),
        ('{"pairs": [{"videos": {"a": "../x.mp4", "b": "y.mp4"}}]}', "'../x.mp4'.*relative"),
        ('{"pairs": [{"videos": {"a": "/etc/passwd", "b": "y.mp4"}}]}', "'/etc/passwd'"),
        ('{"pairs": [{"videos": {"a": 3, "b": "y.mp4"}}]}', "3 has to be"),
        ('{"pairs": [{"prompt": 3, "videos": {"a": "x.mp4", "b": "y.mp4"}}]}', "prompt is text"),
        ('{"pairs": []}', "no pair of videos"),
    ],
)
def test_a_bad_list_is_reported(tmp_path, text, words):
    (tmp_path / "pairs.json").write_text(text)
    with pytest.raises(SettingsError, match=words):
        find_pairs(tmp_path)


def test_a_listed_video_that_is_missing_or_no_video(tmp_path):
    (tmp_path / "pairs.json").write_text('{"pairs": [{"videos": {"a": "x.mp4", "b": "y.mp4"}}]}')
    with pytest.raises(VideoFileError, match=r"no video at .*x\.mp4"):
        find_pairs(tmp_path)
    (tmp_path / "x.mp4").write_text("words")
    with pytest.raises(VideoFileError, match=r"x\.mp4 cannot be read"):
        find_pairs(tmp_path)


def test_what_batch_wrote(tmp_path):
    strong = {"strength": 1.0}
    lines = [record(tmp_path, "a bar", 0, "with", strong), record(tmp_path, "a bar", 0, "without", None)]
    lines += [record(tmp_path, "a bar", 1, "without", None), record(tmp_path, "a bar", 1, "with", strong)]
    lines += [record(tmp_path, "a ball", 0, "with", strong)]  # its partner is not made yet
    lines += [record(tmp_path, "a cat", 0, "without", None, status="failed", error="no")]
    manifest(tmp_path, lines)
    with (tmp_path / "manifest.jsonl").open("ab") as file:
        file.write('{"key": "torn in the middle of é'.encode()[:-1])
    found = find_pairs(tmp_path)
    assert found.source == "manifest.jsonl"
    assert [(p.prompt, p.seed, p.labels) for p in found.pairs] == [
        ("a bar", 0, ("without", "with")),  # the plain model is the reference, whichever came first
        ("a bar", 1, ("without", "with")),
    ]
    assert "deleted: 1 clip of the batch" in found.notes[0] and "reference: 1 prompt and seed." in found.notes[1]


def test_the_folder_that_batch_itself_keeps(tmp_path):
    from enhance_a_video.generation.batch.folder import Folder
    from enhance_a_video.generation.requests import Prompt, expand
    from enhance_a_video.settings import Settings

    items = expand([Prompt("a bar")], [0, 1], [("without", None), ("with", Settings())], {"steps": 1})
    with Folder(tmp_path / "clips", "embedded", "auto") as folder:
        for item in reversed(items):
            data = write(tmp_path / f"{item.key}.mp4", item.label, item.seed).read_bytes()
            folder.keep(data, {**folder.facts(item), "status": "done"})
        folder.fail(expand([Prompt("a cat")], [0], [("with", Settings())])[0], "no")
    found = find_pairs(tmp_path / "clips")
    assert [(p.prompt, p.seed, p.labels) for p in found.pairs] == [
        ("a bar", seed, ("without", "with")) for seed in (1, 0)
    ]
    assert "deleted: 1 clip of the batch" in found.notes[0]


def test_what_a_study_kept(tiny_folder, tmp_path):
    settings = {"default": {}, "plain": None, "mild": {"odds": 1.5}}
    words = ["a red ball moves left", "the blue square"]
    answer = {"model": str(tiny_folder), "prompts": words, "settings": settings, "baseline": "plain", "seeds": [0, 1]}
    options = {"steps": 1, "frames": [5, 9]}
    run_study(parse_study(answer | {"options": options, "measures": ["motion"]}), tmp_path)
    found = find_pairs(tmp_path)
    assert found.source == "study.sqlite" and not found.notes
    assert {pair.labels for pair in found.pairs} == {("plain", "default"), ("plain", "mild")}
    assert len(found.pairs) == 2 * 2 * 2 * 2  # prompts, seeds, lengths, others
    assert all(pair.kinds[0].frames == pair.kinds[1].frames for pair in found.pairs)  # a pair shares its condition
    assert {(pair.prompt, pair.seed) for pair in found.pairs} == {(text, seed) for text in words for seed in (0, 1)}
    assert {pair.labels for pair in find_pairs(tmp_path, "mild").pairs} == {("mild", "plain"), ("mild", "default")}
    next((tmp_path / "clips").glob("*.mp4")).unlink()
    assert "no video of 1 clip of the study" in find_pairs(tmp_path).notes[0]
    for path in (tmp_path / "clips").glob("*.mp4"):
        path.unlink()
    with pytest.raises(SettingsError, match="no video of 24 clips of the study: the study did not keep them"):
        find_pairs(tmp_path)


def test_a_database_of_something_else_is_no_study(tmp_path):
    (tmp_path / "study.sqlite").write_text("words")
    with pytest.raises(OutputExistsError, match="not the database of a study"):
        find_pairs(tmp_path)


def test_every_seed_that_compare_kept(tmp_path):
    compared(tmp_path / "one", 3)
    for seed in (4, 11):
        compared(tmp_path / "one" / f"seed-{seed}", seed)
    assert [pair.seed for pair in find_pairs(tmp_path / "one").pairs] == [3, 4, 11]
    compared(tmp_path / "two", 0, prompt="another")
    assert [pair.seed for pair in find_pairs(tmp_path).pairs] == [3, 4, 11, 0]


@pytest.mark.parametrize("against", [None, "without", "with"])
@pytest.mark.parametrize("lost", ["baseline.mp4", "enhanced.mp4"])
def test_a_seed_without_one_of_its_videos_is_reported(tmp_path, against, lost):
    """The label of a video is in the file: one that cannot be read, or is not there, has none."""
    compared(tmp_path, 3)
    broken, gone = (compared(tmp_path / f"seed-{seed}", seed) / lost for seed in (4, 5))
    broken.write_bytes(broken.read_bytes()[:100])
    gone.unlink()
    found = find_pairs(tmp_path, against)
    assert [pair.seed for pair in found.pairs] == [3]
    assert len(found.unreadable) == 2 and str(broken) in found.trouble and f"no video at {gone}" in found.trouble
    (tmp_path / lost).unlink()
    with pytest.raises(VideoFileError, match="no video at"):
        find_pairs(tmp_path)


def test_one_label_for_two_settings_in_a_batch_is_refused(tmp_path):
    line = record(tmp_path, "a bar", 0, "with", {"strength": 0.5})
    lines = [line, line | {"key": "another", "settings": {"strength": 1.0}}]
    with pytest.raises(SettingsError, match="two clips 'with'"):
        find_pairs(manifest(tmp_path, lines))


def test_a_damaged_manifest_is_reported(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"key": 1}\n{}\n')
    with pytest.raises(SettingsError, match="line 1 is not a record"):
        find_pairs(tmp_path)


def test_nothing_to_vote_on(tmp_path):
    with pytest.raises(SettingsError, match="is not a folder"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match=r"no pairs\.json, no manifest"):
        find_pairs(tmp_path)
    write(tmp_path / "baseline.mp4", "baseline")
    with pytest.raises(VideoFileError, match=r"no video at .*enhanced\.mp4"):
        find_pairs(tmp_path)


def test_what_gives_a_clip_away_is_reported(tmp_path):
    write(tmp_path / "baseline.mp4", "a", frames=8)
    write(tmp_path / "enhanced.mp4", "b", frames=6, width=96)
    (note,) = find_pairs(tmp_path).notes
    assert "size (64x48 and 96x48), length (8 frames and 6 frames)" in note


def test_one_label_with_several_settings_is_reported(tmp_path):
    compared(tmp_path / "a", 0, {"strength": 0.5}), compared(tmp_path / "b", 1, {"strength": 1.0})
    assert "'with' stands for 2 different settings" in find_pairs(tmp_path).notes[0]


def test_votes_stay_with_the_clips_they_were_given_to(tmp_path):
    before = find_pairs(compared(tmp_path)).pairs[0].id
    assert find_pairs(tmp_path).pairs[0].id == before
    (tmp_path / "enhanced.mp4").unlink()
    write(tmp_path / "enhanced.mp4", "with", 5, comment=comment_of("with"))
    assert find_pairs(tmp_path).pairs[0].id != before


# ------------------------------------------------------------------------------------------------------ neutral


def test_neutral_clips_give_nothing_away_and_show_the_same(tmp_path):
    (pair,) = find_pairs(compared(tmp_path)).pairs
    for path, data in zip(pair.files, neutral(pair.files, pair.kinds), strict=True):
        before = path.read_bytes()
        assert b"panel" in before and b"x264" in before
        for word in (b"panel", b"with", b"strength", b"x264", b"Lavf", b"encoder", b"moves"):
            assert word not in data
        (tmp_path / "neutral.mp4").write_bytes(data)
        assert np.array_equal(video.read_video(path)[0], video.read_video(tmp_path / "neutral.mp4")[0])
        assert video.read_video(tmp_path / "neutral.mp4")[1] == 8


def test_what_browsers_do_not_play_is_encoded_anew_for_both(tmp_path):
    write(tmp_path / "a.mp4", "with")
    with av.open(str(tmp_path / "b.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in clip((40, 60, 200)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    files = (tmp_path / "a.mp4", tmp_path / "b.avi")
    kinds = (inspect(files[0]), inspect(files[1]))
    assert [kind.plays_everywhere for kind in kinds] == [True, False]
    for data in neutral(files, kinds):
        (tmp_path / "neutral.mp4").write_bytes(data)
        assert inspect(tmp_path / "neutral.mp4").plays_everywhere
        assert len(video.read_video(tmp_path / "neutral.mp4")[0]) == 8


# ------------------------------------------------------------------------------------------------------ ballots


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """The pairs of a folder of six; each test has its own file of votes beside it."""
    return find_pairs(folder_of_folders(tmp_path_factory.mktemp("six"), 6)).pairs


@pytest.fixture
def ballots(six, request):
    path = six[0].files[0].parent.parent / FILE
    yield Ballots(path, six)
    for file in path.parent.glob(f"{FILE}*"):
        file.unlink()


def test_each_voter_sees_each_pair_once_and_then_none(ballots):
    seat, seen = ballots.join("Ada"), []
    while seat.queue:
        assert (seat.done, seat.total) == (len(seen), 6)
        seen.append(seat.queue[0].id)
        assert ballots.vote(seat.voter, seen[-1], GOOD)
        seat = ballots.seat(seat.voter)
    assert sorted(seen) == sorted(ballots.pairs) and seat.done == 6


def test_orders_and_sides_differ_between_voters_and_sides_are_balanced(ballots):
    orders, sides = set(), set()
    for number in range(8):
        seat = ballots.join(f"voter {number}")
        with closing(sqlite3.connect(ballots.path)) as db:
            order = "SELECT pair, reference_left FROM ballots WHERE voter = ? ORDER BY position"
            rows = db.execute(order, (seat.voter,)).fetchall()
        assert sum(left for _, left in rows) == 3
        assert [ballots.reference_left(seat.voter, pair) for pair, _ in rows] == [bool(left) for _, left in rows]
        orders.add(tuple(pair for pair, _ in rows)), sides.add(tuple(sorted(rows)))
    assert len(orders) > 4 and len(sides) > 4


def test_a_name_is_a_voter_whatever_its_case_and_spaces(ballots):
    seat = ballots.join("  Ada   Lovelace ")
    assert seat.name == "Ada Lovelace"
    assert ballots.join("ada lovelace").voter == seat.voter
    assert ballots.join("Zoë").voter == ballots.join("Zoe\u0308").voter != seat.voter


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x00b", None, 3, ["Ada"]])
def test_what_is_no_name_is_refused(ballots, name):
    with pytest.raises(VoteError, match="1 to 60"):
        ballots.join(name)


def test_sending_twice_does_no_harm_and_changing_ones_mind_is_refused(ballots):
    seat = ballots.join("Ada")
    pair = seat.queue[0].id
    assert ballots.vote(seat.voter, pair, GOOD, 3.5) is True
    assert ballots.vote(seat.voter, pair, GOOD, 9.5) is False
    with pytest.raises(VoteError, match="before") as caught:
        ballots.vote(seat.voter, pair, GOOD | {"prompt": "left"})
    assert caught.value.reason == "conflict"
    with closing(sqlite3.connect(ballots.path)) as db:
        rows = db.execute("SELECT question, answer, seconds FROM votes ORDER BY question").fetchall()
    assert rows == [("consistency", "left", 3.5), ("prompt", "equal", 3.5), ("quality", "right", 3.5)]


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ({}, 1),
        ({"quality": "left"}, 1),
        (GOOD | {"other": "left"}, 1),
        (GOOD | {"quality": "middle"}, 1),
        (GOOD | {"quality": None}, 1),
        (GOOD | {"quality": ["left"]}, 1),
        ("left", 1),
        (None, 1),
        (GOOD, -1),
        (GOOD, float("nan")),
        (GOOD, float("inf")),
        (GOOD, "3"),
        (GOOD, True),
    ],
)
def test_a_bad_vote_is_refused_and_nothing_kept(ballots, answers, seconds):
    seat = ballots.join("Ada")
    with pytest.raises(VoteError) as caught:
        ballots.vote(seat.voter, seat.queue[0].id, answers, seconds)
    assert caught.value.reason == "invalid"
    assert ballots.seat(seat.voter).done == 0


def test_only_given_pairs_and_voters(ballots, six):
    seat = ballots.join("Ada")
    for voter, pair in ((seat.voter, "0" * 16), ("0" * 16, six[0].id), ("' OR 1=1 --", six[0].id)):
        with pytest.raises(VoteError) as caught:
            ballots.vote(voter, pair, GOOD)
        assert caught.value.reason == "unknown"


def test_the_second_of_many_threads_waits_rather_than_fails(ballots):
    with ThreadPoolExecutor(8) as pool:
        seats = list(pool.map(lambda n: ballots.join(f"voter {n % 8}"), range(32)))
        assert len({seat.voter for seat in seats}) == 8
        work = [(seat.voter, pair) for seat in seats for pair in ballots.pairs]  # each vote is sent four times
        new = list(pool.map(lambda job: ballots.vote(*job, GOOD), work))
    assert sum(new) == 8 * 6
    with closing(sqlite3.connect(ballots.path)) as db:
        assert db.execute("SELECT count(*) FROM votes").fetchone() == (8 * 6 * 3,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_pairs_that_come_later_go_to_the_end(ballots, six):
    seat = ballots.join("Ada")
    first = seat.queue[0].id
    few = [pair for pair in six if pair.id != first][:4]
    later = Ballots(ballots.path.with_name("votes-later.sqlite"), few)
    seat = later.join("Ada")
    later.vote(seat.voter, seat.queue[0].id, GOOD)
    order = [pair.id for pair in seat.queue]
    seat = Ballots(later.path, six).seat(seat.voter)
    assert (seat.done, seat.total, seat.queue[0].id) == (1, 6, order[1])
    for file in later.path.parent.glob("votes-later*"):
        file.unlink()


def test_somebody_elses_file_is_left_alone(tmp_path, six):
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("CREATE TABLE precious (x)")
        db.commit()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(VoteError, match="not a file of votes"):
        Ballots(tmp_path / FILE, six)
    assert (tmp_path / FILE).read_bytes() == before
    (tmp_path / FILE).write_bytes(b"this is no database at all, but text" * 40)
    with pytest.raises(VoteError, match="Move it away"):
        Ballots(tmp_path / FILE, six)
    with pytest.raises(VoteError, match="no folder"):
        Ballots(tmp_path / "nowhere" / FILE, six)


# ------------------------------------------------------------------------------------------------------ results


def prefer(ballots, voter: str, wishes: dict[str, str]) -> None:
    """A voter who answers every pair alike: {question: label or "equal"}."""
    seat = ballots.join(voter)
    while seat.queue:
        pair = seat.queue[0]
        left = pair.labels[0 if ballots.reference_left(seat.voter, pair.id) else 1]
        answers = {q: wish if wish == "equal" else "left" if wish == left else "right" for q, wish in wishes.items()}
        ballots.vote(seat.voter, pair.id, answers)
        seat = ballots.seat(seat.voter)


def test_results_count_labels_not_sides(ballots):
    prefer(ballots, "Ada", {"consistency": "with", "prompt": "equal", "quality": "without"})
    prefer(ballots, "Bob", {"consistency": "with", "prompt": "equal", "quality": "with"})
    counted = results(ballots.path.parent)
    assert (counted.voters, counted.pairs, counted.left_out) == ({"Ada": 6, "Bob": 6}, 6, 0)
    rows = {row.question.key: row for row in counted.rows}
    assert [(row.label, row.against) for row in counted.rows] == [("with", "without")] * 3
    assert [(r.wins.wins, r.wins.ties, r.wins.losses) for r in counted.rows] == [(12, 0, 0), (0, 12, 0), (6, 0, 6)]
    assert rows["consistency"].wins.clear and not rows["quality"].wins.clear
    assert rows["quality"].agreement.alpha < 0 and rows["consistency"].agreement.why
    assert counted.left == 0.5  # sides are balanced for each voter
    answer = json.loads(json.dumps(counted.to_dict(), allow_nan=False))
    assert answer["results"][0]["agreement"]["alpha"] is None and answer["results"][0]["rate"] == 1.0


def test_votes_on_clips_that_changed_are_left_out(ballots, six):
    prefer(ballots, "Ada", {"consistency": "with", "prompt": "with", "quality": "with"})
    counted = results(ballots.path.parent, {pair.id for pair in six[:4]})
    assert (counted.pairs, counted.left_out, counted.rows[0].wins.votes) == (4, 2, 4)


def test_no_prompt_no_question_about_it(tmp_path):
    for name in ("baseline", "enhanced"):
        write(tmp_path / f"{name}.mp4", name)
    ballots = Ballots(tmp_path / FILE, find_pairs(tmp_path).pairs)
    seat = ballots.join("Ada")
    with pytest.raises(VoteError):
        ballots.vote(seat.voter, seat.queue[0].id, GOOD)
    ballots.vote(seat.voter, seat.queue[0].id, {"consistency": "left", "quality": "left"})
    assert [row.question.key for row in results(tmp_path).rows] == ["consistency", "quality"]


# ------------------------------------------------------------------------------------------------------- server


@contextmanager
def serving(ballots):
    with Server(ballots) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def call(ballots):
    """Sends a request to a server of the six pairs: (status, headers, body); JSON is parsed."""
    with serving(ballots) as server:
        place = urlsplit(server.url).netloc

        def send(method: str, path: str, data=None, **headers):
            with closing(http.client.HTTPConnection(place, timeout=20)) as connection:
                body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
                known = {"Content-Type": "application/json"} if method == "POST" else {}
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                connection.request(method, path, body, known | named)
                reply = connection.getresponse()
                text = reply.read()
                kind = reply.getheader("Content-Type", "")
                return reply.status, dict(reply.getheaders()), json.loads(text) if "json" in kind else text

        send.place = place
        yield send


def test_voting_over_http(call, ballots):
    status, headers, page = call("GET", "/")
    assert status == 200 and b"Which video is better?" in page and b"{{" not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    status, _, seat = call("POST", "/api/voters", {"name": "Ada"})
    assert status == 200 and (seat["done"], seat["total"], len(seat["queue"])) == (0, 6, 2)
    now = seat["queue"][0]
    assert [question["key"] for question in now["questions"]] == ["consistency", "prompt", "quality"]
    pair = ballots.pairs[now["id"]]
    expected = neutral(pair.files, pair.kinds)
    swapped = not ballots.reference_left(seat["voter"], now["id"])
    for side, which in (("left", int(swapped)), ("right", int(not swapped))):
        status, headers, data = call("GET", now["clips"][side])
        assert (status, headers["Content-Type"], data) == (200, "video/mp4", expected[which])
    vote = {"voter": seat["voter"], "pair": now["id"], "answers": GOOD, "seconds": 2.5}
    status, _, after = call("POST", "/api/votes", vote)
    assert status == 200 and after["done"] == 1 and after["queue"][0] == seat["queue"][1]
    assert call("POST", "/api/votes", vote)[0] == 200
    assert call("POST", "/api/votes", vote | {"answers": GOOD | {"quality": "left"}})[0] == 409
    assert call("GET", f"/api/voters/{seat['voter']}")[2] == after


def test_nothing_on_the_wire_shows_which_is_which(call):
    """Labels, file names, settings and seeds stay on the server."""
    seat = call("POST", "/api/voters", {"name": "Ada"})[2]
    seen = [call("GET", "/"), call("GET", f"/api/voters/{seat['voter']}")]
    seen += [call("GET", path) for pair in seat["queue"] for path in pair["clips"].values()]
    for _, headers, body in seen:
        text = (str(headers) + (body.decode("latin1") if isinstance(body, bytes) else json.dumps(body))).lower()
        for word in ("baseline", "enhanced", "reference", "strength", '"seed"', "take-", '"with', "without<"):
            assert word not in text
    assert len({tuple(sorted(headers)) for _, headers, _ in seen[2:]}) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/clip/{voter}/{pair}/../../votes.sqlite",
        "/clip/{voter}/{pair}/middle",
        "/clip/{voter}/0000000000000000/left",
        "/clip/0000000000000000/{pair}/left",
        "/clip/{voter}/{pair}/left/",
        "/../votes.sqlite",
        "/votes.sqlite",
        "/%2e%2e/votes.sqlite",
        "/api/voters/nobody",
        "/api/voters/0000000000000000",
        "/favicon.ico",
    ],
)
def test_nothing_else_is_handed_out(call, path):
    seat = call("POST", "/api/voters", {"name": "Ada"})[2]
    status, _, answer = call("GET", path.format(voter=seat["voter"], pair=seat["queue"][0]["id"]))
    assert status == 404 and answer["error"]


def test_other_sites_cannot_vote_here(call):
    name = {"name": "Ada"}
    assert call("POST", "/api/voters", name, Origin="http://evil.example")[0] == 403
    assert call("POST", "/api/voters", name, Origin="null")[0] == 403
    assert call("POST", "/api/voters", name, Sec_Fetch_Site="cross-site")[0] == 403
    assert call("POST", "/api/voters", name, Content_Type="text/plain")[0] == 415
    assert call("POST", "/api/voters", name, Host="evil.example")[0] == 421
    assert call("GET", "/", Host="evil.example:80")[0] == 421
    assert call("GET", "/", Host="")[0] == 421
    port = call.place.rpartition(":")[2]
    for host in (call.place, f"localhost:{port}", f"[::1]:{port}", "192.168.1.5"):
        assert call("POST", "/api/voters", name, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b"\xff\xfe", 400),
        (b"[" * 9000, 400),
        (b"{}", 400),
        (b"x" * 20_000, 413),
    ],
)
def test_what_is_no_vote_is_answered_with_a_reason(call, body, status):
    for path in ("/api/voters", "/api/votes"):
        found, _, answer = call("POST", path, body)
        assert (found == status or (path, found) == ("/api/votes", 404)) and answer["error"]
    assert call("POST", "/elsewhere", {})[0] == 404
    assert call("POST", "/api/voters", {}, Content_Length="many")[0] in (400, 411)


def test_a_video_that_went_is_reported_to_the_server_not_to_the_voter(tmp_path, caplog):
    compared(tmp_path)
    with serving(Ballots(tmp_path / FILE, find_pairs(tmp_path).pairs)) as server:
        (tmp_path / "enhanced.mp4").unlink()
        with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)) as connection:
            connection.request("POST", "/api/voters", '{"name": "Ada"}', {"Content-Type": "application/json"})
            seat = json.loads(connection.getresponse().read())
            connection.request("GET", seat["queue"][0]["clips"]["left"])
            reply = connection.getresponse()
            assert reply.status == 500 and "on the machine that serves" in json.loads(reply.read())["error"]
    assert "enhanced.mp4" in caplog.text


def test_a_port_that_is_taken_is_reported(ballots):
    with serving(ballots) as server, pytest.raises(SettingsError, match="--port 0"):
        Server(ballots, port=urlsplit(server.url).port)
    with pytest.raises(SettingsError, match=r"no\.such\.host"):
        Server(ballots, host="no.such.host.invalid")


# ------------------------------------------------------------------------------------------------------ command


@pytest.fixture
def run(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return command


def test_the_command_serves_and_then_prints_results(tmp_path, run, hearing):
    folder = folder_of_folders(tmp_path / "clips", 2)
    words = [sys.executable, "-m", "enhance_a_video.cli", "vote", str(folder), "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes, **hearing) as process:
        try:
            answer = json.loads(process.stdout.readline())
            assert (
                answer["command"] == "vote" and answer["pairs"] == 2 and answer["url"].startswith("http://127.0.0.1:")
            )
            with closing(http.client.HTTPConnection(urlsplit(answer["url"]).netloc, timeout=20)) as connection:
                connection.request("GET", "/")
                assert b"Which video" in connection.getresponse().read()
            assert run("vote", folder, "--results")[0] == 2  # nobody has voted
        finally:
            process.send_signal(2)  # Ctrl+C
        assert process.wait(20) == 0
        assert "--results" in process.stderr.read()

    prefer(Ballots(folder / FILE, find_pairs(folder).pairs), "Ada", dict.fromkeys(GOOD, "with"))
    code, out, _ = run("vote", folder, "--results")
    assert code == 0 and "with, against without" in out and "Temporal consistency" in out and "Ada (2)" in out
    assert "…" not in out  # it fits 80 columns
    code, out, _ = run("vote", folder, "--results", "--json")
    data = json.loads(out)
    assert code == 0 and data["voters"] == {"Ada": 2} and [row["wins"] for row in data["results"]] == [2, 2, 2]

    for path in folder.glob("*/*.mp4"):
        path.unlink()
    code, out, _ = run("vote", folder, "--results", "--json")
    assert code == 0 and "not as they were" in json.loads(out)["note"]


def test_the_command_names_what_is_missing(run, tmp_path):
    code, _, err = run("vote", tmp_path)
    assert code == 2 and "no pair of videos" in err and not list(tmp_path.iterdir())
    compared(tmp_path)
    assert run("vote", tmp_path, "--against", "plain")[0] == 2
    code, _, err = run("vote", tmp_path, "--results")
    assert code == 2 and "Nobody has voted" in err


@pytest.mark.parametrize("field", [{"key": [1]}, {"key": {}}, {"prompt": 7}, {"seed": "0"}, {"label": ["l"]}])
def test_a_manifest_line_of_other_types_is_no_record(tmp_path, field):
    line = {"key": "a", "status": "done", "file": "a.mp4", "prompt": "x", "seed": 0, "label": "l"} | field
    manifest(tmp_path, [line])
    with pytest.raises(SettingsError, match="line 1 is not a record"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("name", ["pairs.json", "manifest.jsonl"])
def test_a_list_nested_too_deeply(tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000 + "\n\n")
    with pytest.raises(SettingsError, match=name):
        find_pairs(tmp_path)


def test_no_pairs_and_no_address(tmp_path):
    with pytest.raises(VoteError, match="no pairs"):
        Ballots(tmp_path / FILE, [])
    ballots = Ballots(compared(tmp_path) / FILE, find_pairs(tmp_path).pairs)
    with pytest.raises(SettingsError, match="--host is empty"):
        Server(ballots, "")
