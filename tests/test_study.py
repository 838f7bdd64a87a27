"""A study end to end on the tiny folder: run, killed, resumed, with workers that die, reported."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from enhance_a_video import cli
from enhance_a_video.errors import EnhanceAVideoError
from enhance_a_video.generation import making, pipelines, video
from enhance_a_video.lab.study import analyse, parse_study, read_study, run, write_pages
from enhance_a_video.lab.study.run import _small, targets, weights_of
from enhance_a_video.lab.study.store import Store, only_one

WORDS = ["a red ball moves left", "a blue square moves right", "the green ball", "a square over the sky"]


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs `study` in an empty folder; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(["study", *map(str, words)])
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


def data_of(tiny_folder, **more) -> dict:
    settings = {"plain": None, "default": {}, "paper": {"temperature": 4, "start": 0, "end": 1}}
    data = {"name": "tiny", "model": str(tiny_folder), "prompts": WORDS, "settings": settings, "options": {"steps": 2}}
    return data | more


def write(path: Path, data: dict) -> Path:
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def rows(folder, sql: str) -> list:
    with sqlite3.connect(Path(folder) / "study.sqlite") as db:
        return db.execute(sql).fetchall()


def test_what_the_method_is_compared_with_in_a_study(tiny_folder, tmp_path):
    settings = {
        "plain": None, "flat": {"alternative": "logit_temperature", "tau": 1.5},
        "map": {"alternative": "map_scaling", "strength": 0.7},
        "cfi": {"alternative": "cfi_temperature", "strength": 1.0, "end": 0.5},
    }  # fmt: skip
    study = parse_study(data_of(tiny_folder, prompts=WORDS[:1], settings=settings, measures=["motion"]))
    outcome = run(study, tmp_path / "results")
    assert outcome.made == 4 and not outcome.failures
    found = dict(rows(tmp_path / "results", "SELECT setting, mean_gain FROM clips"))
    assert found["flat"] == pytest.approx(1.5) and found["map"] > 1 and found["plain"] is None
    facts = dict(rows(tmp_path / "results", "SELECT setting, settings FROM clips"))
    assert json.loads(facts["cfi"])["alternative"] == "cfi_temperature"
    assert len({value for (value,) in rows(tmp_path / "results", "SELECT value FROM measures")}) == 4
    assert run(study, tmp_path / "results").made == 0


def test_a_study_from_its_file_to_its_report(command, tiny_folder, tmp_path):
    file = write(tmp_path / "s.yaml", data_of(tiny_folder, options={"steps": [1, 2]}, videos={"count": 2}))
    assert command(file, "--report")[0] == 2 and not (tmp_path / "tiny").exists()
    code, out, err = command(file, "--plan")
    assert code == 0, err
    assert "24 clips" in out and "unknown before a pilot" in out and not (tmp_path / "tiny").exists()

    code, out, err = command(file, "--pilot", 1, "--json")
    assert code == 0, err
    plan = json.loads(out)["plan"]
    assert (plan["clips"], plan["done"], plan["left"]) == (24, 6, 18) and plan["hours"] > 0
    assert not (tmp_path / "tiny" / "report.html").exists()

    before = rows("tiny", "SELECT id, key, made FROM clips")
    code, out, err = command(file, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["results"]["done"] == facts["results"]["planned"] == 24 and not facts["failures"]
    assert set(facts["results"]["settings"]) == {"default", "paper"}
    assert rows("tiny", "SELECT id, key, made FROM clips")[: len(before)] == before  # the pilot's count
    names = {row.name for row in read_study(file).measures}
    assert rows("tiny", "SELECT count(*), count(DISTINCT clip) FROM measures") == [(24 * len(names), 24)]
    assert {name for (name,) in rows("tiny", "SELECT DISTINCT measure FROM results")} == names
    (first,) = rows("tiny", "SELECT digest, command, about FROM runs WHERE id = 1")
    assert first[0] == read_study(file).digest and first[1].endswith("--pilot 1")
    assert json.loads(first[2])["versions"]["torch"] and json.loads(first[2])["machine"]["cpu"]

    page, text = (Path(path).read_text() for path in facts["files"])
    assert 'src="http' not in page and 'href="http' not in page  # nothing from elsewhere
    headings = ("Does it help?", "By steps", "The 2 worst", "Drawn at random", "The 2 best")
    for part in (*headings, "Holm", read_study(file).digest):
        assert part in page, part
    embedded = json.loads(page.split('id="clips">')[1].split("</script>")[0])
    shown = {key for part in page.split('data-clip="')[1:] for key in [part.split('"')[0]]}
    assert shown == set(embedded) and len(shown) >= 4
    assert "## paper, against plain" in text

    made = rows("tiny", "SELECT max(id) FROM clips")
    code, out, err = command(file, "--report")
    assert code == 0 and rows("tiny", "SELECT max(id) FROM clips") == made


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_stopped_it_goes_on_and_nothing_is_made_twice(tiny_folder, tmp_path, hearing, how):
    file = write(tmp_path / "s.yaml", data_of(tiny_folder, options={"steps": 8}))
    words = [sys.executable, "-m", "enhance_a_video.cli", "study", file, "--out", tmp_path / "out"]
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **hearing)
    try:
        while running.poll() is None and stored(tmp_path / "out") < 2:
            time.sleep(0.02)
    finally:
        running.send_signal(how)
        _, facts = running.communicate()
    if how == signal.SIGINT:
        assert running.returncode == 130 and "Stopped." in facts and "Traceback" not in facts
    before = rows(tmp_path / "out", "SELECT id, key, made FROM clips")
    assert 2 <= len(before) < 12, "killed too late to show anything"
    outcome = run(read_study(file), tmp_path / "out")
    assert (outcome.planned, outcome.stored, outcome.made) == (12, 12, 12 - len(before))
    assert rows(tmp_path / "out", "SELECT id, key, made FROM clips")[: len(before)] == before
    assert rows(tmp_path / "out", "SELECT count(*) FROM runs WHERE ended IS NULL") == [(1,)]
    assert run(read_study(file), tmp_path / "out").made == 0


def stored(folder: Path) -> int:
    try:
        return rows(folder, "SELECT count(*) FROM clips")[0][0]
    except sqlite3.Error:
        return 0


def test_workers_make_the_same_clips_and_one_that_dies_is_replaced(tiny_folder, tmp_path):
    study = parse_study(data_of(tiny_folder, prompts=WORDS[:3], options={"steps": 4}))
    killed = []

    def kill_one(progress) -> None:
        if progress.done >= 2 and len(progress.workers) == 2 and not killed:
            killed.append(progress.workers[0]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    outcome = run(study, tmp_path / "two", workers=2, progress=kill_one)
    assert killed and outcome.made == 9 and not outcome.failures
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    assert run(study, tmp_path / "two").made == 0
    run(study, tmp_path / "one")
    sql = "SELECT c.key, m.measure, m.value FROM measures m JOIN clips c ON c.id = m.clip ORDER BY 1, 2"
    two, one = rows(tmp_path / "two", sql), rows(tmp_path / "one", sql)
    assert [row[:2] for row in two] == [row[:2] for row in one]
    assert [row[2] for row in two] == pytest.approx([row[2] for row in one], rel=1e-3, nan_ok=True)


def test_a_study_on_a_ray_cluster_is_the_same(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # a test never uses the network
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'enhance-a-video[ray]'")
    study = parse_study(data_of(tiny_folder, prompts=WORDS[:2], options={"steps": 1}))
    options = {"object_store_memory": 100 * 2**20, "include_dashboard": False, "log_to_driver": False}
    ray.init("local", num_cpus=1, logging_level=40, **options)
    try:
        assert run(study, tmp_path / "cluster", ray="").made == 6
    finally:
        ray.shutdown()
    assert run(study, tmp_path / "here").made == 6
    sql = "SELECT c.key, m.measure, m.value FROM measures m JOIN clips c ON c.id = m.clip ORDER BY 1, 2"
    there, here = rows(tmp_path / "cluster", sql), rows(tmp_path / "here", sql)
    assert [row[:2] for row in there] == [row[:2] for row in here]
    assert [row[2] for row in there] == pytest.approx([row[2] for row in here], rel=1e-3, nan_ok=True)
    assert len(list((tmp_path / "cluster" / "clips").glob("*.mp4"))) == 6


def test_a_clip_that_fails_is_recorded_and_the_rest_goes_on(command, tiny_folder, tmp_path):
    lines = [{"prompt": WORDS[0]}, {"prompt": WORDS[1], "height": 33}, {"prompt": WORDS[2]}]  # 33: the pipeline refuses
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    file = write(tmp_path / "s.yaml", data_of(tiny_folder, prompts="p.jsonl", options={"steps": 1}))
    code, out, err = command(file, "--json")
    assert code == 1 and "3 of 9 clips" in err and "Traceback" not in err
    assert len(json.loads(out)["failures"]) == 3 and json.loads(out)["results"]["done"] == 6
    assert "could not be made" in Path("tiny/report.html").read_text()
    assert rows("tiny", "SELECT count(*) FROM failures WHERE error LIKE '%SettingsError%'") == [(3,)]
    assert command(file)[0] == 1  # tried again, and reported again


def test_when_nothing_works_it_stops_early(command, tiny_folder, tmp_path):
    file = write(tmp_path / "s.yaml", data_of(tiny_folder, options={"height": 33}))
    code, out, err = command(file)
    assert code == 1 and "first 3 clips failed" in " ".join(err.split()) and not out
    assert rows("tiny", "SELECT count(*) FROM failures") == [(3,)]


def test_videos_that_were_not_kept_are_made_again(tiny_folder, tmp_path):
    study = parse_study(data_of(tiny_folder, prompts=WORDS[:2], videos={"keep": False, "count": 1, "show": ["paper"]}))
    run(study, tmp_path / "out")
    assert not (tmp_path / "out" / "clips").exists()
    pages = write_pages(analyse(study, tmp_path / "out"), tmp_path / "out")
    kept = sorted((tmp_path / "out" / "clips").glob("*.mp4"))
    assert 2 <= len(kept) <= 6 and pages[0].stat().st_size > sum(path.stat().st_size for path in kept)
    frames, fps = video.read_video(kept[0])
    assert frames.shape == (9, 128, 128, 3) and fps == 8


def test_a_measure_added_later_makes_its_clips_again(tiny_folder, tmp_path):
    few = parse_study(data_of(tiny_folder, prompts=WORDS[:1], measures=["motion"]))
    run(few, tmp_path)
    more = parse_study(data_of(tiny_folder, prompts=WORDS[:1], measures=["motion", "contrast"]))
    assert run(more, tmp_path).made == 3 and run(few, tmp_path).made == 0
    assert rows(tmp_path, "SELECT count(*) FROM measures") == [(6,)]


def test_other_weights_are_another_model(tiny_folder, tmp_path):
    import shutil

    load = {"dtype": "float32"}
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    assert weights_of(str(copy), load) == weights_of(str(tiny_folder), load)
    assert weights_of(str(copy), {"dtype": "bfloat16"}) != weights_of(str(copy), load)
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    before = weights_of(str(copy), load)
    file.write_bytes(data)
    assert weights_of(str(copy), load) != before


def test_a_hub_model_is_known_by_its_revision(tmp_path, monkeypatch):
    """The real cache layout, as a download leaves it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("diffusers.configuration_utils.HF_HUB_CACHE", str(tmp_path), raising=False)
    found = []
    for revision in ("a" * 40, "b" * 40):
        folder = tmp_path / "models--owner--name"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(revision)
        (folder / "snapshots" / revision).mkdir(parents=True)
        (folder / "snapshots" / revision / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
        found.append(weights_of("owner/name", {}))
    assert found[0] != found[1]


def test_one_at_a_time(tiny_folder, tmp_path):
    study = parse_study(data_of(tiny_folder))
    with only_one(tmp_path), pytest.raises(EnhanceAVideoError, match="Another process"):
        run(study, tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["none.yaml"], 2, "cannot be read"),
        (["s.yaml", "--plan", "--report"], 2, "one of them"),
        (["s.yaml", "--report"], 2, "Nothing to compare"),
        (["s.yaml", "--workers", "0"], 2, "workers"),
        (["foreign.yaml"], 2, "not of a study"),
        (["taken.yaml", "--report"], 2, "no SQLite database"),
        (["gone.yaml"], 2, "no folder"),
    ],
)
def test_errors_are_one_message_and_an_exit_code(command, tiny_folder, tmp_path, words, code, says):
    for name in ("s", "foreign", "taken"):
        write(tmp_path / f"{name}.yaml", data_of(tiny_folder, name=name))
    write(tmp_path / "gone.yaml", data_of(tiny_folder, name="gone", model="./nowhere"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "report.html").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "study.sqlite").write_text("not a database, but long enough to be looked at" * 9)
    got, out, err = command(*words)
    assert got == code and says in " ".join(err.split()) and "Traceback" not in err and not out
    assert (tmp_path / "foreign" / "report.html").read_text() == "mine"


