"""The models that the page offers, those that fit this machine first."""

from __future__ import annotations

import math
import re

import torch

from ..generation.loading import EMBEDDED
from ..models import known_models

_BYTES = 2.6  # for each parameter: bfloat16, and what runs beside it
# Checkpoints that are no pipeline, or start from more than a prompt: they can be written into the field, not chosen.
_OTHERS = r"adapter|lora|animat|i2v|img2vid|video2world|vace|control|inp|pose|framepack|transfer|edit|consisid|vsr"


def choices() -> list[str]:
    """Names for --model: the packaged model, then published weights, the smallest first among those that fit."""
    names = dict.fromkeys(name for row in known_models() if not row.refused for name in row.checkpoints)
    whole = [name for name in names if not re.search(_OTHERS, name, re.IGNORECASE)]
    room = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    return [EMBEDDED, *sorted(whole, key=lambda name: (_size(name) * 1e9 * _BYTES > room, _size(name), name))]


def _size(name: str) -> float:
    """Billions of parameters as a checkpoint's name has them; infinite where it has none."""
    found = re.findall(r"(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z])", name.lower())
    return float(found[0]) if found else math.inf
