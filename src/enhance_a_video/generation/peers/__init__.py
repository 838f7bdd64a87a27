"""Other training-free methods on the same pipelines: what the method is compared with, and may be combined with.

    with peers.attached(pipe, peers.from_dict({"name": "skip_layer", "scale": 1}), seeds=[0]):
        pipe("a cat")

A guider combines a step's predictions in its own way, often with a further, weakened pass (combining.py, weakening.py,
by diffusers' own guider classes); a sampler visits a noise level more than once (refining.py, restarting.py); maps.py
changes attention maps. Each reads the pipeline's own passes, so that one piece of code serves every pipeline
(denoising.py), together with enhance() or without it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ...errors import SettingsError
from .base import Peer
from .combining import AdaptiveProjected, MagnitudeAware, ScaledGuidance, Tangential, ZeroStar
from .denoising import attached, counted
from .maps import BlendedMaps
from .refining import SelfRefining
from .restarting import FreeInit
from .weakening import AutoGuidance, PerturbedAttention, SkipLayer, SmoothedEnergy

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        ScaledGuidance, ZeroStar, AdaptiveProjected, Tangential, MagnitudeAware, SkipLayer, PerturbedAttention,
        SmoothedEnergy, AutoGuidance, SelfRefining, FreeInit, BlendedMaps,
    )
}  # fmt: skip
_SHORT = {"slg": "skip_layer", "stg": "skip_layer", "pag": "perturbed_attention", "seg": "smoothed_energy"}


def from_dict(data: Any) -> Peer:
    """The peer that `data` describes, {"name": ..., its knobs}, or a name alone. SettingsError for what is unknown."""
    data = {"name": data} if isinstance(data, str) else data
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise SettingsError(f"guider: {data!r}; give an object with a name, as in {{name: skip_layer, scale: 1}}.")
    name = _SHORT.get(str(data["name"]), str(data["name"]))
    if name not in PEERS:
        near = difflib.get_close_matches(name, PEERS, 1, 0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SettingsError(f"guider: {name!r} is unknown. {hint}Known: {', '.join(PEERS)}.")
    kind, knobs = PEERS[name], {key: value for key, value in data.items() if key != "name"}
    known = [field.name for field in fields(kind)]
    if unknown := [key for key in knobs if key not in known]:
        raise SettingsError(f"guider: {name} has no {', '.join(map(repr, unknown))}. Known: {', '.join(known)}.")
    return kind(**knobs)


__all__ = ["PEERS", "Peer", "attached", "counted", "from_dict"]
