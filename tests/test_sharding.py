"""Context parallelism: two processes (gloo, CPU) that share one video compute what one process computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_models import TINY, noise, run

from enhance_a_video import enhance
from enhance_a_video.errors import TokenLayoutError, UnsupportedModelError
from enhance_a_video.generation import video
from enhance_a_video.intensity import site_mass
from enhance_a_video.operators import AttentionCall
from enhance_a_video.policies import Odds
from enhance_a_video.sharding import Shards, by_heads, by_tokens, gathered

ALWAYS = {"start": 0.0, "end": 1.0}
CASES = {  # (degrees, frames, sites): with 3 frames the cut goes through the middle of one
    "ulysses": ({"ulysses_degree": 2}, 4, 7),
    "ring": ({"ring_degree": 2}, 4, 7),
    "ulysses, a cut frame": ({"ulysses_degree": 2}, 3, 7),
    "ring, exact": ({"ring_degree": 2}, 3, None),
}


def the_model(degrees=()):
    model = TINY["wan"].model()
    model.set_attention_backend("_native_flash" if "ring_degree" in degrees else "native")
    return model


def cpu_flash(ctx, query, key, value, mask, dropout, causal, scale, gqa, return_lse=False, *args, **kwargs):
    """Ring attention needs log-sum-exps; of diffusers' kernels that give them none runs on a CPU, torch's own does."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(x.transpose(1, 2).contiguous() for x in (query, key, value)), scale=scale
    )
    return out.transpose(1, 2), lse.transpose(1, 2)


def enhanced(model, frames, sites, **options):
    options = {"strength": 2.0, **ALWAYS, **options}
    if options.get("odds"):
        del options["strength"]
    with enhance(model, sites=sites, **options) as handle:
        output = run(model, TINY["wan"].inputs(frames=frames))
    return output, handle.summary()


