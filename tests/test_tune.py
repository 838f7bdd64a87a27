"""Tuning: the reward on planted damage; search and learning on a reward without a model; the command end to end."""

import json
import sqlite3
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from enhance_a_video.embedded import checker, world
from enhance_a_video.errors import EnhanceAVideoError, MissingExtraError, OutputExistsError, PromptError, SettingsError
from enhance_a_video.generation.measures import Measure
from enhance_a_video.generation.requests import Prompt
from enhance_a_video.lab.metrics import measure
from enhance_a_video.lab.metrics.damage import DAMAGES
from enhance_a_video.lab.study import parse_study
from enhance_a_video.lab.study.definition import held_out_prompt, measures_of
from enhance_a_video.lab.tune import REWARDS, Reward, Tuning, chosen_prompts, tune
from enhance_a_video.lab.tune.learn import Recipe, episodes, learn, network_of, start_of
from enhance_a_video.lab.tune.reward import rows_of
from enhance_a_video.lab.tune.search import grid_of, search, seeds_of
from enhance_a_video.lab.tune.space import SPACES
from enhance_a_video.policies import GainContext, Grid, Odds, read_profile

KNOWN = measures_of([Prompt(held_out_prompt(0))], True)
WORDS = ["a red ball moves left", "a blue square moves right", "the green ball", "a square over the sky"]

# ------------------------------------------------------------------------------------------------------- reward


def measured(frames: np.ndarray, scene: world.Scene) -> dict[str, float]:
    return measure(frames) | checker.check(frames, scene)


@pytest.fixture(scope="module")
def painted():
    """The world's own clips of three held-out scenes: (frames, scene, measures)."""
    scenes = [world.held_out_scene(n) for n in range(3)]
    clips = [world.render(scene)[0] for scene in scenes]
    return [(frames, scene, measured(frames, scene)) for frames, scene in zip(clips, scenes, strict=True)]


@pytest.mark.parametrize(
    ("damage", "amount"),
    [("freeze", 0.5), ("freeze", 1.0), ("blur", 0.5), ("blur", 1.0), ("flicker", 0.5), ("noise", 0.5), ("boil", 0.5),
     ("fade", 1.0), ("flatten", 0.5), ("drift", 0.5)],
)  # fmt: skip
def test_damage_costs_under_every_reward(painted, damage, amount):
    spoiled = []
    for frames, scene, _ in painted:
        worse = DAMAGES[damage](frames / 255.0, amount)
        spoiled.append(measured(np.clip(np.rint(255 * worse), 0, 255).astype(np.uint8), scene))
    for name in REWARDS:
        reward = Reward.of(rows_of(name, KNOWN), [plain for *_, plain in painted])
        plain = [measures for *_, measures in painted]
        assert reward.values(list(zip(plain, spoiled, strict=True))).mean() < 0, name
        assert (reward.values(list(zip(plain, plain, strict=True))) == 0).all()


def simple(**better: str) -> Reward:
    """A reward over measures of these names: t_... are truth; spread 1, mean 1."""
    rows = tuple(
        Measure(name, name, way, "", "", "truth" if name.startswith("t_") else "frames") for name, way in better.items()
    )
    return Reward(rows, dict.fromkeys(better, 1.0), dict.fromkeys(better, 1.0))


def test_a_term_is_signed_scaled_and_limited():
    reward = simple(up="higher", down="lower")
    assert reward({"up": 1, "down": 1}, {"up": 1.5, "down": 1}) == pytest.approx(0.25)
    assert reward({"up": 1, "down": 1}, {"up": 1, "down": 1.5}) == pytest.approx(-0.25)
    assert reward({"up": 1, "down": 1}, {"up": 1, "down": 500}) == pytest.approx(-0.5)  # one heavy tail does not rule
    still = Reward(reward.rows, {"up": 0.0, "down": 1.0}, reward.mean)  # all plain clips alike: any change counts
    assert still({"up": 1, "down": 1}, {"up": 0.99, "down": 1}) == pytest.approx(-0.5)


def test_truth_weighs_at_least_half():
    reward = simple(t_a="higher", b="higher", c="higher", d="higher")
    before = dict.fromkeys("bcd", 0.0) | {"t_a": 0.0}
    assert reward(before, before | {"t_a": 1.0}) == pytest.approx(0.5)
    many = simple(t_a="higher", t_b="higher", t_c="higher", d="higher")
    before = {"t_a": 0.0, "t_b": 0.0, "t_c": 0.0, "d": 0.0}
    assert many(before, before | {"d": 1.0}) == pytest.approx(0.25)


