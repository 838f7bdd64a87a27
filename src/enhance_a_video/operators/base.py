"""What an operator is: what a gain does to the output of an attention layer.

The method has four questions: where (model rows), when (the window), how much (policies: mass -> gain) and what it
does. An operator answers the last one, on the plain tensors of an AttentionCall:

    operator, _ = usable(CrossFrame(), call)        # itself or what stands in for it; known before anything is measured
    output = operator.attend(call, gains)           # acts in the kernel's place ...
    gain = gains(operator.mass(call))               # ... or on what the layer puts out (operator.acts == "output")

gains: mass -> gain. Of the mass of each token (B, H, T*S) it is a gain for each of them; of some sites (B, n) one for
each sample, (B,) or (1,).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..errors import UnsupportedModelError
from .call import AttentionCall

Gains = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Operator:
    """A frozen dataclass with a name in JSON.

    mass_needed   which mass it acts by: of some sites of a frame, of each token, from the kernel's log-sum-exps, or the
                  true shares of some tokens
    acts          in the kernel's place, or on what the layer puts out
    compiles, works_sharded   whether torch.compile may trace it, and whether the tokens may lie on several devices
    fallback      what stands in for it where it cannot act; None = nothing does
    """

    name: ClassVar[str]
    mass_needed: ClassVar[Literal["sites", "tokens", "log-sum-exp", "shares"]]
    acts: ClassVar[Literal["kernel", "output"]]
    compiles: ClassVar[bool] = True
    works_sharded: ClassVar[bool] = True

    @property
    def fallback(self) -> Operator | None:
        return None

    def why_not(self, call: AttentionCall) -> str:
        """Why it cannot act in this call, or "". By shapes and kinds alone: nothing has been measured."""
        if self.acts == "output":
            return ""
        if reason := self.cannot_divide(call):
            return reason
        if call.shards is not None and not self.works_sharded:
            return "its tokens lie on several devices"
        if torch.compiler.is_compiling() and not self.compiles:
            return "the model is compiled"
        return ""

    def cannot_divide(self, call: AttentionCall) -> str:
        """Why the keys of this call cannot be divided as it needs them, or ""."""
        return call.inseparable

    def mass(self, call: AttentionCall) -> Tensor:
        """The cross-frame mass it acts by: (B, n) of sites or (B, H, T*S) of tokens, fp32."""
        raise NotImplementedError

    def attend(self, call: AttentionCall, gains: Gains) -> Tensor:
        """What takes the place of the kernel's output, (B, H, L, D)."""
        return self.finish(call, self.begin(call), gains)

    def begin(self, call: AttentionCall) -> Any:
        """Its first half: the products that the layer would compute without it."""

    def finish(self, call: AttentionCall, begun: Any, gains: Gains) -> Tensor:
        """Its second half: what the operator costs. Returns (B, H, L, D)."""
        raise NotImplementedError


def usable(operator: Operator, call: AttentionCall) -> tuple[Operator, list[str]]:
    """The operator, or the first of its fallbacks that can act in this call; and why those before it cannot.

    Raises UnsupportedModelError where none can.
    """
    reasons: list[str] = []
    while reason := operator.why_not(call):
        reasons.append(reason)
        if operator.fallback is None:
            raise UnsupportedModelError(f"the attention itself cannot be changed here, because {reason}")
        operator = operator.fallback
    return operator, reasons
