"""Prints docs/models.md."""

from .table import page

print(page(), end="")