def test_what_can_no_longer_be_measured_is_lost():
    reward = simple(a="lower", b="lower")
    nan = float("nan")
    assert reward({"a": 1, "b": 1}, {"a": nan, "b": 1}) == pytest.approx(-0.5)
    assert reward({"a": nan, "b": 1}, {"a": 1, "b": 1}) == pytest.approx(0.5)
    assert reward({"a": nan, "b": 1}, {"a": nan, "b": 0}) == pytest.approx(1.0)  # left out


def test_guards_cost_beyond_their_tolerance_in_both_directions():
    reward = simple(a="higher", motion="neither")
    same = {"a": 0.0, "motion": 1.0}
    assert reward(same, same | {"motion": 1.09}) == reward(same, same | {"motion": 0.91}) == 0
    assert reward(same, same | {"motion": 0.8}) == pytest.approx(-0.2)
    assert reward(same, same | {"motion": 1.2}) == pytest.approx(-0.2)
    assert reward(same, {"a": 99.0, "motion": 0.0}) == pytest.approx(1 - 1.8)  # the best frozen clip still costs
    nearly = {"a": 0.0, "motion": 0.001}  # of a plain mean of 1
    assert reward(nearly, nearly | {"motion": 0.011}) == 0  # ten times next to nothing is nothing


def test_it_is_the_mean_that_is_guarded_and_each_clip_adds_what_moves_it():
    reward = simple(a="higher", motion="neither")
    plain = {"a": 0.0, "motion": 1.0}
    scattered = [(plain, plain | {"motion": motion}) for motion in (0.6, 1.4, 0.7, 1.3)]
    assert (reward.values(scattered) == 0).all()  # chance is no loss
    values = reward.values([(plain, plain | {"motion": motion}) for motion in (0.5, 0.9)])  # 30 % lost
    assert values.mean() == pytest.approx(-2 * (0.3 - 0.1))
    assert values == pytest.approx([-2 * (0.5 - 0.1), 0])
    gone = reward.values([(plain, plain | {"motion": float("nan")}), (plain, plain | {"motion": 0.4})])
    assert gone == pytest.approx([2 * 0.1, -2 * (0.6 - 0.1)])


def test_which_measures_a_reward_has():
    truth = {row.name for row in rows_of("truth", KNOWN)}
    general = {row.name for row in rows_of("no-reference", KNOWN)}
    assert "jerk" in truth - general and "warping_error" in general - truth
    assert "motion" in truth & general
    assert {row.name for row in rows_of("quality", KNOWN)} == truth | general
    with pytest.raises(SettingsError, match=r"beauty.*quality: every measure"):
        rows_of("beauty", KNOWN)
    with pytest.raises(SettingsError, match="only prompts of the embedded world"):
        rows_of("truth", measures_of([Prompt("a cat")], False))
    with pytest.raises(SettingsError, match="at least 2"):
        Reward.of(KNOWN, [dict.fromkeys((row.name for row in KNOWN), 1.0)])


# ---------------------------------------------------------------------------------------------- without a model

MASS = torch.tensor([0.5, 0.8])
OUTPUT, ODDS = SPACES["output"], SPACES["cross-frame"]


class Ideal:
    """A reward that is 0 for the plain model and 0.1 for gain = 1 + 0.4 · (1 - progress) · mass in the first layers."""

    def __init__(self, noise: float = 0.0, stop: int | None = None):
        self.noise, self.stop, self.wanted = noise, stop, []

    def __call__(self, jobs):
        if self.stop is not None and len(self.wanted) >= self.stop:
            raise KeyboardInterrupt
        self.wanted += [(repr(policy), which) for policy, which in jobs]
        return np.array([self.one(policy) * (1 + 0.2 * np.sin(which)) for policy, which in jobs])

    def one(self, policy) -> float:
        return 0.1 * (1 - self.miss(policy) / self.miss(None))

    @staticmethod
    def miss(policy) -> float:
        total = 0.0
        for depth in (0.0, 1.0):
            for progress in (0.0, 0.5, 1.0):
                gain = torch.ones(2) if policy is None else policy(MASS, GainContext(9, depth, torch.tensor(progress)))
                ideal = 1 + 0.4 * (1 - progress) * (1 - depth) * MASS
                total += float(((gain - ideal) ** 2).mean())
        return total


