"""`Model` and its kinds of attention, the fields of a row; `register` adds one, `find` gives a model's row."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..attention import Rows, Tokens
from ..attention.query_key import QueryKey
from ..axes import AXES, Axis
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
class Columns:
    """Tokens in one row of a frame: the last dimension of a forward argument, divided by the spatial patch size.

    argument: its name. patch: the config entry, an int or a tuple that ends with it.
    """

    argument: str = "hidden_states"
    patch: str | None = "patch_size"

    def __call__(self, config: Config, arguments: Arguments) -> int:
        patch = config[self.patch] if self.patch is not None else 1
        return arguments[self.argument].shape[-1] // (patch[-1] if isinstance(patch, (tuple, list)) else patch)


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One kind of attention in a model: its modules, and how tokens lie in them.

    names       regular expression: the full names of its modules
    tokens      how video, text and other tokens lie in them
    video       which tokens of the stream are the video; None = all
    module      of the modules named so, only those of this class; "" = all
    scale_at    the module to scale instead: a name beside the attention, ".name" in it, "" around it
    query_key   where query and key are found; None = at torch's or diffusers' kernel, which is read off the code

    Functions get the transformer's config and the arguments of its forward call. Raises SettingsError for an invalid
    regular expression.
    """

    names: str
    tokens: Tokens
    video: Callable[[Config, Arguments], Rows] | None = None
    module: str = ""
    scale_at: str | None = None
    query_key: QueryKey = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.names)
        except re.error as error:
            raise SettingsError(f"names={self.names!r} is no regular expression: {error}") from None

    @property
    def has(self) -> frozenset[str]:
        """What an axis may need: "frames", "grid", "prompt", "sound" (axes.py)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SelfAttention(Attention):
    """The video or picture attends to itself, perhaps in one sequence with the prompt.

    frames      T, the number of latent frames after patching; None = pictures
    columns     how many tokens one row of a frame has; None = not known, so that there is no axis "space"
    stream      which of the keys are not the prompt, where `tokens` does not tell it
    sound       which of the stream's tokens are sound, behind any keys that are no queries; None = there is none
    """

    frames: FrameCount | Callable[[Config, Arguments], int] | None
    columns: Callable[[Config, Arguments], int] | None = None
    stream: Callable[[Config, Arguments], Rows] | None = None
    sound: Callable[[Config, Arguments], Rows] | None = None

    @property
    def has(self) -> frozenset[str]:
        joint = self.tokens.place in ("text first", "video first") and self.tokens.keys == "none"
        found = {
            "frames": self.frames is not None,
            "grid": self.columns is not None,
            "prompt": joint or self.stream is not None,
            "sound": self.sound is not None,
        }
        return frozenset(name for name, there in found.items() if there)


@dataclass(frozen=True, kw_only=True)
class CrossAttention(Attention):
    """The video or picture attends to the prompt's tokens alone.

    prompt      (B, K) bool: which of the keys are words and not padding
    """

    prompt: Callable[[Config, Arguments], Tensor]

    @property
    def has(self) -> frozenset[str]:
        return frozenset({"prompt"})


@dataclass(frozen=True, kw_only=True)
class Model:
    """The row of one transformer class: where its attention is, and what its forward arguments mean.

    name         what people call it; transformer: class name, a string, so that a diffusers that lacks it still imports
    attention    its kinds of attention, one for each kind of block
    noise        what its timestep means; None when it cannot be known
    timestep     how noisy the latents are: the name of an argument or a function; "" = no argument is the noise level,
                 so the scheduler's steps count
    batch        the number of samples; None = as many as the first tensor argument has
    makes        "videos", "pictures" or "sounds"
    checkpoints  published weights of this class, as on the model hub
    tested       the variants that the tests run: tiny models of the real class (docs/reference/models.md)
    refused      why the class cannot be enhanced; the other fields then mean nothing
    """

    name: str
    transformer: str
    attention: tuple[Attention, ...]
    noise: Noise | None
    timestep: str | Callable[[Config, Arguments], Any] = "timestep"
    batch: Callable[[Config, Arguments], int] | None = None
    makes: str = "videos"
    checkpoints: tuple[str, ...] = ()
    notes: str = ""
    tested: tuple[str, ...] = ()
    refused: str = ""

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes that it has."""
        return tuple(name for name, axis in AXES.items() if any(axis.needs in kind.has for kind in self.attention))

    @property
    def self_attention(self) -> tuple[SelfAttention, ...]:
        """The kinds in which the video attends to itself."""
        return tuple(kind for kind in self.attention if isinstance(kind, SelfAttention))

    def attention_with(self, axes: Sequence[Axis]) -> tuple[Attention, ...]:
        """The kinds of attention that have one of these axes. Raises SettingsError where none has one of them."""
        for axis in axes:
            if axis.name not in self.axes:
                raise SettingsError(f"{self.name} has no axis {axis.name!r}; it has: {', '.join(self.axes) or 'none'}")
        return tuple(kind for kind in self.attention if any(axis.needs in kind.has for axis in axes))


