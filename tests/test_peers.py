"""Other training-free methods: each acts on each kind of pipeline, costs what it says, composes, and is undone."""

import math
import shlex
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from enhance_a_video.errors import NoLayersError, SettingsError
from enhance_a_video.generation import again, peers, pipelines, video
from enhance_a_video.generation.making import generate_with
from enhance_a_video.generation.peers.denoising import Level
from enhance_a_video.generation.requests import ClipRequest, Prompt, expand, read_prompts
from enhance_a_video.lab.study.definition import parse_study, read_study
from enhance_a_video.settings import Settings

MODELS = Path(__file__).parent.parent / "models"
PROMPT = "A red ball moves left over a green meadow."
STEPS = 4
COSTS = {"skip_layer": 1.5, "perturbed_attention": 1.5, "smoothed_energy": 1.5, "auto_guidance": 1.5,
         "self_refining": 1.25, "free_init": 1.5}  # fmt: skip
KNOBS = {"free_init": {"at": 0.0, "stride": 2, "cutoff": 0.25}, "self_refining": {"start": 0.25, "end": 0.5}}


class Running:
    def __init__(self, name):
        self.pipe = pipelines.load(name if name == "embedded" else MODELS / name, device="cpu")
        self.plain, self.passes = self.make()
        self.odds, _ = self.make(settings=Settings(odds=2))

    def make(self, guider=None, settings=None, prompt=PROMPT, seed=3, **options):
        with peers.counted(self.pipe) as count:
            frames, _ = generate_with(self.pipe, prompt, settings, steps=STEPS, seed=seed, guider=guider, **options)
        return frames, count.passes

    def attributes(self):
        return {(name, key) for name, part in self.pipe.transformer.named_modules() for key in vars(part)}


@pytest.fixture(scope="module", params=["embedded", "joint", "temporal"])
def model(request):
    if request.param == "joint" and not hasattr(diffusers, "MotifVideoPipeline"):
        pytest.skip("older diffusers")
    return Running(request.param)


@pytest.fixture(scope="module")
def embedded():
    return Running("embedded")


def names_for(model):
    temporal = type(model.pipe).__name__ == "LattePipeline"
    return [name for name in peers.PEERS if temporal or name != "blended_maps"]


def test_each_acts_alone_and_with_odds_and_costs_what_it_says(model):
    before = model.attributes()
    for name in names_for(model):
        guider = {"name": name, **KNOBS.get(name, {})}
        alone, passes = model.make(guider)
        both, _ = model.make(guider, Settings(odds=2))
        assert passes / model.passes == COSTS.get(name, 1.0), name
        for frames, other in ((alone, model.plain), (both, model.odds), (both, alone)):
            assert np.abs(frames.astype(int) - other).mean() > 0.1, name
        assert abs(alone.std() / model.plain.std() - 1) < 0.25, name  # a picture still, not grey or noise
    assert model.attributes() == before
    assert "step" not in vars(model.pipe.scheduler)
    assert np.array_equal(model.make()[0], model.plain)


@pytest.mark.parametrize("guider", [
    {"name": "skip_layer", "scale": 0}, {"name": "smoothed_energy", "start": 0.9, "end": 1.0},
    {"name": "tangential", "start": 0.9, "end": 1.0}, {"name": "self_refining", "start": 0.9, "end": 1.0},
])  # fmt: skip
def test_outside_its_window_or_at_zero_nothing_changes(embedded, guider):
    frames, passes = embedded.make(guider)
    assert np.array_equal(frames, embedded.plain)
    assert passes == embedded.passes


def test_guidance_that_is_only_written_otherwise_is_the_same_video(embedded):
    """No limit, no momentum, nothing left out: APG is classifier-free guidance; MAMBO-G at alpha 0 as well."""
    same = (
        {"name": "adaptive_projected", "eta": 1, "norm": None, "momentum": None},
        {"name": "magnitude_aware", "alpha": 0},
    )
    for guider in same:
        frames, _ = embedded.make(guider)
        assert np.abs(frames.astype(int) - embedded.plain).max() <= 2, guider


