"""A real ComfyUI server with this pack: workflows through its HTTP API, old nodes replaced, the page in a browser."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from . import real

real.start()

from .server import MODEL, VAE, Server, prepared, running  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(prepared(tmp_path_factory.mktemp("comfyui"))) as started:
        yield started


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def workflow(*enhance: dict[str, Any], width: int = 64, length: int = 17) -> dict[str, Any]:
    """Two samplers of one model, plain and with these nodes in a row; decoded, compared and reported. API format."""
    graph = {
        "model": node("UNETLoader", unet_name=MODEL, weight_dtype="default"),
        "vae": node("VAELoader", vae_name=VAE),
        "positive": node("RandomText", seed=1, tokens=16),
        "negative": node("RandomText", seed=2, tokens=16),
        "latent": node("EmptyHunyuanLatentVideo", width=width, height=64, length=length, batch_size=1),
        "compare": node("EnhanceAVideoCompare", first=["images plain", 0], second=["images enhanced", 0], fps=16.0,
                        filename_prefix="video/compare"),
        "report": node("EnhanceAVideoReport", model=["last", 0], after=["sampler enhanced", 0]),
        "text": node("PreviewAny", source=["report", 1]),
    }  # fmt: skip
    before = "model"
    for i, each in enumerate(enhance):
        name = "last" if i == len(enhance) - 1 else f"enhance {i}"
        graph[name], before = {**each, "inputs": {**each["inputs"], "model": [before, 0]}}, name
    for name, model in (("plain", "model"), ("enhanced", "last")):
        graph[f"sampler {name}"] = node(
            "KSampler", model=[model, 0], positive=["positive", 0], negative=["negative", 0],
            latent_image=["latent", 0], seed=1, steps=4, cfg=3.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        )  # fmt: skip
        graph[f"images {name}"] = node("VAEDecode", samples=[f"sampler {name}", 0], vae=["vae", 0])
    return graph


def enhance_node(kind: str = "odds", value: float = 2.0, **more: Any) -> dict[str, Any]:
    inputs = {"gain": kind, f"gain.{kind}": value, "start_percent": 0.0, "end_percent": 1.0, **more}
    return node("EnhanceAVideo", **inputs)


def test_a_workflow_runs_and_reports_what_it_did(server: Server):
    outputs = server.run(workflow(enhance_node()))["outputs"]
    text = outputs["text"]["text"][0]
    assert "odds 2 acted in 3 layers, 4 of 4 calls of Wan 2.1 and 2.2" in text, text
    assert "frames [5]" in text and "block 2" in text
    picture = server.get("/view?" + _query(outputs["report"]["images"][0]))
    assert picture.startswith(b"\x89PNG")
    first, second, both = (server.get("/view?" + _query(f)) for f in outputs["compare"]["compare_videos"])
    assert all(b"ftyp" in clip[:12] for clip in (first, second, both)) and first != second
    assert outputs["compare"]["compare_videos"][2]["type"] == "output"
    assert "Enhance A Video: odds 2 acted in 3 layers" in server.log.read_text()


def test_every_input_of_the_node(server: Server):
    more = {"start_percent": 0.1, "end_percent": 0.9, "blocks": "0, 2", "passes": "conditional", "observe_only": False}
    inputs = server.get("/object_info/EnhanceAVideo")["EnhanceAVideo"]["input"]
    assert {"model", "gain", *more} == {*inputs["required"], *inputs["optional"]}
    text = server.run(workflow(enhance_node("odds", 1.4, **more)))["outputs"]["text"]["text"][0]
    assert text.startswith("odds 1.4 with the prompt alone acted in 2 layers, "), text
    assert "block 2" in text and "block 1" not in text
    observed = server.run(workflow(enhance_node(observe_only=True)))["outputs"]["text"]["text"][0]
    assert observed.startswith("odds 2 observed 3 layers") and "nothing was changed" in observed


def test_a_cached_node_reports_each_run_anew(server: Server):
    """ComfyUI keeps the node's result; another latent is another run with its own frames."""
    server.run(workflow(enhance_node()))
    text = server.run(workflow(enhance_node(), length=9))["outputs"]["text"]["text"][0]
    assert "frames [3]" in text, text


@pytest.mark.parametrize("kind", ["WanVideoEnhanceAVideoKJ", "LTXVEnhanceAVideoKJ"])
def test_the_old_nodes_are_replaced(server: Server, kind: str):
    text = server.run(workflow(node(kind, latent=["latent", 0], weight=4.0)))["outputs"]["text"]["text"][0]
    assert text.startswith("temperature 4 acted"), text


CACHE = node("EasyCache", reuse_threshold=3.0, start_percent=0.0, end_percent=1.0, verbose=False)
WINDOWS = node(
    "WanContextWindowsManual", context_length=17, context_overlap=5, context_schedule="standard_static",
    context_stride=1, closed_loop=False, fuse_method="pyramid", freenoise=False, retain_first_frame=False,
    split_conds_to_windows=False,
)  # fmt: skip


NAG = node("NAGuidance", nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)
SKIPPED = node(
    "SkipLayerGuidanceDiT", double_layers="1", single_layers="", scale=3.0, start_percent=0.0, end_percent=1.0,
    rescaling_scale=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "other, calls, frames",
    [(CACHE, "2 of 4", "[9]"), (WINDOWS, "8 of 8", "[5, 6]"), (NAG, "4 of 4", "[9]"), (SKIPPED, "8 of 8", "[9]")],
    ids=["step cache", "context windows", "NAG", "skipped layers"],
)
@pytest.mark.parametrize("order", ["before", "behind"])
def test_other_nodes_of_comfyui_before_and_behind(server: Server, other: dict, calls: str, frames: str, order: str):
    """A shift in front, another guidance behind, and one that skips or divides the model's calls."""
    ours = enhance_node("temperature", 20.0)
    pair = (other, ours) if order == "before" else (ours, other)
    chain = workflow(node("ModelSamplingSD3", shift=5.0), *pair, node("CFGZeroStar"), length=33)
    text = server.run(chain)["outputs"]["text"]["text"][0]
    assert f"acted in 3 layers, {calls} calls" in text and f"frames {frames}" in text, text


def test_a_wrong_setting_is_an_error_and_a_block_that_is_not_there_a_warning(server: Server):
    with pytest.raises(RuntimeError, match="give numbers counted from 0"):
        server.run(workflow(enhance_node(blocks="all")))
    with pytest.raises(RuntimeError, match="must be smaller"):
        server.run(workflow(enhance_node(start_percent=0.5, end_percent=0.2)))
    report = workflow(node("ModelSamplingSD3", shift=5.0))
    with pytest.raises(RuntimeError, match="does not come from Enhance A Video"):
        server.run(report)
    text = server.run(workflow(enhance_node(blocks="40-50")))["outputs"]["text"]["text"][0]
    assert text.startswith("Warning") and "blocks 0 to 2, and none of those was chosen" in text


def test_help_pages_and_workflows_are_there(server: Server):
    for kind in ("EnhanceAVideo", "EnhanceAVideoReport", "EnhanceAVideoCompare"):
        assert server.get(f"/object_info/{kind}")[kind]["description"]
    served = json.dumps(server.get("/extensions"))
    assert "enhance-a-video/compare.js" in served
    templates = server.get("/workflow_templates")["enhance-a-video"]
    assert sorted(templates) == ["Wan 2.1 enhanced", "Wan 2.1 plain and enhanced"]


def _query(file: dict[str, str]) -> str:
    return urlencode(file)