def test_the_first_trials_are_the_plain_model_and_sensible_ones():
    plain, constant, middle, early = seeds_of(6, 3, 0.2)
    assert grid_of(plain, OUTPUT) is None and grid_of(plain, ODDS) is None
    assert (constant == 0.2).all()
    assert middle[:, 0].tolist() == [0, 0, 0.2, 0.2, 0, 0]
    assert early[0].tolist() == [0.2, 0, 0]
    assert len(seeds_of(1, 1, 0.2)) == 2
    assert grid_of(np.array([[0.12345, -0.1]]), OUTPUT) == Grid(((0.1235, -0.1),))
    _, default, *_ = seeds_of(2, 2, ODDS.usual)
    moment = GainContext(9, 0.3, torch.tensor(0.4))
    assert torch.allclose(grid_of(default, ODDS)(MASS, moment), Odds(2.0)(MASS, moment), atol=1e-4)


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_search_improves_and_a_resumed_one_is_the_same(method, tmp_path):
    options = {"method": method, "groups": 2, "times": 2, "seed": 3}
    best = []
    whole = search(
        Ideal(),
        8,
        OUTPUT,
        budget=22,
        storage=tmp_path / "whole.sqlite",
        began=lambda _, reward: best.append(reward),
        **options,
    )
    assert whole.reward > 0.03 and whole.reward == max(row["reward"] for row in whole.tries if not row["pruned"])
    assert Ideal().one(whole.policy) > 0.03
    assert best == sorted(best) and best[0] == 0
    assert whole.tries[0]["strengths"] == [0, 0, 0, 0] and whole.tries[1]["strengths"] == [0.2] * 4
    assert sum(whole.importances.values()) == pytest.approx(1)

    storage, wanted = tmp_path / "pieces.sqlite", []
    for stop in (24, 64, 70):  # the second in the middle of a trial
        one = Ideal(stop=stop - len(wanted))
        with pytest.raises(KeyboardInterrupt):
            search(one, 8, OUTPUT, budget=22, storage=storage, **options)
        wanted += one.wanted
    last = Ideal()
    found = search(last, 8, OUTPUT, budget=22, storage=storage, **options)
    assert found == whole
    again = search(Ideal(stop=0), 8, OUTPUT, budget=22, storage=storage, **options)  # nothing is made
    assert again == whole


def test_a_search_killed_while_it_drew_its_numbers_goes_on_with_the_same(tmp_path, monkeypatch):
    from optuna.storages._cached_storage import _CachedStorage  # where numbers are written, one by one

    options = {"method": "tpe", "budget": 13, "groups": 2, "times": 2}
    whole = search(Ideal(), 4, OUTPUT, storage=tmp_path / "whole.sqlite", **options)
    storage, original = tmp_path / "killed.sqlite", _CachedStorage.set_trial_param
    left = iter(range(12 * 4 + 2))

    def die(self, *args, **kwargs):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(_CachedStorage, "set_trial_param", die)
    with pytest.raises(KeyboardInterrupt):
        search(Ideal(), 4, OUTPUT, storage=storage, **options)
    monkeypatch.undo()
    with sqlite3.connect(storage) as db:
        (params,) = db.execute("SELECT count(*) FROM trial_params WHERE trial_id = 13").fetchone()
    assert 0 < params < 4
    assert search(Ideal(), 4, OUTPUT, storage=storage, **options) == whole


def test_a_trial_clearly_worse_than_the_plain_model_is_given_up_at_half(tmp_path):
    rewards = Ideal()
    found = search(rewards, 8, OUTPUT, method="tpe", budget=12, groups=2, times=2, storage=tmp_path / "t.sqlite")
    pruned = [row for row in found.tries if row["pruned"]]
    assert pruned and all(row["reward"] < 0 for row in pruned)
    assert len(rewards.wanted) == 12 * (4 + 8) - 8 * len(pruned)  # a half, then all: what is made is not made again


def test_the_plain_model_may_win(tmp_path):
    found = search(
        lambda jobs: np.array([0.0 if policy is None else -0.1 for policy, _ in jobs]), 2, OUTPUT,
        method="tpe", budget=5, groups=2, times=1, storage=tmp_path / "t.sqlite",
    )  # fmt: skip
    assert found.policy is None and found.reward == 0


