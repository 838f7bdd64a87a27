"""Context parallelism: two processes (gloo, on the CPU) share each video, as diffusers' `enable_parallelism` cuts it
along the sequence. Only sequences of nothing but video are cut here; what else is refused and tested is in
`tests/test_sharding.py`, and the recipe for one long video over several GPUs in docs/guide/several-gpus.md.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import FAMILIES, ON, acts, by_hand, run, same
from test_sharding import cpu_flash

from enhance_a_video import enhance

DEGREES = {"Ulysses": {"ulysses_degree": 2}, "Ring": {"ring_degree": 2}}
COLUMNS = ("Wan", "LTX-Video")  # the others have no plan in diffusers


def inputs(column):
    """LTX-Video without a text mask, which fails in diffusers when the text is not cut."""
    return {**FAMILIES[column].tiny.inputs(), **({"encoder_attention_mask": None} if column == "LTX-Video" else {})}


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.accelerator.device_count = lambda: 1  # diffusers divides by it, and a CPU has none
    from diffusers import ContextParallelConfig
    from diffusers.models import attention_dispatch

    attention_dispatch._native_flash_attention_forward_op = (
        cpu_flash  # of its own, none with log-sum-exps runs on a CPU
    )
    found = {}
    for column in COLUMNS:
        for name, degrees in DEGREES.items():
            model = FAMILIES[column].tiny.model()
            model.set_attention_backend("_native_flash" if name == "Ring" else "native")
            model.enable_parallelism(config=ContextParallelConfig(**degrees))
            plain = run(model, inputs(column))
            with enhance(model, **ON):
                enhanced = run(model, inputs(column))
            found[column, name] = (plain, enhanced, run(model, inputs(column)))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank got, {(family, kind): (plain, enhanced, plain again)}."""
    folder = tmp_path_factory.mktemp("ranks")
    here = Path(__file__).parent
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent), before])
    try:
        mp.spawn(worker, args=(30500 + os.getpid() % 1000, folder), nprocs=2)
    finally:
        os.environ["PYTHONPATH"] = before
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs gloo")
@pytest.mark.parametrize(
    ("name", "column"), [pytest.param(n, c, marks=pytest.mark.cell(n, c)) for n in DEGREES for c in FAMILIES]
)
def test_two_processes(name, column, request, not_in_diffusers):
    """On both ranks: one process written out by hand, to 1e-5; the parallel model acts and is undone."""
    family = FAMILIES[column]
    model = family.tiny.model()
    if column not in COLUMNS:
        assert getattr(model, "_cp_plan", None) is None
        not_in_diffusers("it has no plan for cutting this class")
        return
    with by_hand(family, model):
        expected = run(model, inputs(column))
    for found in request.getfixturevalue("ranks"):
        plain, enhanced, again = found[column, name]
        assert same(enhanced, expected) and acts(enhanced, plain) and torch.equal(plain, again)
