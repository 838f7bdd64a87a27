"""The models in models/: they load, follow a simple prompt, and the method acts on them and is undone."""

from pathlib import Path

import diffusers
import numpy as np
import pytest

from enhance_a_video import enhance
from enhance_a_video.embedded import checker, world
from enhance_a_video.generation import pipelines
from training.architectures import ARCHITECTURES

FOLDER = Path(__file__).parent.parent / "models"
PROMPTS = ("A red ball moves to the right over a green meadow.", "A blue box rises in the desert.")


@pytest.fixture(scope="module", params=sorted(path.name for path in FOLDER.iterdir() if path.is_dir()))
def model(request):
    if request.param == "joint" and not hasattr(diffusers, "MotifVideoPipeline"):
        pytest.skip("older diffusers")
    return ARCHITECTURES[request.param], pipelines.load(FOLDER / request.param, device="cpu")


def test_it_shows_what_is_requested(model):
    architecture, pipe = model
    found = []
    for seed, prompt in enumerate(PROMPTS):
        frames = pipelines.generate(pipe, prompt, seed=seed)
        assert frames.shape == (architecture.frames, 64, 64, 3)
        found.append(checker.check(frames, world.parse_caption(prompt)))
    assert np.mean([row["colour_right"] for row in found]) == np.mean([row["backdrop_right"] for row in found]) == 1
    assert np.mean([row["attributes_right"] for row in found]) >= 0.6


def test_the_method_acts_on_it_and_is_undone(model):
    architecture, pipe = model
    plain = pipelines.generate(pipe, PROMPTS[0], seed=0, steps=3)
    with enhance(pipe, strength=1.0, start=0.0, end=1.0) as handle:
        enhanced = pipelines.generate(pipe, PROMPTS[0], seed=0, steps=3)
    summary = handle.summary()
    assert (summary.num_frames == architecture.codec.latent[1]).all() and summary.active.all()
    assert len(summary.layers) == {"joint": 6, "temporal": 4}[architecture.name]
    assert summary.gain.max() > 1.1 and ((summary.mass > 0) & (summary.mass < 1)).all()
    assert (enhanced != plain).mean() > 0.1
    assert (pipelines.generate(pipe, PROMPTS[0], seed=0, steps=3) == plain).all()


def test_defaults_and_card_are_there(model):
    architecture, pipe = model
    known = pipelines.defaults(pipe)
    assert {name: known[name] for name in ("frames", "fps", "guidance")} == {
        "frames": architecture.frames, "fps": architecture.fps, "guidance": architecture.guidance,
    }  # fmt: skip
    assert "held-out" in (FOLDER / architecture.name / "README.md").read_text(encoding="utf-8")
