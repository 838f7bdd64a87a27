"""The forward call of a model, opened and closed whichever way the model is entered: by its __call__ or its forward.

`model(...)` runs the class's __call__; a method of the model (`forward_with_cfg`) and some samplers run `self.forward`
without it. Both open the call, the outer one counts, and it is closed when it returns or raises.
"""

import contextlib
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn

from .forward import ForwardPatch, replacing
from .observer import ENTRY
from .subclasses import subclass_of


class Calls(Protocol):
    """Who is informed of the forward calls of a model."""

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """A call begins. False where one is open already: this is the inside of it."""

    def close(self, returned: bool) -> None:
        """The call that was opened has ended. returned: it did not raise."""

    def in_pass(self, name: str) -> AbstractContextManager[None]:
        """While it lasts, forward calls belong to the pass of guidance of that name: "cond", "uncond", ..."""


def calls_of(model: nn.Module) -> Any:
    """The Calls attached to a model, or None."""
    return vars(model).get(ENTRY)


class ModelPatch:
    """A model whose forward calls are opened for `calls`: attach(), detach()."""

    def __init__(self, model: nn.Module, calls: Calls):
        self.model, self.calls = model, calls
        self.patch: ForwardPatch | None = None

    def attach(self) -> None:
        original: Any = type(self.model)
        self.patch = ForwardPatch(self.model, opening_class(original), opening)
        setattr(self.model, ENTRY, self.calls)
        self.patch.attach()

    def detach(self) -> None:
        """Give the model its own class back. Safe to call twice."""
        if self.patch is not None:
            self.patch.detach()
            vars(self.model).pop(ENTRY, None)
            self.patch = None


@functools.cache
def opening_class(original: Any) -> type:
    """The subclass of a model's class whose calls are opened."""
    ways = {"forward": original.forward, "__call__": original.__call__}
    functions = {name: replacing(function, opening) for name, function in ways.items()}
    if hasattr(original, "cache_context"):  # by which diffusers' pipelines name the pass that comes
        functions["cache_context"] = _naming(original.cache_context)
    return subclass_of(original, functions)


def _naming(function: Any) -> Any:
    """What runs in place of a model's cache_context: the calls learn the name of the pass as well."""

    @functools.wraps(function)
    @contextlib.contextmanager
    def named(self: Any, name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        calls = getattr(self, ENTRY, None)
        with contextlib.nullcontext() if calls is None else calls.in_pass(name), function(self, name, *args, **kwargs):
            yield

    return named


@functools.cache
def opening(function: Any) -> Any:
    """What runs in place of a model's forward or __call__."""

    @functools.wraps(function)
    def entered(self, *args, **kwargs):
        calls = getattr(self, ENTRY, None)
        if calls is None or not calls.open(args, kwargs):
            return function(self, *args, **kwargs)
        returned = False
        try:
            output = function(self, *args, **kwargs)
            returned = True
        finally:
            calls.close(returned)
        return output

    not_a_frame_of_its_own(entered)
    return entered


def not_a_frame_of_its_own(function: Any) -> None:
    """Keep dynamo from compiling a function beside the compiled model; inlined in a larger graph it is traced still."""
    with contextlib.suppress(ImportError, AttributeError):  # private; without it there is one small graph more
        from torch._dynamo.eval_frame import skip_code

        skip_code(function.__code__)
