"""Planted effects: stored clips whose answer is known go in, and the right words have to come out."""

import math
import zlib

import numpy as np
import pytest

from enhance_a_video.errors import SettingsError
from enhance_a_video.lab.study import analyse, make_plan, parse_study, run, view
from enhance_a_video.lab.study.analysis import unit_means
from enhance_a_video.lab.study.pages import markdown
from enhance_a_video.lab.study.run import targets, weights_of
from enhance_a_video.lab.study.store import Store

MEASURES = ["colour_right", "backdrop_flicker", "warping_error", "motion"]


def study_of(count: int = 40, **more):
    options = {
        "name": "planted",
        "prompts": {"embedded": {"count": count}},
        "settings": {"plain": None, "default": {}, "strong": {"strength": 1.5}},
        "measures": MEASURES,
    }
    return parse_study(options | more)


def plant(study, folder, values, first=None, skip=lambda trial: False):
    """Stores every clip with values(trial, random) -> measures; `random` is the same for the clips of a pair."""
    weights = {model: weights_of(model, study.load) for model in study.models}
    with Store(folder) as store:
        store.db.execute("PRAGMA synchronous = OFF")  # nothing here has to outlive a power cut
        run = store.begin_run(study.digest, study.text, "by hand", 1, {"versions": VERSIONS, "machine": MACHINE})
        for (_, state), trial in targets(study, weights, first).items():
            if skip(trial):
                continue
            latent = (trial.item.options.get("frames", 33) - 1) // 4 + 1
            done = {"latent_frames": latent, "mean_gain": 1.3} if trial.item.settings else None
            clip = {**trial.item.facts(), "frames": 33, "height": 64, "width": 64, "seconds": 2.0, "enhancement": done}
            found = values(trial, np.random.default_rng(number_of(trial.pair[1:])))
            store.add(clip, found, model=trial.model, weights=state, run=run)
        store.end_run(run)


def number_of(value) -> int:
    """The same in every process, which hash() is not."""
    return zlib.crc32(repr(value).encode())


VERSIONS = {"python": "3", "enhance-a-video": "1", "torch": "1", "diffusers": "1"}
MACHINE = {"cpu": "x", "cores": 1, "system": "x", "gpus": []}


def gentle(trial, random) -> dict[str, float]:
    """default: warping error exactly 10 % down, flicker half a unit worse, the rest as it is."""
    prompt = np.random.default_rng(trial.prompt)
    base = {
        "colour_right": 1.0,
        "backdrop_flicker": 5 + prompt.normal(),
        "warping_error": 10 + prompt.normal(),
        "motion": 2 + prompt.normal(),
    }
    if trial.item.label == "default":
        base["warping_error"] *= 0.9
        base["backdrop_flicker"] += 0.5 + 0.1 * random.normal()
    return base


def test_planted_changes_are_found(tmp_path):
    study = study_of()
    plant(study, tmp_path, gentle)
    results = analyse(study, tmp_path)
    assert results.complete and results.pairs == 40 and (results.unit, results.units) == ("prompt", 40)
    effects = results.effects["default"]
    better = effects["warping_error"]
    assert better.change.relative == pytest.approx(-0.1) and better.verdict == "better"
    assert (better.wins, better.ties, better.losses) == (40, 0, 0)
    assert better.scaled[0] > 0 and better.scaled[1] <= better.scaled[0] <= better.scaled[2]
    worse = effects["backdrop_flicker"]
    assert worse.verdict == "worse" and worse.losses == 40 and worse.scaled[0] < 0
    assert worse.change.difference == pytest.approx(0.5, abs=0.06)
    assert effects["motion"].verdict == "same" and effects["motion"].ties == 40
    assert all(effect.verdict == "same" for effect in results.effects["strong"].values())
    assert results.gains == {"default": 1.3, "strong": 1.3} and results.seconds["plain"] == 2
    assert "1 better (warping error −10.0 %) and 1 worse (backdrop flicker" in view.verdict(results, "default")


def test_the_pooled_score_by_hand(tmp_path):
    study = study_of()
    plant(study, tmp_path, gentle)
    results = analyse(study, tmp_path)
    assert results.pooled_from == ("backdrop_flicker", "warping_error")  # colours never vary, motion has no direction
    plain = [gentle(t, np.random.default_rng(0)) for t in study.trials() if t.item.label == "plain"]
    spread = {name: np.std([row[name] for row in plain], ddof=1) for name in results.pooled_from}
    mean = np.mean([row["warping_error"] for row in plain])
    by_hand = (0.1 * mean / spread["warping_error"] - 0.5 / spread["backdrop_flicker"]) / 2
    assert results.pooled["default"].change.difference == pytest.approx(by_hand, abs=0.05)
    assert results.pooled["strong"].change.difference == 0
    rival = results.rivals["default", "strong"]
    assert rival.difference == pytest.approx(results.pooled["default"].change.difference)
    assert results.rivals["strong", "default"].difference == pytest.approx(-rival.difference)