def test_a_database_of_something_else_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "study.sqlite") as db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(EnhanceAVideoError, match="something else"):
        Store(tmp_path)
    assert rows(tmp_path, "SELECT name FROM sqlite_master") == [("mine",)]


def test_previews_are_small_and_watchable():
    import numpy as np

    assert _small(np.zeros((2, 32, 48, 3), np.uint8)).shape == (2, 128, 192, 3)
    assert _small(np.zeros((2, 480, 832, 3), np.uint8)).shape == (2, 256, 444, 3)


def test_the_same_prompt_and_noise_in_the_plan_of_every_setting(tiny_folder):
    study = parse_study(data_of(tiny_folder, model=[str(tiny_folder), "embedded"]))
    wanted = targets(study, {str(tiny_folder): "a", "embedded": "b"})
    assert len(wanted) == 2 * 4 * 3 and {weights for _, weights in wanted} == {"a", "b"}


def test_several_clips_at_once_are_the_clips_one_by_one(tiny_folder, tmp_path):
    settings = {"plain": None, "default": {}, "flat": {"alternative": "logit_temperature", "tau": 1.5}}
    alone = parse_study(data_of(tiny_folder, settings=settings))
    together = parse_study(data_of(tiny_folder, settings=settings, load={"batch": 3}))
    assert run(alone, tmp_path / "alone").made == run(together, tmp_path / "together").made == 12
    query = "SELECT c.key, m.measure, m.value FROM measures m JOIN clips c ON c.id = m.clip ORDER BY 1, 2"
    for one, same in zip(rows(tmp_path / "alone", query), rows(tmp_path / "together", query), strict=True):
        assert one[:2] == same[:2] and same[2] == pytest.approx(one[2], rel=0.02, abs=2e-3, nan_ok=True), (one, same)
    assert together.digest != alone.digest
    assert weights_of(str(tiny_folder), together.load) != weights_of(str(tiny_folder), alone.load)


