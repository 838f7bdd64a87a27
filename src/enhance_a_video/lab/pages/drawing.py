"""Plots for a page: inline SVG whose text, lines and verdict colours follow the page's light or dark scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

# Drawn with these colours; in the page each becomes the style sheet's variable (see page.css).
INK, SOFT, FAINT, EDGE, BAND = "#1c2333", "#565f75", "#6a7389", "#c3c9d3", "#eef0f5"
GOOD, PALE_GOOD, BAD, PALE_BAD = "#11734b", "#7fbf9f", "#b3261e", "#e39d97"
OTHER, PALE_OTHER, GREY = "#3a4a8c", "#9aa4cf", "#8d94a5"
_VARIABLES = {
    INK: "--ink", SOFT: "--soft", FAINT: "--soft", EDGE: "--edge", BAND: "--band", GOOD: "--good",
    PALE_GOOD: "--pale-good", BAD: "--bad", PALE_BAD: "--pale-bad", OTHER: "--other", PALE_OTHER: "--pale-other",
    GREY: "--grey",
}  # fmt: skip

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "svg.hashsalt": "enhance-a-video",
    "text.parse_math": False,  # a user's $ is a dollar
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


def styled(plot: Callable[..., str]) -> Callable[..., str]:
    """The plot in the page's style, whatever the user's matplotlib settings are, which stay as they were."""

    @wraps(plot)
    def drawn(*args: Any) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return plot(*args)

    return drawn


def svg(figure: Any, description: str) -> str:
    """A figure as inline SVG, its text as text, with a description for those who cannot see it."""
    from markupsafe import Markup, escape

    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    text = text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    return Markup(re.sub(r"#[0-9a-f]{6}\b", lambda found: variable(found[0]), text))


def variable(colour: str) -> str:
    """A colour of this file as the style sheet's variable; any other colour as it is."""
    return f"var({_VARIABLES[colour]})" if colour in _VARIABLES else colour


def whisker(middle: float, low: float, high: float, colour: str, label: str) -> str:
    """Inline SVG: a point and its interval on a line from -1 to 1 with a mark at 0, for a table's cell."""
    from markupsafe import Markup, escape

    places = [50 + 46 * x for x in (middle, low, high)]
    line = f'<line x1="{places[1]:.1f}" x2="{places[2]:.1f}" y1="8" y2="8" stroke-width="1.8"/>' if low == low else ""
    return Markup(
        f'<svg class="whisker" viewBox="0 0 100 16" width="100" height="16" role="img" aria-label="{escape(label)}" '
        f'style="--mark: {variable(colour)}"><line class="zero" x1="50" x2="50" y1="1" y2="15"/>{line}'
        f'<circle cx="{places[0]:.1f}" cy="8" r="3.4"/></svg>'
    )