def test_a_clip_in_a_batch_is_the_clip_alone(model):
    """Refining draws noise of each clip's own."""
    if not pipelines.defaults(model.pipe).get("several", True):
        pytest.skip("its pipeline makes one clip at a time")
    alone, _ = model.make({"name": "self_refining"})
    together, _ = model.make({"name": "self_refining"}, prompt=["A blue box rises in the desert.", PROMPT], seed=[1, 3])
    assert np.abs(together[1].astype(int) - alone).mean() < 1
    assert np.abs(together[0].astype(int) - alone).mean() > 5


def test_a_samplers_noise_is_not_the_pipelines_own():
    from enhance_a_video.generation.peers.denoising import _Run

    own = torch.randn(8, generator=torch.Generator().manual_seed(3))
    assert not torch.equal(torch.randn(8, generator=_Run(None, None, [3]).generators[0]), own)


@pytest.mark.parametrize("level", [Level(0.4, 0.6, True), Level(math.sqrt(0.3), math.sqrt(0.7), False)])
def test_a_level_takes_latents_apart(level):
    clean, noise = torch.randn(2, 1, 2, 3, 4, 4)
    latents = level.join(clean, noise)
    velocity = noise - clean if level.flow else level.clean * noise - level.noisy * clean
    found = level.split(latents, velocity)
    assert torch.allclose(found[0], clean, atol=1e-6)
    assert torch.allclose(found[1], noise, atol=1e-6)


def test_a_refined_place_is_where_the_predictions_differ_most():
    refining = peers.from_dict({"name": "self_refining", "share": 0.25})
    certain = refining._certain(torch.arange(16.0).view(1, 1, 1, 4, 4), 4)
    assert certain.flatten().tolist() == [True] * 12 + [False] * 4


def test_self_attention_layers_that_are_perturbed_attend_to_themselves():
    from enhance_a_video.generation.peers.weakening import blurred, changed_attention, to_itself

    pipe = pipelines.load("embedded", device="cpu")
    seen, video = {}, torch.zeros(1, 24, 3, 8, 8)

    def look(kernel, query, value, grid):
        seen["grid"], seen["tokens"] = grid, query.shape[2]
        smooth = []
        blurred(None)(lambda q: smooth.append(q) or q, query, value, grid)
        seen["mean"] = smooth[0]
        seen["query"] = query
        return to_itself(kernel, query, value, grid)

    with torch.inference_mode(), changed_attention(pipe.transformer, (1,), video, look):
        pipe.transformer(
            hidden_states=video, timestep=torch.tensor([500.0]), encoder_hidden_states=torch.zeros(1, 8, 128)
        )
    assert seen["grid"] == (3, 4, 4)
    assert seen["tokens"] == 48
    frames = seen["query"].unflatten(2, (3, 16))
    assert torch.allclose(seen["mean"].unflatten(2, (3, 16)), frames.mean(3, keepdim=True).expand_as(frames), atol=1e-5)


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("guider, words", [
    ({"name": "skip_layr"}, "Did you mean 'skip_layer'"), ({"scale": 1}, "an object with a name"),
    ({"name": "slg", "size": 1}, "skip_layer has no 'size'"), ({"name": "slg", "scale": "x"}, "scale"),
    ({"name": "slg", "layers": "last"}, "number of a layer"), ({"name": "self_refining", "repeats": 0}, "repeats"),
    ({"name": "tangential", "start": 0.5, "end": 0.5}, "window is empty"), (3, "an object with a name"),
    ({"name": "blended_maps", "end": 0.5}, "every step"),
])  # fmt: skip
def test_what_is_no_guider_is_refused_in_a_sentence(guider, words):
    with pytest.raises(SettingsError, match=words):
        peers.from_dict(guider)


