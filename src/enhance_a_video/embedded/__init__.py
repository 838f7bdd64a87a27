"""The embedded text-to-video model: its weights, its world and its checker. A second world of puppets: `puppet`."""

from pathlib import Path

__all__ = ["model_folder"]


def model_folder() -> Path:
    """Folder of the packaged model, in the format that `diffusers.WanPipeline.from_pretrained` loads."""
    return Path(__file__).parent / "weights"
