"""`guidance` of pipelines whose scale is in their `guider`: set for one clip, given back, refused where it is off."""

from pathlib import Path

import numpy as np
import pytest

from enhance_a_video.errors import SettingsError
from enhance_a_video.generation import peers
from enhance_a_video.generation.pipelines import call_of, generate, load

JOINT = Path(__file__).parents[1] / "models" / "joint"
PROMPT = "A red ball moves left over a green meadow."


pytest.importorskip("diffusers.pipelines.motif_video", reason="diffusers without Motif-Video")


@pytest.fixture(scope="module")
def pipe():
    return load(JOINT)


def clip(pipe, **options):
    return generate(pipe, PROMPT, seed=3, steps=2, frames=5, **options)


def test_guidance_is_set_in_the_guider_for_one_clip(pipe):
    usual = clip(pipe)
    strong = clip(pipe, guidance=6)
    assert np.array_equal(clip(pipe, guidance=pipe.guider.guidance_scale), usual)
    assert not np.array_equal(strong, usual)
    assert pipe.guider.guidance_scale == 2.5
    pipe.guider.guidance_scale = 6
    try:
        assert np.array_equal(clip(pipe), strong)
    finally:
        pipe.guider.guidance_scale = 2.5


def test_guidance_comes_before_another_guider_which_takes_its_scale(pipe):
    # scaled_guidance with the factor 2: 1 + 2 * (2 - 1) = 3
    scaled = clip(pipe, guidance=2, guider={"name": "scaled_guidance", "factor": 2})
    assert np.abs(scaled.astype(int) - clip(pipe, guidance=3)).max() <= 1  # the two round differently


def test_the_scale_is_given_back_after_an_error(pipe, monkeypatch):
    def stop(*args, **kwargs):
        raise RuntimeError("stop")

    monkeypatch.setattr(pipe.transformer, "forward", stop)
    with pytest.raises(RuntimeError, match="stop"):
        clip(pipe, guidance=6)
    assert pipe.guider.guidance_scale == 2.5


def test_a_negative_prompt_needs_guidance_here_too(pipe):
    call_of(pipe, negative="blue", guidance=2)
    for low in (0, 1):
        with pytest.raises(SettingsError, match="negative prompt does nothing"):
            call_of(pipe, negative="blue", guidance=low)


def test_what_it_takes_has_guidance(pipe):
    with pytest.raises(SettingsError, match=r"It takes: negative, steps, guidance, frames"):
        call_of(pipe, image=object())


def test_a_guider_that_is_switched_off_takes_none(pipe):
    pipe.guider.disable()
    try:
        with pytest.raises(SettingsError, match="leave guidance out"):
            call_of(pipe, guidance=2)
        call_of(pipe)
    finally:
        pipe.guider.enable()


def test_a_pipeline_with_the_argument_is_as_before():
    pipe = load()
    assert call_of(pipe, guidance=2)["guidance_scale"] == 2
    assert "scaled_guidance" in peers.PEERS
