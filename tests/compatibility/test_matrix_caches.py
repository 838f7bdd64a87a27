"""Step caches: skip computation in some steps and reuse what was computed before. A reused output carries the gain of
the step it was computed in, also past the end of the window, exactly as it carries everything else of that step; the
summary shows no mass and no gain (NaN) where nothing was computed. `TextKVCache`, the remaining cache of diffusers, is
for other models.
"""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from cells import cells
from common import FAMILIES, ON, acts, anatomy, by_hand, generate, same
from diffusers import FasterCacheConfig, FirstBlockCacheConfig, MagCacheConfig, PyramidAttentionBroadcastConfig
from diffusers.hooks import SeaCacheConfig, TaylorSeerCacheConfig

from enhance_a_video import enhance

STEPS = 6
ALWAYS, NEVER = (-1, 1001), (2000, 2001)  # ranges of timesteps


@contextlib.contextmanager
def diffusers_cache(pipe, config):
    """As diffusers' documentation enables a cache."""
    pipe.transformer.enable_cache(config)
    try:
        yield
    finally:
        pipe.transformer.disable_cache()


def check_cache(family, cached, idle, guidance=None):
    """What every cell of this page asserts.

    cached, idle: (pipe) -> context in which the cache is on and reuses, or is on and never reuses.
    """
    pipe, prompt = family.pipeline()
    model = pipe.transformer
    prompt = {**prompt, **({} if guidance is None else {"guidance_scale": guidance})}

    def run():
        return generate(pipe, STEPS, **prompt)

    plain = run()
    with enhance(pipe, **ON):
        enhanced = run()
        with idle(pipe):
            assert torch.equal(run(), enhanced)  # nothing reused: the un-cached enhanced output, to the bit

    with cached(pipe), by_hand(family, model):
        expected = run()
    with cached(pipe):
        cached_plain, before = run(), without_counters(anatomy(model))
        with enhance(pipe, **ON) as handle:
            first = run()
        assert torch.equal(run(), cached_plain)  # undone, the cache still on
        assert without_counters(anatomy(model)) == before
    with enhance(pipe, **ON), cached(pipe):
        second = run()
    assert torch.equal(first, second)  # either order
    assert same(first, expected), float((first - expected).norm() / expected.norm())
    assert acts(first, cached_plain) and not torch.equal(first, enhanced)
    assert torch.equal(run(), plain)
    reused = np.isnan(handle.summary().gain)
    assert 0 < reused.mean() < 1  # some layer calls were reused, some computed


def without_counters(parts):
    """cache-dit counts its steps in attributes of the model."""
    return {name: part for name, part in parts.items() if not name.endswith("_cached_steps")}


def timestep_of(pipe):
    return lambda: int(pipe._current_timestep) if pipe._current_timestep is not None else 0


@cells("FirstBlockCache")
def test_first_block_cache(column):
    """In 6 steps of the pipeline: at threshold 0 equal to the un-cached enhanced run to the bit; at threshold 1, where
    steps are reused, equal to the same cache on the model written out by hand, enabled before or after `enhance()`."""
    check_cache(
        FAMILIES[column],
        cached=lambda pipe: diffusers_cache(pipe, FirstBlockCacheConfig(threshold=1.0)),
        idle=lambda pipe: diffusers_cache(pipe, FirstBlockCacheConfig(threshold=0.0)),
    )


@cells("Pyramid Attention Broadcast")
def test_pyramid_attention_broadcast(column, remark):
    """The same, every second self-attention reused, against a range of timesteps in which nothing is."""

    def config(pipe, timesteps):
        return PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, spatial_attention_timestep_skip_range=timesteps,
            current_timestep_callback=timestep_of(pipe),
        )  # fmt: skip

    check_cache(
        FAMILIES[column],
        cached=lambda pipe: diffusers_cache(pipe, config(pipe, ALWAYS)),
        idle=lambda pipe: diffusers_cache(pipe, config(pipe, NEVER)),
    )
    if column == "Wan":
        remark(
            "WanPipeline runs the passes with and without the prompt one after the other, and this cache of diffusers "
            "counts them as one sequence: a pass without prompt reuses attention of the pass with prompt, with and "
            "without the method. With guidance_scale above 1, take another cache"
        )


@cells("FasterCache")
def test_faster_cache(column, remark):
    """The same; where the pipeline batches both passes (CogVideoX) the pass without prompt is skipped as well."""
    batched = column == "CogVideoX"

    def config(pipe, timesteps, distilled=not batched):
        return FasterCacheConfig(
            spatial_attention_timestep_skip_range=timesteps, unconditional_batch_timestep_skip_range=timesteps,
            current_timestep_callback=timestep_of(pipe), is_guidance_distilled=distilled, tensor_format="BFCHW",
            attention_weight_callback=lambda module: 0.3,
        )  # fmt: skip

    # Distilled: the first calls must be computed, there is nothing to reuse yet.
    sometimes = ALWAYS if batched else (-1, 800)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_cache(
            FAMILIES[column],
            cached=lambda pipe: diffusers_cache(pipe, config(pipe, sometimes)),
            idle=lambda pipe: diffusers_cache(pipe, config(pipe, NEVER)),
            guidance=1.0 if column in ("Wan", "LTX-Video") else None,
        )
    if column in ("Wan", "LTX-Video"):
        pipe, prompt = FAMILIES[column].pipeline()
        with diffusers_cache(pipe, config(pipe, ALWAYS, distilled=False)), pytest.raises((IndexError, RuntimeError)):
            generate(pipe, STEPS, **prompt)  # the plain model
        remark(
            "for guidance-distilled checkpoints (`is_guidance_distilled=True`, guidance_scale 1): with two passes "
            "diffusers' FasterCache does not run on this family"
        )