def test_a_search_refuses_what_is_not_its_own(tmp_path):
    options = {"method": "cmaes", "budget": 1, "groups": 2, "times": 1}
    (tmp_path / "text.sqlite").write_text("precious, and long enough to be no header of a database")
    with pytest.raises(OutputExistsError, match="no SQLite database"):
        search(Ideal(), 2, OUTPUT, storage=tmp_path / "text.sqlite", **options)
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE songs (name)")
    with pytest.raises(OutputExistsError, match="something else"):
        search(Ideal(), 2, OUTPUT, storage=tmp_path / "other.sqlite", **options)
    with pytest.raises(SettingsError, match="two or more strengths"):
        search(Ideal(), 2, OUTPUT, storage=tmp_path / "new.sqlite", **options | {"groups": 1})


def test_learning_starts_at_the_plain_model_or_the_default_and_improves(tmp_path):
    recipe, moment = Recipe(seed=1), GainContext(9, 0.3, torch.tensor(0.4))
    start = network_of(start_of(recipe, OUTPUT), recipe.hidden, OUTPUT)
    assert torch.equal(start(MASS, moment), torch.ones(2))
    start = network_of(start_of(recipe, ODDS), recipe.hidden, ODDS)
    assert torch.allclose(start(MASS, moment), Odds(2.0)(MASS, moment), atol=1e-3)
    rewards = Ideal()
    found = learn(rewards, 6, OUTPUT, updates=40, pairs=3, checkpoint=tmp_path / "learn.pt", recipe=recipe)
    assert len(rewards.wanted) == 40 * 6 + 6
    assert found.reward > 0.05
    assert rewards.one(found.policy) > 0.05


def test_resumed_learning_is_the_same_and_logs_each_update_once(tmp_path):
    whole = learn(Ideal(), 4, ODDS, updates=6, pairs=2, checkpoint=tmp_path / "whole.pt")
    path = tmp_path / "pieces.pt"
    learn(Ideal(), 4, ODDS, updates=2, pairs=2, checkpoint=path)
    with pytest.raises(KeyboardInterrupt):
        learn(Ideal(stop=4), 4, ODDS, updates=6, pairs=2, checkpoint=path)
    assert learn(Ideal(), 4, ODDS, updates=6, pairs=2, checkpoint=path) == whole
    lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert lines == list(whole.tries) and [line["try"] for line in lines] == list(range(6))

    with pytest.raises(OutputExistsError, match="was learned with"):
        learn(Ideal(), 4, ODDS, updates=6, pairs=1, checkpoint=path)
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="no checkpoint"):
        learn(Ideal(), 4, ODDS, updates=6, pairs=2, checkpoint=path)


def test_episodes_go_through_all_prompts_in_new_orders():
    order = episodes(0, 0, 12, 4)
    turns = [order[n : n + 4] for n in (0, 4, 8)]
    assert all(sorted(turn) == [0, 1, 2, 3] for turn in turns) and len(set(map(tuple, turns))) > 1
    assert episodes(0, 5, 3, 4) == order[5:8]


def test_a_search_without_optuna_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"needs optuna: pip install 'enhance-a-video\[tune\]'"):
        search(Ideal(), 2, OUTPUT, method="tpe", budget=1, groups=1, times=1, storage=tmp_path / "t.sqlite")


# ------------------------------------------------------------------------------------------------- with a model


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(WORDS))
    return path


def asked_of(tiny_folder, prompts_file, **other) -> Tuning:
    own, others = chosen_prompts(str(tiny_folder), prompts_file, 2, 2, None)
    options = {"method": "learn", "budget": 2, "options": {"steps": 2}} | other
    return Tuning(str(tiny_folder), own, others, **options)


def without_when(profile: Path) -> dict:
    data = json.loads(profile.read_text())
    data["found"].pop("date"), data["found"].pop("command")
    return data


def test_a_stopped_tuning_goes_on_and_makes_no_clip_twice(tiny_folder, prompts_file, tmp_path):
    wanted = asked_of(tiny_folder, prompts_file)
    whole = tune(wanted, tmp_path / "whole")

    def stop_at(clips):
        def progress(step):
            if step.done >= clips:
                raise KeyboardInterrupt

        return progress

    for clips in (1, 3, 7, 10):  # plain clips, first update, the last reward, confirmation
        with pytest.raises(KeyboardInterrupt):
            tune(wanted, tmp_path / "pieces", progress=stop_at(clips))
    again = tune(wanted, tmp_path / "pieces")
    assert without_when(again.profile) == without_when(whole.profile)
    with sqlite3.connect(tmp_path / "pieces" / "clips" / "study.sqlite") as db:
        clips = db.execute("SELECT key FROM clips").fetchall()
        runs = dict(db.execute("SELECT run, count(*) FROM clips GROUP BY run"))
    assert len(set(clips)) == len(clips) == 2 + 2 * 2 + 2
    assert len(runs) > 2  # several of the starts made some

    more = tune(asked_of(tiny_folder, prompts_file, budget=3), tmp_path / "pieces")
    assert len(more.found.tries) == 3 and more.found.tries[:2] == whole.found.tries
    with pytest.raises(OutputExistsError, match=r"another tuning: .*method"):
        tune(asked_of(tiny_folder, prompts_file, method="tpe"), tmp_path / "pieces")