def test_noise_alone_is_hardly_ever_called_an_effect(tmp_path):
    found = hints = 0
    for trial_number in range(8):
        study = study_of(settings={"plain": None, **{f"s{n}": {"strength": 0.1 * n + 0.1} for n in range(5)}})

        def noise(trial, _, number=trial_number):
            random = np.random.default_rng((number, number_of(trial.item.key)))
            return dict(zip(MEASURES, random.normal(10, 1, len(MEASURES)), strict=True))

        plant(study, tmp_path / str(trial_number), noise)
        results = analyse(study, tmp_path / str(trial_number))
        verdicts = [effect.verdict for row in results.effects.values() for effect in row.values()]
        found += any(v in ("better", "worse", "more", "less") for v in verdicts)
        hints += sum(v.startswith("maybe") for v in verdicts)
    assert found <= 2  # of 8 studies; about one in twenty has any
    assert 1 <= hints <= 24  # of 160 intervals one in twenty excludes zero: what the correction is for


def test_an_effect_that_depends_on_the_steps_is_seen_where_it_is(tmp_path):
    study = study_of(20, options={"steps": [8, 16], "frames": [17, 33]}, seeds=2)

    def values(trial, random):
        row = gentle(trial, random)
        if trial.item.label == "strong" and trial.condition["steps"] == 16:
            row["warping_error"] -= 2
        return row

    plant(study, tmp_path, values)
    results = analyse(study, tmp_path)
    assert results.pairs == 20 * 2 * 4 and results.units == 20  # pairs of one prompt are one observation
    parts = view.grouped(results.parts)
    assert [part.value for part in parts["frames"]] == ["17 (5 latent)", "33 (9 latent)"]
    eight, sixteen = parts["steps"]
    assert eight.effects["strong"]["warping_error"].change.difference == 0
    assert sixteen.effects["strong"]["warping_error"].change.difference == pytest.approx(-2)
    assert results.effects["strong"]["warping_error"].change.difference == pytest.approx(-1)
    for part in parts["frames"]:
        assert part.effects["strong"]["warping_error"].change.difference == pytest.approx(-1)
    assert sixteen.pairs == 80 and sixteen.pooled["strong"].change.difference > 0


def test_many_seeds_of_few_prompts_are_not_many_prompts():
    groups = np.repeat([0, 1, 2], 4)
    before, after = np.zeros(12), np.repeat([1.0, 2.0, math.nan], 4)
    first, second = unit_means(groups, before, after)
    assert second.tolist() == [1, 2] and first.tolist() == [0, 0]


def test_with_few_prompts_their_noises_are_the_observations(tmp_path):
    study = study_of(3, seeds=12)
    plant(study, tmp_path, gentle)
    results = analyse(study, tmp_path)
    assert results.unit == "prompt and seed" and results.units == 36
    assert any("these prompts, under other noise" in text for text in view.method(results))


def test_worst_and_best_are_what_they_claim(tmp_path):
    study = study_of(40, videos={"count": 5})

    def values(trial, random):
        row = gentle(trial, random)
        if trial.item.label == "strong":
            row["warping_error"] += {3: 30.0, 11: 20.0, 7: -5.0}.get(trial.prompt, 0.01 * trial.prompt)
        return row

    plant(study, tmp_path, values)
    cases = analyse(study, tmp_path).cases["strong"]
    assert [case.trial.prompt for case in cases["worst"]][:2] == [3, 11]
    assert cases["best"][0].trial.prompt == 7 and len(cases["random"]) == 5
    scores = [case.score for case in cases["worst"]]
    assert scores == sorted(scores) and scores[0] < 0
    label, before, after, change = cases["worst"][0].reasons[0]
    assert label == "Warping error" and after - before == pytest.approx(30) and change < 0
    again = analyse(study, tmp_path).cases["strong"]["random"]
    assert [case.clip for case in again] == [case.clip for case in cases["random"]]


