"""The reversible patch of one attention layer: its query and key are observed, its output is scaled, and it is undone.

How: a diffusers attention processor calls its kernel through a name of its own module (`dispatch_attention_fn`,
or `F.scaled_dot_product_attention`). The processor's class is swapped for a subclass whose `__call__` runs the very
same code object, but with the globals of a synthetic module in which that one name is observed. So nothing is copied
that could go stale, nothing outside the enhanced processors changes, torch.compile sees plain Python, and undo is
giving the class back. An attention module without a processor is treated the same, its `forward` being the function;
query_key.py describes at which names, or where else, query and key are observed.
docs/reference/architecture.md compares this with the other ways, measured.
"""

from .entry import ModelPatch, calls_of, not_a_frame_of_its_own
from .observer import AttentionObserver, Rows, Tokens
from .patch import AttentionPatch, carrier_of

__all__ = [
    "AttentionObserver",
    "AttentionPatch",
    "ModelPatch",
    "Rows",
    "Tokens",
    "calls_of",
    "carrier_of",
    "not_a_frame_of_its_own",
]  # fmt: skip
