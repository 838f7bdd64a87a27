"""Enhance-A-Video: better generated video for free. One line on, one line off.

from enhance_a_video import enhance
handle = enhance(pipe)
"""

from . import errors
from .described import enhance_attention
from .enhancement import Enhancement, enhance
from .intensity import cross_frame_intensity
from .policies import Odds, Strength, Temperature
from .record import Summary
from .settings import Settings

__all__ = [
    "Enhancement",
    "Odds",
    "Settings",
    "Strength",
    "Summary",
    "Temperature",
    "cross_frame_intensity",
    "enhance",
    "enhance_attention",
    "errors",
]