def test_two_workers_find_what_one_finds(tiny_folder, prompts_file, tmp_path):
    wanted = replace(asked_of(tiny_folder, prompts_file), budget=1, held_out=())
    one = tune(wanted, tmp_path / "one")
    two = tune(replace(wanted, workers=2), tmp_path / "two")
    assert without_when(one.profile) == without_when(two.profile)
    assert one.confirmation is None and not json.loads(one.profile.read_text())["study"]


def test_a_clip_that_fails_ends_it_with_the_reason(tiny_folder, prompts_file, tmp_path):
    wanted = asked_of(tiny_folder, prompts_file, options={"height": 33})
    with pytest.raises(EnhanceAVideoError, match=r"(?s)could not be made: .*33.*goes on from there"):
        tune(wanted, tmp_path / "out")


def test_the_command_on_the_embedded_model(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    words = ("tune", "--method", "learn", "--budget", 1, "--clips", 2, "--confirm", 2, "--steps", 2, "-o", "out")
    code, out, err = command(*words, "--json")
    assert code == 0, err
    data = json.loads(out)
    assert data["command"] == "tune" and data["policy"]["name"] == "odds-network"
    assert [row["try"] for row in data["tries"]] == [0]
    rewards = data["confirmation"]["rewards"]
    assert set(rewards) == {"default", "tuned"} and rewards["tuned"]["pairs"] == 2
    assert data["confirmation"]["verdict"].startswith("On 2 other prompts the reward is")
    assert all(Path(path).is_file() for path in data["files"])
    assert {Path(path).name for path in data["files"]} == {
        "profile.json", "history.png", "policy.png", "report.html", "report.md",
    }  # fmt: skip

    profile = read_profile("out/profile.json")
    assert profile.made_for == ("embedded",) and profile.found["method"] == "learn"
    assert profile.found["reward_on_these_clips"] == data["found"]["reward_on_these_clips"]
    kept = {(row["setting"], row["measure"]) for row in profile.study}
    assert {("tuned", "reward"), ("default", "jerk"), ("tuned", "colour_right")} <= kept
    own, others = chosen_prompts("embedded", None, 2, 2, None)
    with sqlite3.connect("out/confirmation/study.sqlite") as db:
        confirmed = {text for (text,) in db.execute("SELECT prompt FROM clips WHERE setting != 'world'")}
    assert confirmed == {prompt.text for prompt in others} and not confirmed & {prompt.text for prompt in own}

    code, out, _ = command(*words)  # again: all is there; what is printed
    assert code == 0 and "1 update. " in out and "reward" in out and "requested colours present" in out
    assert "On 2 other prompts" in " ".join(out.split())

    prompt = others[0].text
    code, out, err = command(
        "generate", "-p", prompt, "-o", "x.mp4", "--steps", 2, "--policy", "out/profile.json", "--json"
    )
    assert code == 0, err
    data = json.loads(out)
    assert data["settings"]["policy"]["name"] == "odds-network" and data["settings"]["scale"] == "cross-frame"
    assert data["settings"]["end"] == 1.0
    assert data["enhancement"]["mean_gain"] != 1
    code, out, err = command(
        "compare", "-p", prompt, "-o", "c", "--steps", 2, "--policy", "out/profile.json", "--json",
        "--panel", "again: policy=out/profile.json,end=0.5",
    )  # fmt: skip
    assert code == 0, err
    panels = json.loads(out)["panels"]
    assert panels[1]["settings"]["policy"] == panels[2]["settings"]["policy"] == data["settings"]["policy"]


def test_a_search_by_command_keeps_a_profile_that_is_its_own(command, tiny_folder, prompts_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = (
        "tune", "-m", tiny_folder, "--prompts", prompts_file, "--clips", 2, "--confirm", 2, "--budget", 3,
        "--groups", 2, "--times", 1, "--scale", "output", "--steps", 2, "-o", "out", "--profile", "mine.json", "--json",
    )  # fmt: skip
    code, out, err = command(*words)
    assert code == 0, err
    data = json.loads(out)
    assert [row["strengths"] for row in data["tries"]][:2] == [[0, 0], [0.2, 0.2]]
    assert data["tries"][0]["reward"] == 0 and len(data["tries"]) == 3
    assert "optuna" in data["found"]["versions"]
    assert command(*words)[0] == 0
    Path("mine.json").write_text('{"name": "constant", "gain": 1.2}')
    code, _, err = command(*words)
    assert code == 2 and "Already there: mine.json" in err
    assert command(*words, "--force")[0] == 0

    monkeypatch.chdir("/")  # the name is relative to the study's file, not to where one is
    settings = {"plain": None, "tuned": {"policy": "mine.json"}}
    study = parse_study({"prompts": WORDS[:1], "settings": settings}, folder=tmp_path)
    assert study.settings["tuned"].policy == read_profile(tmp_path / "mine.json").policy


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--method", "gradient"], 2, "tpe, cmaes, learn"),
        (["--scale", "half"], 2, "cross-frame, output"),
        (["--reward", "beauty"], 2, "no-reference"),
        (["-m", "./nowhere"], 2, "--prompts FILE"),
        (["-m", "./nowhere", "--prompts", "p.txt"], 2, "has 4 prompts"),
        (["-m", "./nowhere", "--prompts", "p.txt", "--clips", 2, "--confirm", 2], 2, "nowhere"),
        (["--prompts", "none.txt"], 2, "cannot be read"),
        (["--confirm", 1], 2, "no interval"),
        (["--method", "learn", "--clips", 3], 2, "even number"),
        (["-o", "full"], 2, "holds no tuning"),
        (["--profile", "p.json"], 2, "Already there"),
        (["--profile", "p.txt"], 2, "ends in .json"),
    ],
)
def test_errors(command, monkeypatch, tmp_path, words, code, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "p.txt").write_text("\n".join(WORDS))
    (tmp_path / "p.json").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "novel.txt").write_text("precious")
    found, out, err = command("tune", *words)
    assert not Path("enhance-a-video-tune", "tune.json").exists()  # it would refuse the right command
    assert found == code and text in err and not out
    assert "Traceback" not in err


