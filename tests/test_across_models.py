"""benchmarks/across_models.py on clips whose damage is planted: the best is chosen, the rest reported as it is."""

import importlib.util
import shutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from enhance_a_video.embedded import world
from enhance_a_video.lab.metrics import damage
from enhance_a_video.lab.study import read_study, run
from enhance_a_video.lab.study.definition import held_out_prompt

SCENES = {held_out_prompt(i): i for i in range(8)}


def benchmark(name):
    path = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses need their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def across():
    yield from benchmark("across_models")


@pytest.fixture(scope="module")
def cases():
    yield from benchmark("cases")


@pytest.fixture
def results(tiny_folder, tmp_path, monkeypatch):
    """A study of two models: plain flickers, `mild` half as much, `strong` boils."""
    shutil.copytree(tiny_folder, tmp_path / "other")
    (tmp_path / "other" / "defaults.json").write_text('{"steps": 3}')  # other weights, as a study counts
    settings = {"plain": None, "strong": {"strength": 0.9}, "mild": {"strength": 0.1}}
    data = {
        "model": [str(tiny_folder), str(tmp_path / "other")], "prompts": {"embedded": {"first": 0, "count": 8}},
        "settings": settings, "videos": {"keep": False, "count": 0},
        "measures": ["temporal_flicker", "motion_smoothness", "motion_right", "backdrop_flicker", "motion"],
    }  # fmt: skip

    def painted(pipe, prompts, settings, **options):
        amount = 0.5 if settings is None else settings.strength
        how = (damage.boil, 1.0) if amount == 0.9 else (damage.flicker, amount)
        drawn = [world.render(world.held_out_scene(SCENES[prompt]))[0] / np.float32(255) for prompt in prompts]
        return np.stack([np.rint(255 * how[0](clip, how[1])).astype(np.uint8) for clip in drawn]), None

    monkeypatch.setattr(import_module("enhance_a_video.generation.making"), "generate_with", painted)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    assert not run(read_study(file), tmp_path / "results").failures
    return file, tmp_path / "results"


def test_the_best_is_chosen_and_what_boils_is_not(across, results, monkeypatch, tmp_path, capsys):
    file, folder = results
    monkeypatch.setattr(
        "sys.argv",
        [
            "across_models.py",
            str(file),
            str(folder),
            "--out",
            str(tmp_path / "table.md"),
            "--picture",
            str(tmp_path / "scores.png"),
            "--price",
            str(tmp_path / "price.png"),
        ],
    )
    across.main()
    text = (tmp_path / "table.md").read_text()
    assert Image.open(tmp_path / "scores.png").size[0] > 600 and Image.open(tmp_path / "price.png").size[0] > 600
    assert capsys.readouterr().out.strip() == text.strip()
    assert text.count("| prompts | | | 8 | 8 | 8 |") == 2
    for part in ("## Choice: prompts 0 to 3", "## Confirmation: prompts from 4 on"):
        rows = [line for line in text.split(part)[1].split("##")[0].splitlines() if line.startswith("| ")]
        assert [row.split(" | ")[0] for row in rows[1:]] == ["| mild", "| strong"]
    motion = [line.split(" | ") for line in text.split("## Motion, beside")[1].split("##")[0].splitlines()[4:] if line]
    assert [(row[1], row[2]) for row in motion] == [("Motion", "strong"), ("Motion", "mild")] * 2
    for row in motion:  # of both models: less flicker is nearer to the world's own
        own, plain, changed = map(float, row[3:6])
        assert row[2] == "strong" or abs(changed - own) < abs(plain - own)
        assert row[2] == "strong" or row[7].startswith("-")
    flicker = next(line for line in text.splitlines() if line.startswith("| backdrop flicker"))
    assert flicker.replace("*", "").split(" | ")[-1].startswith("-")  # mild flickers half as much


def test_each_clip_is_scored_as_the_study_scores_it(across, results):
    from enhance_a_video.lab.study import analyse

    file, folder = results
    study = across.of_model(read_study(file), read_study(file).models[0])
    scores, found = across.scores(study, folder), analyse(study, folder)
    for label in study.others:
        assert np.mean(scores.pooled[label]) == pytest.approx(found.pooled[label].change.difference)
        assert across.against_nothing(scores.pooled[label]).difference == pytest.approx(
            found.pooled[label].change.difference
        )
    judged = across.judged(study, scores.clips)
    assert np.nanmean(judged["mild"]) > 0 > np.nanmean(judged["strong"])


def test_halves_share_no_prompt(across, results):
    study = read_study(results[0])
    one, two = across.part(study, 0, 4), across.part(study, 4, 8)
    assert {p.text for p in one.prompts} | {p.text for p in two.prompts} == {p.text for p in study.prompts}
    assert not {p.text for p in one.prompts} & {p.text for p in two.prompts} and list(two.scenes) == [4, 5, 6, 7]


def test_the_picture_of_cases_has_the_extremes_of_each_model(cases, results, monkeypatch, tmp_path, capsys):
    file, folder = results
    out = tmp_path / "cases.png"
    monkeypatch.setattr("sys.argv", ["cases.py", str(file), str(folder), "--setting", "mild", "--out", str(out)])
    cases.main()
    assert "6 pairs" in capsys.readouterr().out and Image.open(out).size[1] > 6 * 2 * 128
    study = read_study(file)
    one = cases.replace(
        study, models=study.models[:1], settings={label: study.settings[label] for label in ("plain", "mild")}
    )
    found = {kind: case.score for kind, case in cases.cases_of(one, folder, 1)}
    assert found["worst"] <= found["random"] <= found["best"] and found["worst"] < found["best"]
    monkeypatch.setattr("sys.argv", ["cases.py", str(file), str(folder), "--setting", "wild", "--out", str(out)])
    with pytest.raises(SystemExit):
        cases.main()
    assert "the study has strong, mild" in capsys.readouterr().err
