"""A trust region: another policy's gain, as far as the residual stream may be changed by it."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..errors import SettingsError
from .base import GainContext, inner, number, policy


@policy("trust")
@dataclass(frozen=True)
class Trust:
    """Another policy's gain, whose excess changes the residual stream by at most `bound` of its size, up or down.

    gain = 1 + clamp(gain - 1, -bound/share, bound/share), so that |gain - 1| · share <= bound: a layer whose output is
    large beside the stream may be changed less. share is that of `GainContext`, ungated: in blocks that multiply
    the attention's output by a gate (adaLN) before it is added, the stream changes by that gate times as much. On the
    embedded model the share is 1.31 on average and 0.73 with the gate, 0.50 to 3.76 and 0.21 to 2.55 by layer
    (docs/method.md). Raises SettingsError when the share is not known, as outside a model.
    """

    of: Any
    bound: float | Tensor = 0.1
    asks_share: ClassVar[bool] = True

    def __post_init__(self) -> None:
        inner("Trust: of", self.of)
        number("Trust: bound", self.bound, 0.0)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        if moment.share is None:
            raise SettingsError(
                "the policy Trust asks for the attention's share of the stream: GainContext(share=...)."
            )
        most = self.bound / moment.share.clamp(min=1e-12)  # (B,)
        return 1 + (self.of(mass, moment) - 1).clamp(-most, most)  # (B,)