def test_prompts_are_split_and_numbered(tmp_path):
    path = tmp_path / "p.jsonl"
    lines = [{"prompt": "a"}, {"prompt": "b", "seeds": [7, 8]}, {"prompt": "c"}, {"prompt": "d"}, {"prompt": "e"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    own, others = chosen_prompts("m", path, 2, 2, None)
    assert [(p.text, p.seeds) for p in (*own, *others)] == [("a", (0,)), ("b", (7,)), ("c", (2,)), ("d", (3,))]
    path.write_text("\n".join(map(json.dumps, [*lines, {"prompt": "a"}])))
    with pytest.raises(SettingsError, match="twice"):
        chosen_prompts("m", path, 2, 2, None)
    with pytest.raises(PromptError):
        chosen_prompts("m", tmp_path / "none", 2, 2, None)
    with pytest.raises(SettingsError, match="together"):
        chosen_prompts("m", path, 2, 2, 5)
    own, others = chosen_prompts("embedded", None, 3, 2, 1000)
    assert (own, others) == chosen_prompts("a/folder", None, 3, 2, 1000) == chosen_prompts("embedded", None, 3, 2, None)
    assert Tuning("a/folder", own, others, scenes=True).embedded and not Tuning("a/folder", own, others).embedded
    assert not Tuning("embedded", own, others, options={"height": 128}).embedded  # its checker takes one size
    assert [p.seeds[0] for p in islice((*own, *others), 5)] == [1000, 1001, 1002, 1003, 1004]


def test_policy_and_other_knobs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.json").write_text('{"name": "constant", "gain": 1.2}')
    words = ("generate", "-p", "x", "-o", "x.mp4")
    assert "policy" in command(*words, "--policy", "p.json", "--strength", 1)[2]
    code, _, err = command(*words, "--policy", "p.json", "--no-enhance")
    assert code == 2 and "leave one of them out" in err
    code, _, err = command(*words, "--policy", "p.yaml")
    assert code == 2 and ".json" in err
    code, _, err = command(*words, "--policy", "none.json")
    assert code == 2 and "cannot be read" in err
