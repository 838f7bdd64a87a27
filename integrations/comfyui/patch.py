"""What an enhanced model carries: a wrapper around each of its calls, and an attention override inside it.

ComfyUI keeps both in the options of the model's clone, so nothing of the model itself is changed. Everything that
belongs to one call travels in that call's `transformer_options`: frames, height and width are read from its own latent,
and an override that another node has set is kept and called.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from enhance_a_video.errors import UnsupportedModelError

from .attention import Attention
from .choice import ODDS, Choice
from .gains import enhanced
from .layouts import Layout, ModelCall, Video
from .record import Record, Step

KEY = "enhance_a_video"
OVERRIDE = "optimized_attention_override"  # ComfyUI's one slot for it in transformer_options
OUTER_SAMPLE, APPLY_MODEL = "outer_sample", "apply_model"  # comfy.patcher_extension.WrappersMP
_numbers = itertools.count()


@dataclass
class Running:
    """One call of the diffusion model while it runs."""

    call: ModelCall
    video: Video
    step: Step
    previous: Callable[..., Tensor] | None  # the override that was there
    samples: tuple[int, ...] | None  # those of the batch that are changed; None = all
    attentions: int = 0  # of any kind, so far
    seen: int = 0  # self-attentions of the video so far
    alike: int = 0  # attentions that could be self- or cross-attention by their lengths


class Patch:
    """The enhancement of one model by one node. The same object may be in several clones of the model."""

    def __init__(self, layout: Layout, choice: Choice, report: Callable[[str], None]):
        self.layout, self.choice, self.report = layout, choice, report
        self.key = f"{KEY}.{next(_numbers)}"
        self.override = self._override  # one object for good, which torch.compile may have guarded
        self.record = self._new_record()

    def _new_record(self) -> Record:
        undone = self.layout.norm_behind and self.choice.kind != ODDS
        return Record(self.layout.name, str(self.choice), self.choice.to_dict(), undone)

    def attach(self, model: Any) -> Any:
        """A clone of a ComfyUI model that carries this patch; the model is left as it is."""
        clone = model.clone()
        clone.add_wrapper_with_key(OUTER_SAMPLE, KEY, self.outer_sample)
        clone.add_wrapper_with_key(APPLY_MODEL, KEY, self.apply_model)
        return clone

    # ------------------------------------------------------------------------------------- around a sampling run
    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """A new record for each run; afterwards what was done, and what could not be, in the log and on the node."""
        self.record = self._new_record()
        result = executor(*args, **kwargs)  # a run that fails or is stopped has its own message
        self.report(self.record.sentence())
        return result

    # --------------------------------------------------------------------------------------- around a model call
    def apply_model(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any, c_crossattn: Any, control: Any,
        transformer_options: Mapping[str, Any], **kwargs: Any,
    ) -> Any:  # fmt: skip
        """One call of the model, with our override in the options of this call alone."""
        model = executor.class_obj
        call = ModelCall(
            model.diffusion_model, _latent_shape(x, kwargs), {"c_crossattn": c_crossattn, **kwargs}, transformer_options
        )
        video = self.layout.video(call)
        step = Step(t.max(), self._active(t, model.model_sampling), video.num_frames, video.batch)
        self.record.percent_to_sigma = model.model_sampling.percent_to_sigma
        self.record.steps.append(step)
        samples = self._samples(transformer_options, step)
        step.problem = self.layout.barred(call) if step.active else ""
        if not step.active or step.problem or video.num_frames < 2 or samples == ():
            step.skipped = samples == ()
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        running = Running(call, video, step, transformer_options.get(OVERRIDE), samples)
        options = {**transformer_options, OVERRIDE: self.override, self.key: running}
        result = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        step.skipped = not running.attentions
        if running.attentions and not step.layers and not step.problem:
            step.problem = self._why_nothing(running)
        return result

    def _why_nothing(self, running: Running) -> str:
        if running.seen:
            return f"the model has the blocks 0 to {running.seen - 1}, and none of those was chosen"
        T, S, notes = running.video.num_frames, running.video.sites, self.layout.notes
        return f"no self-attention over {T} frames of {S} tokens was found" + (f"; {notes}" if notes else "")

    def _samples(self, options: Mapping[str, Any], step: Step) -> tuple[int, ...] | None:
        """Which samples of the call are changed: those with the prompt, or None for all.

        cond_or_uncond has a number for each equal part of the batch, 0 for the prompt and 1 for the negative one.
        """
        parts = options.get("cond_or_uncond")
        if not self.choice.conditional:
            return None
        if not parts or step.samples % len(parts):
            step.notes.add("which samples are the prompt's is not known, so all were changed")
            return None
        each = step.samples // len(parts)
        samples = tuple(i for i in range(step.samples) if parts[i // each] == 0)
        return None if len(samples) == step.samples else samples

    def _active(self, t: Tensor, sampling: Any) -> bool:
        """Whether the call is in the window. 0 and 1 are the ends of the denoising, whatever the noise level."""
        start, end = self.choice.start, self.choice.end
        if start <= 0.0 and end >= 1.0:
            return True
        sigma = float(t.max())
        after_start = start <= 0.0 or sigma <= float(sampling.percent_to_sigma(start)) * (1 + 1e-6)
        return after_start and (end >= 1.0 or sigma > float(sampling.percent_to_sigma(end)) * (1 + 1e-6))

    # ---------------------------------------------------------------------------------- in place of an attention
    @torch.compiler.disable
    def _override(self, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """ComfyUI calls this in place of its attention function, which it gives first."""
        running: Running | None = (kwargs.get("transformer_options") or {}).get(self.key)
        if running is None:
            return function(*args, **kwargs)
        if running.previous is not None:
            function = partial(running.previous, function)
        running.attentions += 1
        call = _attention(function, *args, **kwargs)
        name = self._layer(running, call)
        if name is None:
            return call()
        video, step = running.video, running.step
        try:
            done = enhanced(call, video.rows(call.length), video.num_frames, self.choice, running.samples)
        except UnsupportedModelError as error:
            step.problem = str(error)
            return call()
        step.layers[name] = done.mass, done.gain
        step.operators.add(done.operator)
        if done.why_estimated:
            known = f"{call.made_by} does not give the exact ones"
            step.notes.add(done.why_estimated if call.is_torchs else known)
        return done.output

    def _layer(self, running: Running, call: Attention) -> str | None:
        """The name of the layer if the call is a self-attention of the video that was chosen, else None."""
        if not self.layout.is_videos(running.call, running.video, call):
            return None
        if not self.layout.joint and call.length == running.call.text_tokens:
            running.alike += 1  # cross-attention to as many text tokens: it follows the self-attention in each block
            if running.alike % 2 == 0:
                return None
        number, running.seen = _block(running.call.model, call.model_options, running.seen), running.seen + 1
        name = f"block {number}"
        chosen = self.choice.blocks is None or number in self.choice.blocks
        return name if chosen and name not in running.step.layers else None


def _attention(
    function: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None,
    attn_precision: Any = None, skip_reshape: bool = False, skip_output_reshape: bool = False, **rest: Any,
) -> Attention:  # fmt: skip
    given = {"attn_precision": attn_precision, "skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape}
    return Attention(function, q, k, v, heads, mask, {**{k: v for k, v in given.items() if v}, **rest})


def _block(model: Any, options: Mapping[str, Any], seen: int) -> int:
    """The block's number, counted through double and then single blocks; without ComfyUI's count, our own."""
    index = options.get("block_index")
    if index is None:
        return seen
    return index + (len(getattr(model, "double_blocks", ())) if options.get("block_type") == "single" else 0)


def _latent_shape(x: Tensor, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """The video latent's shape; models with sound pack both into one tensor and keep the shapes beside it."""
    shapes = arguments.get("latent_shapes")
    shape = tuple(x.shape) if shapes is None else (x.shape[0], *shapes[0][1:])
    return shape if len(shape) == 5 else (*shape[:2], 1, *shape[2:])