@pytest.mark.parametrize("name", peers.PEERS)
def test_json_and_back(name):
    knobs = {"norm": None, "momentum": None} if name == "adaptive_projected" else {}
    peer = peers.from_dict({"name": name, **knobs})
    assert peers.from_dict(peer.to_dict()) == peer
    assert peers.PEERS[name].source


def test_a_guider_without_guidance_or_temporal_layers_is_refused(embedded):
    with pytest.raises(SettingsError, match="needs classifier-free guidance"):
        embedded.make({"name": "tangential"}, guidance=1.0)
    with pytest.raises(SettingsError, match="needs temporal layers"):
        embedded.make({"name": "blended_maps"})
    with pytest.raises(NoLayersError, match="6 layers, 0 to 5"):
        embedded.make({"name": "skip_layer", "layers": [9]})
    assert np.array_equal(embedded.make()[0], embedded.plain)  # and nothing is left behind


def test_a_sampler_works_without_guidance(embedded):
    frames, passes = embedded.make({"name": "self_refining", "start": 0.25, "end": 0.5}, guidance=1.0)
    assert passes == STEPS + 1
    assert frames.shape == embedded.plain.shape


# ------------------------------------------------------------------------------------------- requests and studies


def test_a_guider_is_part_of_a_clips_key_and_of_a_prompts_line(tmp_path):
    guider = peers.from_dict("slg").to_dict()
    plain, other = ClipRequest(PROMPT, 1, "x"), ClipRequest(PROMPT, 1, "x", None, {"guider": guider})
    assert plain.key != other.key
    assert other.facts()["options"] == {
        "guider": {"name": "skip_layer", "start": 0.0, "end": 1.0, "scale": 1.0, "layers": [-1]}
    }
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "guider": {"name": "slg"}}\n{"prompt": "b"}')
    assert [dict(p.options) for p in read_prompts(tmp_path / "p.jsonl")] == [{"guider": {"name": "slg"}}, {}]


def test_panels_may_have_options_of_their_own():
    prompt = Prompt(PROMPT)
    panels = [("plain", None), ("longer", None), ("slg", None)]
    own = {"longer": {"steps": 14}, "slg": {"guider": {"name": "slg"}}}
    found = expand([prompt], [0], panels, {"steps": 10}, own)
    assert [dict(item.options) for item in found] == [
        {"steps": 10}, {"steps": 14}, {"steps": 10, "guider": {"name": "slg"}}
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="same settings"):
        expand([prompt], [0], panels, {"steps": 10}, {"slg": {"guider": {"name": "slg"}}})


STUDY = {
    "prompts": {"embedded": {"first": 0, "count": 1}},
    "settings": {"plain": None, "slg": {"guider": {"name": "slg"}}, "both": {"odds": 2, "guider": {"name": "slg"}},
                 "longer": {"steps": 14}, "odds": {}},
}  # fmt: skip


def test_settings_of_a_study_may_name_a_guider_and_steps():
    study = parse_study(STUDY)
    assert study.baseline == "plain"
    made = {trial.item.label: trial.item for trial in study.trials()}
    assert made["slg"].settings is None
    assert made["both"].settings == Settings(odds=2)
    assert made["slg"].options["guider"] == made["both"].options["guider"] == peers.from_dict("slg").to_dict()
    assert dict(made["longer"].options) == {"steps": 14}
    assert made["odds"].settings == Settings()
    assert not made["plain"].options
    assert len({item.key for item in made.values()}) == 5
    assert parse_study({**STUDY, "settings": {"plain": None, "odds": {}}}).digest != study.digest


@pytest.mark.parametrize("settings, options, words", [
    ({"plain": None, "x": {"guider": {"name": "nothing"}}}, {}, "x: guider: 'nothing' is unknown"),
    ({"plain": None, "x": {"steps": 14}}, {"steps": [10, 20]}, "steps is varied, but the setting 'x'"),
    ({"plain": None, "x": {"steps": 0}}, {}, "steps"),
])  # fmt: skip
def test_what_a_study_refuses(settings, options, words):
    with pytest.raises(SettingsError, match=words):
        parse_study({**STUDY, "settings": settings, "options": options})


