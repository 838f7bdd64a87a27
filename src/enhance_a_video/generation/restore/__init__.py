"""Finished videos made better: noised and denoised by a video model with the method on (docs/guide/restore.md)."""

from .engine import NOISE, Restoring, restore_frames
from .files import Restored, restore_file

__all__ = ["NOISE", "Restored", "Restoring", "restore_file", "restore_frames"]
