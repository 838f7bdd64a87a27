"""Enhance-A-Video for ComfyUI: this folder goes into `custom_nodes/`; ComfyUI finds its nodes and web files here."""

import sys
from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _find_library() -> None:
    """The library in this folder's archive, an installed one, or that of the repository around this folder."""
    if (_HERE / "library" / "enhance_a_video").is_dir():
        sys.path.insert(0, str(_HERE / "library"))
    elif find_spec("enhance_a_video") is None:
        sys.path.append(str(_HERE.parents[1] / "src"))
        if find_spec("enhance_a_video") is None:
            raise ImportError(
                "Enhance A Video: its library is missing. Use the archive that `make comfyui` builds, or install "
                "enhance-a-video into ComfyUI's Python."
            )


_find_library()
WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI, which alone has what the nodes are made of."""
    from .extension import EnhanceAVideoExtension

    return EnhanceAVideoExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