# ------------------------------------------------------------------------------------------------ compare --against


def test_against_is_a_panel_of_compare(tmp_path):
    from enhance_a_video.cli.options import guider_of
    from enhance_a_video.lab.comparing import Comparing

    own = {"slg": {"guider": guider_of("slg: scale=0.5,layers=2")}}
    panels = [("without", None), ("with", Settings(odds=2)), ("slg", None)]
    made = Comparing(tmp_path, panels, "embedded", options={"steps": 2, "frames": 9}, own=own).run(PROMPT, 1)
    found = made.to_dict()["panels"]
    assert [panel.get("guider") for panel in found] == [None, None, peers.from_dict(own["slg"]["guider"]).to_dict()]
    means = [panel["measures"]["saturation"][0] for panel in found]
    assert len(set(means)) == 3
    assert "skip_layer" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text, words", [("slgg", "is unknown"), ("slg: scale", "NAME=VALUE"), ("slg: x=1", "no 'x'")])
def test_what_against_refuses(text, words):
    from enhance_a_video.cli.options import guider_of

    with pytest.raises(SettingsError, match=words):
        guider_of(text)


@pytest.mark.parametrize("name", ["peers", "peers-small", "peers-tuning"])
def test_the_studies_of_the_repository_can_be_read(name):
    study = read_study(MODELS.parent / "studies" / f"{name}.yaml")
    assert len({trial.item.key for trial in study.trials(1)}) == len(study.settings)
    if name == "peers-tuning":  # three trials for each
        methods = [label.rsplit(" ", 1)[0] for label in study.others]
        assert {methods.count(one) for one in methods} == {3}


# ------------------------------------------------------------------------------------------------ on the command line


@pytest.mark.parametrize("text, knobs", [
    ("self_refining", {}),
    ("self_refining: repeats=2,share=0.2", {"share": 0.2, "repeats": 2}),
    ("slg: scale=0.3,layers=1", {"scale": 0.3, "layers": [1]}),
])  # fmt: skip
def test_guider_beside_the_enhancement_and_the_command_that_makes_the_clip_again(
    command, tiny_folder, tmp_path, monkeypatch, text, knobs
):
    monkeypatch.chdir(tmp_path)
    words = ("generate", "-m", tiny_folder, "-p", "a red ball moves", "--steps", 4)
    code, _, err = command(*words, "-o", "a.mp4", "--guider", text)
    assert code == 0, err
    record = again.record_in("a.mp4")
    guider = record["options"]["guider"]
    assert all(guider[name] == value for name, value in knobs.items())
    made = shlex.split(again.command_for(record, "b.mp4"))
    assert made[made.index("--guider") + 1] == text.replace("slg", "skip_layer")
    code, _, err = command(*made[1:])
    assert code == 0, err
    assert command(*words, "-o", "plain.mp4")[0] == 0
    clips = {name: video.read_video(f"{name}.mp4")[0] for name in ("a", "b", "plain")}
    assert np.array_equal(clips["a"], clips["b"]) and not np.array_equal(clips["a"], clips["plain"])


def test_a_guider_that_is_unknown_is_refused_before_the_work(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command("generate", "-p", "x", "-o", "a.mp4", "--guider", "self_refine")
    assert code == 2 and "Did you mean 'self_refining'" in err
    code, _, err = command("generate", "-p", "x", "-o", "a.mp4", "--guider", "slg: scale")
    assert code == 2 and "--guider 'scale' is not NAME=VALUE" in err


def test_layers_of_a_guider_that_no_flag_can_give_are_said():
    record = {"prompt": "x", "seed": 0, "settings": None,
              "options": {"guider": {"name": "skip_layer", "layers": [1, 2]}}}  # fmt: skip
    with pytest.raises(SettingsError, match=r"No flag sets layers=\[1, 2\]"):
        again.command_for(record, "x.mp4")
