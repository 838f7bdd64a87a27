"""VBench's suite: prompts for `batch`, names as VBench expects them, its total score."""

import importlib.util
import json
from pathlib import Path

import pytest

from enhance_a_video.generation import requests, video
from enhance_a_video.generation.batch import run
from enhance_a_video.settings import Settings

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def suite():
    spec = importlib.util.spec_from_file_location("vbench_suite", BENCHMARKS / "vbench_suite.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def info(tmp_path):
    rows = [
        {"prompt_en": "a red ball", "dimension": ["temporal_flickering"]},
        {"prompt_en": "a blue ball moves left", "dimension": ["color", "scene"]},
        {"prompt_en": "a red ball", "dimension": ["color"]},  # VBench repeats two of its prompts
    ]
    (tmp_path / "info.json").write_text(json.dumps(rows))
    return tmp_path / "info.json"


def test_prompts_have_vbench_counts_and_seeds_of_their_own(suite, info, tmp_path):
    suite.main(["prompts", str(info), str(tmp_path / "suite.jsonl")])
    found = requests.read_prompts(tmp_path / "suite.jsonl")
    assert [(prompt.text, len(prompt.seeds)) for prompt in found] == [("a red ball", 25), ("a blue ball moves left", 5)]
    seeds = [seed for prompt in found for seed in prompt.seeds]
    assert len(set(seeds)) == len(seeds)
    suite.main(["prompts", str(info), str(tmp_path / "suite.jsonl"), "--dimension", "scene"])
    assert [prompt.text for prompt in requests.read_prompts(tmp_path / "suite.jsonl")] == ["a blue ball moves left"]


def test_a_batch_gets_vbench_names(suite, tmp_path, tiny_folder):
    prompts = [requests.Prompt("a red ball", seeds=(7, 3)), requests.Prompt("a blue ball", seeds=(5,))]
    items = requests.expand(prompts, [0], [("plain", None), ("enhanced", Settings())], {"steps": 1, "frames": 5})
    run(tmp_path / "clips", items, model=str(tiny_folder))
    suite.main(["link", str(tmp_path / "clips"), str(tmp_path / "videos")])
    suite.main(["link", str(tmp_path / "clips"), str(tmp_path / "videos")])  # again, after more clips
    names = {"a red ball-0.mp4", "a red ball-1.mp4", "a blue ball-0.mp4"}
    for arm in ("plain", "enhanced"):
        assert {path.name for path in (tmp_path / "videos" / arm).iterdir()} == names
    record = json.loads(video.read_comment(tmp_path / "videos" / "plain" / "a red ball-1.mp4"))
    assert (record["seed"], record["label"]) == (7, "plain")


def test_the_total_is_vbench_total(suite, tmp_path, capsys):
    """VBench's own scripts/cal_final_score.py, run on these numbers, gave these scores."""
    results = {name: 0.3 + 0.04 * n for n, name in enumerate((*suite.QUALITY, *suite.SEMANTIC))}
    for part in (list(results)[:9], list(results)[9:]):  # as vbench writes them, a file a run
        found = {name: [results[name], []] for name in part}
        (tmp_path / f"results_{part[0]}_eval_results.json").write_text(json.dumps(found))
    suite.main(["total", str(tmp_path)])
    assert "quality -2.11, semantic 132.91, total 24.89" in capsys.readouterr().out
    next(tmp_path.glob("*_eval_results.json")).unlink()
    with pytest.raises(SystemExit, match="no result of"):
        suite.main(["total", str(tmp_path)])
