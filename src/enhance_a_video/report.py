"""A comparison as one HTML file that needs nothing else: videos, measures, what the method did, how to repeat it.

The wording follows the numbers: what got worse is said as plainly as what got better, and what one clip cannot show
is not claimed.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from importlib import resources
from typing import Any

import numpy as np

from .comparison import Comparison, Row, Take
from .record import Summary
from .settings import Settings
from .stats import Paired

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "svg.hashsalt": "enhance-a-video",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": "#c3c9d3",
    "axes.labelcolor": "#475067",
    "axes.titlecolor": "#1c2333",
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.color": "#6a7389",
    "ytick.color": "#6a7389",
}


def render(
    comparison: Comparison,
    videos: Sequence[bytes],
    *,
    title: str,
    about: Mapping[str, Any],
    command: str,
    pairs: Mapping[int, Mapping[str, str]] | None = None,
) -> str:
    """The report as HTML.

    Args:
        comparison: what was generated and measured.
        videos: one mp4 file's bytes for each take, in order.
        title: of the page.
        about: name -> value, what ran (model, sizes, versions).
        command: how to repeat it.
        pairs: seed -> label -> a video's address relative to the report: the kept videos of every seed.
    """
    from jinja2 import Environment

    template = resources.files("enhance_a_video").joinpath("report.html").read_text(encoding="utf-8")
    sources = ["data:video/mp4;base64," + base64.b64encode(video).decode() for video in videos]
    plain, *others = comparison.takes
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            style=style(),
            title=title,
            comparison=comparison,
            takes=list(zip(comparison.takes, sources, strict=True)),
            settings=[(take.label, _settings(take)) for take in others],
            verdicts=[(take.label, verdict(comparison, take.label)) for take in others],
            tables=[(take.label, table(comparison, take.label)) for take in others],
            plots=[
                (take.label, gain_plot(take.summary), attention_plot(plain.summary, take.summary)) for take in others
            ],
            about=about,
            command=command,
            pairs=pairs or {},
            python=_python(others[0]),
        )
    )


def style() -> str:
    """The style sheet of every page."""
    return resources.files("enhance_a_video").joinpath("page.css").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- measures


def verdict(comparison: Comparison, label: str) -> str:
    """One sentence that counts what got better and what got worse."""
    rows = {row.name: row for row in comparison.judge.rows if row.better != "neither"}
    differences = comparison.differences().get(label, {})
    judged = [judgement(rows[name], pair) for name, pair in differences.items() if name in rows]
    better, worse, total = judged.count("better"), judged.count("worse"), len(judged)
    if len(comparison.seeds) == 1:
        return (
            f"On this one clip {better} of {total} measures with a good direction are better and {worse} are worse. "
            "One pair of clips shows what the method does, not what it does on average: "
            "for that, run compare with --seeds 8 or more."
        )
    return (
        f"Over {len(comparison.seeds)} seeds, {better} of {total} measures with a good direction are clearly better, "
        f"{worse} clearly worse, and {total - better - worse} show no clear change "
        "(clear: the 95 % interval of the paired difference excludes zero; about one in twenty does so by chance)."
    )


def judgement(row: Row, pair: Paired) -> str:
    """better, worse, more, less, same or unclear: the word that the numbers allow."""
    if pair.difference == 0 and not abs(pair.high) > 0:  # one pair, or all pairs equal
        return "same"
    if pair.pairs > 1 and not pair.clear:
        return "unclear"
    up = pair.difference > 0
    if row.better == "neither":
        return "more" if up else "less"
    return "better" if up == (row.better == "higher") else "worse"


def table(comparison: Comparison, label: str) -> list[dict[str, Any]]:
    """The rows of a measures table, as text, with the places of a small picture of the interval."""
    differences = comparison.differences().get(label, {})
    return [_line(row, differences.get(row.name)) for row in comparison.judge.rows]


def _line(row: Row, pair: Paired | None) -> dict[str, Any]:
    if pair is None:
        return {"row": row, "judgement": "nothing to measure"}
    places = digits(pair.before)
    low, high = (number(end, places + 1, sign=True) for end in (pair.low, pair.high))
    return {
        "row": row,
        "before": number(pair.before, places),
        "after": number(pair.after, places),
        "difference": number(pair.difference, places + 1, sign=True),
        "low": low,
        "high": high,
        "half": "" if math.isnan(pair.low) else "±" + number((pair.high - pair.low) / 2, places + 1),
        "relative": "" if math.isnan(pair.relative) else number(100 * pair.relative, 1, sign=True) + " %",
        "judgement": judgement(row, pair),
        "picture": _whisker(pair),
    }


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """Fixed decimals, a true minus."""
    if not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def digits(value: float) -> int:
    """Decimals that show four significant digits."""
    return 3 if value == 0 else max(0, min(6, 3 - math.floor(math.log10(abs(value)))))


def _whisker(pair: Paired) -> dict[str, float] | None:
    """Places (0..100, 50 = no change) of the difference and its interval, each row in its own scale."""
    reach = max(abs(pair.low), abs(pair.high))
    if not math.isfinite(reach) or reach == 0:
        return None
    return {
        name: 50 + 46 * end / reach for name, end in (("dot", pair.difference), ("low", pair.low), ("high", pair.high))
    }


# ------------------------------------------------------------------------------------------------------- plots


def styled(plot: Callable[..., str]) -> Callable[..., str]:
    """The plot in the page's style, whatever the user's matplotlib settings are, which stay as they were."""

    @wraps(plot)
    def drawn(*args: Any) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return plot(*args)

    return drawn


@styled
def gain_plot(summary: Summary | None) -> str:
    """Inline SVG: the gain applied and the cross-frame mass, by layer and denoising step."""
    if summary is None or not len(summary.progress):
        return ""
    steps = _steps(summary)
    active = np.array([summary.active[calls].any() for calls in steps])
    gain = np.stack([_mean(summary.gain[calls]) for calls in steps], axis=1)  # (layers, steps)
    mass = np.stack([_mean(summary.mass[calls]) for calls in steps], axis=1)
    shown = np.where(active[None, :], gain, np.nan)
    top = max(1.05, float(np.nanmax(shown)) if np.isfinite(shown).any() else 1.05)
    figure, axes = _figure(2, 1, (4.6, 2.7))
    _heat(axes[0][0], shown, "Gain", "YlOrRd", 1.0, top, summary.layers)
    _heat(axes[0][1], mass, "Cross-frame mass", "GnBu", None, None, summary.layers)
    return svg(figure)


@styled
def attention_plot(plain: Summary | None, enhanced: Summary | None) -> str:
    """Inline SVG: temporal attention (mean over layers) without, with, and the difference, at three moments."""
    if plain is None or enhanced is None or plain.attention_maps is None or enhanced.attention_maps is None:
        return ""
    moments = _steps(plain)
    if len(moments) != len(_steps(enhanced)):
        return ""
    chosen = sorted({0, len(moments) // 2, len(moments) - 1})
    figure, axes = _figure(3, len(chosen), (2.35, 2.15))
    before = [_temporal(plain, moments[n]) for n in chosen]
    after = [_temporal(enhanced, _steps(enhanced)[n]) for n in chosen]
    top = max(float(np.nanmax(grid)) for grid in (*before, *after))
    change = max(1e-6, *(float(np.nanmax(np.abs(b - a))) for a, b in zip(before, after, strict=True)))
    for row, (n, first, second) in enumerate(zip(chosen, before, after, strict=True)):
        when = f"step {n + 1} of {len(moments)}"
        _map(axes[row][0], first, f"without, {when}", "magma", 0, top)
        _map(axes[row][1], second, f"with, {when}", "magma", 0, top)
        _map(axes[row][2], second - first, "difference", "RdBu_r", -change, change)
    return svg(figure)


def _steps(summary: Summary) -> list[slice]:
    """The forward calls of each denoising step: guidance makes two of the same progress, one after the other."""
    starts = [
        n
        for n, (value, model) in enumerate(zip(summary.progress, summary.model, strict=True))
        if n == 0 or value != summary.progress[n - 1] or model != summary.model[n - 1]
    ]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(summary.progress)], strict=True)]


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is there, NaN where nothing is."""
    count = np.isfinite(values).sum(0)
    return np.where(count > 0, np.nansum(values, 0) / np.maximum(count, 1), np.nan)


