"""Old workflows: the Enhance-A-Video nodes of KJNodes are offered as replaceable by ours where they are not installed.

Their weight is our temperature. What differs is on the node's help page.
"""

from comfy_api.latest import ComfyAPI, io

OLD_NODES = {"WanVideoEnhanceAVideoKJ": "weight", "LTXVEnhanceAVideoKJ": "weight"}  # id -> the input with its weight


async def register_replacements() -> None:
    """ComfyUI offers a replacement only for a node that it does not have."""
    if not hasattr(io, "NodeReplace"):  # before ComfyUI knew replacements
        return
    for old, weight in OLD_NODES.items():
        await ComfyAPI().node_replacement.register(
            io.NodeReplace(
                new_node_id="EnhanceAVideo",
                old_node_id=old,
                old_widget_ids=[weight],
                input_mapping=[
                    {"new_id": "model", "old_id": "model"},
                    {"new_id": "gain", "set_value": "temperature"},
                    {"new_id": "gain.temperature", "old_id": weight},
                    {"new_id": "start_percent", "set_value": 0.0},
                    {"new_id": "end_percent", "set_value": 1.0},
                ],
                output_mapping=[{"new_idx": 0, "old_idx": 0}],
            )
        )
