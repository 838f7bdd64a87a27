"""policies/: the gains, their identities and bounds, and their JSON."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enhance_a_video import enhance
from enhance_a_video.enhancement import enhancement_of
from enhance_a_video.errors import SettingsError
from enhance_a_video.intensity import cross_frame_mass
from enhance_a_video.policies import (
    Constant,
    GainContext,
    Grid,
    Network,
    Odds,
    OddsGrid,
    OddsNetwork,
    Profile,
    Strength,
    Temperature,
    Unclipped,
    Window,
    from_dict,
    names,
    needs_progress,
    read_profile,
    scale_of,
    to_dict,
    with_tensors,
)
from enhance_a_video.settings import Settings

frames = st.integers(2, 81)
mass = st.floats(0, 1, width=32)


def at(num_frames, layer=0.5, progress=float("nan")):
    return GainContext(num_frames, torch.tensor(layer), torch.tensor(progress))


def gain(policy, mass=0.8, layer=0.5, progress=0.5, num_frames=9):
    return policy(torch.tensor([mass]), at(num_frames, layer, progress)).item()


WEIGHTS = {"first": ((0.5, -1.0, 0.3, 0.2, 0.1, 0.0, 1.0, 0.1), (1.0,) * 8), "second": (0.7, -0.4, 0.05)}
NETWORK, ODDS_NETWORK = Network(**WEIGHTS, most=0.6), OddsNetwork(**WEIGHTS, most=1.1)
EVERY = [
    Strength(0.7), Temperature(4.0), Unclipped(0.2), Constant(1.3), Odds(1.5),
    Window(Constant(1.4), 0.2, 0.6, "cosine"),
    Grid(((0.1, 0.2, 0.0), (-0.3, 0.4, 0.5))), NETWORK,
    OddsGrid(((0.7, 0.2, 0.0), (-0.3, 0.4, 1.4))), ODDS_NETWORK,
]  # fmt: skip


@given(mass=mass, g=st.floats(0, 5), num_frames=st.integers(1, 81))
def test_strength_is_the_largest_amplification(mass, g, num_frames):
    gain = Strength(g)(torch.tensor([mass]), at(num_frames)).item()
    assert 1 <= gain <= max(1, 1 + g) * (1 + 1e-6)
    assert gain == pytest.approx(max(1, (1 + g) * mass), rel=1e-6)


@given(mass=st.floats(0.01, 0.99), factor=st.floats(0.1, 10))
def test_odds_are_multiplied(mass, factor):
    gain = Odds(factor)(torch.tensor([mass]), at(9)).item()
    assert min(1, factor) * (1 - 1e-6) <= gain <= max(1, factor) * (1 + 1e-6) and gain * mass <= 1 + 1e-6
    assert gain * mass / (1 - gain * mass) == pytest.approx(factor * mass / (1 - mass), rel=1e-3)


@given(mass=mass, tau=st.floats(-0.5, 20), num_frames=frames)
def test_temperature_is_the_papers_equation_7(mass, tau, num_frames):
    intensity = mass / (num_frames - 1)
    gain = Temperature(tau)(torch.tensor([mass]), at(num_frames)).item()
    assert gain == pytest.approx(max(1, (tau + num_frames) * intensity), rel=1e-5)


@given(seed=st.integers(0, 99), T=st.integers(1, 6), S=st.integers(1, 9), g=st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_bound_holds_on_real_masses(seed, T, S, g):
    q, k = torch.randn(2, 2, 2, T * S, 8, generator=torch.Generator().manual_seed(seed))
    gain = Strength(g)(cross_frame_mass(q, k, T), at(T))
    assert gain.shape == (2,) and (gain >= 1).all() and (gain <= 1 + g + 1e-5).all()


@pytest.mark.parametrize("policy", [Strength(3.0), Temperature(4.0)])
def test_a_single_frame_is_left_alone(policy):
    assert torch.equal(policy(torch.zeros(3), at(1)), torch.ones(3))


def test_parameters_may_be_tensors_and_gradients_flow():
    g = torch.tensor(0.5, requires_grad=True)
    gain = Strength(g)(torch.tensor([0.9, 0.1]), at(4))
    gain.sum().backward()
    assert g.grad.item() == pytest.approx(0.9)  # the clipped sample has none


# ------------------------------------------------------------------------------------------------- the other policies


@given(mass=mass, g=st.floats(0, 3))
def test_the_clip_is_all_that_unclipped_lacks(mass, g):
    assert gain(Strength(g), mass) == pytest.approx(max(1, gain(Unclipped(g), mass)))


def test_a_constant_ignores_the_mass():
    assert gain(Constant(1.2), 0.1) == gain(Constant(1.2), 0.9) == pytest.approx(1.2)
    assert gain(Constant(0.8)) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "shape, at_start, halfway, near_end", [("step", 1, 1, 1), ("cosine", 1, 0.5, 0), ("rise", 0, 0.5, 1)]
)
def test_a_window_fades_what_is_above_one(shape, at_start, halfway, near_end):
    policy = Window(Constant(1.4), 0.2, 0.6, shape)
    assert gain(policy, progress=0.1) == gain(policy, progress=0.7) == 1
    for progress, share in ((0.2, at_start), (0.4, halfway), (0.595, near_end)):
        assert gain(policy, progress=progress) == pytest.approx(1 + 0.4 * share, abs=2e-3)


def test_a_window_to_the_end_contains_it():
    assert gain(Window(Constant(1.4), 0.5, 1.0), progress=1.0) == pytest.approx(1.4)


@given(layer=st.integers(0, 1), time=st.integers(0, 2), mass=mass)
def test_a_grid_has_its_numbers_at_its_places(layer, time, mass):
    table = ((0.1, 0.2, 0.0), (-0.3, 0.4, -2.0))
    found = gain(Grid(table, least=0.5), mass, layer=float(layer), progress=time / 2)
    assert found == pytest.approx(max(0.5, 1 + table[layer][time] * mass), abs=1e-5)


@given(layer=st.integers(0, 1), time=st.integers(0, 2), mass=mass)
def test_a_grid_of_odds_has_their_logarithms_at_its_places(layer, time, mass):
    table = ((0.7, 0.2, 0.0), (-0.3, 0.4, 1.4))
    expected = gain(Odds(float(torch.tensor(table[layer][time]).exp())), mass)
    assert gain(OddsGrid(table), mass, layer=float(layer), progress=time / 2) == pytest.approx(expected, rel=1e-4)


def test_a_policy_has_what_it_scales_and_a_setting_overrules_it():
    for policy in EVERY:
        odds = "odds" in to_dict(policy)["name"]
        assert scale_of(policy) == Settings(policy=policy).scale == ("cross-frame" if odds else "output")
    assert Settings(policy=Window(Odds(2.0), end=0.5)).scale == "cross-frame"
    assert Settings(policy=Odds(2.0), scale="output").scale == "output"
    assert Settings(policy=lambda mass, moment: mass).scale == "output"


def test_a_grid_of_zeros_and_a_network_of_zeros_are_the_plain_model():
    silent = Network(first=((0.0,) * 8,), second=(0.0, 0.0))
    for policy in (Grid(((0.0, 0.0),)), silent, OddsGrid(((0.0, 0.0),)), OddsNetwork(silent.first, silent.second)):
        assert gain(policy, 0.37, layer=0.2, progress=0.9) == 1


@given(mass=mass, layer=st.floats(0, 1), progress=st.floats(0, 1), num_frames=frames)
def test_a_network_is_what_its_docstring_describes(mass, layer, progress, num_frames):
    import math

    d, p = 2 * layer - 1, 2 * progress - 1
    x = [2 * mass - 1, d, d * d, p, p * p, d * p, 1 / num_frames, 1.0]
    hidden = [math.tanh(sum(w * v for w, v in zip(row, x, strict=True))) for row in NETWORK.first]
    out = sum(w * h for w, h in zip(NETWORK.second, hidden, strict=False)) + NETWORK.second[-1]
    expected = 1 + NETWORK.most * math.tanh(out) * mass
    assert gain(NETWORK, mass, layer, progress, num_frames) == pytest.approx(expected, abs=1e-5)
    assert 1 - NETWORK.most <= expected <= 1 + NETWORK.most
    odds = Odds(math.exp(ODDS_NETWORK.most * math.tanh(out)))
    assert gain(ODDS_NETWORK, mass, layer, progress, num_frames) == pytest.approx(gain(odds, mass), rel=1e-4)


@pytest.mark.parametrize("policy", EVERY, ids=lambda p: type(p).__name__)
def test_policies_work_on_batches_sample_by_sample(policy):
    masses, moment = torch.tensor([0.2, 0.7, 0.95]), at(9, 0.6, 0.4)
    found = policy(masses, moment)
    assert found.shape == (3,)
    alone = torch.cat([policy(m[None], moment) for m in masses])
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("policy", EVERY, ids=lambda p: type(p).__name__)
def test_every_policy_survives_json(policy, tmp_path):
    data = json.loads(json.dumps(to_dict(policy)))
    assert from_dict(data) == policy
    settings = Settings(policy=data)
    assert settings.policy == policy and Settings.from_dict(settings.to_dict()) == settings
    path = tmp_path / "profile.json"
    profile = Profile(policy, ("embedded",), {"method": "by hand"}, ({"setting": "x", "pooled": 0.1},))
    path.write_text(profile.text())
    assert read_profile(path) == profile
    path.write_text(json.dumps(data))
    assert Settings(policy=str(path)).policy == policy


def test_every_policy_with_json_is_tested_here():
    assert {to_dict(policy)["name"] for policy in EVERY} == set(names())


def test_whole_numbers_from_json_are_numbers():
    assert from_dict({"name": "constant", "gain": 1}) == Constant(1.0)
    assert isinstance(from_dict({"name": "constant", "gain": 1}).gain, float)


@pytest.mark.parametrize(
    "data, says",
    [
        ({"name": "strenght", "g": 1}, "Did you mean 'strength'"),
        ({"g": 1}, "give an object with a name"),
        ("strength", "give an object with a name"),
        ({"name": "strength"}, r"needs \['g'\]"),
        ({"name": "strength", "g": 1, "h": 2}, r"does not know \['h'\]"),
        ({"name": "strength", "g": -1}, "from 0 to"),
        ({"name": "strength", "g": "1"}, "without quotes"),
        ({"name": "constant", "gain": float("nan")}, "gain=nan, but a number"),
        ({"name": "window", "of": {"name": "constant", "gain": 2}, "start": 0.6, "end": 0.5}, "smaller than"),
        ({"name": "window", "of": {"name": "constant", "gain": 2}, "shape": "round"}, "step, cosine or rise"),
        ({"name": "window", "of": 3}, "policy"),
        ({"name": "grid", "strengths": [[0, 1], [0]]}, "give 2 numbers"),
        ({"name": "grid", "strengths": []}, "a row for each depth"),
        ({"name": "network", "first": [[0] * 8], "second": [0]}, "2 or more"),
        ({"name": "network", "first": [[0] * 7], "second": [0, 0]}, "give 8 numbers"),
        ({"name": "network", "first": [[0] * 8], "second": [0, 0, 0]}, "a row for each number"),
    ],
)  # fmt: skip
def test_what_json_cannot_hold_is_an_error_with_the_way_out(data, says):
    with pytest.raises(SettingsError, match=says):
        from_dict(data)


@pytest.mark.parametrize(
    "text, says",
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "no policy in it"),
        ('{"policy": {"name": "x"}}', "unknown"),
        ('{"enhance-a-video profile": 9, "policy": {"name": "constant", "gain": 1}}', "version 9"),
    ],
)
def test_profiles_that_cannot_be_used(tmp_path, text, says):
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        Settings(policy=str(path))


def test_a_policy_decides_itself_when_it_acts():
    assert (Settings().start, Settings().end) == (0.0, 1.0)
    assert (Settings(strength=0.7).start, Settings(temperature=4.0).end) == (0.0, 0.7)
    chosen = Settings(policy={"name": "constant", "gain": 1.2})
    assert (chosen.start, chosen.end, chosen.always) == (0.0, 1.0, True)
    assert Settings(policy=Constant(1.2), end=0.4).end == 0.4


def test_some_need_how_far_the_denoising_is():
    asking = {"window", "grid", "network", "odds-grid", "odds-network"}
    assert {to_dict(policy)["name"] for policy in EVERY if needs_progress(policy)} == asking
    assert not needs_progress(Constant(1.1)) and not needs_progress(lambda mass, moment: mass)


def test_a_temperature_may_be_given_in_both_ways_alike():
    """Below 0 is weaker than the paper's 0, down to -1, at which nothing is ever amplified."""
    assert Settings(temperature=-1).gain_policy == Temperature(-1.0) and Settings(temperature=-0.5).temperature == -0.5
    for wrong in (-1.01, float("nan")):
        with pytest.raises(SettingsError, match="temperature"):
            Settings(temperature=wrong)
        with pytest.raises(SettingsError, match="Temperature"):
            Temperature(wrong)