def _temporal(summary: Summary, calls: slice) -> np.ndarray:
    """(T, T): mean over a step's calls and all layers."""
    assert summary.attention_maps is not None
    maps = summary.attention_maps[calls]  # (calls, layers, T, T)
    return _mean(maps.reshape(-1, *maps.shape[2:]))


def _figure(columns: int, rows: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * size[0], rows * size[1]), facecolor="none")
    figure.set_layout_engine("constrained", wspace=0.06, hspace=0.06)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _heat(
    axes: Any, grid: np.ndarray, title: str, colours: str, low: float | None, high: float | None, layers: list[str]
) -> None:
    axes.set_facecolor("#eceef2")  # where nothing acted
    picture = axes.imshow(grid, aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    count, steps = grid.shape
    axes.set_yticks(range(0, count, max(1, -(-count // 10))))
    axes.set_xticks(np.unique(np.linspace(0, steps - 1, min(steps, 6)).round().astype(int)))
    axes.set_xticklabels([str(int(tick) + 1) for tick in axes.get_xticks()])
    axes.set(title=title, xlabel="denoising step", ylabel="layer")
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(picture, ax=axes, pad=0.02).outline.set_visible(False)


def _map(axes: Any, grid: np.ndarray, title: str, colours: str, low: float, high: float) -> None:
    picture = axes.imshow(grid, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.set(title=title, xlabel="looked-at frame", ylabel="frame")
    ticks = [0, len(grid) - 1]
    axes.set_xticks(ticks), axes.set_yticks(ticks)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(picture, ax=axes, pad=0.03, fraction=0.046).outline.set_visible(False)


def svg(figure: Any) -> str:
    """A figure as inline SVG, its text as text."""
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return text[text.index("<svg") :]


# ---------------------------------------------------------------------------------------------------- settings


def _settings(take: Take) -> list[tuple[str, str]]:
    """A take's settings and what became of them, as text."""
    assert take.settings is not None
    knobs = {k: v for k, v in take.settings.to_dict().items() if v is not None and k not in _INTERNAL}
    rows = [(name.replace("_", " "), str(value)) for name, value in knobs.items()]
    if take.summary is not None:
        active, calls = int(take.summary.active.sum()), len(take.summary.progress)
        gains = take.summary.gain[take.summary.active]
        mean = f"{np.nanmean(gains):.3f} (highest {np.nanmax(gains):.3f})" if np.isfinite(gains).any() else "–"
        rows += [
            ("layers matched", str(len(take.summary.layers))),
            ("active", f"in {active} of {calls} forward calls"),
            ("mean gain while active", mean),
            ("progress read from", take.summary.progress_source),
        ]
    return rows


_INTERNAL = {"attention_maps", "observe_only"}


def _python(take: Take) -> str:
    """The line of Python that does the same to any pipeline."""
    assert take.settings is not None
    plain = Settings()
    named = [knob.name for knob in fields(Settings) if knob.name not in _INTERNAL]
    values = {name: getattr(take.settings, name) for name in named}
    shown = {
        name: value
        for name, value in values.items()
        if value is not None and (name in _ALWAYS_SAID or value != getattr(plain, name))
    }
    if take.settings.policy is None:  # what is scaled follows from the knob
        shown.pop("scale", None)
    return "enhance(pipe, " + ", ".join(f"{name}={value!r}" for name, value in shown.items()) + ")"


_ALWAYS_SAID = {"odds", "strength", "start", "end"}
