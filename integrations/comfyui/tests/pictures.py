"""Makes the example workflows, their pictures and the picture of the ComfyUI page, with a real server and a real page.

    python -m comfyui.tests.pictures FIRST.mp4 SECOND.mp4     # in integrations/; two clips for Compare Videos to play

needs what tests/test_page.py needs.
"""

import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from . import real

PACK = Path(__file__).parents[1]
PICTURE = PACK.parents[1] / "docs" / "guide" / "comfyui.png"
SIZE = {"width": 1680, "height": 1250}
IN_THE_DOCS = {"x": 0, "y": 0, "width": 1680, "height": 850}
QUIET = {"Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}  # settings of the page
MODELS = {  # as ComfyUI's own templates name them
    "diffusion_models": "wan2.1_t2v_1.3B_fp16.safetensors",
    "text_encoders": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "vae": "wan_2.1_vae.safetensors",
}
PROMPT = "A kitten plays the piano, close-up, warm light"
AVOID = "blurry, static, low quality, distorted hands, flicker"

Placed = dict[str, tuple[dict[str, Any], tuple[int, int]]]  # id -> node in API format, its place on the canvas


def text_to_video(compared: bool) -> Placed:
    """Wan 2.1 with Enhance A Video; compared: beside the plain model, with the same noise, and with a report."""
    from .test_server import enhance_node, node

    graph: Placed = {
        "1": (node("UNETLoader", unet_name=MODELS["diffusion_models"], weight_dtype="default"), (40, 60)),
        "2": (node("CLIPLoader", clip_name=MODELS["text_encoders"], type="wan"), (40, 220)),
        "3": (node("VAELoader", vae_name=MODELS["vae"]), (40, 400)),
        "4": (node("ModelSamplingSD3", model=["1", 0], shift=8.0), (360, 60)),
        "5": (_with(enhance_node(), model=["4", 0]), (800, 60)),
        "6": (node("CLIPTextEncode", clip=["2", 0], text=PROMPT), (360, 220)),
        "7": (node("CLIPTextEncode", clip=["2", 0], text=AVOID), (360, 490)),
        "8": (node("EmptyHunyuanLatentVideo", width=832, height=480, length=81, batch_size=1), (360, 760)),
        "9": (_sampler(["5", 0]), (1140, 60)),
        "10": (node("VAEDecode", samples=["9", 0], vae=["3", 0]), (1450, 60)),
        "11": (node("CreateVideo", images=["10", 0], fps=16.0), (1450, 180)),
        "12": (node("SaveVideo", video=["11", 0], filename_prefix="video/enhanced", format="auto", codec="auto"),
               (1450, 340)),
    }  # fmt: skip
    if compared:
        graph |= {
            "13": (_sampler(["4", 0]), (1140, 460)),
            "14": (node("VAEDecode", samples=["13", 0], vae=["3", 0]), (1450, 520)),
            "15": (node("EnhanceAVideoCompare", first=["14", 0], second=["10", 0], fps=16.0,
                        filename_prefix="video/compare"), (1780, 60)),
            "16": (node("EnhanceAVideoReport", model=["5", 0], after=["9", 0]), (1780, 600)),
        }  # fmt: skip
    return graph


def shown_in_the_docs(first: str, second: str) -> Placed:
    """The tiny model of the tests sampled and reported; two clips of the input folder compared."""
    from .server import MODEL
    from .test_server import enhance_node, node

    sampler = _sampler(["2", 0], positive="3", negative="3", latent="4", steps=12)
    return {
        "1": (node("UNETLoader", unet_name=MODEL, weight_dtype="default"), (40, 60)),
        "2": (_with(enhance_node(), model=["1", 0]), (400, 60)),
        "3": (node("RandomText", seed=1, tokens=16), (40, 230)),
        "4": (node("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1), (40, 420)),
        "5": (sampler, (400, 470)),
        "6": (node("EnhanceAVideoReport", model=["2", 0], after=["5", 0]), (760, 60)),
        "7": (node("LoadVideo", file=first), (760, 520)),
        "8": (node("LoadVideo", file=second), (1070, 520)),
        "9": (node("EnhanceAVideoCompare", first=["7", 0], second=["8", 0], fps=16.0, filename_prefix="video/compare"),
              (1380, 60)),
    }  # fmt: skip


def _with(made: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    return {**made, "inputs": {**inputs, **made["inputs"]}}


def _sampler(
    model: list[Any], positive: str = "6", negative: str = "7", latent: str = "8", steps: int = 30
) -> dict[str, Any]:
    from .test_server import node

    return node(
        "KSampler", model=model, positive=[positive, 0], negative=[negative, 0], latent_image=[latent, 0], seed=1,
        steps=steps, cfg=6.0, sampler_name="uni_pc", scheduler="simple", denoise=1.0,
    )  # fmt: skip


def load(page: Any, graph: Placed, width: int = SIZE["width"]) -> None:
    """Lay a workflow out on the canvas so that it fills the width."""
    untitled = {key: {**made, "_meta": {}} for key, (made, _) in graph.items()}
    page.evaluate("graph => window.app.loadApiJson(graph, 'workflow')", untitled)
    page.wait_for_timeout(1500)
    page.evaluate(
        """places => {
            for (const node of window.app.graph._nodes) {
                node.pos = places[node.id];
                if (node.type === "EnhanceAVideo") node.setSize([300, 350]);
                if (node.type === "EnhanceAVideoReport") node.setSize([420, 400]);
                for (const widget of node.widgets ?? []) {
                    if (widget.name === "control_after_generate") widget.value = "fixed";
                }
            }
            const right = Math.max(...window.app.graph._nodes.map((n) => n.pos[0] + n.size[0]));
            const scale = Math.min((window.innerWidth - 90) / right, 1.1);
            Object.assign(window.app.canvas.ds, { scale, offset: [60 / scale, 70 / scale] });
            window.app.canvas.setDirty(true, true);
        }""",
        {key: list(place) for key, (_, place) in graph.items()},
    )
    page.wait_for_timeout(1500)


def nodes_alone(page: Any) -> dict[str, float]:
    """The part of the page that its nodes take up, a little around them; what lies above it moved out of the way."""
    return page.evaluate(
        """() => {
            const { canvas, graph } = window.app, { scale } = canvas.ds, edge = 24;
            canvas.ds.offset[1] = 140 / scale;
            canvas.setDirty(true, true);
            const low = Math.max(...graph._nodes.map((n) => n.pos[1] + n.size[1]));
            const right = Math.max(...graph._nodes.map((n) => n.pos[0] + n.size[0]));
            const [x, y] = [60, 90], bottom = (low + canvas.ds.offset[1]) * scale + edge;
            const end = (right + canvas.ds.offset[0]) * scale + edge;
            const { innerWidth, innerHeight } = window;
            return { x, y, width: Math.min(end, innerWidth) - x, height: Math.min(bottom, innerHeight) - y };
        }"""
    )


def picture(page: Any, path: Path, clip: dict[str, float] | None = None) -> None:
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    shot = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    shot.save(path, quality=85) if path.suffix == ".jpg" else shot.quantize(128).save(path, optimize=True)


def main(first: str, second: str) -> None:
    from .server import prepared, running
    from .test_page import opened, run

    with tempfile.TemporaryDirectory() as folder:
        base = prepared(Path(folder))
        for clip in (first, second):
            shutil.copy(clip, base / "input")
        for kind, name in MODELS.items():  # by name alone, so that the page does not mark them as missing
            (base / "models" / kind).mkdir(exist_ok=True)
            (base / "models" / kind / name).touch()
        with running(base) as server, opened(server, SIZE) as page:
            page.evaluate(
                "async all => { for (const [k, v] of Object.entries(all)) await "
                "window.app.extensionManager.setting.set(k, v); }",
                QUIET,
            )
            examples = PACK / "example_workflows"
            for name, compared in (("Wan 2.1 enhanced", False), ("Wan 2.1 plain and enhanced", True)):
                load(page, text_to_video(compared))
                workflow = page.evaluate("() => window.app.graph.serialize()")
                (examples / f"{name}.json").write_text(json.dumps(workflow, indent=1) + "\n")
                picture(page, examples / f"{name}.jpg", nodes_alone(page))
            load(page, shown_in_the_docs(Path(first).name, Path(second).name))
            run(page, server)
            page.wait_for_timeout(6000)  # until the page's own message is gone
            picture(page, PICTURE, IN_THE_DOCS)


if __name__ == "__main__":
    real.start_or_exit()
    main(*sys.argv[1:])
