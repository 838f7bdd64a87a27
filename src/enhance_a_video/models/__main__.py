"""Prints docs/reference/models.md."""

from .table import page

print(page(), end="")
