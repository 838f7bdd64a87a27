"""The packaged model: it loads as users load it, follows its prompts, and the installed wheel runs the demo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from enhance_a_video import enhance
from enhance_a_video.embedded import model_folder, world
from enhance_a_video.embedded.checker import check
from enhance_a_video.generation.pipelines import generate, load

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pipe():
    return load("embedded", device="cpu", dtype="float32")


def test_it_is_a_plain_wan_pipeline():
    from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
    from transformers import UMT5EncoderModel

    pipe = WanPipeline.from_pretrained(model_folder())
    assert type(pipe.vae) is AutoencoderKLWan
    assert type(pipe.transformer) is WanTransformer3DModel
    assert type(pipe.text_encoder) is UMT5EncoderModel
    assert all(p.isfinite().all() for part in (pipe.vae, pipe.transformer) for p in part.parameters())


def test_it_is_small_enough_to_ship():
    size = sum(file.stat().st_size for file in model_folder().rglob("*") if file.is_file())
    assert size <= 25 * 2**20


def test_its_card_names_where_it_comes_from():
    card = (model_folder() / "README.md").read_text(encoding="utf-8")
    for word in ("license: apache-2.0", "python -m training.train", "hours", "loss"):
        assert word in card


def test_same_seed_same_clip(pipe):
    a, b, c = (generate(pipe, "A red ball rises in the desert.", seed=s, steps=4) for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert a.shape == (world.FRAMES, world.SIZE, world.SIZE, 3)


def test_it_follows_its_prompts(pipe):
    """One-thing prompts: far above chance (1/8 colours, 1/5 kinds, 1/2 textures, 1/7 motions, 1/5 backdrops)."""
    rows = []
    for i, (colour, kind) in enumerate(zip(world.COLOURS, (*world.KINDS, "ball", "star", "ring"), strict=True)):
        motion = list(world.MOTIONS)[i % len(world.MOTIONS)]
        scene = world.Scene((world.Thing(colour, kind, "plain", motion),), list(world.BACKDROPS)[i % 5])
        rows.append(check(generate(pipe, world.caption(scene), seed=i, steps=16), scene))
    assert np.mean([row["attributes_right"] for row in rows]) >= 0.8
    assert np.mean([row["colour_right"] for row in rows]) >= 0.8
    assert np.mean([row["kind_right"] for row in rows]) >= 0.5
    assert np.mean([row["backdrop_right"] for row in rows]) >= 0.9


def test_it_bears_the_longest_padded_text(pipe):
    """Users who call WanPipeline directly get its default of 512 tokens: less good than 32, but trained for."""
    rows = []
    wanted = [("blue", "box", "meadow"), ("green", "star", "night"), ("yellow", "ring", "sea")]
    for seed, (colour, kind, place) in enumerate(wanted):
        scene = world.Scene((world.Thing(colour, kind, "plain", "up"),), place)
        frames = generate(pipe, world.caption(scene), seed=seed, steps=12, extra={"max_sequence_length": 512})
        rows.append(check(frames, scene))
    assert np.mean([row["backdrop_right"] for row in rows]) == 1
    assert np.mean([row["colour_right"] for row in rows]) >= 0.6


def test_one_line_on_one_line_off(pipe):
    prompt = "A green star moves in a circle in front of a brick wall."
    plain = generate(pipe, prompt, seed=5, steps=6)
    with enhance(pipe, strength=1.0, start=0.0, end=1.0) as handle:
        enhanced = generate(pipe, prompt, seed=5, steps=6)
    summary = handle.summary()
    assert summary.gain.max() > 1 and len(summary.layers) == 6 and summary.active.all()
    assert not np.array_equal(plain, enhanced)
    assert np.array_equal(plain, generate(pipe, prompt, seed=5, steps=6))


def test_the_installed_wheel_runs_the_demo_in_an_empty_folder(tmp_path):
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT], check=True, timeout=300)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, timeout=300)
    code = (
        "import enhance_a_video, sys; from enhance_a_video.cli import main; "
        "print(enhance_a_video.__file__, file=sys.stderr); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--out", "here", "--json"],
        cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stderr
    assert json.loads(done.stdout)
    for name in ("baseline.mp4", "enhanced.mp4", "side_by_side.mp4", "report.html"):
        assert (empty / "here" / name).stat().st_size > 1000
    assert not torch.cuda.is_initialized()
