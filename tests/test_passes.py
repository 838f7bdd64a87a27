"""passes="conditional": under guidance only the pass with the prompt is changed, where diffusers names the passes."""

import inspect
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import TINY, run

from enhance_a_video import Settings, enhance
from enhance_a_video.errors import SettingsError, UnknownPassWarning
from enhance_a_video.generation import pipelines
from enhance_a_video.passes import IN_ONE_BATCH

ROOT = Path(__file__).parents[1]

ODDS = {"odds": 3.0, "start": 0.0, "end": 1.0}


class Pipe:
    """What enhance() needs of a pipeline."""

    scheduler = None

    def __init__(self, model, guided):
        self.components, self.do_classifier_free_guidance = {"transformer": model}, guided


@pytest.mark.parametrize("more", [{}, {"scale": "exact"}, {"strength": 2.0, "odds": None}], ids=str)
def test_the_unconditional_pass_is_left_alone(more):
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    plain, settings = run(model, inputs), {**ODDS, **more}
    with enhance(model, **settings):
        changed = run(model, inputs)
    with enhance(model, **settings, passes="conditional") as handle:
        for name, expected in (("cond", changed), ("uncond", plain), ("pred_cond", changed), ("pred_uncond", plain),
                               ("pred_cond_skip", plain), ("uncond_stg", plain)):  # fmt: skip
            with model.cache_context(name):
                assert torch.equal(run(model, inputs), expected), name
    summary = handle.summary()
    assert np.isnan(summary.mass).all(1).tolist() == [False, True, False, True, True, True] and not summary.no_effect
    assert "cache_context" not in vars(type(model)) and torch.equal(run(model, inputs), plain)


@pytest.mark.parametrize("name", ["wan", "ltx", "latte"])
@pytest.mark.parametrize("scale", ["cross-frame", "exact", "output"])
def test_both_passes_in_one_batch(name, scale):
    """The negative prompt first, as in diffusers: the first half is plain, the other as if it were alone."""
    model, inputs = TINY[name].model(), TINY[name].inputs(batch=2)
    settings = {**ODDS, "scale": scale} if scale != "output" else {"strength": 2.0, "start": 0.0, "end": 1.0}
    plain = run(model, inputs)
    with enhance(model, **settings):
        changed = run(model, inputs)
    pipe = Pipe(model, True)
    with enhance(pipe, **settings, passes="conditional") as handle:
        handle._denoisers[0].passes.in_thread.name = "cond_uncond"
        found = run(model, inputs)
    half = len(plain) // 2
    assert torch.equal(found[:half], plain[:half]) and not torch.equal(changed[:half], plain[:half])
    assert torch.allclose(found[half:], changed[half:], rtol=1e-5, atol=1e-6)


def test_a_pipeline_that_names_no_pass_but_has_both_in_one_batch():
    """Latte: by its class. Only the later half of each layer's samples is measured."""
    pipe = pipelines.load(ROOT / "models" / "temporal")
    options = {"seed": 1, "steps": 2, "guidance": 2.5}
    prompt = "A red ball moves left over a green meadow."
    plain = pipelines.generate(pipe, prompt, **options)
    with enhance(pipe, **ODDS):
        both = pipelines.generate(pipe, prompt, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownPassWarning)
        with enhance(pipe, **ODDS, passes="conditional"):
            conditional = pipelines.generate(pipe, prompt, **options)
            alone = pipelines.generate(pipe, prompt, **{**options, "guidance": 1})
    with enhance(pipe, **ODDS):
        assert np.array_equal(alone, pipelines.generate(pipe, prompt, **{**options, "guidance": 1}))
    assert not np.array_equal(conditional, plain) and not np.array_equal(conditional, both)


def test_the_pipelines_whose_order_is_known_name_no_pass():
    """Each exists in diffusers, and puts the negative prompt first: as its source says."""
    import diffusers

    for name in IN_ONE_BATCH:
        source = inspect.getsource(sys.modules[getattr(diffusers, name).__module__])
        assert "cache_context" not in source and "_guidance_scale = guidance_scale" in source, name
        assert re.search(r"prompt_embeds = torch\.cat\(\[negative_prompt_embeds, prompt_embeds\]", source), name
        assert "noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)" in source, name


def test_without_guidance_every_call_is_conditional():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    with enhance(model, **ODDS):
        changed = run(model, inputs)
    pipe = Pipe(model, False)
    with warnings.catch_warnings(), enhance(pipe, **ODDS, passes="conditional"):
        warnings.simplefilter("error", UnknownPassWarning)
        assert torch.equal(run(model, inputs), changed)


def test_where_the_pass_is_not_known_both_are_changed_and_it_is_reported_once():
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    with enhance(model, **ODDS):
        changed = run(model, inputs)
    with enhance(model, **ODDS, passes="conditional"):
        with pytest.warns(UnknownPassWarning, match="both are changed"):
            assert torch.equal(run(model, inputs), changed)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UnknownPassWarning)
            run(model, inputs)


def test_in_a_pipeline_half_of_the_calls_are_changed():
    pipe = pipelines.load("embedded", dtype="float32")
    options = {"seed": 0, "steps": 2, "frames": 9}
    prompt = "A red ball moves left over a green meadow."
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownPassWarning)
        with enhance(pipe, **ODDS, passes="conditional") as handle:
            pipelines.generate(pipe, prompt, **options)
    ran = ~np.isnan(handle.summary().mass).all(1)
    assert ran.tolist() == [True, False] * 2


def test_it_compiles():
    torch._dynamo.reset()
    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    with torch.no_grad(), enhance(model, **ODDS, passes="conditional"):
        with model.cache_context("cond"):
            changed = run(model, inputs)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        for name in ("cond", "uncond", "cond"):
            with model.cache_context(name):
                found = run(compiled, inputs)
                assert torch.allclose(found, changed, rtol=1e-4, atol=1e-5) is (name == "cond")
    torch._dynamo.reset()


def test_settings():
    settings = Settings(odds=2, passes="conditional")
    assert Settings.from_dict(settings.to_dict()) == settings and Settings(odds=2).to_dict()["passes"] is None
    with pytest.raises(SettingsError, match="give 'conditional'"):
        Settings(odds=2, passes="cond")
