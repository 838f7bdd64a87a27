"""Planted videos whose answer is known, on every variant: a wrong axis, a wrong slice or a wrong T gives another one.

Keys are query projections, so that a token looks at tokens like itself. Between equal frames attention is then about
even (rotary embedding tells them apart a little), from a frame to unrelated ones there is next to none.
"""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_models import TINY, T, run, with_attention

from enhance_a_video import enhance, enhanced_layer, models
from enhance_a_video.errors import EnhanceAVideoError
from enhance_a_video.operators import cross_frame, output

TWINS = "ABAC"  # frames 0 and 2 are equal
MEASURES = ((output, "site_mass"), (cross_frame, "token_mass"), (enhanced_layer, "temporal_attention_map"))


def observed(model, tiny, letters):
    """(mass, temporal attention map) of the first layer, which sees the video almost as it is."""
    with enhance(model, observe_only=True, attention_maps=True, sites=None, start=0.0, end=1.0) as handle:
        run(model, tiny.clip(letters))
    summary = handle.summary()
    assert list(summary.num_frames) == [len(letters)]
    return summary.mass[0, 0], summary.attention_maps[0, 0]


def check_twins(model, tiny):
    _, attention = observed(model, tiny, TWINS)
    others = ~np.eye(T, dtype=bool)
    others[[0, 2], [2, 0]] = False
    assert min(attention[0, 2], attention[2, 0]) > 2 * attention[others].max(), attention.round(2)


@pytest.mark.parametrize("name", TINY)
def test_every_variant_sees_the_planted_frames(name):
    tiny = TINY[name]
    model = tiny.sharpened()
    check_twins(model, tiny)
    still, unrelated = (observed(model, tiny, letters)[0] for letters in ("AAAA", "ABCD"))
    assert still > 0.5 and unrelated < 0.35  # 0.75 would be uniform


# ------------------------------------------------------------------------------- what is seen is what is scaled
def double(mass, moment):
    return torch.full_like(mass, 2.0)


def noting(measure, seen):
    """The measure, which keeps the queries that it gets."""
    return lambda query, *args, **kwargs: (seen.append(query), measure(query, *args, **kwargs))[1]


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value for t in tensors(part)] if isinstance(value, (tuple, list)) else []


@pytest.mark.parametrize("name", TINY)
def test_as_many_tokens_are_scaled_as_are_seen_and_no_others(name, monkeypatch):
    tiny = TINY[name]
    model, inputs, outputs, seen = tiny.model(), tiny.inputs(), [], []
    row = models.row_of(model)
    attention, (module, axis) = next(iter(models.attention_modules(model, row.self_attention).items()))
    module = models.scaled_module(model, axis, attention) or module
    module.register_forward_hook(lambda m, args, output: outputs.append(tensors(output)))
    run(model, inputs)
    plain = outputs[0]
    outputs.clear()
    monkeypatch.setattr(output, "site_mass", noting(output.site_mass, seen))
    with enhance(model, policy=double, layers=[0], start=0.0, end=1.0):
        run(model, inputs)
    scaled = 0
    for before, after in zip(plain, outputs[0], strict=True):
        changed = (before != after).any(-1)
        assert torch.allclose(after[changed], 2 * before[changed], rtol=1e-5)
        scaled += int(changed.sum())
    assert scaled == sum(q[:, 0, ..., 0].numel() for q in seen) > 0  # (B, H, T*S, D) or (B, H, T, S, D)


# ------------------------------------------------------------------------- the check can fail: rows with a mistake
def sites_first(measure):
    """The measure on tokens taken as if all frames of the first site came first."""

    def wrong(query, key, num_frames, **kwargs):
        def mistaken(x):
            x = x.flatten(2, 3) if x.ndim == 5 else x
            return x.unflatten(2, (-1, num_frames)).transpose(2, 3)  # (B, H, T, S, D)

        return measure(mistaken(query), mistaken(key), num_frames, **kwargs)

    return wrong


def sites_of(model, tiny, monkeypatch):
    """Sites in a frame, as seen by the measure."""
    seen = []
    with monkeypatch.context() as patch:
        for home, name in MEASURES[:2]:
            patch.setattr(home, name, noting(getattr(home, name), seen))
        observed(model, tiny, TWINS)
    return seen[0].shape[3] if seen[0].ndim == 5 else seen[0].shape[2] // T


def shifted(rows, sites):
    """The rows, a frame too early or, where nothing lies in front of them, too late."""
    if not isinstance(rows, slice):
        return rows - sites if rows.min() >= sites else rows + sites
    start = rows.start or 0
    by = -sites if start < 0 or start >= sites else sites
    return slice(start + by, by if rows.stop is None else rows.stop + by)


def mistaken_row(mistake, row, sites):
    (axis,) = row.self_attention
    if mistake == "twice the frames":
        return with_attention(row, frames=lambda *call: 2 * axis.frames(*call))
    if mistake == "half the frames":
        return with_attention(row, frames=lambda *call: axis.frames(*call) // 2)
    if mistake == "text and video exchanged":
        place = {"text first": "video first", "video first": "text first"}[axis.tokens.place]
        return with_attention(row, tokens=dataclasses.replace(axis.tokens, place=place))
    return with_attention(row, video=lambda *call: shifted(axis.video(*call), sites))


def mistakes():
    """(variant, mistake that can be made with its class)"""
    rows = {row.transformer: row for row in models.known_models()}
    for name, tiny in TINY.items():
        (axis,) = rows[tiny.transformer].self_attention
        yield from ((name, mistake) for mistake in ("sites first", "twice the frames", "half the frames"))
        if axis.tokens.place in ("text first", "video first"):
            yield name, "text and video exchanged"
        if axis.video is not None:
            yield name, "a frame beside"


@pytest.mark.parametrize("name, mistake", mistakes())
def test_a_mistake_is_noticed(name, mistake, monkeypatch):
    tiny = TINY[name]
    model = tiny.sharpened()
    row = models.row_of(model)
    rows = row.attention[0].video and row.attention[0].video(model.config, tiny.clip(TWINS))
    if mistake == "a frame beside" and rows is None:
        pytest.skip("every token of the stream is video")
    if mistake == "sites first":
        for home, measure in MEASURES:
            monkeypatch.setattr(home, measure, sites_first(getattr(home, measure)))
    else:
        sites = sites_of(model, tiny, monkeypatch)
        monkeypatch.setitem(models.registry._MODELS, row.transformer, mistaken_row(mistake, row, sites))
    with pytest.raises((AssertionError, EnhanceAVideoError)):
        check_twins(model, tiny)