def worker(rank, port, folder):
    """One of two ranks: every case, saved; what is wrong is raised."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.accelerator.device_count = lambda: 1  # diffusers divides by it, and a CPU has none
    from diffusers import ContextParallelConfig
    from diffusers.models import attention_dispatch

    attention_dispatch._native_flash_attention_forward_op = cpu_flash
    found = {}
    for name, (degrees, frames, sites) in CASES.items():
        model = the_model(degrees)
        model.enable_parallelism(config=ContextParallelConfig(**degrees))
        output, summary = enhanced(model, frames, sites, attention_maps=True)
        found[name] = {"output": output, "gain": summary.gain, "maps": summary.attention_maps}
        output, summary = enhanced(model, frames, sites, odds=3.0)
        numbers = {key: getattr(summary, key) for key in ("gain", "mass", "clipped", "scaled_whole")}
        found[name, "odds"] = {"output": output, **numbers}
    query = noise(2, 2, 8 * 4, 8)
    part = query[:, :, (0, 20)[rank] : (20, 32)[rank]]  # uneven parts
    found["uneven"] = gathered(part, part, 4, 3, Shards(rank, 2, dist.group.WORLD, uneven=True))[0]
    shards = Shards(rank, 2, dist.group.WORLD, uneven=True)
    found["there"] = by_heads(part, shards)
    found["and back"] = by_tokens(found["there"], part.shape[2], shards)
    found["part"] = part
    try:
        gathered(part[:, :, :7], part[:, :, :7], 4, 3, Shards(rank, 2, dist.group.WORLD))
    except TokenLayoutError as error:
        found["error"] = str(error)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), path])
    try:
        mp.spawn(worker, args=(29500 + os.getpid() % 1000, folder), nprocs=2)
    finally:
        os.environ["PYTHONPATH"] = path
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(ranks, name):
    _, frames, sites = CASES[name]
    expected, summary = enhanced(the_model(), frames, sites, attention_maps=True)
    plain = run(the_model(), TINY["wan"].inputs(frames=frames))
    assert (expected - plain).norm() > 0.01 * plain.norm()
    for found in ranks:
        assert (found[name]["output"] - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert abs(found[name]["gain"] - summary.gain).max() <= 1e-6 and (summary.gain > 1).all()
        assert abs(found[name]["maps"] - summary.attention_maps).max() <= 1e-6


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
@pytest.mark.parametrize("name", CASES)
def test_odds_of_two_processes_equal_those_of_one(ranks, name):
    _, frames, sites = CASES[name]
    expected, summary = enhanced(the_model(), frames, sites, odds=3.0)
    plain = run(the_model(), TINY["wan"].inputs(frames=frames))
    assert (expected - plain).norm() > 0.01 * plain.norm()
    for rank in ranks:
        found = rank[name, "odds"]
        assert (found["output"] - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert not found["scaled_whole"] and (found["gain"] > 1).all()
        for key in ("gain", "mass", "clipped"):
            assert abs(found[key] - getattr(summary, key)).max() <= 1e-6


def test_parts_are_exchanged_and_come_back(ranks):
    query = noise(2, 2, 8 * 4, 8)
    for rank, found in enumerate(ranks):
        assert torch.equal(found["there"], query[:, rank : rank + 1])
        assert torch.equal(found["and back"], found["part"])


def test_heads_that_do_not_divide_are_scaled_as_a_whole(monkeypatch):
    from enhance_a_video.operators import output

    monkeypatch.setattr(dist, "get_rank", lambda group: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda group: 3)
    whole = {}

    def gathered(query, key, num_frames, *_):
        whole.update(heads=query.shape[1])
        return tuple(x.unflatten(2, (num_frames, -1)) for x in (query, key))

    monkeypatch.setattr(output, "gathered", gathered)
    model = TINY["wan"].model()
    with enhance(model, odds=2.0) as handle:
        first = handle._denoisers[0].layers[0]
        query = noise(1, 2, 4 * 6, 8)
        handle._denoisers[0].open((), TINY["wan"].inputs())
        call = AttentionCall(query, query, query, 4, shards=Shards(0, 3, None))
        seen, output = first.observe(call)
        assert (
            seen.masses.ndim == 2
            and output is None
            and whole == {"heads": 2}
            and "2 heads do not divide among 3" in first.whole
        )
    with enhance(model, policy=Odds(2.0)) as handle:
        handle._denoisers[0].open((), TINY["wan"].inputs())
        with pytest.raises(UnsupportedModelError, match="2 heads do not divide among 3 devices"):
            handle._denoisers[0].layers[0].observe(call)


def test_uneven_parts_are_put_together(ranks):
    query = noise(2, 2, 8 * 4, 8)
    for found in ranks:
        assert torch.allclose(
            site_mass(found["uneven"], found["uneven"], 4, sites=None), site_mass(query, query, 4, sites=3), atol=1e-6
        )


def test_tokens_that_do_not_divide_are_an_error_on_every_rank(ranks):
    for found in ranks:
        assert "14 video tokens on 2 devices do not divide into 4 frames" in found["error"]


class _Parallel:
    """A parallel config as a model carries it, without processes behind it."""

    tensor_parallel_config = None

    class context_parallel_config:
        class _flattened_mesh:
            get_group = staticmethod(lambda: None)


def test_a_sequence_with_text_is_refused(monkeypatch):
    monkeypatch.setattr(dist, "get_rank", lambda group: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    model = TINY["hunyuan"].model()
    with enhance(model, **ALWAYS):
        model.transformer_blocks[0].attn.processor._parallel_config = _Parallel
        with pytest.raises(TokenLayoutError, match="holds more than video"):
            run(model, TINY["hunyuan"].inputs())


def test_tensor_parallelism_is_refused():
    model = TINY["wan"].model()
    with enhance(model, **ALWAYS):
        model._parallel_config = type("Config", (), {"tensor_parallel_config": object()})()
        with pytest.raises(UnsupportedModelError, match="tensor parallelism"):
            run(model, TINY["wan"].inputs())


def test_the_torchrun_recipe(tmp_path):
    """examples/several_gpus.py by torchrun on the embedded model: 2 processes see what 1 sees and make its video."""
    script = Path(__file__).parent.parent / "examples" / "several_gpus.py"
    clips, tables = [], []
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.mp4"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        done = subprocess.run(
            [*torchrun, str(script), "--steps", "4", "--out", str(out)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        tables.append([line for line in done.stdout.splitlines() if line.startswith("blocks.")])
        clips.append(video.read_video(out)[0])
    assert len(tables[0]) == 6 and tables[0] == tables[1]
    assert clips[0].shape == (33, 64, 64, 3) and clips[0].std() > 10
    assert (clips[0] == clips[1]).mean() > 0.99  # a rounding in 255 steps may fall to the other side
