"""Checks a model's name and files before gigabytes are read: which file is wrong, and what to do."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import limits
from ..alternatives import Change
from ..errors import EnhanceAVideoError, SettingsError, UnsupportedModelError
from ..models import Model, find, known_models
from .requests import OPTIONS, check_option

EMBEDDED = "embedded"
DEFAULTS = "defaults.json"
_INDEX = "model_index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack")
_SOUND = ("StableAudioPipeline", "AceStepPipeline", "LongCatAudioDiTPipeline")  # whose length --seconds is known
_WITHOUT_VOCABULARY = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"}
_LFS = b"version https://git-lfs"
_AGAIN = "Copy or download it again."


def source_of(model: str | Path) -> str:
    """The folder or hub id that a model's name means.

    Raises SettingsError: no such folder or model, and which name is near; a folder or file that is no pipeline.
    """
    if model == EMBEDDED:
        return _embedded()
    if not isinstance(model, str | Path):
        raise SettingsError(f"model={model!r}, but a hub id or a folder is wanted.")
    if not str(model).strip() or str(model) == ".":
        raise SettingsError("The model has an empty name: give a hub id or a folder, or leave it out.")
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / _INDEX).is_file():
            raise SettingsError(_why_no_pipeline(path))
        return str(path)
    if path.exists():
        raise SettingsError(_why_no_folder(path))
    if str(model).count("/") != 1 or str(model)[0] in "./~":
        raise SettingsError(
            f"There is no folder {model}, and it is not a hub id (owner/name) either.{_near(str(model))} "
            "Leave out the model for the embedded one, or pick a name from: enhance-a-video models."
        )
    return str(model)


def parts_of(source: str) -> dict[str, tuple[str, str]]:
    """A pipeline's parts by name: (library, class).

    Raises:
        SettingsError: its index cannot be read; its class is unknown here; the hub cannot be reached.
        UnsupportedModelError: no supported video transformer among them.
    """
    import diffusers

    if Path(source).is_dir():
        _read_json(Path(source) / _INDEX)
    try:
        config = diffusers.DiffusionPipeline.load_config(source)
    except (OSError, ValueError) as error:
        raise SettingsError(why_not(source, error)) from error
    name = config.get("_class_name") if isinstance(config, Mapping) else None
    if isinstance(name, list | tuple):
        raise UnsupportedModelError(f"{source}: its pipeline is code of its own, which is not run here.")
    if not isinstance(name, str):
        raise SettingsError(f"{source}: {_INDEX} names no pipeline class (_class_name). {_AGAIN}")
    given = {key: part for key, part in config.items() if isinstance(part, list | tuple) and len(part) == 2}
    parts = {key: (str(library), str(kind)) for key, (library, kind) in given.items() if library and kind}
    supported = {row.transformer: row.name for row in known_models()}
    classes = [kind for _, kind in parts.values()]
    if set(classes) & {row.transformer for row in known_models() if row.makes == "sounds"} and name not in _SOUND:
        raise UnsupportedModelError(
            f"{source} is a {name}, which makes sound; of those, {', '.join(_SOUND)} are supported."
        )
    if not set(classes) & set(supported):
        listed = ", ".join(f"{name} ({transformer})" for transformer, name in supported.items())
        raise UnsupportedModelError(
            f"{source} is a {name} without a video transformer known here (its parts: {', '.join(classes)}). "
            f"Supported: {listed}."
        )
    lacking = [one for kind in (name, *classes) for one in getattr(getattr(diffusers, kind, None), "_backends", ())]
    if missing := [one for one in lacking if find_spec(one) is None]:  # such as torchsde, for Stable Audio's scheduler
        raise SettingsError(f"{source} needs {missing[0]}, which is not installed: pip install {missing[0]}")
    for kind in (name, *(kind for library, kind in parts.values() if library == "diffusers")):
        if kind not in dir(diffusers):
            raise SettingsError(
                f"{source}: {_INDEX} names the class {kind}, which diffusers {diffusers.__version__} does not have."
                f"{_did_you_mean(kind, dir(diffusers), 0.85)} Update it (pip install -U diffusers)."
            )
    return parts


def rows_of(model: str | Path) -> list[Model]:
    """The rows of a pipeline's denoisers, before weights are read. Errors as `source_of` and `parts_of`."""
    classes = {kind for _, kind in parts_of(source_of(model)).values()}
    return [row for row in known_models() if row.transformer in classes]


def rows_in(pipe: Any) -> list[Model]:
    """The rows of a loaded pipeline's denoisers."""
    return [row for row in map(find, getattr(pipe, "components", {}).values()) if row is not None]


def makes(what: str, rows: Iterable[Model]) -> bool:
    """Whether a pipeline with these denoisers makes pictures or sounds. what: as in models.Model."""
    return any(row.makes == what for row in rows)


