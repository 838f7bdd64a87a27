"""The warnings of one enhanced transformer: nothing was changed, only a whole output can be scaled, layers were
replaced. Each kind is given once, so that forty steps bring one line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import EnhancementLostWarning, NoEffectWarning, UnknownPassWarning, WholeOutputWarning
from .models import FrameCount
from .policies import DEFAULT_STRENGTH

_CLEAN = 0.99  # a first forward call beyond this progress means that the timestep is not what `noise` takes it for
_NO_EFFECT = {"outside", "one frame", "never ran", "clean", "undone"}


class Notices:
    """What was warned about. Some methods run inside a graph, once, while it is traced."""

    def __init__(self, denoiser: Any):
        self.denoiser, self.name = denoiser, denoiser.name
        self.given: set[str] = set()  # kinds of warnings, and names of layers whose whole output is scaled
        self.single = 0  # forward calls of one frame, until there is one of several; then -1

    @property
    def any_no_effect(self) -> bool:
        """Whether a NoEffectWarning was given already."""
        return bool(self.given & _NO_EFFECT)

    def no_effect(self, kind: str, message: str) -> None:
        """A NoEffectWarning, once for each of the kinds in _NO_EFFECT."""
        if kind not in self.given:
            self.given.add(kind)
            warnings.warn(f"{self.name}: {message}", NoEffectWarning, stacklevel=2)

    def replaced(self, lost: Sequence[str], refused: Sequence[str], gone: Sequence[str]) -> None:
        """lost: layers whose processor or forward was replaced; of them refused: those that cannot be enhanced again;
        of those gone: those of which nothing is left in the model. Given each time that it happens."""
        done = f"{len(lost) - len(refused)} of them were enhanced again"
        if gone:
            done += f"; {', '.join(gone)} cannot be: nothing is left there"
        if len(gone) < len(refused):
            others = ", ".join(name for name in refused if name not in gone)
            done += f"; {others} cannot be: what is there now calls no known attention kernel"
        warnings.warn(
            f"{self.name}: {len(lost)} attention processors or layers were replaced after enhance(); {done}.",
            EnhancementLostWarning,
            stacklevel=2,
        )

    @torch.compiler.assume_constant_result
    def unknown_pass(self) -> bool:
        """passes="conditional", and the pass of a forward call is not known."""
        if "passes" not in self.given:
            self.given.add("passes")
            warnings.warn(
                f"{self.name}: which pass of guidance a forward call belongs to is not known here, so both are changed "
                "(passes='conditional' needs a diffusers pipeline that names its passes with cache_context, "
                "or one whose order of samples is known: passes.IN_ONE_BATCH).",
                UnknownPassWarning,
                stacklevel=2,
            )
        return True

    @torch.compiler.assume_constant_result
    def fallbacks(self) -> int:
        """Warn, once for each layer, where odds cannot act. Returns how many warnings there were so far."""
        layers = self.denoiser.layers
        new = [layer for layer in layers if layer.whole and layer.name not in self.given]
        if new:
            self.given.update(layer.name for layer in new)
            warnings.warn(
                f"{self.name}: in {len(new)} of {len(layers)} layers what comes from other frames cannot be "
                f"separated ({new[0].whole}), so their whole output is scaled, by strength {DEFAULT_STRENGTH}. To "
                "choose that yourself, give a strength.",
                WholeOutputWarning,
                stacklevel=2,
            )
        return len(self.given)

    @torch.compiler.assume_constant_result
    def outside(self, layer: str) -> bool:
        """A layer runs while no forward call of the model is open, so T is not known and it stays plain."""
        self.no_effect(
            "outside",
            f"{layer} ran outside a forward call of {type(self.denoiser.model).__name__}, so the number of frames is "
            "unknown and nothing was changed. Enhance the module that is called once for each prediction (for code "
            "that runs the blocks itself, a module around it: docs/guide/add-a-model.md, step 3).",
        )
        return True

    def frames(self, num_frames: int) -> None:
        """One frame: there are no others. A row with a function may answer 1 for a call that fills a cache."""
        if num_frames > 1:
            self.single = -1
        with_one = any(axis.needs != "frames" for axis in self.denoiser.axes)
        if num_frames > 1 or with_one or self.single < 0 or self.denoiser.settings.observe_only:
            return
        self.single += 1
        counted = all(isinstance(getattr(kind, "frames", None), FrameCount) for kind in self.denoiser.kinds)
        if self.denoiser.described or counted or self.single > 1:
            self.no_effect(
                "one frame",
                "the video has one latent frame, so there are no other frames to attend to and nothing is changed. "
                "Generate more frames, or check `frames` if this is a video.",
            )

    def layers_not_run(self) -> None:
        """Layers that never ran. Inside torch.compile that is not known until the record is read."""
        denoiser = self.denoiser
        if denoiser.recorder.compiled:
            return
        missed = [layer.name for layer in denoiser.layers if not layer.ran and layer.name not in denoiser.gone]
        if missed:
            self.no_effect(
                "never ran",
                f"{len(missed)} of {len(denoiser.layers)} enhanced layers did not run in a forward call ({missed[0]}"
                f"{', ...' if len(missed) > 1 else ''}): nothing is changed there. Something may have been put in the "
                "place of their forward: enhance after that, or leave them out with layers=...",
            )

    def first_progress(self, progress: Tensor) -> None:
        """progress (): wait for it once, in the first call of a described model, to see whether its timestep is what
        it is taken for."""
        denoiser = self.denoiser
        if not denoiser.described or denoiser.settings.always or torch.compiler.is_compiling() or "first" in self.given:
            return
        self.given.add("first")
        if float(progress) >= _CLEAN:
            self.no_effect(
                "clean",
                f"the first forward call is at progress {float(progress):.4f} (0 is pure noise, 1 is clean) by "
                f"noise={denoiser.row.noise!r}, so the window start={denoiser.settings.start}, "
                f"end={denoiser.settings.end} may never act. If the model's timestep runs from 1 to 0, give top=1.0; "
                "if it counts up, timestep= may be a function that turns it round.",
            )
