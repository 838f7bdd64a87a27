"""The command line: argument parsing, progress and printing only; a file for each group of commands.

torch and diffusers are imported inside the commands, so that --help answers at once.
"""

from . import batch, clips, score, study, tune, vote  # noqa: F401  (they add their commands)
from .app import main

__all__ = ["main"]
