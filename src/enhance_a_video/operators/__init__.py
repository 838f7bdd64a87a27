"""What a gain does to the output of an attention layer: operators, on plain tensors (base.py defines one).

output.py is the paper's way; cross_frame.py scales what comes from other frames, exact.py the same by each token's true
share of attention (kernels.py has the kernels that return it); biased.py multiplies odds on any axes at once;
comparisons.py has what the method is compared with.
"""

from .base import Gains, Operator, usable
from .biased import Biased
from .call import AttentionCall
from .comparisons import AttentionMap, Logits
from .cross_frame import CrossFrame
from .exact import Exact
from .output import Output, scaled

OPERATORS: dict[str, type[Operator]] = {
    kind.name: kind for kind in (Output, CrossFrame, Exact, Biased, Logits, AttentionMap)
}
"""By their names in JSON."""

__all__ = [
    "OPERATORS", "AttentionCall", "AttentionMap", "Biased", "CrossFrame", "Exact", "Gains", "Logits", "Operator",
    "Output", "scaled", "usable",
]  # fmt: skip