_MODELS: dict[str, Model] = {}


def register(row: Model) -> Model:
    """Add a row. Raises SettingsError for a class that has one already."""
    if row.transformer in _MODELS:
        raise SettingsError(f"{row.transformer} is registered already: {_MODELS[row.transformer]}")
    _MODELS[row.transformer] = row
    return row


def known_models() -> tuple[Model, ...]:
    """All rows, in the order they were registered."""
    return tuple(_MODELS.values())


def find(model: object) -> Model | None:
    """The row of a model's class or of the nearest of its base classes, or None."""
    return next((_MODELS[c.__name__] for c in type(model).__mro__ if c.__name__ in _MODELS), None)


def row_of(model: object) -> Model:
    """As find(), but raises UnsupportedModelError that names what is supported."""
    row = find(model)
    if row is None:
        raise UnsupportedModelError(f"{type(model).__name__} is not a supported video transformer{_supported(model)}")
    if row.refused:
        raise UnsupportedModelError(f"{type(model).__name__} ({row.name}) cannot be enhanced: {row.refused}")
    return row


def _supported(*models: object) -> str:
    """The end of a message about classes that have no row."""
    near = [n for m in models for n in difflib.get_close_matches(type(m).__name__, _MODELS, n=1, cutoff=0.6)]
    return (
        (f" (the nearest name is {near[0]})" if near else "")
        + f". Supported: {', '.join(_MODELS)}. A class of your own is added with one row: "
        "enhance_a_video.models.register(), docs/guide/add-a-model.md."
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
        row_of(model)
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
            row_of(module)
    models = {id(m): (n, m) for n, m in reversed(modules.items()) if find(m) is not None}
    if not models:
        found = ", ".join(f"{n} ({type(m).__name__})" for n, m in modules.items()) or "none"
        raise UnsupportedModelError(
            f"{type(target).__name__} has no supported video transformer among its torch modules: {found}{_supported()}"
        )
    return dict(reversed(models.values()))


def attention_modules(model: nn.Module, kinds: Sequence[Attention]) -> dict[str, tuple[nn.Module, Attention]]:
    """name -> the attention module and its kind, in the model's own order.

    Raises NoLayersError when a kind matches no module, SettingsError when two match the same.
    """
    found: dict[str, tuple[nn.Module, Attention]] = {}
    modules = dict(model.named_modules())
    for kind in kinds:
        pattern = re.compile(kind.names)
        matched = [n for n, m in modules.items() if pattern.search(n) and kind.module in ("", type(m).__name__)]
        if not matched:
            raise NoLayersError(_nothing_named(model, kind.names))
        if twice := next((name for name in matched if name in found), None):
            raise SettingsError(f"{type(model).__name__}: {twice} is described twice, by two kinds of attention")
        found |= {name: (modules[name], kind) for name in matched}
    return {name: found[name] for name in modules if name in found}


def _nothing_named(model: nn.Module, attention: str) -> str:
    found = [n for n, m in model.named_modules() if hasattr(m, "processor") or "attention" in type(m).__name__.lower()]
    return (
        f"{type(model).__name__}: no module is named like {attention} . Attention modules found: "
        f"{', '.join(found[:12]) or 'none'}{' ...' if len(found) > 12 else ''}. If this is a new version of the "
        "class, register a row for it (docs/guide/add-a-model.md)."
    )


def scaled_module(model: nn.Module, kind: Attention, attention: str) -> nn.Module | None:
    """The module that is scaled in place of an attention module, or None where that is the attention itself.

    Raises NoLayersError when the row names one that is not there.
    """
    if kind.scale_at is None:
        return None
    name = _scaled_name(kind, attention)
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise NoLayersError(f"{type(model).__name__}: there is no module {name}, which is to be scaled") from None


def _scaled_name(kind: Attention, attention: str) -> str:
    """The name of the module that is scaled."""
    if kind.scale_at is None:
        return attention
    if kind.scale_at.startswith("."):
        return attention + kind.scale_at
    return ".".join(part for part in (attention.rpartition(".")[0], kind.scale_at) if part)


def block_around(model: nn.Module, kind: Attention, attention: str) -> nn.Module:
    """The nearest module around the one that is scaled which is called itself (lists of modules and mere holders of
    parameters are not); the model where there is none."""
    name = _scaled_name(kind, attention)
    while name:
        name = name.rpartition(".")[0]
        block = model.get_submodule(name)
        if type(block).forward is not nn.Module.forward and not isinstance(block, nn.Sequential):
            return block
    return model


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
