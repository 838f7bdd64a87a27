"""Policies, from cross-frame mass to gain: small pure functions, independent of the model.

base.py defines a policy; method.py has the method's own, shapes.py where and when a gain acts, adaptive.py what
sets itself, learned.py what is searched or learned, profile.py files of them.
own.py makes any of them, or one of your own, ready to be called in a model.
"""

from .adaptive import Odds
from .base import (
    CROSS_FRAME,
    DEFAULT_END,
    DEFAULT_ODDS,
    DEFAULT_START,
    DEFAULT_STRENGTH,
    EXACT,
    LARGEST,
    OUTPUT,
    GainContext,
    Policy,
    from_dict,
    names,
    needs_progress,
    scale_of,
    to_dict,
)
from .learned import Grid, Network, OddsGrid, OddsNetwork
from .method import Constant, Strength, Temperature, Unclipped
from .own import name_of, not_finite, with_tensors
from .profile import Profile, read_profile
from .shapes import Window

__all__ = [
    "CROSS_FRAME",
    "DEFAULT_END",
    "DEFAULT_ODDS",
    "DEFAULT_START",
    "DEFAULT_STRENGTH",
    "EXACT",
    "LARGEST",
    "OUTPUT",
    "Constant",
    "GainContext",
    "Grid",
    "Network",
    "Odds",
    "OddsGrid",
    "OddsNetwork",
    "Policy",
    "Profile",
    "Strength",
    "Temperature",
    "Unclipped",
    "Window",
    "from_dict",
    "name_of",
    "names",
    "needs_progress",
    "not_finite",
    "read_profile",
    "scale_of",
    "to_dict",
    "with_tensors",
]
