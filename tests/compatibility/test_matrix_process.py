"""One process: several models, threads, copies, pickles and saved files."""

import copy
import filecmp
import os
import pickle
import threading

import pytest
import torch
from cells import cells
from common import FAMILIES, ON, acts, check, enhanced_output, generate, run, same

from enhance_a_video import Enhancement, Settings, enhance
from enhance_a_video.enhancement import enhancement_of


@cells("two models, enhanced differently")
def test_two_models(column):
    """Two models of the family with two strengths at once, called in turns: each equal to itself alone, to the bit."""
    family = FAMILIES[column]
    x = family.tiny.inputs()
    models = [family.tiny.model(), family.tiny.model()]
    plain = run(models[0], x)
    alone = [enhanced_output(m, lambda m=m: run(m, x), temperature=t) for m, t in zip(models, (4.0, 12.0), strict=True)]
    with enhance(models[0], **{**ON, "temperature": 4.0}), enhance(models[1], **{**ON, "temperature": 12.0}):
        together = [run(model, x) for model in (*models, *models)]
    assert all(torch.equal(a, b) for a, b in zip([*alone, *alone], together, strict=True))
    assert acts(alone[0], plain) and acts(alone[1], alone[0])
    assert all(torch.equal(run(model, x), plain) for model in models)


@cells("an enhanced model beside a plain one")
def test_beside_a_plain_model(column):
    """A second model that shares every class with the enhanced one gives its plain output to the bit meanwhile."""
    family = FAMILIES[column]
    x = family.tiny.inputs()
    model, bystander = family.tiny.model(), family.tiny.model()
    plain = run(bystander, x)
    with enhance(model, **ON):
        assert acts(run(model, x), plain) and torch.equal(run(bystander, x), plain)
    assert torch.equal(run(model, x), plain)


@cells("threads")
def test_threads(column):
    """Four threads, two on each of two models that are enhanced differently, with other frame counts: each equal to
    itself alone, to 1e-5 (in eager mode; a compiled model needs one thread at a time)."""
    family = FAMILIES[column]
    models = [family.tiny.model(), family.tiny.model()]
    jobs = [(m, family.tiny.inputs(batch=1, frames=f)) for m in models for f in (2, 4)]
    plain = [run(m, x) for m, x in jobs]
    with enhance(models[0], **{**ON, "temperature": 4.0}), enhance(models[1], **{**ON, "temperature": 12.0}):
        alone = [run(m, x) for m, x in jobs]
        right = []

        def work(job, expected):
            right.extend(same(run(*job), expected) for _ in range(6))

        threads = [threading.Thread(target=work, args=pair) for pair in zip(jobs, alone, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(right) == 24 and all(right)
    assert all(acts(e, p) for e, p in zip(alone, plain, strict=True))
    assert all(torch.equal(run(*job), p) for job, p in zip(jobs, plain, strict=True))


@cells("deepcopy")
def test_deepcopy(column):
    """A deep copy of an enhanced model is plain, to the bit, can be enhanced by itself, and the original goes on."""
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    plain = run(model, x)
    with enhance(model, **ON):
        enhanced = run(model, x)
        twin = copy.deepcopy(model)
        assert torch.equal(run(twin, x), plain) and enhancement_of(twin) is None
        check(twin, lambda: run(twin, x), enhanced)
        assert torch.equal(run(model, x), enhanced)
    assert torch.equal(run(model, x), plain)


@cells("pickle of an enhanced model")
def test_pickled_model(column, tmp_path):
    """What `pickle` and `torch.save` write of an enhanced model is the plain model, to the bit, and once enhanced it
    gives the same output."""
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    plain = run(model, x)
    with enhance(model, **ON):
        enhanced = run(model, x)
        torch.save(model, tmp_path / "model.pt")
        twins = [pickle.loads(pickle.dumps(model)), torch.load(tmp_path / "model.pt", weights_only=False)]
    for twin in twins:
        assert torch.equal(run(twin, x), plain) and enhancement_of(twin) is None
        check(twin, lambda twin=twin: run(twin, x), enhanced)
    assert torch.equal(run(model, x), plain)


@cells("pickle of Settings")
@pytest.mark.parametrize("chosen", [{"strength": 0.7}, {"temperature": 4.0, "layers": slice(1, None), "end": 0.9}])
def test_pickled_settings(column, chosen):
    """Settings through `pickle` and through `to_dict`/`from_dict` are equal, and enhance to the same output, to the
    bit."""
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs(timestep=900.0)
    settings = Settings(**chosen)
    plain, outputs = run(model, x), []
    for one in (settings, pickle.loads(pickle.dumps(settings)), Settings.from_dict(settings.to_dict())):
        assert one == settings
        with Enhancement(model, one):
            outputs.append(run(model, x))
    assert all(torch.equal(output, outputs[0]) for output in outputs) and acts(outputs[0], plain)
    assert torch.equal(run(model, x), plain)


@cells("save_pretrained of the pipeline")
def test_saved_pipeline(column, tmp_path):
    """`pipe.save_pretrained()` while enhanced and after a run: the same files as those of the plain pipeline, byte for
    byte."""
    family = FAMILIES[column]
    pipe, prompt = family.pipeline()
    plain = generate(pipe, **prompt)
    pipe.save_pretrained(tmp_path / "plain")
    with enhance(pipe, **ON):
        assert acts(generate(pipe, **prompt), plain)
        pipe.save_pretrained(tmp_path / "enhanced")
    names = {
        folder: sorted(os.path.relpath(f, tmp_path / folder) for f in (tmp_path / folder).rglob("*") if f.is_file())
        for folder in ("plain", "enhanced")
    }
    assert names["plain"] == names["enhanced"] and len(names["plain"]) >= 3
    for name in names["plain"]:
        assert filecmp.cmp(tmp_path / "plain" / name, tmp_path / "enhanced" / name, shallow=False), name
    assert torch.equal(generate(pipe, **prompt), plain)


@cells("another dtype while enhanced")
def test_other_dtype(column):
    """`model.to(torch.bfloat16)` while enhanced: equal to the bfloat16 model that is enhanced afterwards, to the
    bit."""
    family = FAMILIES[column]
    x = family.tiny.inputs()
    half = {k: v.bfloat16() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in x.items()}
    model, later = family.tiny.model(), family.tiny.model().to(torch.bfloat16)
    with enhance(model, **ON):
        run(model, x)
        model.to(torch.bfloat16)
        enhanced = run(model, half)
    reference = enhanced_output(later, lambda: run(later, half))
    assert torch.equal(enhanced, reference) and acts(enhanced.float(), run(model, half).float())
    assert torch.equal(run(model, half), run(later, half))
