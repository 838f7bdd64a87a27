"""A module's forward, replaced wherever it is kept: in its class, or behind a forward that the instance carries.

accelerate and diffusers put their hooks on the instance (`module.forward = ...`), and so do switches between
implementations and decorators: replacing the class's forward does not reach those. What they call in the end is a bound
method of the module, kept in an attribute, a closure, a partial or a reference of a hook. There it is replaced, and
there it is given back.
"""

import contextlib
import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

REPLACES = "_enhance_a_video_replaces"  # on a function of ours: the one it stands for
_REFERENCES = ("forward", "_old_forward", "original_forward", "fn_ref")  # the names under which hooks keep functions


@dataclass(frozen=True)
class Place:
    """Where a function is kept: an entry of a dict, a closure cell, or a part of a partial ("func", or an index)."""

    holder: Any
    key: str | int = ""

    def get(self) -> Any:
        if isinstance(self.holder, dict):
            return self.holder[self.key]
        if isinstance(self.holder, types.CellType):
            return self.holder.cell_contents
        return self.holder.func if self.key == "func" else self.holder.args[self.key]

    def put(self, value: Any) -> None:
        if isinstance(self.holder, dict):
            self.holder[self.key] = value
        elif isinstance(self.holder, types.CellType):
            self.holder.cell_contents = value
        else:
            function, args, kwargs, names = self.holder.__reduce__()[2]
            if self.key == "func":
                function = value
            else:
                args = tuple(value if i == self.key else arg for i, arg in enumerate(args))
            self.holder.__setstate__((function, args, kwargs, names))


def carried(module: Any) -> Any:
    """The forward that a module carries in place of its class's, or None."""
    return vars(module).get("forward") if isinstance(module, nn.Module) else None


def places_of(module: Any) -> list[Place]:
    """Where bound methods of the module are kept, behind the forward that it carries; none if it carries none."""
    if carried(module) is None:
        return []
    found, known = [], set[int]()
    waiting = [Place(vars(module), name) for name in _REFERENCES if name in vars(module)]
    while waiting:
        place = waiting.pop()
        value = place.get()
        if isinstance(value, types.MethodType) and value.__self__ is module:
            found.append(place)
        elif id(value) not in known:
            known.add(id(value))
            waiting += _inside(value)
    return found


def _inside(value: Any) -> list[Place]:
    """Where a function keeps the functions that it calls."""
    if isinstance(value, functools.partial):
        return [Place(value, "func"), *(Place(value, i) for i, arg in enumerate(value.args) if callable(arg))]
    if isinstance(value, types.MethodType):
        return [*_inside(value.__func__), *_inside(value.__self__)]
    if isinstance(value, types.FunctionType):
        cells = [cell for cell in value.__closure__ or () if _is_filled(cell)]
        return [Place(cell) for cell in cells]
    if isinstance(value, (nn.Module, type)) or not hasattr(value, "__dict__"):
        return []
    return [Place(vars(value), name) for name in _REFERENCES if name in vars(value)]


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that the function around has not assigned yet
        return False


class ForwardPatch:
    """The forward of one module (or the __call__ of one processor) replaced: attach(), intact, detach().

    subclass: what the object's class becomes; its functions carry REPLACES. wrap: (function) -> what takes the place of
    a function that the instance's forward leads to, both called with the object first.
    """

    def __init__(self, target: Any, subclass: type, wrap: Callable[[Any], Any]):
        self.target, self.subclass, self.wrap = target, subclass, wrap
        self.original = type(target)
        self.carried: Any = None  # the forward that the instance carries, once it is patched
        self.replaced: list[tuple[Any, Any]] = []  # bound methods of ours, and what they stand for

    def attach(self) -> None:
        self.target.__class__ = self.subclass
        places = places_of(self.target)
        for place in places:
            self._replace(place, stood_for(place.get().__func__))
        if not places and carried(self.target) is not None:
            place = Place(vars(self.target), "forward")
            self._replace(place, as_method(place.get()))
        self.carried = carried(self.target)

    def _replace(self, place: Place, function: Any) -> None:
        ours = types.MethodType(replacing(function, self.wrap), self.target)
        self.replaced.append((ours, place.get()))
        place.put(ours)

    @property
    def intact(self) -> bool:
        """Whether what the object runs now is ours."""
        present = carried(self.target)
        if present is None:
            return hasattr(function_of(type(self.target)), REPLACES)
        return present is self.carried or any(hasattr(p.get().__func__, REPLACES) for p in places_of(self.target))

    def detach(self) -> None:
        """Give the object its own class back, and the functions of its instance. Safe to call twice."""
        for place in places_of(self.target):
            ours = place.get()
            if hasattr(ours.__func__, REPLACES):
                own = next((own for bound, own in self.replaced if bound is ours), None)
                place.put(types.MethodType(getattr(ours.__func__, REPLACES), self.target) if own is None else own)
        self.replaced.clear()
        self.target.__class__ = self.original


def function_of(kind: Any) -> Any:
    """What runs: a module's forward, a processor's __call__."""
    return kind.forward if issubclass(kind, nn.Module) else kind.__call__


def replacing(function: Any, wrap: Callable[[Any], Any]) -> Any:
    """wrap(function), marked as standing for it."""
    ours = wrap(function)
    setattr(ours, REPLACES, function)
    return ours


def stood_for(function: Any) -> Any:
    """The function itself, or the one that a function of ours stands for (a copy of an enhanced module keeps ours)."""
    return getattr(function, REPLACES, function)


def as_method(function: Any) -> Any:
    """A function that the instance carries and that does not take the instance, as one that does."""

    def method(self, *args, **kwargs):
        return function(*args, **kwargs)

    method.__name__ = getattr(function, "__name__", type(function).__name__)
    with contextlib.suppress(TypeError, ValueError):  # some callables have no signature
        given = inspect.signature(function)
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        method.__signature__ = given.replace(parameters=[own, *given.parameters.values()])  # type: ignore[attr-defined]
    return method
