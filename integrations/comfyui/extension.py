"""What ComfyUI gets from this pack: its nodes, and old nodes that they replace."""

from comfy_api.latest import ComfyExtension, io

from .compare_node import EnhanceAVideoCompare
from .enhance_node import EnhanceAVideo
from .replacements import register_replacements
from .report_node import EnhanceAVideoReport


class EnhanceAVideoExtension(ComfyExtension):
    async def on_load(self) -> None:
        await register_replacements()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [EnhanceAVideo, EnhanceAVideoReport, EnhanceAVideoCompare]
