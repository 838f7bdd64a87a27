"""study.yaml: what it may contain, and the error for everything else."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from enhance_a_video.alternatives import LogitTemperature, MapScaling
from enhance_a_video.embedded import world
from enhance_a_video.errors import PromptError, SettingsError
from enhance_a_video.lab.study import parse_study, read_study
from enhance_a_video.settings import Settings

BASE = """
prompts: [a red ball, a blue square]
settings: {plain: null, default: {}}
"""
FULL = """
# everything there is
name: full
model: embedded
load: {dtype: bfloat16, device: cpu}
prompts:
  embedded: {first: 200, count: 3}
seeds: 2
settings:
  default: {}
  plain: null
  paper: {temperature: 4, start: 0, end: 1}
baseline: plain
options: {steps: [10, 20], guidance: 6, frames: [17, 33]}
measures: [warping_error, motion, jerk]
pooled: [warping_error]
correction: benjamini-hochberg
power: {effect: 0.1, power: 0.9, effects: {jerk: 0.2}}
videos: {keep: false, count: 3, show: [paper]}
"""


def parse(text: str, **more):
    return parse_study({**yaml.safe_load(text), **more})


def test_every_sentence_of_the_world():
    study = parse(FULL)
    assert list(study.settings) == ["plain", "default", "paper"]  # the baseline first
    assert study.settings["default"] == Settings() and study.settings["paper"].temperature == 4
    assert study.options == {"guidance": 6} and study.varied == {"steps": (10, 20), "frames": (17, 33)}
    assert [row.name for row in study.measures] == ["jerk", "warping_error", "motion"]
    assert study.truth and study.pooled == ("warping_error",)
    assert study.power.effect_on("jerk") == 0.2 and study.power.effect_on("motion") == 0.1
    assert study.videos.show == ("paper",) and not study.videos.keep
    assert study.load == {"dtype": "bfloat16", "device": "cpu"}


def test_a_setting_may_be_what_the_method_is_compared_with():
    knobs = {
        "plain": None,
        "flat": {"alternative": "logit_temperature", "tau": 1.2},
        "map": {"alternative": "map_scaling"},
    }
    study = parse(BASE, settings=knobs)
    assert study.settings["flat"] == LogitTemperature(tau=1.2) and study.settings["map"] == MapScaling()
    keys = {trial.item.label: trial.item.key for trial in study.trials(1)}
    assert len(set(keys.values())) == 3
    assert keys == {trial.item.label: trial.item.key for trial in parse(BASE, settings=knobs).trials(1)}
    for wrong, message in (
        ({"alternative": "logit_temprature"}, "settings: flat: .*Did you mean 'logit_temperature'"),
        ({"alternative": "logit_temperature", "strength": 1}, "settings: flat: unknown settings"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse(BASE, settings={"plain": None, "flat": wrong})


def test_the_keys_of_todays_clips_stay_what_they_are():
    """Stored studies are found again by them."""
    keys = {trial.item.label: trial.item.key for trial in parse(FULL).trials(1)[:3]}
    assert keys["plain"] == "41365990b88a5edb" and keys["paper"] == "9c0ee2698b63f4d7"


def test_every_clip_is_paired_with_the_others_of_its_prompt_noise_and_condition():
    trials = parse(FULL).trials()
    assert len(trials) == 3 * 2 * 3 * 4  # prompts, seeds, settings, conditions
    pairs = {}
    for trial in trials:
        pairs.setdefault(trial.pair, []).append(trial)
    assert len(pairs) == 3 * 2 * 4
    for members in pairs.values():
        assert sorted(trial.item.label for trial in members) == ["default", "paper", "plain"]
        assert len({(trial.item.prompt, trial.item.seed, str(trial.item.options)) for trial in members}) == 1
    assert {trial.item.options["frames"] for trial in trials} == {17, 33}
    assert len({trial.item.key for trial in trials}) == len(trials)


def test_the_clips_of_a_prompt_come_together_so_that_an_interrupted_study_has_whole_pairs():
    prompts = [trial.prompt for trial in parse(FULL).trials()]
    assert prompts == sorted(prompts)
    assert {trial.prompt for trial in parse(FULL).trials(first=2)} == {0, 1}


def test_embedded_prompts_are_those_of_the_results_page_each_with_noise_of_its_own():
    study = parse(BASE, prompts={"embedded": {"first": 7, "count": 2}})
    expected = [world.caption(world.held_out_scene(i), np.random.default_rng((3, i))) for i in (7, 8)]
    assert [prompt.text for prompt in study.prompts] == expected
    assert [prompt.seeds for prompt in study.prompts] == [(7,), (8,)]
    assert parse(BASE, prompts={"embedded": {"first": 7, "count": 2}}, seeds=3).prompts[0].seeds == (21, 22, 23)


def test_a_held_out_sentence_describes_its_scene():
    def contents(scene):
        return [(t.colour, t.kind, t.texture, t.motion) for t in scene.things], scene.backdrop

    for index in range(200):
        scene = world.held_out_scene(index)
        sentence = world.caption(scene, np.random.default_rng((3, index)))
        assert contents(world.parse_caption(sentence)) == contents(scene), sentence


@pytest.mark.parametrize(("seeds", "expected"), [(None, (1,)), (2, (2, 3)), ([5, 9], (5, 9))])
def test_seeds_are_a_count_or_a_list(seeds, expected):
    assert parse(BASE, seeds=seeds).prompts[1].seeds == expected


def test_prompts_from_files_may_bring_seeds_and_options(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cat", "seed": 4, "negative": "blur"}\n{"prompt": "a dog"}\n')
    (tmp_path / "study.yaml").write_text("prompts: p.jsonl\nseeds: [0, 1]\nsettings: {plain: null, default: {}}\n")
    study = read_study(tmp_path / "study.yaml")
    assert study.name == "study"
    assert [prompt.seeds for prompt in study.prompts] == [(4,), (0, 1)]
    assert study.trials()[0].item.options == {"negative": "blur"}
    assert not study.truth  # these sentences are of no world whose truth is known


def test_a_folder_beside_the_file_is_the_model(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "s.yaml").write_text(BASE + "model: [weights, owner/name]\n")
    study = read_study(tmp_path / "s.yaml")
    assert study.models == (str(tmp_path / "weights"), "owner/name")
    assert study.factors == {"model": study.models}
    assert {trial.condition["model"] for trial in study.trials()} == set(study.models)


def test_truth_only_where_every_prompt_is_of_the_embedded_world():
    sentence = "A red ball rises in the desert."
    assert parse(BASE, prompts=[sentence]).truth
    assert not parse(BASE, prompts=[sentence, "a cat"]).truth
    assert not parse(BASE, prompts=[sentence], model="owner/name").truth


def test_the_hash_is_of_what_decides_the_numbers():
    study = parse(FULL)
    assert parse("# another comment\n" + FULL).digest == study.digest
    assert replace(study, name="other", text="").digest == study.digest
    for change in (
        {"seeds": 3},
        {"settings": {"plain": None, "default": {"strength": 0.8}, "paper": {"temperature": 4}}},
        {"options": {"steps": [10, 21]}},
        {"pooled": "all"},
        {"correction": "holm"},
        {"prompts": {"embedded": {"first": 201, "count": 3}}},
        {"load": {"dtype": "float32"}},
    ):
        assert parse(FULL, **change).digest != study.digest, change


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("setings: {a: null}", "Did you mean 'settings'"),
        ("prompts: [a]", "needs 'settings'"),
        ("settings: {plain: null, default: {}}", "needs 'prompts'"),
        ("just text", "not a mapping"),
        ("prompts: [a]\nprompts: [b]", "'prompts' is there twice"),
        ("prompts: [a\n", "not YAML"),
        (BASE + "seeds: 0", "from 1 to"),
        (BASE + "seeds: [1, 1]", "different"),
        (BASE + "seeds: many", "seeds='many'"),
        (BASE + "name: ../up", "cannot name a folder"),
        (BASE + "model: []", "model"),
        (BASE + "model: [a, a]", "twice"),
        (BASE + "load: {dtyp: float32}", "Did you mean 'dtype'"),
        (BASE + "load: {vae_tiling: 1}", "true or false"),
        (BASE + "load: {dtype: int8}", "give one of auto, float32"),
        (BASE + "load: {device: gpu}", "give auto, cpu"),
        (BASE + "load: {offload: all}", "give one of none, model"),
        (BASE + "baseline: plian", "Did you mean 'plain'"),
        (BASE + "options: {step: 4}", "Did you mean 'steps'"),
        (BASE + "options: {steps: 4.5}", "steps=4.5"),
        (BASE + "options: {steps: [4, 4]}", "different values"),
        (BASE + "options: {frames: 0}", "frames=0"),
        (BASE + "options: {guidance: high}", "guidance='high'"),
        (BASE + "options: {extra: [{a: 1}, {a: 2}]}", "cannot be varied"),
        (BASE + "options: {image: none.png}", "no picture"),
        (BASE + "measures: [warping_eror]", "Did you mean 'warping_error'"),
        (BASE + "measures: [jerk]", "for these prompts"),  # a measure of truth without a truth
        (BASE + "pooled: [motion]", "with a direction"),
        (BASE + "correction: bonferroni", "Known: holm, benjamini-hochberg"),
        (BASE + "power: {effect: 0}", "mean)=0"),
        (BASE + "power: {power: 80}", "from 0.01 to"),
        (BASE + "power: {effects: {warp: 0.1}}", "effects: 'warp' is unknown"),
        (BASE + "videos: {show: [papre]}", "'papre' is unknown"),
        (BASE + "videos: {keep: 7}", "keep is true or false"),
        ("prompts: []\nsettings: {plain: null, default: {}}", "prompts: []"),
        ("prompts: {embeded: {count: 3}}\nsettings: {plain: null, default: {}}", "Did you mean 'embedded'"),
        ("prompts: {embedded: {first: 3}}\nsettings: {plain: null, default: {}}", "count=None"),
        ("prompts: [a, b, a]\nsettings: {plain: null, default: {}}", "'a' is there twice"),
        ("prompts: nowhere.txt\nsettings: {plain: null, default: {}}", "cannot be read"),
        ("prompts: [a]\nsettings: {plain: null}", "two or more"),
        ("prompts: [a]\nsettings: {a: {}, b: {strength: 1}}", "baseline: name one"),
        ("prompts: [a]\nsettings: {plain: null, default: {strengh: 1}}", "Did you mean 'strength'"),
        ("prompts: [a]\nsettings: {plain: null, default: {strength: -1}}", "settings: default: strength"),
        ("prompts: [a]\nsettings: {plain: null, a: {}, b: {}}", "same settings"),
        ("prompts: [a]\nsettings: {plain: null, 3: {}}", "put it in quotes"),
    ],
)
def test_what_is_wrong_is_reported(tmp_path, text, says):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises((SettingsError, PromptError)) as data:
        read_study(path)
    assert says in str(data.value) and str(path) in str(data.value)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read_study(tmp_path / "none.yaml")


def test_an_option_that_is_varied_is_not_a_prompts_own(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cat", "steps": 4}\n')
    (tmp_path / "s.yaml").write_text(
        "prompts: p.jsonl\nsettings: {plain: null, default: {}}\noptions: {steps: [5, 6]}\n"
    )
    with pytest.raises(SettingsError, match="brings its own"):
        read_study(tmp_path / "s.yaml")


def test_merge_keys_still_work(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "prompts: [a]\nsettings:\n  plain: null\n  a: &a {strength: 1, end: 0.5}\n  b: {<<: *a, end: 0.6}\n"
    )
    assert read_study(tmp_path / "s.yaml").settings["b"] == Settings(strength=1, end=0.6)
