"""Enhance-A-Video for ComfyUI: this folder goes into `custom_nodes/`; ComfyUI finds its nodes and web files here."""

import sys
from importlib.util import find_spec
from pathlib import Path

# The library: the one that came in this folder's archive, an installed one, or that of the repository around it.
for _place in (Path(__file__).parent / "library", None, Path(__file__).resolve().parents[2] / "src"):
    if _place is None and find_spec("enhance_a_video") is not None:
        break
    if _place is not None and (_place / "enhance_a_video").is_dir():
        sys.path.append(str(_place))
        break

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI, which alone has what the nodes are made of."""
    from .extension import EnhanceAVideoExtension

    return EnhanceAVideoExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