@cells("TaylorSeer")
def test_taylorseer(column, remark):
    """The same, self-attention predicted to first order for two of three steps, against an interval of 1."""
    attention = [FAMILIES[column].attention]

    def config(interval):
        return TaylorSeerCacheConfig(
            cache_interval=interval, disable_cache_before_step=2, taylor_factors_dtype=torch.float32,
            cache_identifiers=attention,
        )  # fmt: skip

    check_cache(
        FAMILIES[column],
        cached=lambda pipe: diffusers_cache(pipe, config(3)),
        idle=lambda pipe: diffusers_cache(pipe, config(1)),
    )
    if column != "HunyuanVideo":
        remark(
            "with `cache_identifiers` that name the self-attention: the default ones of diffusers 0.42.1 match no "
            "module of this family"
        )


@cells("TaylorSeer, lite")
def test_taylorseer_lite(column):
    """The same with `use_lite_mode`: only the projection at the end is predicted, the blocks are skipped."""

    def config(interval):
        return TaylorSeerCacheConfig(
            cache_interval=interval, disable_cache_before_step=2, taylor_factors_dtype=torch.float32,
            use_lite_mode=True,
        )  # fmt: skip

    check_cache(
        FAMILIES[column],
        cached=lambda pipe: diffusers_cache(pipe, config(3)),
        idle=lambda pipe: diffusers_cache(pipe, config(1)),
    )


@cells("MagCache")
def test_mag_cache(column):
    """The same, magnitude ratios of 1 (reuse up to three steps in a row) against ratios of 2 and threshold 0."""

    def config(ratio, threshold):
        return MagCacheConfig(
            threshold=threshold, num_inference_steps=STEPS, mag_ratios=[ratio] * STEPS, retention_ratio=0.2
        )

    check_cache(
        FAMILIES[column],
        cached=lambda pipe: diffusers_cache(pipe, config(1.0, 0.1)),
        idle=lambda pipe: diffusers_cache(pipe, config(2.0, 0.0)),
    )


@cells("SeaCache")
def test_sea_cache(column, not_in_diffusers):
    """The same, threshold 100 against 0."""
    family = FAMILIES[column]
    if column == "Wan":
        check_cache(
            family,
            cached=lambda pipe: diffusers_cache(pipe, SeaCacheConfig(threshold=100.0)),
            idle=lambda pipe: diffusers_cache(pipe, SeaCacheConfig(threshold=0.0)),
        )
        return
    pipe, prompt = family.pipeline()
    plain = generate(pipe, STEPS, **prompt)
    with diffusers_cache(pipe, SeaCacheConfig(threshold=100.0)):
        assert torch.equal(generate(pipe, STEPS, **prompt), plain)
    not_in_diffusers(
        "it asks for step and noise level, which of these pipelines only Wan's gives, and reuses nothing without"
    )


@contextlib.contextmanager
def cache_dit_on(pipe, threshold, calibrated=False):
    """As cache-dit's users do: enable_cache(pipe, ...); it replaces the __call__ of the pipeline's class."""
    import cache_dit

    calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1) if calibrated else None
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1, Bn_compute_blocks=0, max_warmup_steps=2, max_continuous_cached_steps=2,
        residual_diff_threshold=threshold,
    )  # fmt: skip
    call = type(pipe).__call__
    cache_dit.enable_cache(pipe, cache_config=config, calibrator_config=calibrator)
    try:
        yield
    finally:
        cache_dit.disable_cache(pipe)
        assert type(pipe).__call__ is call


@cells("cache-dit, DBCache")
def test_cache_dit(column):
    """The same with `cache_dit.enable_cache(pipe, DBCacheConfig(...))`, threshold 10 against 0."""
    pytest.importorskip("cache_dit", reason="needs pip install cache-dit")
    check_cache(
        FAMILIES[column], cached=lambda pipe: cache_dit_on(pipe, 10.0), idle=lambda pipe: cache_dit_on(pipe, 0.0)
    )


@cells("cache-dit, TaylorSeer")
def test_cache_dit_calibrated(column):
    """The same with a `TaylorSeerCalibratorConfig` of first order."""
    pytest.importorskip("cache_dit", reason="needs pip install cache-dit")
    check_cache(
        FAMILIES[column],
        cached=lambda pipe: cache_dit_on(pipe, 10.0, calibrated=True),
        idle=lambda pipe: cache_dit_on(pipe, 0.0, calibrated=True),
    )
