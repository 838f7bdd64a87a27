"""A batch makes every clip once, whatever is killed when: the driver, a worker here, a worker on a Ray cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from functools import partial
from pathlib import Path

import psutil
import pytest

from enhance_a_video import cli
from enhance_a_video.errors import EnhanceAVideoError, SettingsError, VideoFileError
from enhance_a_video.generation import video
from enhance_a_video.generation.batch import run
from enhance_a_video.generation.batch.folder import Folder, file_name, read_manifest
from enhance_a_video.generation.batch.run import _encoded, make_missing
from enhance_a_video.generation.requests import ClipRequest, Prompt, expand
from enhance_a_video.generation.workers import Count, Pool, Task
from enhance_a_video.generation.workers.pool import MAX_DEATHS
from enhance_a_video.generation.workers.worker import Worker
from enhance_a_video.settings import Settings

QUICK = {"steps": 1}
CPU = {"device": "cpu"}


def items_of(prompts: int, seeds: int = 1, **options) -> list[ClipRequest]:
    texts = [Prompt(f"a red ball moves {'left ' * n}") for n in range(prompts)]
    return expand(texts, range(seeds), [("enhanced", Settings())], QUICK | options)


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]


def clips(folder) -> set[str]:
    return {path.name for path in Path(folder).glob("[!.]*.mp4")}  # pathlib's * would find drafts as well


def check_whole(folder, items) -> None:
    """Every item has one line and one file, every file belongs to one line and plays, nothing else lies about."""
    done = lines(folder)
    assert Counter(line["key"] for line in done) == Counter(item.key for item in items)
    assert {line["status"] for line in done} == {"done"}
    assert clips(folder) == {line["file"] for line in done}
    for line in done:
        frames, fps = video.read_video(Path(folder, line["file"]))
        assert (frames.shape, fps) == ((line["frames"], line["height"], line["width"], 3), line["fps"])
    assert {path.name for path in Path(folder).iterdir()} == clips(folder) | {"manifest.jsonl", ".batch.lock"}


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs `enhance-a-video batch` in an empty folder; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(["batch", *(str(word) for word in words)])
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


def write_prompts(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --------------------------------------------------------------------------------------------------- the command


def test_prompts_seeds_and_panels_from_the_command(command, tiny_folder, tmp_path):
    rows = [{"prompt": "a red ball"}, {"prompt": "ein blauer Würfel", "seed": 7, "frames": 5}]
    words = (
        write_prompts(tmp_path / "p.jsonl", *rows), "-o", "out/clips", "-m", tiny_folder, "--seeds", 2, "--steps", 1,
        "--plain", "--panel", "paper: temperature=4,start=0,end=1", "--strength", 3, "--fps", 12, "--device", "cpu",
    )  # fmt: skip
    code, out, err = command(*words, "--json")
    assert code == 0, err
    tally = json.loads(out)
    assert (tally["items"], tally["made"], tally["there"], tally["failed"]) == (9, 9, 0, 0)
    assert "9 of 9 clips" in err  # no terminal here: a line for each clip
    found = lines("out/clips")
    assert {(line["prompt"], line["seed"], line["label"]) for line in found} == {
        (prompt, seed, label)
        for prompt, seed in [("a red ball", 0), ("a red ball", 1), ("ein blauer Würfel", 7)]
        for label in ("plain", "enhanced", "paper")
    }
    panels = {line["label"]: line for line in found}
    assert panels["plain"]["settings"] is None and panels["plain"]["enhancement"] is None
    assert panels["enhanced"]["settings"]["strength"] == 3 and panels["enhanced"]["enhancement"]["layers"] == 2
    assert panels["paper"]["settings"]["temperature"] == 4
    assert {(line["prompt"], line["frames"]) for line in found} == {("a red ball", 9), ("ein blauer Würfel", 5)}
    assert {line["fps"] for line in found} == {12} and {line["model"] for line in found} == {str(tiny_folder)}
    assert any(name.startswith("ein-blauer-würfel_seed-7_paper_") for name in clips("out/clips"))
    several = {video.read_video(Path("out/clips", name))[0].tobytes() for name in clips("out/clips")}
    assert len(several) == 9, "clips that should differ are the same"

    # Nothing is left to do: the same command, also when a kill came between the last clip and its line.
    code, out, _ = command(*words)
    assert code == 0 and "9 clips: 0 made, 9 there before." in out
    manifest = Path("out/clips/manifest.jsonl")
    manifest.write_bytes(manifest.read_bytes()[:-40])
    code, out, _ = command(*words)
    assert code == 0 and "0 made, 8 there before, 1 found without a line" in out
    assert lines("out/clips") == found

    # The folder is for one model.
    for other in (["-m", "embedded"], ["--dtype", "bfloat16"]):
        code, out, err = command(*words, *other)
        assert code == 2 and "One folder is for one model" in " ".join(err.split()) and not out
    assert lines("out/clips") == found


def test_a_failure_is_recorded_and_the_rest_goes_on(command, tiny_folder, tmp_path):
    import shutil

    model = shutil.copytree(tiny_folder, tmp_path / "model")
    known = json.loads((model / "defaults.json").read_text())
    (model / "defaults.json").write_text(json.dumps(known | {"width": 40}))  # which Wan refuses
    path = write_prompts(
        tmp_path / "p.jsonl",
        {"prompt": "refused"},
        {"prompt": "fine", "width": 32},
    )
    words = (path, "-o", "out", "-m", model, "--steps", 1, "--device", "cpu")
    code, out, err = command(*words)
    assert code == 1 and "2 clips: 1 made, 0 there before, 1 failed" in out and "--retry-failed" in out
    assert "failed: 'refused', seed 0, enhanced" in err
    found = {line["prompt"]: line for line in lines("out")}
    assert found["refused"]["status"] == "failed" and "divisible by 16" in found["refused"]["error"]
    assert found["fine"]["status"] == "done" and len(clips("out")) == 1

    code, out, _ = command(*words)  # they are not tried again unasked, and not forgotten
    assert code == 1 and "0 made, 1 there before, 1 failed in an earlier run" in out and len(lines("out")) == 2

    (model / "defaults.json").write_text(json.dumps(known))
    code, out, _ = command(*words, "--retry-failed")
    assert code == 0 and "2 clips: 1 made, 1 there before." in out
    assert [(line["prompt"], line["status"]) for line in lines("out")] == [
        ("refused", "failed"), ("fine", "done"), ("refused", "done"),
    ]  # fmt: skip
    assert len(clips("out")) == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["none.txt", "-o", "out"], 2, "cannot be read"),
        (["bad.jsonl", "-o", "out"], 2, "bad.jsonl, line 1"),
        (["p.txt", "-o", "out", "--no-enhance", "--strength", "1"], 2, "--no-enhance"),
        (["p.txt", "-o", "out", "--panel", "enhanced: strength=1"], 2, "Two panels"),
        (["p.txt", "-o", "out", "--image", "none.png"], 2, "no picture"),
        (["p.txt", "-o", "p.txt"], 1, "file"),
        (["p.txt", "-o", "out", "--workers", "0"], 2, "workers"),
        (["p.txt"], 2, "--out"),
        (["p.txt", "-o", "out", "--ray"], 2, "pip install 'enhance-a-video[ray]'"),
        (["--ray", "p.txt", "-o", "out"], 2, "pip install"),
        (["p.txt", "--ray", "node:6379", "-o", "out"], 2, "pip install"),
    ],
)
def test_errors_of_the_command(command, tmp_path, monkeypatch, words, code, says):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "bad.jsonl").write_text("a cat\n")
    got, out, err = command(*words)
    assert got == code and says in " ".join(err.split()) and "Traceback" not in err and not out


def test_a_bare_ray_leaves_the_next_word_alone():
    from enhance_a_video.cli.options import _ADDRESS

    assert all(map(_ADDRESS.fullmatch, ["auto", "local", "10.0.0.1:6379", "head-node:6379", "ray://head:10001"]))
    assert not any(map(_ADDRESS.fullmatch, ["prompts.jsonl", "-o", "./a:b/p.txt", r"C:\p.txt", ""]))


# ------------------------------------------------------------------------------------------------------ the folder


def test_a_kill_of_the_driver_costs_nothing_that_was_done(tiny_folder, tmp_path):
    items = items_of(8)
    prompts = tmp_path / "p.txt"
    prompts.write_text("".join(item.prompt + "\n" for item in items))
    out = tmp_path / "out"
    words = ["batch", prompts, "-o", out, "-m", tiny_folder, "--steps", "1", "--device", "cpu", "--fps", "8"]
    driver = subprocess.Popen([sys.executable, "-m", "enhance_a_video.cli", *words], stderr=subprocess.DEVNULL)
    while len(clips(out)) < 3:
        assert driver.poll() is None, "the driver ended before it could be killed"
        time.sleep(0.01)
    workers = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive, "a worker outlived its driver"
    before = {name: (out / name).stat().st_mtime_ns for name in clips(out)}
    made_before = len(before)
    assert 3 <= made_before < len(items)

    items = [ClipRequest(i.prompt.strip(), i.seed, i.label, i.settings, {**i.options, "fps": 8}) for i in items]
    tally = run(out, items, model=str(tiny_folder), load=CPU)
    assert tally.there + tally.adopted == made_before and tally.made == len(items) - made_before
    check_whole(out, items)
    assert before == {name: (out / name).stat().st_mtime_ns for name in before}, "a clip was made twice"


def make(folder: Folder, item: ClipRequest, worker: Worker) -> None:
    """One clip, without a queue."""
    kind, (answer,) = worker.make(Task((item,), partial(_encoded, known=folder.facts(item))), [item.call()])
    assert kind == "made" and not answer.error
    folder.keep(*answer.value)


@pytest.fixture(scope="module")
def worker(tiny_folder):
    worker = Worker(str(tiny_folder), CPU)
    assert worker.load()[0] == "ready"
    return worker


def test_a_torn_line_is_cut_off_and_its_clip_found_again(worker, tmp_path):
    items = items_of(3)
    with Folder(tmp_path, worker.model, "auto") as folder:
        for item in items:
            make(folder, item, worker)
    whole = folder.manifest.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last, last + 1, len(whole) - 2, len(whole) - 1):  # the end of a line alone was lost in the last case
        folder.manifest.write_bytes(whole[:cut])
        with Folder(tmp_path, worker.model, "auto") as again:
            assert [again.status(item) for item in items[:2]] == ["done", "done"]
            assert again.adopt(items) == (cut < len(whole) - 1)
        assert folder.manifest.read_bytes() == whole
    check_whole(tmp_path, items)


def test_only_a_complete_clip_of_this_model_is_adopted(worker, tmp_path):
    a, b, c = items_of(3)
    with Folder(tmp_path, worker.model, "auto") as folder:
        for item in (a, b, c):
            make(folder, item, worker)
    folder.manifest.unlink()
    (tmp_path / file_name(b)).write_bytes((tmp_path / file_name(b)).read_bytes()[:-2000])
    (tmp_path / file_name(c)).write_bytes((tmp_path / file_name(a)).read_bytes())  # the clip of another item
    with Folder(tmp_path, worker.model, "float32") as other:
        assert other.adopt([a, b, c]) == 0
    with Folder(tmp_path, worker.model, "auto") as folder:
        assert folder.adopt([a, b, c]) == 1
        assert [folder.status(item) for item in (a, b, c)] == ["done", "open", "open"]


def test_a_clip_that_was_deleted_is_made_again(worker, tmp_path):
    (item,) = items_of(1)
    with Folder(tmp_path, worker.model, "auto") as folder:
        make(folder, item, worker)
        (tmp_path / file_name(item)).unlink()
        assert folder.status(item) == "open" and folder.adopt([item]) == 0


def test_what_a_kill_leaves_is_cleared_and_what_is_not_ours_stays(tmp_path):
    (item,) = items_of(1)
    draft = tmp_path / f".{Path(file_name(item)).stem}-a1b2c3d4.mp4"
    kept = [tmp_path / name for name in (".hidden.mp4", "holiday.mp4", "notes.txt")]
    for path in (draft, *kept):
        path.write_bytes(b"x")
    with Folder(tmp_path, "embedded", "auto"):
        assert not draft.exists() and all(path.exists() for path in kept)


def test_two_runs_do_not_write_one_folder(tmp_path):
    with Folder(tmp_path, "embedded", "auto"), pytest.raises(SettingsError, match="Another batch is writing"):
        run(tmp_path, items_of(1))
    with Folder(tmp_path, "embedded", "auto"):
        pass  # free again


def test_a_damaged_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"key": "a", "status": "failed"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(SettingsError, match="line 2 is not a record"), Folder(tmp_path, "embedded", "auto"):
        pass
    with Folder(tmp_path / "other", "embedded", "auto"):
        pass


def test_whoever_only_reads_a_manifest_leaves_a_torn_line(tmp_path):
    path = tmp_path / "manifest.jsonl"
    whole = '{"key": "a", "status": "failed"}\n'
    path.write_text(whole + '{"key": "b", "sta')
    assert [record["key"] for record in read_manifest(path)] == ["a"]
    assert path.read_text() != whole
    assert [record["key"] for record in read_manifest(path, mend=True)] == ["a"]
    assert path.read_text() == whole


@pytest.mark.parametrize("model", ["", "nonsense", "empty"])
def test_a_model_that_no_machine_can_load_is_refused_before_a_cluster_is_used(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=r"model|folder|pipeline"):
        run(tmp_path / "clips", items_of(1), model=model, ray="203.0.113.1:1")


def test_an_unknown_option_of_loading_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="load: 'x' is unknown: give dtype"):
        run(tmp_path, items_of(1), load={"x": 1})


@pytest.mark.parametrize("where", ["the folder's", "the worker's"])
def test_a_full_disk_ends_the_run_and_is_not_the_clips_fault(worker, tmp_path, monkeypatch, where):
    replace = os.replace

    def full(source, target):
        if (Path(target).parent == tmp_path) == (where == "the folder's"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    with Folder(tmp_path, worker.model, "auto") as folder:
        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(VideoFileError, match="no space left"):
            make_all(folder, items_of(2), Here(worker))
        assert not folder.records and not clips(tmp_path)
    monkeypatch.undo()
    with Folder(tmp_path, worker.model, "auto") as folder:  # the finished clip was kept, and is not made again
        assert folder.adopt(items_of(2)) == (where == "the folder's")


# ------------------------------------------------------------------------------------------------------- the queue


class Here:
    """A crew in this process: real workers, which die or refuse to load where a test sets it."""

    def __init__(self, worker, size=1, dies=lambda item, slot: False, starts=lambda slot: ("ready", {})):
        self.worker, self.size, self.dies, self.starts = worker, size, dies, starts
        self.messages = deque()
        self.started, self.alive = Counter(), set()

    def start(self, slot):
        self.started[slot] += 1
        message = self.starts(slot)
        self.alive.add(slot)
        self.messages.append((slot, message))

    def stop(self, slot):
        self.alive.discard(slot)

    def give(self, slot, task, calls):
        assert slot in self.alive
        if self.dies(task, slot):
            self.alive.discard(slot)
            self.messages.append((slot, ("lost", "a test said so")))
        else:
            self.messages.append((slot, self.worker.make(task, calls)))

    def events(self):
        assert self.messages, "the queue waits for nothing"
        yield self.messages.popleft()

    def close(self):
        self.alive.clear()


def make_all(folder, items, crew, text=None) -> Count:
    count = Count(
        len(items), lambda progress: text.append(progress.news) if text is not None and progress.wrong else None
    )
    with Pool(crew, count.changed) as count.pool:
        make_missing(count.pool, folder, items, count)
    return count


def go(tmp_path, worker, items, crew) -> tuple[Count, list[str]]:
    text = []
    with Folder(tmp_path, worker.model, "auto") as folder:
        count = make_all(folder, items, crew, text)
    assert not crew.alive
    return count, text


def test_a_clip_on_which_workers_keep_dying_is_given_up(worker, tmp_path):
    items = items_of(4)
    crew = Here(worker, size=2, dies=lambda task, slot: task.items[0].key == items[1].key)
    count, text = go(tmp_path, worker, items, crew)
    assert (count.made, count.failed, count.pool.lost) == (3, 1, MAX_DEATHS)
    by_key = {line["key"]: line for line in lines(tmp_path)}
    assert "3 workers died on this clip" in by_key[items[1].key]["error"] and len(by_key) == 4
    assert sum("died: a test said so" in line for line in text) == MAX_DEATHS


def test_after_an_error_that_is_not_ours_the_worker_is_replaced(worker, tmp_path, monkeypatch):
    from enhance_a_video.generation import making

    generate_with = making.generate_with

    def fails(*args, **options):
        if options.get("steps") == 2:
            raise AttributeError("deep inside")
        return generate_with(*args, **options)

    monkeypatch.setattr(making, "generate_with", fails)
    crashes = items_of(1, steps=2)
    refused = items_of(1, width=40)
    crew = Here(worker)
    count, text = go(tmp_path, worker, [*refused, *crashes, *items_of(2)], crew)
    assert (count.made, count.failed, count.pool.lost) == (2, 2, 0) and crew.started[0] == 2
    assert "SettingsError" in text[0] and "AttributeError" in text[1]


def test_a_slot_that_cannot_load_leaves_the_work_to_the_others(worker, tmp_path):
    starts = {0: ("unable", ("SettingsError", "no room on this device")), 1: ("ready", {})}
    count, text = go(tmp_path, worker, items_of(3), Here(worker, 2, starts=starts.get))
    assert (count.made, count.failed) == (3, 0) and "no room on this device" in text[0]


@pytest.mark.parametrize(
    ("message", "error", "says", "starts"),
    [
        (("unable", ("SettingsError", "There is no folder")), SettingsError, "There is no folder", 1),
        (("unable", ("KeyError", "'weights'")), EnhanceAVideoError, "could not be loaded: KeyError: 'weights'", 1),
        (("lost", "signal 9"), EnhanceAVideoError, "die while they load", MAX_DEATHS),
    ],
)
def test_when_no_worker_loads_the_run_ends_with_the_reason(worker, tmp_path, message, error, says, starts):
    crew = Here(worker, 2, starts=lambda slot: message)
    with pytest.raises(error, match=says):
        go(tmp_path, worker, items_of(3), crew)
    assert crew.started == {0: starts, 1: starts} and not (tmp_path / "manifest.jsonl").exists()


# --------------------------------------------------------------------------------------- workers that are killed


class Killer:
    """Kills one worker by its process id as soon as both are there and a clip is done."""

    killed = None

    def __call__(self, progress):
        if self.killed is None and progress.done >= 1 and len(progress.workers) == 2:
            self.killed = progress.workers[max(progress.workers)]["pid"]
            os.kill(self.killed, signal.SIGKILL)
        elif self.killed is None and progress.news:
            time.sleep(2)  # the other one is still loading: leave it some clips


def test_a_killed_workers_clip_is_made_by_another(tiny_folder, tmp_path):
    items = items_of(4, seeds=4, steps=4)
    kill = Killer()
    tally = run(tmp_path, items, model=str(tiny_folder), load=CPU, workers=2, progress=kill)
    assert kill.killed and tally.lost_workers == 1
    assert (tally.made, tally.failed) == (16, 0)
    check_whole(tmp_path, items)


def test_a_killed_ray_workers_clip_is_made_by_another(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # a test never uses the network
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'enhance-a-video[ray]'")
    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=40,
    )
    try:
        items = items_of(4, seeds=4, steps=4)
        kill = Killer()
        tally = run(tmp_path, items, model=str(tiny_folder), load=CPU, workers=2, ray="", progress=kill)
    finally:
        ray.shutdown()
    assert kill.killed and tally.lost_workers == 1
    assert (tally.made, tally.failed) == (16, 0)
    check_whole(tmp_path, items)


def test_a_ray_cluster_that_is_not_there_is_reported_at_once():
    from enhance_a_video.generation.workers.cluster import _reach

    with pytest.raises(EnhanceAVideoError, match=r"No Ray cluster answers at ray://127\.0\.0\.1:9"):
        _reach("ray://127.0.0.1:9")
    _reach("")
    _reach("auto")
