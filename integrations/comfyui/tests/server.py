"""A real ComfyUI server on a CPU, with this pack and a tiny random Wan model and VAE that its own loaders read.

    python -m comfyui.tests.server FOLDER        # in integrations/; prints the address and stays until interrupted

needs ENHANCE_A_VIDEO_COMFYUI (see real.py). Text encoders are large by their code, so one small node of the tests,
RandomText, takes their place.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfyui_archive
import torch

from . import real

MODEL, VAE = "tiny_wan.safetensors", "tiny_wan_vae.safetensors"

# Read by the server's Python before anything else: what real.py does in the tests' own process.
SITE = """
import sys, types, importlib.machinery, torch
if not hasattr(torch.ops.torchvision, "nms"):
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
    sys.modules[name] = module = types.ModuleType(name)
    module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
"""

RANDOM_TEXT = '''
import torch

class RandomText:
    """Random numbers in the place of an encoded prompt."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": ("INT", {"default": 0}), "tokens": ("INT", {"default": 16})}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "tests"

    def make(self, seed, tokens):
        text = torch.randn(1, tokens, 4096, generator=torch.Generator().manual_seed(seed))
        return ([[text, {}]],)

NODE_CLASS_MAPPINGS = {"RandomText": RandomText}
'''


def prepared(folder: Path) -> Path:
    """ComfyUI's base directory with the pack as `make comfyui` builds it, the tests' node and the tiny models."""
    for name in ("custom_nodes", "input", "output", "temp", "user", "site", "models/diffusion_models", "models/vae"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    (folder / "custom_nodes" / "random_text.py").write_text(RANDOM_TEXT)
    with zipfile.ZipFile(comfyui_archive.build(folder / "pack.zip")) as archive:
        archive.extractall(folder / "custom_nodes")
    _save_models(folder / "models")
    return folder


def _save_models(folder: Path) -> None:
    """Sizes by which ComfyUI's loaders recognise the weights: heads of 128, a text of 4096."""
    import comfy.ldm.wan.vae
    from safetensors.torch import save_file

    wan = {"dim": 256, "ffn_dim": 256, "num_heads": 2, "num_layers": 3, "freq_dim": 256, "text_dim": 4096}
    family = real.Family("Wan", "WAN21_T2V", {**wan, "in_dim": 16, "out_dim": 16}, (16, 5, 6, 8), (5, 12))
    network = real.model(family).model.diffusion_model
    save_file(network.state_dict(), folder / "diffusion_models" / MODEL)
    vae = comfy.ldm.wan.vae.WanVAE(
        dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]
    )
    vae.requires_grad_(False)
    real.fill(vae, torch.Generator().manual_seed(2))
    save_file(vae.state_dict(), folder / "vae" / VAE)


class Server:
    """A running server, through its HTTP API."""

    def __init__(self, address: str, log: Path):
        self.address, self.log = address, log

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            data = answer.read()
        return json.loads(data) if answer.headers.get_content_type() == "application/json" else data

    def run(self, prompt: dict[str, Any], seconds: float = 300) -> dict[str, Any]:
        """Queue a workflow in API format; its history entry once it is done. RuntimeError for one that fails."""
        body = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(
            self.address + "/prompt", body, {"Content-Type": "application/json", "Origin": self.address}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                key = json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"/history/{key}")
            if key in history:
                if history[key]["status"]["status_str"] != "success":
                    raise RuntimeError(json.dumps(history[key]["status"], indent=1))
                return history[key]
            time.sleep(0.3)
        raise RuntimeError(f"not done after {seconds} s: see {self.log}")


@contextlib.contextmanager
def running(folder: Path, seconds: float = 240) -> Iterator[Server]:
    """ComfyUI's main.py on a free port, stopped at the end."""
    checkout, log = os.environ[real.CHECKOUT], folder / "server.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "main.py", "--cpu", "--port", str(port), "--base-directory", str(folder),
        "--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}  # and not the library of the tests
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=out, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", log)
    try:
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                server.get("/system_stats")
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    real.start_or_exit()
    with running(prepared(Path(sys.argv[1]))) as server:
        print(server.address, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(60)
