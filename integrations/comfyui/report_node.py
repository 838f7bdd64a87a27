"""The node Enhance A Video Report: what an enhanced model did while it sampled, as a picture and as text."""

import torch
from comfy_api.latest import io, ui

from .patch import KEY, Patch
from .report_plot import plot

TIPS = {
    "model": "The model from Enhance A Video, or from any node behind it.",
    "after": "What the sampler returned, or anything made of it: the report is written when that is there.",
}


class EnhanceAVideoReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EnhanceAVideoReport",
            display_name="Enhance A Video Report",
            category="model/patch",
            description=(
                "Shows how much the frames attended to each other in each layer and step of the last sampling run, and "
                "the gain that Enhance A Video applied."
            ),
            search_aliases=["Enhance-A-Video", "FETA", "attention", "cross-frame", "report"],
            inputs=[
                io.Model.Input("model", tooltip=TIPS["model"]),
                io.AnyType.Input("after", tooltip=TIPS["after"]),
            ],
            outputs=[io.Image.Output(display_name="plot"), io.String.Output(display_name="text")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: io.Model.Type, after: object) -> io.NodeOutput:
        patches = [wrapper.__self__ for wrapper in model.get_wrappers("apply_model", KEY)]
        if not patches:
            raise ValueError("This model does not come from Enhance A Video: connect the model that the sampler got.")
        text = "\n\n".join(_text(patch) for patch in patches)
        pictures = [torch.from_numpy(plot(patch.record.summary())) for patch in patches if patch.record.steps]
        if not pictures:
            raise ValueError("The model has not been sampled yet: connect `after` to what the sampler returned.")
        image = torch.stack(pictures)  # (nodes, height, width, 3): all plots are of one size
        return io.NodeOutput(image, text, ui=ui.PreviewImage(image, cls=cls))


def _text(patch: Patch) -> str:
    return f"{patch.record.sentence()}\n{patch.record.summary()}"
