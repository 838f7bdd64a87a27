"""What ComfyUI gets from this pack: its nodes, and old nodes that they replace."""

from comfy_api.latest import ComfyExtension, io

from .enhance_node import EnhanceAVideo
from .replacements import register_replacements


class EnhanceAVideoExtension(ComfyExtension):
    async def on_load(self) -> None:
        await register_replacements()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [EnhanceAVideo]
