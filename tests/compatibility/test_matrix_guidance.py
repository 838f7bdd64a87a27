"""Guidance: each pass of a step is enhanced by its own mass, whether the passes share a batch or come one after
the other, and whoever combines them. The guiders run in modular pipelines, which diffusers has for two of the families
(of HunyuanVideo only for 1.5).
"""

import numpy as np
import pytest
import torch
from cells import cells
from common import FAMILIES, ON, by_hand, check, generate, same
from diffusers import guiders
from diffusers.hooks import LayerSkipConfig
from diffusers.hooks._helpers import AttentionProcessorMetadata, AttentionProcessorRegistry
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from diffusers.modular_pipelines.ltx.modular_blocks_ltx import LTXCoreDenoiseStep
from diffusers.modular_pipelines.wan.modular_blocks_wan import WanCoreDenoiseStep
from test_pipelines_enhanced import FRAMES, ltx_pipeline, unipc
from tiny_models import TEXT, TINY, H, T, W, noise, take

from enhance_a_video import enhance

TRUE_CFG = {  # HunyuanVideo is guidance-distilled; this makes a second pass
    "negative_prompt_embeds": noise(1, TEXT, 16, seed=3), "negative_pooled_prompt_embeds": noise(1, 8, seed=4),
    "negative_prompt_attention_mask": torch.ones(1, TEXT), "true_cfg_scale": 3.0,
}  # fmt: skip


@cells("CFG, passes one after the other", "Wan", "HunyuanVideo")
def test_separate_cfg(column):
    """The pipeline with guidance: written out by hand, to 1e-5; two rows for each step in the record."""
    family = FAMILIES[column]
    pipe, prompt = family.pipeline()
    prompt = {**prompt, **(TRUE_CFG if column == "HunyuanVideo" else {"guidance_scale": 5.0})}
    with by_hand(family, pipe.transformer):
        reference = generate(pipe, **prompt)
    result = check(pipe.transformer, lambda: generate(pipe, **prompt), reference, target=pipe)
    assert len(result.handle.summary().active) == 8


@cells("CFG, both passes in a batch", "CogVideoX", "LTX-Video")
def test_batched_cfg(column):
    """The pipeline with guidance: written out by hand, and the same pipeline with the batch taken apart into two
    forward calls, to 1e-5."""
    family = FAMILIES[column]
    pipe, prompt = family.pipeline()
    model = pipe.transformer
    with by_hand(family, model):
        reference = generate(pipe, **prompt)
    result = check(model, lambda: generate(pipe, **prompt), reference, target=pipe)
    assert len(result.handle.summary().active) == 4

    forward = model.forward

    def apart(**inputs):
        assert inputs["hidden_states"].shape[0] == 2
        return (torch.cat([forward(**take(inputs, slice(b, b + 1)))[0] for b in range(2)]),)

    with enhance(pipe, **ON), pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "forward", apart)
        assert same(generate(pipe, **prompt), result.enhanced)


# ----------------------------------------------------------------------------------------------------- guiders
def modular(column, guider):
    """(a modular pipeline of the family, a call that generates latents)."""
    if column == "Wan":
        pipe = WanCoreDenoiseStep().init_pipeline()
        pipe.update_components(transformer=TINY["wan"].model(), scheduler=unipc(), guider=guider)
        prompt = {"prompt_embeds": noise(1, TEXT, 16, seed=1), "negative_prompt_embeds": noise(1, TEXT, 16, seed=2)}
        latents = noise(1, 4, T, 2 * H, 2 * W, seed=7)
    else:
        classic, prompt = ltx_pipeline()
        pipe = LTXCoreDenoiseStep().init_pipeline()
        pipe.update_components(transformer=classic.transformer, scheduler=classic.scheduler, guider=guider)
        latents = None
    pipe.set_progress_bar_config(disable=True)

    def call():
        return pipe(
            **prompt, num_inference_steps=5, height=32 * H, width=32 * W, num_frames=2 * FRAMES - 1, latents=latents,
            generator=torch.Generator().manual_seed(0), output="latents",
        )  # fmt: skip

    return pipe, call


