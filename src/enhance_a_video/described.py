"""enhance_attention(model, ...) -> Enhancement: a model of any origin, described where it is enhanced."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

from torch import Tensor, nn

from .attention import Rows, Tokens
from .attention.query_key import Kernel, Outputs, QueryKey
from .denoiser import parameters_of
from .enhancement import Enhancement
from .errors import EnhanceAVideoError, NoLayersError, SettingsError, TokenLayoutError, UnsupportedModelError
from .models import Arguments, FrameCount, Model, SelfAttention, unwrapped
from .progress import Noise
from .settings import Settings


def enhance_attention(
    model: nn.Module,
    *,
    attention: str | Sequence[nn.Module],
    frames: int | str | FrameCount | Callable[[Arguments], int],
    tokens: Tokens,
    query_key: QueryKey = None,
    video: slice | Callable[[Arguments], Rows] | None = None,
    scale_at: str | None = None,
    batch: int | Callable[[Arguments], int] | None = None,
    timestep: str | Callable[[Arguments], Any] = "timestep",
    noise: Noise | None = None,
    also: Sequence[SelfAttention] = (),
    **settings: Any,
) -> Enhancement:
    """Enhance-A-Video on a model that no row describes: the row for this one model, in the call.

    docs/guide/add-a-model.md walks through a model. Functions get the arguments of the model's forward call by name.

    Args:
        model: the module that is called once for each prediction; the others are found inside it.
        attention: its temporal or full 3D self-attention, a regular expression for the full names or the modules.
        frames: T, the number of latent frames: a number, the name of an argument that is it, or a function.
        tokens: how the tokens lie in that attention: Tokens("video only"), Tokens("temporal") for (B*S, T, C), ...
        query_key: where query and key are seen: None = at the scaled_dot_product_attention that the layer's forward
            calls; else a Kernel, Outputs or a function (query_key.py).
        video: which tokens of the layer are the video, frame-major, where it has others as well.
        scale_at: the module whose output is scaled, where that is not the attention's own: a name beside it, "" for
            the module around it, ".name" for one inside it (the output projection, where a block is the attention).
        batch: how many videos there are in a call with temporal attention, where that is not the first dimension of
            the first tensor among the arguments, or where they hold no tensor.
        timestep, noise: how noisy the video is, the name of an argument or a function of the arguments, and what that
            number means (progress.py). Without noise only start=0.0, end=1.0 is possible.
        also: more kinds of attention in the same model, where its blocks are of several (a SelfAttention of
            enhance_a_video.models each; its functions get (config, arguments)). All have the same number of frames.
        settings: as enhance().

    Raises:
        SettingsError: arguments that conflict, are out of range or of the wrong kind.
        NoLayersError: no module matches, or one that is named is not there.
        UnsupportedModelError: this is no module, or query and key cannot be read in such a layer as described.
        AlreadyEnhancedError: the model is enhanced already. In each case nothing was changed.
        TokenLayoutError: raised by a forward call that does not fit the description.

    A call in which the description is right but nothing can come of it is a NoEffectWarning: layers that run outside a
    call of `model` or never, one frame, a window that is never reached, a norm that takes every gain back.
    """
    chosen = Settings(**settings)
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"{type(model).__name__} is no torch module: give the model inside it")
    model, name = unwrapped(model), type(unwrapped(model)).__name__
    _check_kinds(tokens=tokens, query_key=query_key, noise=noise, scale_at=scale_at, video=video)
    if isinstance(also, SelfAttention) or not all(isinstance(each, SelfAttention) for each in also):
        raise SettingsError(f"also={also!r}: give a list of SelfAttention(...) of enhance_a_video.models")
    for argument, value in (("frames", frames), ("batch", batch)):
        _check_count(argument, value)
    if noise is None and not chosen.always:
        raise SettingsError(
            f"start={chosen.start}, end={chosen.end} need the place in the denoising: give the meaning "
            "of the model's timestep, noise=Flow(shift) or VariancePreserving() of enhance_a_video.progress, or give "
            "start=0.0, end=1.0."
        )
    if isinstance(frames, str):
        _check_argument(model, "frames", frames)
    if not callable(timestep) and (noise is not None or timestep != "timestep"):
        _check_argument(model, "timestep", timestep)
    kind = SelfAttention(
        names=_expression(model, attention),
        tokens=tokens,
        frames=_from_arguments("frames", FrameCount(frames) if isinstance(frames, str) else frames),
        video=_from_arguments("video", video),
        scale_at=scale_at,
        query_key=query_key,
    )
    row = Model(
        name=name,
        transformer=name,
        attention=(kind, *also),
        noise=noise,
        timestep=_from_arguments("timestep", timestep) if callable(timestep) else timestep,
        batch=_from_arguments("batch", batch),
    )
    return Enhancement(model, chosen, row)


def _check_kinds(**given: Any) -> None:
    """Raises SettingsError where a word, a class or another value stands for an object."""
    for name, (kinds, example, optional) in _KINDS.items():
        value = given[name]
        numbers = (value.start, value.stop) if isinstance(value, slice) else ()
        if (isinstance(value, kinds) and all(n is None or type(n) is int for n in numbers)) or (
            optional and value is None
        ):
            continue
        if callable(value) and not isinstance(value, type) and name in ("query_key", "video"):
            continue
        shown = value.__name__ if isinstance(value, type) else repr(value)
        raise SettingsError(f"{name}={shown}: give {example}{', or None' if optional else ''}")


_KINDS: dict[str, tuple[Any, str, bool]] = {
    "tokens": (Tokens, "an object such as Tokens('video only') of enhance_a_video.attention", False),
    "query_key": ((Kernel, Outputs), "an object such as Kernel('flash_attention') or Outputs('q_norm', 'k_norm') of "
                  "enhance_a_video.attention.query_key, or a function (module, args, kwargs) -> (query, key)", True),
    "noise": (get_args(Noise), "an object such as Flow(shift=5.0) or VariancePreserving() of enhance_a_video.progress",
              True),
    "scale_at": (str, "the name of a module, such as '.proj'", True),
    "video": (slice, "a slice, or a function of the arguments that returns one", True),
}  # fmt: skip


def _check_count(name: str, value: Any) -> None:
    """Raises SettingsError for what cannot be a number of frames or videos."""
    if value is None and name == "batch":
        return
    words = name == "frames" and isinstance(value, (str, FrameCount))
    if words or (callable(value) and not isinstance(value, type)) or (type(value) is int and value >= 1):
        return
    argument = "the name of the argument that is it, " if name == "frames" else ""
    shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    raise SettingsError(
        f"{name}={shown}: give a whole number, at least 1, {argument}or a function of the model's arguments"
    )


def _check_argument(model: nn.Module, name: str, argument: Any) -> None:
    """Raises SettingsError for an argument that the model's forward does not have."""
    if not isinstance(argument, str):
        raise SettingsError(f"{name}={argument!r}: give the name of an argument of the model's forward, or a function")
    known = parameters_of(model)
    if argument and argument not in known and known and not _takes_any(model):
        near = difflib.get_close_matches(argument, known, 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SettingsError(
            f"{name}={argument!r} is no argument of {type(model).__name__}.forward, which has {', '.join(known)}.{hint}"
            " A function of the arguments can be given as well."
        )


def _takes_any(model: nn.Module) -> bool:
    """Whether a model's forward takes arguments that it does not name."""
    kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
    return bool(kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL})


