"""Progress: the same noise level is the same place, whatever the scheduler and the number of steps."""

import math

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import given
from hypothesis import strategies as st

from enhance_a_video.progress import Flow, Karras, LinearQuadratic, VariancePreserving, progress_of


def flow_scheduler(kind, shift):
    if kind == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    cls = UniPCMultistepScheduler if kind == "unipc" else DPMSolverMultistepScheduler
    return cls(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def places(scheduler, steps, noise=Flow(1.0)):  # noqa: B008
    scheduler.set_timesteps(steps)
    found = [progress_of(t, noise, scheduler) for t in scheduler.timesteps]
    return [float(p) for p, _ in found], {source for _, source in found}


@given(u=st.floats(0, 1), shift=st.floats(0.5, 20))
def test_flow_undoes_the_shift(u, shift):
    sigma = shift * u / (1 + (shift - 1) * u)
    assert float(Flow(shift).progress(torch.tensor(1000 * sigma, dtype=torch.float64))) == pytest.approx(
        1 - u, abs=1e-9
    )


@pytest.mark.parametrize("kind", ["euler", "unipc", "dpm"])
@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("steps", [10, 40])
def test_with_uniform_steps_progress_is_the_share_of_steps_done(kind, shift, steps):
    found, sources = places(flow_scheduler(kind, shift), steps)
    assert sources == {"scheduler"} and found[0] < 0.015  # UniPC starts at t = 999
    assert all(abs(p - i / steps) <= 1.1 / steps for i, p in enumerate(found))


@pytest.mark.parametrize("kind", ["euler", "unipc", "dpm"])
def test_the_same_noise_level_is_the_same_place(kind):
    """From 10 and 40 steps, the timesteps that both visit or nearly visit."""
    scheduler = flow_scheduler(kind, 5.0)
    coarse, fine = {}, {}
    for found, steps in ((coarse, 10), (fine, 40)):
        progress, _ = places(scheduler, steps)
        found.update(zip(scheduler.timesteps.tolist(), progress, strict=True))
    for t, p in coarse.items():
        near = min(fine, key=lambda other: abs(other - t))
        if abs(near - t) < 1.0:
            assert p == pytest.approx(fine[near], abs=6e-3)
    half = [sum(p < 0.5 for p in found.values()) / len(found) for found in (coarse, fine)]
    assert half[0] == pytest.approx(half[1], abs=0.06)


def test_a_set_shift_is_followed():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    before, _ = progress_of(torch.tensor(900.0), Flow(1.0), scheduler)
    scheduler.set_shift(7.0)
    after, _ = progress_of(torch.tensor(900.0), Flow(1.0), scheduler)
    assert float(before) == pytest.approx(1 - 0.75) and float(after) > float(before)


@pytest.mark.parametrize("cls", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_variance_preserving(cls):
    found, sources = places(cls(timestep_spacing="trailing"), 50, VariancePreserving())
    assert sources == {"scheduler"} and all(abs(p - i / 50) < 2e-3 for i, p in enumerate(found))


def test_a_dynamic_shift_is_read_off_the_steps():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for steps in (10, 40):
        scheduler.set_timesteps(steps, mu=1.7)
        found = [progress_of(t, Flow(7.77), scheduler) for t in scheduler.timesteps]
        assert {source for _, source in found} == {"scheduler steps"}
        assert [float(p) for p, _ in found] == pytest.approx([i / steps for i in range(steps)], abs=1e-5)
    between = scheduler.timesteps[4:6].mean()
    assert float(progress_of(between, None, scheduler)[0]) == pytest.approx(4.5 / 40, abs=1e-4)
    assert float(progress_of(torch.tensor(0.0), None, scheduler)[0]) == pytest.approx(1.0)


def test_repeated_timesteps_do_not_divide_by_zero():
    class Heun:
        config = {"use_dynamic_shifting": True}  # noqa: RUF012
        timesteps = torch.tensor([1000.0, 600.0, 600.0, 200.0, 200.0])

    assert all(math.isfinite(float(progress_of(t, None, Heun())[0])) for t in Heun.timesteps)


def test_a_bare_transformer_uses_its_familys_shift_and_the_largest_of_its_timesteps():
    progress, source = progress_of(torch.tensor([[0, 0, 750, 750]]), Flow(3.0))
    assert source == "timestep" and float(progress) == pytest.approx(0.5) and progress.ndim == 0
    assert float(progress_of(750, Flow(3.0))[0]) == pytest.approx(0.5)


def test_what_cannot_be_known_is_unknown():
    assert progress_of(None, Flow(3.0)) == (None, "unknown")
    assert progress_of(torch.tensor(500.0), None) == (None, "unknown")


@given(t=st.floats(-10, 1200), shift=st.floats(0.5, 20))
def test_progress_stays_in_its_range(t, shift):
    for noise in (Flow(shift), VariancePreserving()):
        progress, _ = progress_of(torch.tensor(t), noise)
        assert 0.0 <= float(progress) <= 1.0


def test_timesteps_in_other_units():
    """Some transformers get sigma itself, or a timestep divided by 1000."""
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow.set_timesteps(10)
    t = flow.timesteps[4]
    for scheduler in (flow, None):
        expected, source = progress_of(t, Flow(3.0), scheduler)
        found = progress_of(t / 1000, Flow(3.0, top=1.0), scheduler)
        assert (float(found[0]), found[1]) == (pytest.approx(float(expected), abs=1e-5), source)
    for scheduler in (CogVideoXDDIMScheduler(), None):
        assert float(progress_of(0.25, VariancePreserving(top=1.0), scheduler)[0]) == 0.75


def test_without_a_timestep_the_scheduler_counts():
    scheduler = FlowMatchEulerDiscreteScheduler()
    assert progress_of(None, None, scheduler)[1] == "scheduler steps"
    scheduler.set_timesteps(5)
    for n, t in enumerate(scheduler.timesteps):
        assert float(progress_of(None, None, scheduler)[0]) == pytest.approx(n / 5)
        scheduler.step(torch.zeros(1, 2), t, torch.zeros(1, 2))
    assert progress_of(None, None) == (None, "unknown")


@pytest.mark.parametrize("steps", [6, 10, 64])
def test_mochis_steps_are_even_in_progress(steps):
    """Its pipeline sets these sigmas and inverts them: the timestep counts up from 0 to the clean video."""
    from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(sigmas=linear_quadratic_schedule(steps, 0.025))
    found = [progress_of(t, LinearQuadratic(0.025), scheduler) for t in scheduler.timesteps]
    assert {source for _, source in found} == {"scheduler"}
    assert [float(p) for p, _ in found] == pytest.approx([k / steps for k in range(steps)], abs=1e-4)
    bare = [float(progress_of(t, LinearQuadratic(0.025))[0]) for t in scheduler.timesteps]
    assert bare == pytest.approx([float(p) for p, _ in found])


@pytest.mark.parametrize("steps", [6, 25])
def test_karras_steps_are_even_in_progress(steps):
    """Stable Video Diffusion's scheduler; its timesteps go below 0."""
    scheduler = EulerDiscreteScheduler(
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, timestep_type="continuous",
        prediction_type="v_prediction", interpolation_type="linear",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    noise = Karras(highest=700.0, lowest=0.002)
    bare = [progress_of(t, noise) for t in scheduler.timesteps]
    assert {source for _, source in bare} == {"timestep"}
    assert [float(p) for p, _ in bare] == pytest.approx([k / (steps - 1) for k in range(steps)], abs=1e-4)
    found = [progress_of(t, noise, scheduler) for t in scheduler.timesteps]
    assert {source for _, source in found} == {"scheduler steps"}
    assert [float(p) for p, _ in found] == pytest.approx([k / steps for k in range(steps)], abs=1e-4)