GUIDERS = {
    "ClassifierFreeGuidance": lambda: guiders.ClassifierFreeGuidance(guidance_scale=5.0),
    "CFG-Zero* (ClassifierFreeZeroStarGuidance)": lambda: guiders.ClassifierFreeZeroStarGuidance(guidance_scale=5.0),
    "APG (AdaptiveProjectedGuidance)": lambda: guiders.AdaptiveProjectedGuidance(
        guidance_scale=5.0, adaptive_projected_guidance_momentum=-0.5, adaptive_projected_guidance_rescale=15.0, eta=0.0
    ),
    "AdaptiveProjectedMixGuidance": lambda: guiders.AdaptiveProjectedMixGuidance(guidance_scale=3.5),
    "TangentialClassifierFreeGuidance": lambda: guiders.TangentialClassifierFreeGuidance(guidance_scale=5.0),
    "FrequencyDecoupledGuidance": lambda: guiders.FrequencyDecoupledGuidance(guidance_scales=[5.0, 4.0]),
    "SLG (SkipLayerGuidance), a layer": lambda: guiders.SkipLayerGuidance(
        guidance_scale=5.0, skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0,
        skip_layer_config=LayerSkipConfig([1]),
    ),
    "SLG, a feed-forward": lambda: guiders.SkipLayerGuidance(
        guidance_scale=5.0, skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0,
        skip_layer_config=LayerSkipConfig([1], skip_attention=False),
    ),
    "SmoothedEnergyGuidance": lambda: guiders.SmoothedEnergyGuidance(
        guidance_scale=5.0, seg_guidance_layers=[1], seg_guidance_start=0.0, seg_guidance_stop=1.0,
    ),
    "AutoGuidance": lambda: guiders.AutoGuidance(
        guidance_scale=5.0, auto_guidance_config=LayerSkipConfig([1], dropout=1.0),
    ),
    "PAG (PerturbedAttentionGuidance)": lambda: guiders.PerturbedAttentionGuidance(
        guidance_scale=5.0, perturbed_guidance_layers=[1], perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0,
    ),
    "MagnitudeAwareGuidance": lambda: guiders.MagnitudeAwareGuidance(guidance_scale=5.0),
}  # fmt: skip
REFUSED = {  # (guider, family): why diffusers cannot run it on the plain model
    ("PAG (PerturbedAttentionGuidance)", "Wan"): "no attention processor of this family is registered to be perturbed",
    (
        "PAG (PerturbedAttentionGuidance)",
        "LTX-Video",
    ): "it asks for an attribute that the attention of this family lacks",
    ("MagnitudeAwareGuidance", "Wan"): "it takes no latents of five dimensions",
    ("FrequencyDecoupledGuidance", "Wan"): "it needs kornia, whose image pyramids take pictures only",
    ("FrequencyDecoupledGuidance", "LTX-Video"): "it needs kornia, whose image pyramids take pictures only",
    ("SmoothedEnergyGuidance", "Wan"): "it runs and changes nothing in this family",
    ("SmoothedEnergyGuidance", "LTX-Video"): "it runs and changes nothing in this family",
}


def does_nothing_or_fails(column, guider):
    """Whether the plain model refuses this guider, or gives the same with it as with classifier-free guidance."""
    expected = modular(column, GUIDERS["ClassifierFreeGuidance"]())[1]()
    try:
        found = modular(column, GUIDERS[guider]())[1]()
    except Exception:
        return True
    return torch.equal(found, expected)


@pytest.mark.parametrize(
    ("guider", "column"),
    [pytest.param(g, c, marks=pytest.mark.cell(g, c)) for g in GUIDERS for c in ("Wan", "LTX-Video")],
)
def test_guider(guider, column, not_in_diffusers):
    """Five steps of the modular pipeline: written out by hand, to 1e-5. Where the guider's own pass skips a layer or
    its attention, the record has no entry (NaN) for that layer."""
    family = FAMILIES[column]
    if (guider, column) in REFUSED:
        assert does_nothing_or_fails(column, guider)
        not_in_diffusers(REFUSED[guider, column])
        return
    pipe, call = modular(column, GUIDERS[guider]())
    if guider != "ClassifierFreeGuidance":
        assert not same(call(), modular(column, GUIDERS["ClassifierFreeGuidance"]())[1](), 1e-4)
    with by_hand(family, pipe.transformer):
        reference = call()
    result = check(pipe.transformer, call, reference, target=pipe)
    gain = result.handle.summary().gain
    assert np.isnan(gain).any() == (guider in ("SLG (SkipLayerGuidance), a layer", "AutoGuidance"))
    assert len(gain) == (14 if guider.startswith("SLG") else 10)


@cells("PAG, its processor registered", "Wan")
def test_pag_registered(column, monkeypatch):
    """The same after `AttentionProcessorRegistry.register(WanAttnProcessor, ...)`, with which diffusers perturbs it:
    in the perturbed pass the gain is that of the query and key, whose attention is replaced by the identity."""
    known = AttentionProcessorMetadata(skip_processor_output_fn=lambda module, hidden_states, *args: hidden_states)
    AttentionProcessorRegistry._register()
    monkeypatch.setattr(AttentionProcessorRegistry, "_registry", {**AttentionProcessorRegistry._registry})
    AttentionProcessorRegistry.register(WanAttnProcessor, known)
    pipe, call = modular(column, GUIDERS["PAG (PerturbedAttentionGuidance)"]())
    check(pipe.transformer, call, target=pipe)