def _from_arguments(name: str, value: Any) -> Any:
    """As a row has it, a function of the model's config and arguments; None stays None.

    What the user's own function raises becomes a TokenLayoutError that names the arguments there are.
    """
    if value is None or isinstance(value, FrameCount):
        return value

    def read(config: Any, arguments: Arguments) -> Any:
        if not callable(value):
            return value
        try:
            return value(arguments)
        except EnhanceAVideoError:
            raise
        except Exception as error:
            raise TokenLayoutError(
                f"the function given as {name}=... raised {type(error).__name__}: {error}. The call's arguments are "
                f"{', '.join(arguments)}."
            ) from error

    return read


def _expression(model: nn.Module, attention: str | Sequence[nn.Module]) -> str:
    """A regular expression for the names of the modules."""
    if isinstance(attention, str):
        try:
            re.compile(attention)
        except re.error as error:
            raise SettingsError(f"attention={attention!r} is no regular expression: {error}") from None
        return attention
    if isinstance(attention, nn.Module):
        attention = [attention]
    given = [*attention] if isinstance(attention, Iterable) else [attention]
    if not all(isinstance(module, nn.Module) for module in given):
        raise SettingsError(
            f"attention={attention!r}: give a regular expression for the modules' full names, or the modules in a list"
        )
    names = {id(module): name for name, module in model.named_modules()}
    missing = [type(module).__name__ for module in given if id(module) not in names]
    if missing:
        raise NoLayersError(f"attention=...: {', '.join(missing)} is no module inside this {type(model).__name__}")
    return "|".join(f"^{re.escape(names[id(module)])}$" for module in given) or "(?!)"
