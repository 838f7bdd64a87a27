"""policy.py: the two gains, their identity and their bounds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enhance_a_video.errors import SettingsError
from enhance_a_video.intensity import cross_frame_mass
from enhance_a_video.policy import Moment, Strength, Temperature, strength_of, temperature_of

frames = st.integers(2, 81)
mass = st.floats(0, 1, width=32)


def at(num_frames):
    return Moment(num_frames, layer=0.5, progress=torch.tensor(float("nan")))


@given(mass=mass, g=st.floats(0, 5), num_frames=st.integers(1, 81))
def test_strength_is_the_largest_amplification(mass, g, num_frames):
    gain = Strength(g)(torch.tensor([mass]), at(num_frames)).item()
    assert 1 <= gain <= max(1, 1 + g) * (1 + 1e-6)
    assert gain == pytest.approx(max(1, (1 + g) * mass), rel=1e-6)


@given(mass=mass, tau=st.floats(-0.5, 20), num_frames=frames)
def test_temperature_is_the_papers_equation_7(mass, tau, num_frames):
    intensity = mass / (num_frames - 1)
    gain = Temperature(tau)(torch.tensor([mass]), at(num_frames)).item()
    assert gain == pytest.approx(max(1, (tau + num_frames) * intensity), rel=1e-5)


@given(mass=mass, tau=st.floats(0, 20), num_frames=frames)
def test_strength_and_temperature_are_one_gain_in_two_units(mass, tau, num_frames):
    strength = strength_of(tau, num_frames)
    m, moment = torch.tensor([mass]), at(num_frames)
    torch.testing.assert_close(Strength(strength)(m, moment), Temperature(tau)(m, moment), rtol=1e-5, atol=1e-6)
    assert temperature_of(strength, num_frames) == pytest.approx(tau, abs=1e-9)


@pytest.mark.parametrize("num_frames, strength", [(33, 5 / 32), (21, 0.25), (13, 5 / 12), (5, 1.25)])
def test_the_same_temperature_is_a_different_strength_at_each_length(num_frames, strength):
    assert strength_of(4, num_frames) == pytest.approx(strength)


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


@pytest.mark.parametrize("convert", [strength_of, temperature_of])
def test_no_correspondence_for_a_single_frame(convert):
    with pytest.raises(SettingsError, match="num_frames=1"):
        convert(1.0, 1)
