"""The embedded text-to-video model: its weights, its world and its checker. A second world of puppets: `puppet`."""

from pathlib import Path

__all__ = ["LEAST_FRAMES", "model_folder"]

LEAST_FRAMES = 25
"""Clips of the packaged model with fewer frames begin with wrong colours: it was trained on 33, and only on these."""


def model_folder() -> Path:
    """Folder of the packaged model, in the format that `diffusers.WanPipeline.from_pretrained` loads."""
    return Path(__file__).parent / "weights"
