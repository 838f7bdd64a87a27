"""AttentionPatch: one attention module and its observer, attached and given back."""

import copy
import functools
import sys
from typing import Any, cast

from torch import nn

from ..errors import NoLayersError, UnsupportedModelError
from .forward import ForwardPatch, carried
from .observer import OBSERVER, AttentionObserver
from .query_key import Outputs
from .subclasses import NOTES, noting, noting_class, patch_of, scaling, scaling_class


class AttentionPatch:
    """One attention module and its observer: attach(), intact, detach().

    scale_at: the module whose output is scaled, where that is not the attention's own.
    """

    def __init__(self, module: nn.Module, observer: AttentionObserver, scale_at: nn.Module | None = None):
        self.module, self.observer, self.scale_at = module, observer, scale_at
        self.carrier: Any = None  # what is observed: the module's processor, or the module where it has none
        self.shared: Any = None  # the processor we stand in for, where it serves several modules
        self.refused: Any = None  # what the module ran later and could not be followed
        self.patches: list[ForwardPatch] = []  # the carrier's first

    @property
    def intact(self) -> bool:
        """Whether the module still runs what is observed."""
        if self.refused is not None:
            return self._present() == self.refused
        if self.carrier is None:
            return True  # it was let go
        return carrier_of(self.module) is self.carrier and all(patch.intact for patch in self.patches)

    def _present(self) -> tuple[int, int]:
        carrier = carrier_of(self.module)
        return id(carrier), id(carried(carrier))

    def attach(self, shared: bool = False) -> None:
        """Observe the module's present processor. One that serves several modules is left alone: a copy stands in.

        Raises UnsupportedModelError when query and key cannot be observed, NoLayersError when a module is missing.
        """
        carrier = carrier_of(self.module)
        patch_of(carrier, self.observer)  # raises before anything is changed
        outputs = self._outputs()
        if shared:
            self.shared, carrier = carrier, copy.copy(carrier)
            self.module.processor = carrier
        self.carrier, self.refused = carrier, None
        enhanced = self._patch(patch_of(carrier, self.observer))
        _register_like(enhanced.original, enhanced.subclass)
        if self.scale_at is not None:
            self._patch(ForwardPatch(self.scale_at, scaling_class(cast(Any, type(self.scale_at))), scaling))
        for name, module in outputs.items():
            wrap = functools.partial(noting, name=name)
            self._patch(ForwardPatch(module, noting_class(cast(Any, type(module)), name), wrap))

    def _patch(self, patch: ForwardPatch) -> ForwardPatch:
        setattr(patch.target, OBSERVER, self.observer)
        patch.attach()
        self.patches.append(patch)
        return patch

    def _outputs(self) -> dict[str, Any]:
        """The modules whose outputs are query and key. Raises NoLayersError when one is not there."""
        how = self.observer.query_key
        if not isinstance(how, Outputs):
            return {}
        try:
            found = {"query": self.module.get_submodule(how.query), "key": self.module.get_submodule(how.key)}
        except AttributeError as error:
            raise NoLayersError(f"{self.observer.name}: {error}; query and key were to be its outputs") from None
        if found["query"] is found["key"] or any(hasattr(m, NOTES) for m in found.values()):
            raise UnsupportedModelError(
                f"{self.observer.name}: {how.query} or {how.key} serves several purposes or layers, so its outputs "
                "cannot be distinguished. Give query_key a function instead (docs/guide/add-a-model.md)."
            )
        return found

    def move(self, module: nn.Module, scale_at: nn.Module | None) -> None:
        """To the module that stands in the place of the one that was observed."""
        if module is not self.module:
            self.detach()
            self.module, self.scale_at = module, scale_at

    def follow(self, shared: bool = False) -> bool:
        """After a replacement: release the old processor and observe the new one. False when it cannot be observed."""
        self.detach()
        try:
            self.attach(shared)
        except UnsupportedModelError:
            self.refused = self._present()
        return self.carrier is not None

    def detach(self) -> None:
        """Give every observed object its own class back, and a shared processor its place. Safe to call twice."""
        carrier, self.carrier = self.carrier, None
        if carrier is None:
            return
        for patch in reversed(self.patches):
            patch.detach()
            vars(patch.target).pop(OBSERVER, None)
        self.patches.clear()
        if self.shared is not None:
            self.shared.__dict__.update(carrier.__dict__)
            if self.module.processor is carrier:
                self.module.processor = self.shared
            self.shared = None


def carrier_of(module: nn.Module) -> Any:
    """What computes a module's attention: its processor, or itself."""
    return getattr(module, "processor", module)


def _register_like(original: type, enhanced: type) -> None:
    """Guidance by perturbation, layer skipping and step caches find classes in registers of diffusers."""
    if "diffusers" not in sys.modules:
        return
    try:
        from diffusers.hooks._helpers import AttentionProcessorRegistry, TransformerBlockRegistry
    except ImportError:  # private; not every version has it
        return
    for register in (AttentionProcessorRegistry, TransformerBlockRegistry):
        register._register()
        if original in register._registry:
            register._registry[enhanced] = register._registry[original]
