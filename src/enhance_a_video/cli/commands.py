"""The application with all its commands: importing a file of commands adds them."""

from . import batch, clips, inspect, restore, score, study, tune, ui, vote  # noqa: F401
from .app import app, main

__all__ = ["app", "main"]