def check_videos(model: str | Path, rows: Iterable[Model]) -> None:
    """SettingsError for a pipeline that makes no videos, for commands that need them. rows: the model's."""
    for row in rows:
        if row.makes != "videos":
            raise SettingsError(
                f"{model} ({row.name}) makes {row.makes}, and this command takes models that make videos. "
                "generate and compare take it."
            )


def check_axes(rows: Sequence[Model], changes: Iterable[Change | None]) -> None:
    """SettingsError where a pipeline's denoisers lack an axis of settings."""
    for axes in dict.fromkeys(change.axes for change in changes if change is not None):
        for row in (row for row in rows if row.axes):
            try:
                row.attention_with(axes)
            except SettingsError as error:
                flags = " or ".join(f"--axis {name}=1.2" for name in row.axes)
                raise SettingsError(f"{error}. Give {flags}.") from None


def check_folder(source: str) -> None:
    """SettingsError where a file of a pipeline's folder is missing, cut off or no JSON; of a hub id, its index only.

    Raises also what `parts_of` raises.
    """
    folder, parts = Path(source), parts_of(source)
    if not folder.is_dir():
        return
    defaults_in(folder)
    for name, (_, kind) in parts.items():
        part = folder / name
        if not part.is_dir() and _makes_itself(folder, name):
            continue
        if not part.is_dir():
            raise SettingsError(f"{folder} lacks the part {name}: there is no folder {part}. {_AGAIN}")
        for file in sorted(path for path in part.rglob("*") if path.is_file()):
            _check_file(file)
        _check_complete(part, kind)


def _makes_itself(folder: Path, part: str) -> bool:
    """Whether a folder's pipeline makes a part by itself and never saves it, such as LongCat-AudioDiT its scheduler."""
    import diffusers

    pipeline = getattr(diffusers, _read_json(folder / _INDEX)["_class_name"])
    argument = inspect.signature(pipeline.__init__).parameters.get(part)
    has_default = argument is not None and argument.default is not inspect.Parameter.empty
    return has_default and part not in pipeline._optional_components


def _check_file(file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(len(_LFS))
    if start == _LFS:
        raise SettingsError(f"{file} is a Git LFS pointer in place of the file: run git lfs pull in its folder.")
    if file.suffix == ".json":
        data = _read_json(file)
        shards = data.get("weight_map") if isinstance(data, dict) else None
        for shard in sorted(set(shards.values())) if isinstance(shards, dict) else ():
            if not (file.parent / str(shard)).is_file():
                raise SettingsError(f"{file.parent} lacks {shard}, which {file.name} lists. {_AGAIN}")
    elif file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise SettingsError(f"{file} is cut off or damaged ({error}). {_AGAIN}") from None


def _check_complete(part: Path, kind: str) -> None:
    """SettingsError where a part has weights without a config.json, or the other way round, or no vocabulary."""
    names = {path.name for path in part.rglob("*") if path.is_file()}
    weights = any(name.endswith(_WEIGHTS) and name != "training_args.bin" for name in names)
    if weights and "config.json" not in names:
        raise SettingsError(f"{part} has weights and no config.json. {_AGAIN}")
    if "config.json" in names and not weights and not any("tokenizer" in name for name in names):
        raise SettingsError(f"{part} has a config.json and no weights (such as *.safetensors). {_AGAIN}")
    if not names:
        raise SettingsError(f"{part} is empty. {_AGAIN}")
    if "Tokenizer" in kind and not kind.startswith("ByT5") and names <= _WITHOUT_VOCABULARY:
        raise SettingsError(f"{part} lacks its vocabulary (tokenizer.json or spiece.model). {_AGAIN}")


def defaults_in(folder: Path) -> dict[str, Any]:
    """What a folder's defaults.json gives for `generate`; {} without one.

    prompt and seed, the options of pipelines.generate but image, and several: whether one call may make several clips.
    Raises SettingsError: not JSON, unknown names, values that do not fit.
    """
    file = folder / DEFAULTS
    if not file.exists():
        return {}
    if not file.is_file():
        raise SettingsError(f"{file} is not a file.")
    data = _read_json(file)
    if not isinstance(data, dict):
        raise SettingsError(f'{file}: an object is wanted, as in {{"steps": 30, "fps": 16}}.')
    known = ["prompt", "seed", "several", *(name for name in OPTIONS if name != "image")]
    for name, value in data.items():
        if name not in known:
            raise SettingsError(f"{file}: {name!r} is unknown.{_did_you_mean(name, known)} Known: {', '.join(known)}.")
        try:
            _check_default(name, value)
        except SettingsError as error:
            raise SettingsError(f"{file}: {error}") from None
    return data


def _check_default(name: str, value: Any) -> None:
    if name == "seed":
        limits.seed(value)
    elif name in ("prompt", "several"):
        wanted, kind = ("text", str) if name == "prompt" else ("true or false", bool)
        if not isinstance(value, kind):
            raise SettingsError(f"{name}={value!r}, but {wanted} is wanted.")
    else:
        check_option(name, value)


def _read_json(file: Path) -> Any:
    try:
        return limits.parse_json(file.read_bytes()) if file.name == DEFAULTS else json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file} is not valid JSON ({error}). Correct it, or copy or download it again.") from None


