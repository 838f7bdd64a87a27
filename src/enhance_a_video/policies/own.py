"""Policies as a model calls them: numbers as tensors, and what a policy of your own returns checked."""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingsError
from .base import GainContext, to_dict

_PROBES = (0.05, 0.35, 0.65, 0.95)  # masses


def with_tensors(policy: Any, device: torch.device) -> Any:
    """A policy as it is called in a model on `device`.

    A dataclass has its numbers as tensors: changing them does not recompile. In those of this package tables of numbers
    and policies inside them too. A policy of your own is called once here (`probe`), and checked from then on.
    """
    ours = to_dict(policy) is not None
    twin = _twin(policy, ours, device) if dataclasses.is_dataclass(policy) and not isinstance(policy, type) else policy
    if ours:
        return twin
    probe(twin, device)
    return Own(twin, device)


def _twin(policy: Any, ours: bool, device: torch.device) -> Any:
    twin = copy.copy(policy)
    for field in dataclasses.fields(policy):
        value = getattr(policy, field.name)
        if isinstance(value, float) or (ours and isinstance(value, tuple)):
            value = torch.tensor(value, dtype=torch.float32, device=device)
        elif ours and callable(value) and not isinstance(value, Tensor):
            value = with_tensors(value, device)
        object.__setattr__(twin, field.name, value)
    return twin


def not_finite(policy: Any) -> int:
    """How many calls of a policy of your own returned NaN or infinity, here or inside another. Waits for the device."""
    if isinstance(policy, Own):
        return int(policy.not_finite)
    inner = getattr(policy, "of", None)
    return 0 if inner is None else not_finite(inner)


class Own:
    """`of` with its gains checked: one number counts for every mass; a gain that is NaN or infinite acts as 1.

    not_finite: (), how many calls returned such gains; counted on the device, without waiting for it.
    """

    def __init__(self, of: Callable[[Tensor, GainContext], Any], device: torch.device):
        self.of = of
        with torch.inference_mode(False):
            self.not_finite = torch.zeros((), dtype=torch.int64, device=device)

    def __call__(self, mass: Tensor, moment: GainContext) -> Tensor:
        gain = gains(self.of, self.of(mass, moment), mass)
        finite = gain.isfinite()
        self.not_finite.add_((~finite).any().to(self.not_finite.device))
        return torch.where(finite, gain, 1.0)  # (B,)


def gains(policy: Any, returned: Any, mass: Tensor) -> Tensor:
    """What a policy returned for mass (B,), as gains (B,) on its device. SettingsError for what cannot be that."""
    if isinstance(returned, int | float) and not isinstance(returned, bool):
        return torch.full_like(mass, returned)
    if not isinstance(returned, Tensor) or returned.dtype == torch.bool or returned.is_complex():
        found = "a tensor of " + str(returned.dtype) if isinstance(returned, Tensor) else _kind(returned)
        raise SettingsError(f"The policy {name_of(policy)} returned {found}: it must return a gain for each mass.")
    if returned.shape not in ((), (1,), mass.shape):
        raise SettingsError(
            f"The policy {name_of(policy)} returned shape {tuple(returned.shape)} for masses of shape "
            f"{tuple(mass.shape)}: it must return a gain for each mass, or one for all."
        )
    return returned.to(mass).expand(mass.shape)


def probe(policy: Callable[[Tensor, GainContext], Any], device: torch.device) -> None:
    """Calls a policy once, before the model runs. SettingsError for a wrong signature, gains below 0 or not finite.

    What only the real call can show is left to it: tensors on another device, tables for one number of samples.
    """
    mass = torch.tensor(_PROBES, device=device)
    moment = GainContext(9, torch.tensor(0.5, device=device), torch.tensor(0.5, device=device))
    try:
        gain = gains(policy, policy(mass, moment), mass)
    except RuntimeError:
        return
    except SettingsError:
        raise
    except Exception as error:
        raise SettingsError(
            f"The policy {name_of(policy)} cannot be called as policy(mass, moment): {type(error).__name__}: {error}."
        ) from error
    for at, value in zip(_PROBES, gain.tolist(), strict=True):
        if not 0 <= value < math.inf:
            raise SettingsError(
                f"The policy {name_of(policy)} returned {value} for a mass of {at}: a gain is finite, and 0 or more."
            )


def name_of(policy: Any) -> str:
    """What a policy is called in messages: a function's own name, or its class's."""
    return str(getattr(policy, "__qualname__", None) or type(policy).__qualname__)


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    text = repr(value)
    return text if len(text) < 40 and not dataclasses.is_dataclass(value) else f"a {type(value).__name__}"
