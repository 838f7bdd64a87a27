"""The node Enhance A Video: a model in, the same model enhanced out."""

import logging

from comfy_api.latest import io

from .choice import ODDS, STRENGTH, TEMPERATURE, Choice, blocks_of
from .layouts import LAYOUTS, layout_of
from .patch import KEY, Patch

SUPPORTED = ", ".join(row.name for row in LAYOUTS if not row.refused)
PASSES = ["both", "conditional"]

TIPS = {
    "model": "A video model, from its loader or from any node behind it (LoRA, shift). It is cloned, never changed.",
    "gain": "How the strength is given. Odds are the gentle default; temperature and strength are the paper's method.",
    ODDS: "How much more the frames look at each other: 1 does nothing, 2 is a good start, more is steadier with less "
    "motion. Means the same at any length of video.",
    TEMPERATURE: "The paper's enhance temperature: the whole output of a layer grows. Its authors take 4 for Wan 2.1 "
    "and HunyuanVideo, 3.4 for CogVideoX. Stronger on shorter videos.",
    STRENGTH: "The paper's method by its largest gain, 1 + strength, at any length. Set end_percent to about 0.7.",
    "start_percent": "Where in the denoising it begins: 0 is pure noise, 1 the finished video.",
    "end_percent": "Where in the denoising it ends.",
    "blocks": "Only these blocks of the model, counted from 0, such as 10-19, 25. Empty: all of them.",
    "passes": "With cfg above 1 the model answers the positive and the negative prompt. both: change both answers. "
    "conditional: the positive one alone, at half the cost. cfg then multiplies the change: take odds of 1.3 to 1.5.",
    "observe_only": "Measure for the report and change nothing.",
}


class EnhanceAVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        rare = {"optional": True, "advanced": True}
        return io.Schema(
            node_id="EnhanceAVideo",
            display_name="Enhance A Video",
            category="model/patch",
            description=(
                "Steadier videos without training: raises how much the frames of a video attend to each other while it "
                f"is sampled (Enhance-A-Video, arXiv 2502.07508). Works with {SUPPORTED}."
            ),
            search_aliases=["Enhance-A-Video", "FETA", "flicker", "temporal consistency", "WanVideoEnhanceAVideo"],
            inputs=[
                io.Model.Input("model", tooltip=TIPS["model"]),
                io.DynamicCombo.Input("gain", tooltip=TIPS["gain"], options=GAINS),
                io.Float.Input("start_percent", default=0.0, tooltip=TIPS["start_percent"], **share),
                io.Float.Input("end_percent", default=1.0, tooltip=TIPS["end_percent"], **share),
                io.String.Input("blocks", default="", tooltip=TIPS["blocks"], **rare),
                io.Combo.Input("passes", options=PASSES, default=PASSES[0], tooltip=TIPS["passes"], **rare),
                io.Boolean.Input("observe_only", default=False, tooltip=TIPS["observe_only"], **rare),
            ],
            outputs=[io.Model.Output(tooltip="The enhanced model, for a sampler or more model nodes.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        gain: io.DynamicCombo.Type,
        start_percent: float,
        end_percent: float,
        blocks: str = "",
        passes: str = PASSES[0],
        observe_only: bool = False,
    ) -> io.NodeOutput:
        kind = gain["gain"]
        alone = passes == PASSES[1]
        choice = Choice(kind, gain[kind], start_percent, end_percent, blocks_of(blocks), observe_only, alone)
        network, node = model.get_model_object("diffusion_model"), cls.hidden.unique_id
        layout = layout_of(network)
        if layout is None or layout.refused:
            why = layout.refused if layout else f"it is not among {SUPPORTED}"
            show(node, f"Warning: nothing will be done to {type(network).__name__}: {why}.")
            return io.NodeOutput(model)
        if model.get_wrappers("apply_model", KEY):
            show(node, "Another Enhance A Video node acts on this model too: both gains are applied.")
        return io.NodeOutput(Patch(layout, choice, lambda text: show(node, text)).attach(model))


def _gain(kind: str, default: float, low: float, high: float) -> io.DynamicCombo.Option:
    number = io.Float.Input(kind, default=default, min=low, max=high, step=0.05, tooltip=TIPS[kind])
    return io.DynamicCombo.Option(kind, [number])


GAINS = [_gain(ODDS, 2.0, 0.0, 20.0), _gain(TEMPERATURE, 4.0, -1.0, 100.0), _gain(STRENGTH, 0.3, 0.0, 10.0)]


def show(node: str | None, text: str) -> None:
    """A message in the log and on the node itself."""
    logging.log(logging.WARNING if text.startswith("Warning") else logging.INFO, "Enhance A Video: %s", text)
    try:
        from server import PromptServer
    except ImportError:  # run without ComfyUI's server
        return
    if node is not None and getattr(PromptServer, "instance", None) is not None:
        PromptServer.instance.send_progress_text(text, node)
