"""The registry: what a row says, how it is added, and how a model finds its own."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..attention import Rows, Tokens
from ..attention.query_key import QueryKey
from ..errors import NoLayersError, SettingsError, TokenLayoutError, UnsupportedModelError
from ..progress import Noise
from ..settings import Layers

Arguments = Mapping[str, Any]  # the transformer's forward arguments by name
Config = Mapping[str, Any]  # the transformer's config


@dataclass(frozen=True)
class FrameCount:
    """T, the latent frames after patching, from one forward argument.

    argument: its name. dim: the frame dimension of a tensor; None when the argument is the count itself.
    patch: the config entry with the temporal patch size (an int, a tuple that starts with it, or None for 1).
    """

    argument: str
    dim: int | None = None
    patch: str | None = None

    def __call__(self, config: Config, arguments: Arguments) -> int:
        value = arguments.get(self.argument)
        if value is None:
            raise TokenLayoutError(
                f"the forward call did not give {self.argument!r}, from which the number of frames is read. "
                "Pass it, or remove the enhancement for this pipeline."
            )
        frames = value if self.dim is None else value.shape[self.dim]
        patch = config[self.patch] if self.patch is not None else None
        return frames // (patch[0] if isinstance(patch, (tuple, list)) else patch or 1)


@dataclass(frozen=True)
class Family:
    """One transformer class. Which of the usual kernels it calls needs no field: that is read off its code.

    Functions get the transformer's config and the arguments of its forward call. Raises SettingsError for an invalid
    regular expression.
    """

    name: str  # what people call it
    transformer: str  # class name, a string: a diffusers that lacks it still imports
    attention: str  # regular expression: the full names of the video self-attention modules
    tokens: Tokens  # how video, text and other tokens lie in that attention
    frames: FrameCount | Callable[[Config, Arguments], int]  # T
    noise: Noise | None  # what its timestep means; None when it cannot be said
    video: Callable[[Config, Arguments], Rows] | None = None  # which tokens of the stream are video; None = all
    module: str = ""  # of the modules named so, only those of this class; "" = all
    scale_at: str | None = None  # the module to scale instead: a name beside the attention, ".name" in it, "" around it
    timestep: str | Callable[[Config, Arguments], Any] = "timestep"  # how noisy the latents are: an argument, or a
    # function; "" = no argument is the noise level, so the scheduler's steps count
    checkpoints: tuple[str, ...] = ()  # published weights of this class, as on the model hub
    notes: str = ""
    tested: tuple[str, ...] = ()  # the variants that the tests run: tiny models of the real class (docs/models.md)
    query_key: QueryKey = None  # where query and key are seen; None = at torch's or diffusers' kernel
    batch: Callable[[Config, Arguments], int] | None = None  # samples; None = as many as the first tensor argument has
    refused: str = ""  # why the class cannot be enhanced; the other fields then mean nothing

    def __post_init__(self) -> None:
        try:
            re.compile(self.attention)
        except re.error as error:
            raise SettingsError(f"{self.transformer}: attention={self.attention!r}: {error}") from None


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Add a row. Raises SettingsError for a class that has one already."""
    if family.transformer in _FAMILIES:
        raise SettingsError(f"{family.transformer} is registered already: {_FAMILIES[family.transformer]}")
    _FAMILIES[family.transformer] = family
    return family


def families() -> tuple[Family, ...]:
    """All rows, in the order they were registered."""
    return tuple(_FAMILIES.values())


def find(model: object) -> Family | None:
    """The row of a model's class or of the nearest of its base classes, or None."""
    return next((_FAMILIES[c.__name__] for c in type(model).__mro__ if c.__name__ in _FAMILIES), None)


def family_of(model: object) -> Family:
    """As find(), but raises UnsupportedModelError that names what is supported."""
    family = find(model)
    if family is None:
        raise UnsupportedModelError(f"{type(model).__name__} is not a supported video transformer{_supported(model)}")
    if family.refused:
        raise UnsupportedModelError(f"{type(model).__name__} ({family.name}) cannot be enhanced: {family.refused}")
    return family


def _supported(*models: object) -> str:
    """The end of a message about classes that have no row."""
    near = [n for m in models for n in difflib.get_close_matches(type(m).__name__, _FAMILIES, n=1, cutoff=0.6)]
    return (
        (f" (the nearest name is {near[0]})" if near else "")
        + f". Supported: {', '.join(_FAMILIES)}. A class of your own is added with one row: "
        "enhance_a_video.models.register(), docs/add-a-model.md."
    )