# ---------------------------------------------------------------------------------------------- policies of your own


def broken_later(mass, moment):
    """Finite when it is tried at enhance(), NaN in the model."""
    return mass / 0 * 0 if mass.shape != (4,) else mass * 0 + 1.5


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (lambda mass, moment: None, "None"),
        (lambda mass, moment: "1.2", "'1.2'"),
        (lambda mass, moment: True, "True"),
        (lambda mass, moment: float("nan"), "nan for a mass of"),
        (lambda mass, moment: mass * torch.inf, "inf for a mass of"),
        (lambda mass, moment: torch.ones(3), r"shape \(3,\)"),
        (lambda mass, moment: mass > 0.5, "torch.bool"),
        (lambda mass: mass, "policy\\(mass, moment\\)"),
        (lambda mass, moment: moment.step, "step"),
        (Constant, "Constant is a class"),
    ],
)
def test_a_policy_that_cannot_be_one_is_refused_before_the_model_runs(tiny_pipe, policy, says):
    with pytest.raises(SettingsError, match=says):
        enhance(tiny_pipe, policy=policy)
    assert enhancement_of(tiny_pipe) is None


def test_one_number_counts_for_every_mass(tiny_pipe):
    from enhance_a_video.generation import pipelines

    frames = []
    for policy in (lambda mass, moment: 1.3, lambda mass, moment: torch.tensor(1.3), Constant(1.3)):
        with enhance(tiny_pipe, policy=policy):
            frames.append(pipelines.generate(tiny_pipe, "a red ball", steps=1))
    assert (frames[0] == frames[1]).all() and (frames[0] == frames[2]).all()


