"""The HTML pages of comparisons, studies and votes: templates, one style sheet, one player, `render`.

    pages.render("comparison.html", title="...", **values)      # a template of this folder -> one HTML file

`words.py` has numbers, plurals and the explanations of terms; `drawing.py` the style of plots.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from ...wording import count
from . import words


def render(template: str, **values: Any) -> str:
    """A template of this folder as one HTML file that loads nothing from elsewhere; all values are escaped."""
    return str(_environment().get_template(template).render(**values))


def data_url(data: bytes, kind: str) -> str:
    """The bytes of a file as a URL that contains them, for `src`. kind: its media type, for example "video/mp4"."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("enhance_a_video.lab", "pages"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined,
    )  # fmt: skip
    environment.globals.update(number=words.number, count=count, capital=words.capital, within=words.within)
    environment.filters["legend"] = words.legend
    return environment