def test_what_is_missing_is_left_out_and_reported(tmp_path):
    study = study_of(12)

    def values(trial, random):
        row = gentle(trial, random)
        return row | ({"backdrop_flicker": math.nan} if trial.prompt < 5 and trial.item.label == "plain" else {})

    plant(study, tmp_path, values, skip=lambda trial: trial.prompt == 11 and trial.item.label == "strong")
    results = analyse(study, tmp_path)
    assert results.effects["default"]["backdrop_flicker"].change.pairs == 7
    assert results.effects["default"]["warping_error"].change.pairs == 12
    assert results.effects["strong"]["warping_error"].change.pairs == 11
    assert (results.done, results.planned) == (35, 36) and not results.complete
    assert "35 of 36" in " ".join(view.warnings(results))


def test_clips_of_another_study_or_of_other_weights_are_not_used(tmp_path):
    plant(study_of(12), tmp_path, gentle)
    changed = study_of(12, settings={"plain": None, "default": {"strength": 0.9}})
    with pytest.raises(SettingsError, match="Nothing to compare"):
        analyse(changed, tmp_path)
    both = study_of(12, settings={"plain": None, "default": {}})
    results = analyse(both, tmp_path)
    assert results.elsewhere == 12 and results.complete
    assert "was changed" in " ".join(view.warnings(results))
    with pytest.raises(SettingsError, match="Nothing to compare"):
        analyse(study_of(12, load={"dtype": "bfloat16"}), tmp_path)
    assert make_plan(study_of(12, load={"dtype": "bfloat16"}), tmp_path).other_weights == 36


def test_the_plan_before_and_after_a_pilot(tmp_path):
    study = study_of(100, power={"effect": 0.1, "effects": {"motion": 0.5}})
    plan = make_plan(study, tmp_path / "none")
    assert (plan.clips, plan.done, plan.left, plan.hours, plan.needs) == (300, 0, 300, None, ())
    assert not (tmp_path / "none").exists()

    def values(trial, _):
        random = np.random.default_rng((trial.prompt, trial.item.label == "strong", trial.item.label == "plain"))
        return {"colour_right": 1.0, "backdrop_flicker": 5.0 + random.normal(), "warping_error": 10.0 + random.normal(),
                "motion": 2.0 + random.normal()}  # fmt: skip

    plant(study, tmp_path, values, first=50)
    plan = make_plan(study, tmp_path, workers=2)
    assert (plan.done, plan.left, plan.units, plan.per_unit) == (150, 150, 100, 3)
    assert plan.hours == pytest.approx(150 * 2.0 / 2 / 3600)
    needs = {need.row.name: need for need in plan.needs}
    # Differences of two normal values of sd 1: sd 1.41. An effect of 10 % of 10 needs (2.8·1.41/1)² + 2 = 18.
    assert 12 <= needs["warping_error"].alone <= 26
    assert needs["warping_error"].all > needs["warping_error"].alone
    assert needs["backdrop_flicker"].alone == pytest.approx(4 * needs["warping_error"].alone, rel=0.5)
    assert needs["motion"].effect == pytest.approx(1.0, rel=0.2)  # its own: half of 2
    assert needs["colour_right"].alone is None  # no pair differed: nothing is known
    rows = {row["label"]: row for row in view.needs(plan)}
    assert rows["Warping error"]["enough"] and rows["Requested colours present"]["alone"] == "–"
    assert plan.to_dict()["needs"][0]["measure"] == "pooled"


def test_the_worlds_own_clips_are_measured_once_and_shown_beside_the_baseline(tmp_path):
    study = study_of(3)
    plant(study, tmp_path, gentle)
    assert analyse(study, tmp_path).ceiling == {}
    assert run(study, tmp_path).made == 0  # every clip is stored; the world's own are not
    results = analyse(study, tmp_path)
    assert results.ceiling["colour_right"] == 1 and results.ceiling["backdrop_flicker"] < 0.001
    assert results.elsewhere == 0 and results.planned == results.done == 9
    text = markdown(results, make_plan(study, tmp_path))
    assert "| measure |  | the world's own clips | plain |" in text
    with Store(tmp_path) as store:
        before = len(store.runs())
    run(study, tmp_path)
    with Store(tmp_path) as store:
        assert len(store.runs()) == before


def test_the_markdown_has_every_table(tmp_path):
    study = study_of(12, options={"steps": [4, 8]})
    plant(study, tmp_path, gentle)
    text = markdown(analyse(study, tmp_path), make_plan(study, tmp_path))
    for part in ("# planted", "## Pooled score", "## default, against plain", "## By steps", "large enough?", "Holm"):
        assert part in text, part
    assert "**better**" in text and "−10.0 %" in text and study.digest in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for block in tables:
        assert len({line.count("|") - line.count("\\|") for line in block.splitlines()}) == 1, block
