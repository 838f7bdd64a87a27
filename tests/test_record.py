"""The summary as data, as a table, as JSON and as a picture."""

import json
import math

import numpy as np
import pytest
import torch
from tiny_models import TINY, T, run

from enhance_a_video import Summary, enhance, record
from enhance_a_video.intensity import cross_frame_mass, temporal_attention_map
from enhance_a_video.record import Recorder

ALWAYS = {"start": 0.0, "end": 1.0}


@pytest.fixture
def handle():
    """Three calls of a Wan, the last one outside the window."""
    model = TINY["wan"].model()
    with enhance(model, strength=2.0, start=0.0, end=0.5, attention_maps=True, sites=None) as handle:
        for t in (990.0, 950.0, 100.0):
            run(model, TINY["wan"].inputs(timestep=t))
    return handle


def test_shapes_and_values(handle):
    s = handle.summary()
    assert isinstance(s, Summary) and s.models == ["WanTransformer3DModel"] and s.calls_made == 3
    assert s.layers == ["blocks.0.attn1", "blocks.1.attn1"] and s.progress_source == "timestep"
    assert s.mass.shape == s.gain.shape == s.clipped.shape == (3, 2) and s.attention_maps.shape == (3, 2, T, T)
    assert list(s.active) == [True, True, False] and list(np.diff(s.progress) > 0) == [True, True]
    assert list(s.num_frames) == [T, T, T] and list(s.model) == [0, 0, 0] and 0 < s.seconds < 10
    assert np.allclose(s.gain[:2], np.maximum(1, 3 * s.mass[:2]), atol=1e-5) and (s.gain[2] == 1).all()
    assert np.allclose(s.attention_maps.sum(-1), 1, atol=1e-5)
    off_diagonal = 1 - s.attention_maps.diagonal(axis1=2, axis2=3).mean(-1)
    assert np.allclose(off_diagonal, s.mass, atol=1e-5)


def test_mass_and_map_are_those_of_the_method():
    from test_attention_patch import Spy, attended

    model, inputs, spy = TINY["wan"].model(), TINY["wan"].inputs(), Spy()
    attended(model, inputs, spy)
    query, key, _ = spy.seen[0]
    with enhance(model, observe_only=True, attention_maps=True, **ALWAYS) as handle:
        run(model, inputs)
    s = handle.summary()
    assert s.mass[0, 0] == pytest.approx(float(cross_frame_mass(query, key, T).mean()), abs=1e-6)
    assert np.allclose(s.attention_maps[0, 0], temporal_attention_map(query, key, T).mean(0).numpy(), atol=1e-6)


def test_clipped_is_the_share_of_sites_that_get_no_gain():
    model = TINY["wan"].model()
    for g, low, high in ((0.0, 1.0, 1.0), (0.33, 0.0, 1.0), (5.0, 0.0, 0.0)):
        with enhance(model, strength=g, sites=None, **ALWAYS) as handle:
            run(model, TINY["wan"].inputs())
        assert (handle.summary().clipped >= low).all() and (handle.summary().clipped <= high).all()


def test_it_survives_json(handle):
    data = json.loads(json.dumps(handle.summary().to_dict(), allow_nan=False))
    assert data["gain"][2] == [1.0, 1.0] and data["settings"]["strength"] == 2.0
    assert np.array(data["attention_maps"]).shape == (3, 2, T, T)


def test_the_table_reads(handle):
    text = str(handle.summary())
    for part in (
        "strength=2.0",
        "3 forward calls, active in 2 of 3",
        "frames [4]",
        "blocks.1.attn1",
        "clipped",
        "timestep",
    ):
        assert part in text
    assert len({len(line) for line in text.splitlines()[-3:]}) == 1


def test_nothing_run_is_reported_too():
    model = TINY["wan"].model()
    with enhance(model) as handle:
        pass
    s = handle.summary()
    assert s.gain.shape == (0, 2) and s.progress_source == "not run" and "0 forward calls" in str(s)
    json.dumps(s.to_dict(), allow_nan=False)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_a_picture(handle, tmp_path, suffix):
    path = handle.summary().plot(tmp_path / f"gain.{suffix}")
    assert path.stat().st_size > 5000


def test_many_calls_drop_the_oldest_and_report_it(monkeypatch):
    monkeypatch.setattr(record, "CAPACITY", 3)
    monkeypatch.setattr(record, "MAPS_CAPACITY", 2)
    model = TINY["wan"].model()
    with enhance(model, attention_maps=True, **ALWAYS) as handle:
        for t in (900.0, 800.0, 700.0, 600.0, 500.0):
            run(model, TINY["wan"].inputs(batch=1, timestep=t))
    s = handle.summary()
    expected = [1 - (t / 1000) / (5 - 4 * t / 1000) for t in (700, 600, 500)]
    assert s.progress == pytest.approx(expected, abs=1e-6) and s.calls_made == 5
    assert "active in 3 of 3 kept (the oldest 2 were dropped)" in str(s)
    assert np.isnan(s.attention_maps[0]).all() and not np.isnan(s.attention_maps[1:]).any()


def test_a_new_frame_count_starts_the_maps_anew():
    model = TINY["wan"].model()
    with enhance(model, attention_maps=True, **ALWAYS) as handle:
        for frames in (3, 5):
            run(model, TINY["wan"].inputs(frames=frames))
    s = handle.summary()
    assert s.attention_maps.shape == (2, 2, 5, 5)
    assert np.isnan(s.attention_maps[0]).all() and not np.isnan(s.attention_maps[1]).any()


def test_two_recorders_join_side_by_side():
    recorders = {}
    for name, layers, calls in (("transformer", 2, 3), ("transformer_2", 1, 2)):
        recorder = Recorder(layers, torch.device("cpu"), maps=False)
        recorder.source = "scheduler"
        for i in range(calls):
            row = recorder.begin(torch.tensor(i / 10), torch.tensor(True), 9)
            for layer in range(layers):
                recorder.layer(row, torch.tensor(layer), torch.ones(2), torch.ones(1) + i, torch.tensor([True, False]))
        recorders[name] = ([f"blocks.{i}" for i in range(layers)], recorder)
    s = Summary.of({"strength": 1.0}, recorders)
    assert s.layers == ["transformer.blocks.0", "transformer.blocks.1", "transformer_2.blocks.0"]
    assert list(s.model) == [0, 0, 0, 1, 1] and s.attention_maps is None
    nan = math.nan
    expected = [[1, 1, nan], [2, 2, nan], [3, 3, nan], [nan, nan, 1], [nan, nan, 2]]
    assert np.array_equal(s.gain, np.array(expected, dtype=np.float32), equal_nan=True)
    assert np.nanmax(s.clipped) == 0.5


def test_no_number_leaves_the_device_while_it_runs(monkeypatch):
    """No .item(), bool() or copy to the host between enhance() and summary() or remove()."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class AttentionObserver(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert "_local_scalar_dense" not in str(func), "host sync"
            return func(*args, **(kwargs or {}))

    model, inputs = TINY["wan"].model(), TINY["wan"].inputs()
    run(model, inputs)
    handle = enhance(model, attention_maps=True)
    with AttentionObserver():
        run(model, inputs)
    handle.remove()  # reads the record, to warn where nothing was changed