@pytest.mark.parametrize("policy", [broken_later, Window(broken_later, 0.0, 1.0)])
def test_a_gain_that_is_not_finite_acts_as_one_and_is_reported(tiny_pipe, policy):
    from enhance_a_video.generation import pipelines

    plain = pipelines.generate(tiny_pipe, "a red ball", steps=1)
    with enhance(tiny_pipe, policy=policy) as handle:
        assert (pipelines.generate(tiny_pipe, "a red ball", steps=1) == plain).all()
    with pytest.warns(RuntimeWarning, match="returned NaN or infinity"):
        summary = handle.summary()
    assert summary.not_finite > 0 and "acted as 1" in str(summary)


@pytest.mark.parametrize("wrong", [lambda mass, moment: 1 / 0, lambda mass, moment: -mass])
def test_a_policy_that_fails_or_turns_the_output_round_is_refused(wrong):
    with pytest.raises(SettingsError, match="The policy"):
        with_tensors(wrong, torch.device("cpu"))


@pytest.mark.parametrize("wrong", [{"made_for": [7]}, {"study": [7]}])
def test_a_profile_whose_lists_hold_other_things_is_refused(wrong, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"enhance-a-video profile": 1, "policy": {"name": "constant", "gain": 1.2}} | wrong))
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        read_profile(path)


def test_odds_beyond_float32_name_the_number():
    with pytest.raises(SettingsError, match=r"strength of 1000 .* between -20 and 20"):
        from_dict({"name": "odds-grid", "strengths": [[1000.0]]})
