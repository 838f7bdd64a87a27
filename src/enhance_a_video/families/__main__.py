"""Prints docs/models.md."""

from .page import page

print(page(), end="")