def test_a_group_that_fails_is_tried_one_by_one(tiny_folder, tmp_path, monkeypatch):
    generate, calls = making.generate_with, []

    def refusing(pipe, prompt, *args, **options):
        calls.append(len(prompt))
        if WORDS[1] in prompt:
            raise RuntimeError("no room")
        return generate(pipe, prompt, *args, **options)

    monkeypatch.setattr(making, "generate_with", refusing)
    outcome = run(parse_study(data_of(tiny_folder, load={"batch": 4})), tmp_path / "results")
    assert (outcome.made, len(outcome.failures)) == (9, 3)
    assert sorted(calls) == [1] * 12 + [4] * 3


def test_a_pipeline_that_takes_one_prompt_at_a_time_gets_it(tiny_folder, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    known = json.loads((folder / "defaults.json").read_text()) if (folder / "defaults.json").exists() else {}
    (folder / "defaults.json").write_text(json.dumps(known | {"several": False}))
    generate, seen = pipelines.generate, []
    noting = lambda pipe, prompt, **options: seen.append(prompt) or generate(pipe, prompt, **options)  # noqa: E731
    monkeypatch.setattr("enhance_a_video.generation.making.generate", noting)
    run(parse_study(data_of(folder, load={"batch": 4})), tmp_path / "results")
    assert sorted(map(len, seen)) == [1] * 12
