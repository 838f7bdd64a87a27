"""benchmarks/anatomy.py: the attention's share of the stream in real blocks, and the whole command at tiny size."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TINY, run

from enhance_a_video import enhance
from enhance_a_video.models import attention_modules, row_of


@pytest.fixture(scope="module")
def anatomy():
    spec = importlib.util.spec_from_file_location("anatomy", Path(__file__).parent.parent / "benchmarks" / "anatomy.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["anatomy"] = module  # dataclasses need their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["anatomy"]


MODELS = ["wan", "latte", "cogvideox_5b", "hunyuan", "motif_video"]


def shares(anatomy, model, inputs):
    with anatomy.shares_of(model) as found:
        run(model, inputs)
    return {name: values[0] for name, values in found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_its_share_and_nothing_is_left_behind(anatomy, name):
    model, inputs = TINY[name].model(), TINY[name].inputs()
    plain = run(model, inputs)
    with anatomy.shares_of(model) as found:
        assert torch.equal(run(model, inputs), plain)
    assert list(found) == list(attention_modules(model, row_of(model).self_attention))
    assert all(len(values) == 1 and 1e-4 < values[0] < 100 for values in found.values())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_it_is_what_the_first_block_adds_for_its_attention(anatomy, name):
    """The first block's output with its attention and without: what lies between is the share, where nothing behind
    the attention answers to it (feed-forward and cross-attention are silenced here)."""
    model, inputs = TINY[name].model(), TINY[name].inputs()
    layer = next(iter(attention_modules(model, row_of(model).self_attention)))
    block, attention = model.get_submodule(layer.rpartition(".")[0]), model.get_submodule(layer)
    for part in ("ff", "ffn", "ff_context", "attn2", "cross_attn"):
        if getattr(block, part, None) is not None:
            for parameter in getattr(block, part).parameters():
                parameter.zero_()
    outputs, streams = [], []
    hooks = [
        block.register_forward_hook(lambda m, args, out: outputs.append(out[0] if isinstance(out, tuple) else out)),
        block.register_forward_pre_hook(
            lambda m, args, kwargs: streams.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
    ]
    share = shares(anatomy, model, inputs)[layer]
    zero = attention.register_forward_hook(
        lambda m, args, out: (
            tuple(torch.zeros_like(x) for x in out) if isinstance(out, tuple) else torch.zeros_like(out)
        )
    )
    run(model, inputs)
    for hook in (*hooks, zero):
        hook.remove()
    added = outputs[0] - outputs[1]
    assert share == pytest.approx(float(added.pow(2).mean().sqrt() / streams[0].pow(2).mean().sqrt()), rel=1e-3)


def test_single_blocks_project_the_attention_behind_it(anatomy):
    """Their output is linear in what the attention gives, so that its part of it is exact."""
    model, inputs = TINY["hunyuan"].model(), TINY["hunyuan"].inputs()
    layer = next(n for n in attention_modules(model, row_of(model).self_attention) if n.startswith("single"))
    block, outputs = model.get_submodule(layer.rpartition(".")[0]), []
    block.register_forward_hook(lambda m, args, out: outputs.append((args[0], out[0])))
    share = shares(anatomy, model, inputs)[layer]
    model.get_submodule(layer).register_forward_hook(lambda m, args, out: tuple(torch.zeros_like(x) for x in out))
    run(model, inputs)
    (stream, whole), (_, without) = outputs
    assert share == pytest.approx(float((whole - without).norm() / stream.norm()), rel=1e-3)


@pytest.mark.parametrize("name", ["wan", "motif_video"])
def test_the_gain_is_in_the_share(anatomy, name):
    model, inputs = TINY[name].model(), TINY[name].inputs(batch=1)
    plain = shares(anatomy, model, inputs)
    with enhance(model, strength=2.0, start=0.0, end=1.0) as handle:
        enhanced = shares(anatomy, model, inputs)
    first = next(iter(plain))  # what the later ones get is changed by it
    assert enhanced[first] == pytest.approx(plain[first] * handle.summary().gain[0, 0], rel=1e-4)
    assert handle.summary().gain[0, 0] > 1.3


def test_a_block_it_does_not_know_is_left_out(anatomy, monkeypatch):
    monkeypatch.delitem(anatomy.SHARES, "WanTransformerBlock")
    assert shares(anatomy, TINY["wan"].model(), TINY["wan"].inputs()) == {}


@pytest.mark.parametrize("setting", [{"strength": 2.0}, {"alternative": "logit_temperature", "tau": 1.5}])
def test_the_whole_command(anatomy, tiny_folder, tmp_path, setting, capsys):
    (tmp_path / "prompts.txt").write_text("a red ball moves left\na blue square moves right\n")
    anatomy.main([
        "--model", str(tiny_folder), "--prompts", str(tmp_path / "prompts.txt"), "--setting", json.dumps(setting),
        "--steps", "2", "--device", "cpu", "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    text = (tmp_path / "out" / "anatomy.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| 1 |")]
    assert len(rows) == 6  # mass, gain and share; without and with
    numbers = np.array([[float(cell) for cell in row[3:]] for row in rows])
    assert numbers.shape == (6, 3) and np.isfinite(numbers).all()  # two layers and their mean
    assert np.allclose(numbers[:, :2].mean(1), numbers[:, 2], atol=2e-3)
    assert "2 prompts, 2 steps" in text and next(iter(setting)) in text
    for name in ("maps.png", "layers.png"):
        picture = np.asarray(Image.open(tmp_path / "out" / name).convert("L"))
        assert min(picture.shape) > 300 and picture.std() > 10
    assert "maps.png" in capsys.readouterr().out