# ------------------------------------------------------------------------------------------------ what went wrong


def why_not(source: str, error: BaseException) -> str:
    """What kept a pipeline from loading: diffusers blames a missing file for a missing network as well."""
    chain: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(chain) < 20:
        chain.append(type(seen).__name__)
        seen = seen.__cause__ or seen.__context__
    names = " ".join(chain)
    text = " ".join(str(error).split()).split(" If you want to instead")[0]
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    if Path(source).exists():
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        return f"{source} cannot be loaded: {kind}{text[:400]}"
    if "GatedRepo" in names:
        return f"{source} needs its licence accepted first: do so on its hub page, then run: hf auth login"
    if "RepositoryNotFound" in names:
        return f"There is no model {source} on the hub, or it is private (then run: hf auth login).{_near(source)}"
    return (
        f"{source} is neither a folder here nor in the local cache, and the hub did not give it (no network, or "
        f"HF_HUB_OFFLINE is set).{_near(source)} Connect, or give a folder. ({text[:200]})"
    )


def out_of_memory(error: BaseException) -> EnhanceAVideoError | None:
    """The error to raise where `error` is a lack of memory, of the GPU's or of the machine's own; else None."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or "defaultcpuallocator" in text or "not enough memory" in text:
        return EnhanceAVideoError(
            "Out of main memory (not the GPU's). In this order, try: fewer --workers, --vae-tiling, --dtype bfloat16, "
            "fewer --frames, a smaller --width and --height."
        )
    if isinstance(error, RuntimeError) and ("out of memory" in text or "alloc_failed" in text):
        return EnhanceAVideoError(
            "Out of GPU memory. In this order, try: --vae-tiling, --offload model, --offload group, "
            "--offload sequential, fewer --frames, a smaller --width and --height."
        )
    return None


def _embedded() -> str:
    from ..embedded import model_folder

    if not (model_folder() / _INDEX).is_file():
        raise SettingsError(
            f"The embedded model is missing from this installation ({model_folder()}). Reinstall the package, "
            "train it (python -m training.train), or name another model."
        )
    return str(model_folder())


def _why_no_pipeline(folder: Path) -> str:
    """Of a folder without a model_index.json: what it is instead."""
    if not any(folder.iterdir()):
        return f"{folder} is empty. Give the folder that pipe.save_pretrained() wrote."
    start = f"{folder} is a folder but not a pipeline: it has no {_INDEX}."
    above, inside = folder.resolve().parent, next(_pipelines_in(folder), None)
    if (above / _INDEX).is_file():
        return f"{start} It is one part of the pipeline in {above}: give that folder."
    if inside is not None:
        return f"{start} Did you mean {inside}?"
    config = folder / "config.json"
    kind = _read_json(config).get("_class_name") if config.is_file() else None
    if kind:
        return (
            f"{start} It holds a single {kind}. In Python it goes into its pipeline: "
            f"DiffusionPipeline.from_pretrained(HUB_ID, transformer={kind}.from_pretrained(FOLDER)). The authors' own "
            "format is not read: many models have a second id that ends in -Diffusers or -diffusers."
        )
    return f"{start} Give the folder that pipe.save_pretrained() wrote."


def _why_no_folder(file: Path) -> str:
    """Of a file: what to do with it."""
    if file.name == _INDEX:
        return f"{file} is a file: give its folder, {file.parent}."
    if file.suffix in _WEIGHTS:
        return (
            f"{file} is a file of weights, not a pipeline. In Python it goes into one: "
            "transformer = CLASS.from_single_file(FILE), then DiffusionPipeline.from_pretrained(HUB_ID, "
            "transformer=transformer). Here, give a folder in diffusers' format or a hub id."
        )
    return f"{file} is a file. Give a folder in diffusers' format (with a {_INDEX}) or a hub id."


def _pipelines_in(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if (path / _INDEX).is_file())


def _near(model: str) -> str:
    """A question with the nearest of the folders beside and the models known by name; "" where none is near."""
    published = [name for row in known_models() for name in row.checkpoints]
    folder = Path(model).expanduser().parent
    beside = [str(path) for path in (*_pipelines_in(folder), *_pipelines_in(folder / "models"))]
    of_name = [name for name in (*published, *beside) if name.split("/")[-1].lower() == model.lower()]
    names = of_name or difflib.get_close_matches(model, [EMBEDDED, *beside, *published], 1, 0.7)
    return f" Did you mean {names[0]}?" if names else ""


def _did_you_mean(name: Any, known: list[str], cutoff: float = 0.5) -> str:
    near = difflib.get_close_matches(str(name), known, 1, cutoff)
    return f" Did you mean {near[0]}?" if near else ""