def unwrapped(model: Any) -> Any:
    """The model inside the wrapper of torch.compile, or itself."""
    return getattr(model, "_orig_mod", model)


def denoisers(target: Any) -> dict[str, nn.Module]:
    """The supported transformers of a pipeline, or the transformer itself, by name.

    Raises UnsupportedModelError when there is none, or when one of several denoisers of a pipeline is not supported.
    """
    if isinstance(target, nn.Module):
        model = unwrapped(target)
        family_of(model)
        return {type(model).__name__: model}
    components = getattr(target, "components", None)
    if not isinstance(components, Mapping):
        raise UnsupportedModelError(
            f"{type(target).__name__} is neither a pipeline with components nor a torch module: "
            "give a diffusers video pipeline or its transformer"
        )
    modules = {n: unwrapped(m) for n, m in components.items() if isinstance(m, nn.Module)}
    for name, module in modules.items():
        if re.match(r"transformer|unet", name):
            family_of(module)
    models = {id(m): (n, m) for n, m in reversed(modules.items()) if find(m) is not None}
    if not models:
        found = ", ".join(f"{n} ({type(m).__name__})" for n, m in modules.items()) or "none"
        raise UnsupportedModelError(
            f"{type(target).__name__} has no supported video transformer among its torch modules: {found}{_supported()}"
        )
    return dict(reversed(models.values()))


def attention_modules(model: nn.Module, family: Family) -> dict[str, nn.Module]:
    """The video self-attention modules of a model, in its own order. Raises NoLayersError when there are none."""
    pattern = re.compile(family.attention)
    matched = {n: m for n, m in model.named_modules() if pattern.search(n) and family.module in ("", type(m).__name__)}
    if not matched:
        found = [
            n for n, m in model.named_modules() if hasattr(m, "processor") or "attention" in type(m).__name__.lower()
        ]
        raise NoLayersError(
            f"{type(model).__name__}: no module is named like {family.attention} . Attention modules found: "
            f"{', '.join(found[:12]) or 'none'}{' ...' if len(found) > 12 else ''}. If this is a new version of the "
            "class, register a row for it (docs/add-a-model.md)."
        )
    return matched


def scaled_module(model: nn.Module, family: Family, attention: str) -> nn.Module | None:
    """The module that is scaled in place of an attention module, or None where that is the attention itself.

    Raises NoLayersError when the row names one that is not there.
    """
    if family.scale_at is None:
        return None
    name = _scaled_name(family, attention)
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise NoLayersError(f"{type(model).__name__}: there is no module {name}, which is to be scaled") from None


def _scaled_name(family: Family, attention: str) -> str:
    """The name of the module that is scaled."""
    if family.scale_at is None:
        return attention
    if family.scale_at.startswith("."):
        return attention + family.scale_at
    return ".".join(part for part in (attention.rpartition(".")[0], family.scale_at) if part)


def block_around(model: nn.Module, family: Family, attention: str) -> nn.Module:
    """The block whose residual stream an attention module is added to: the nearest module around the one that is scaled
    which is called itself (lists of modules and mere holders of parameters are not).

    Raises UnsupportedModelError where that is the whole model.
    """
    scaled = name = _scaled_name(family, attention)
    while name:
        name = name.rpartition(".")[0]
        block = model.get_submodule(name)
        if type(block).forward is not nn.Module.forward and not isinstance(block, nn.Sequential):
            break
    if not name:
        raise UnsupportedModelError(
            f"{type(model).__name__}: the policy asks for the attention's share of its block's residual stream, but "
            f"{scaled} is in no block, only in the model itself. Use a policy that does not ask for that, or leave "
            "this layer out with layers=..."
        )
    return block


def chosen(names: list[str], layers: Layers, model: str) -> list[str]:
    """Those of the matched layers that `layers` selects (see Settings). Raises NoLayersError when it selects none."""
    if layers is None:
        return names
    if isinstance(layers, slice):
        kept = names[layers]
    elif isinstance(layers, str):
        kept = [n for n in names if re.search(layers, n)]
    else:
        outside = [i for i in layers if not -len(names) <= i < len(names)]
        if outside:
            raise NoLayersError(f"layers={outside}: {model} has {len(names)} layers, 0 to {len(names) - 1}")
        wanted = {i % len(names) for i in layers}
        kept = [n for i, n in enumerate(names) if i in wanted]
    if not kept:
        raise NoLayersError(
            f"layers={layers!r} selects none of the {len(names)} layers of {model}: {names[0]} ... {names[-1]}"
        )
    return kept
