"""Renders a comparison as one HTML file that needs nothing else: videos, measures, gains, how to repeat it.

The wording follows the numbers: what got worse is named as plainly as what got better, and nothing is claimed that one
clip cannot show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from urllib.parse import quote

import numpy as np

from ..generation import video
from ..generation.measures import Measure
from ..record import Summary
from ..settings import Settings
from ..wording import count
from . import pages, pictures
from .comparison import Comparison, Take
from .pages.drawing import BAD, BAND, FAINT, GOOD, styled, svg, whisker
from .pages.words import STEADINESS, digits, listed, number, percent, steadiness, within
from .stats import Paired


def render(
    comparison: Comparison,
    videos: Mapping[int, Mapping[str, bytes | str]],
    *,
    title: str,
    about: Mapping[str, Any],
    command: str,
    fps: float = 8,
    pairs: Mapping[int, Mapping[str, str]] | None = None,
) -> str:
    """The report as HTML.

    Args:
        comparison: what was generated and measured.
        videos: seed -> label -> every take: the bytes of its mp4, PNG or WAV file, or its address relative to the page.
        title: of the page.
        about: name -> value, what ran (model, sizes, versions).
        command: how to repeat it.
        fps: frames per second of the videos, for going from frame to frame.
        pairs: seed -> label -> a file's address relative to the report, to link to.
    """
    plain, *others = comparison.takes
    return pages.render(
        "comparison.html",
        title=title,
        comparison=comparison,
        baseline=plain.label,
        many=len(comparison.seeds) > 1,
        fps=fps,
        players={seed: _players(comparison, seed, found) for seed, found in videos.items()},
        pairs=pairs or {},
        results=[
            {"label": t.label, "sentence": headline(comparison, t.label), "verdict": verdict(comparison, t.label)}
            for t in others
        ],
        pictures=_pictures(comparison.takes),
        settings=[(take.label, _settings(take)) for take in others],
        tables=[(take.label, table(comparison, take.label)) for take in others],
        plots=_plots(plain, others),
        about=about,
        command=command,
        python=_python(others[0]),
    )


_FILES = {"video": "video/mp4", "picture": "image/png", "sound": "audio/wav"}


def _players(comparison: Comparison, seed: int, videos: Mapping[str, bytes | str]) -> list[dict[str, str]]:
    """What the page's player shows side by side."""
    what, kind = comparison.kind.capitalize(), _FILES[comparison.kind]
    made = {take.label: f", made in {number(take.seconds, 1)} s" for take in comparison.takes if take.seed == seed}
    return [
        {
            "label": label,
            "note": f"seed {seed}{made.get(label, '')}",
            "src": pages.data_url(data, kind) if isinstance(data, bytes) else quote(data),
            "alt": f"{what} {label}, seed {seed}: {comparison.prompt}",
        }
        for label, data in videos.items()
    ]


def _plots(plain: Take, others: Sequence[Take]) -> list[tuple[str, Any, Any]]:
    """(label, plot of the gain, plot of the attention) of the takes for which something was recorded."""
    drawn = [(t.label, gain_plot(t.summary), attention_plot(plain.summary, t.summary)) for t in others]
    return [plots for plots in drawn if any(plots[1:])]


# ---------------------------------------------------------------------------------------------------- measures


def headline(comparison: Comparison, label: str) -> str:
    """The result for a maker of videos: whether it is steadier, by how much, moves less, and how sure that is."""
    rows = {row.name: row for row in comparison.measures.rows}
    differences = comparison.differences().get(label, {})
    words = {name: judgement(rows[name], pair) for name, pair in differences.items()}
    parts = [steadiness(differences[STEADINESS], words[STEADINESS])] if STEADINESS in differences else []
    if words.get("motion") in ("more", "less"):
        parts.append(f"Motion {percent(differences['motion'].relative)}.")
    if len(comparison.seeds) == 1:
        return " ".join([*parts, "This is one seed, which does not show what is usual."])
    return " ".join([*parts, f"Mean of {count(len(comparison.seeds), 'seed')}."])


def verdict(comparison: Comparison, label: str) -> str:
    """What got better and what got worse, counted, the latter by name."""
    rows = {row.name: row for row in comparison.measures.rows if row.better != "neither"}
    differences = {name: d for name, d in comparison.differences().get(label, {}).items() if name in rows}
    judged = {name: judgement(rows[name], pair) for name, pair in differences.items()}
    better, total = list(judged.values()).count("better"), len(judged)
    worse = [f"{within(rows[name].label)}{_relative(differences[name])}" for name, w in judged.items() if w == "worse"]
    if not total:
        return "None of these measures has a good direction: a picture alone does not show which one is better. Look."
    of = f"of {count(total, 'measure')} with a good direction"
    if len(comparison.seeds) == 1:
        return (
            f"On this one clip {better} {of} got better and {len(worse)} got worse{listed(worse)}. "
            "One pair of clips shows what the method does, not what it does on average: "
            "for that, run compare with --seeds 8 or more."
        )
    return (
        f"Over {count(len(comparison.seeds), 'seed')}, {better} {of} got clearly better, {len(worse)} clearly "
        f"worse{listed(worse)}, and {total - better - len(worse)} show no clear change "
        "(clear: the 95 % interval of the paired difference excludes zero; about one in twenty does so by chance)."
    )


def _relative(pair: Paired) -> str:
    return f" {percent(pair.relative)}".rstrip()


def judgement(row: Measure, pair: Paired) -> str:
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
    return [_line(row, differences.get(row.name)) for row in comparison.measures.rows]


def _line(row: Measure, pair: Paired | None) -> dict[str, Any]:
    if pair is None:
        empty = dict.fromkeys(("before", "after", "difference", "low", "high", "half", "relative", "picture"), "")
        return {"row": row, "judgement": "nothing to measure", **empty}
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
        "relative": percent(pair.relative),
        "judgement": judgement(row, pair),
        "picture": _whisker(row, pair),
    }


def _whisker(row: Measure, pair: Paired) -> str:
    """A small picture of the difference and its interval, each row in its own scale; "" where there is no interval."""
    reach = max(abs(pair.low), abs(pair.high))
    if not math.isfinite(reach) or reach == 0:
        return ""
    colour = {"better": GOOD, "worse": BAD}.get(judgement(row, pair), FAINT)
    middle, low, high = (end / reach for end in (pair.difference, pair.low, pair.high))
    return whisker(middle, low, high, colour, f"change{_relative(pair)} with its interval")


# ------------------------------------------------------------------------------------------------------- plots


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
    _heat(axes[0][1], mass, summary.mass_means.capitalize(), "GnBu", None, None, summary.layers)
    return svg(figure, f"Two heat maps, layer by denoising step: the gain and the {summary.mass_means}")


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
    return svg(figure, "Maps of temporal attention without, with, and their difference, at three denoising steps")


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
    axes.set_facecolor(BAND)  # where nothing acted
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


# ------------------------------------------------------------------------------------------------- still pictures


def _pictures(takes: Sequence[Take]) -> list[dict[str, str]]:
    """Pictures that show steadiness without motion, with what one sees in them."""
    clips, labels = [take.frames for take in takes], [take.label for take in takes]
    if len(clips[0]) < 3 or takes[0].is_sound:
        return []
    line = pictures.busiest_line(clips[0])
    across = "from top to bottom" if line.axis == "column" else "from left to right"
    drawn = pictures.slice_picture(clips, labels, line), pictures.flicker_picture(clips, labels)
    slices, flicker = (pages.data_url(video.png_bytes(image), "image/png") for image in drawn)
    return [
        {
            "src": slices,
            "title": "One line of pixels over time",
            "alt": f"Temporal slices of {', '.join(labels)}, one above the other",
            "caption": f"Only {line} of each frame, {across}, is kept; time runs to the right, a column for a frame. "
            "What stands still is a horizontal stripe, what moves is slanted, a flicker is a vertical stripe, and an "
            f"edge that trembles is ragged. It is the {line.axis} in which “{labels[0]}” changes most.",
        },
        {
            "src": flicker,
            "title": "Where it flickers",
            "alt": f"Maps of flicker of {', '.join(labels)}, side by side",
            "caption": "Bright is where the brightness jumps up and down from frame to frame: the mean of |previous − "
            "2 × this + next frame|. Black is steady or changes evenly; edges that move leave a trace too. One scale "
            "for all; the number is the mean over the picture, in grey levels of 255.",
        },
    ]


# ---------------------------------------------------------------------------------------------------- settings


def _settings(take: Take) -> list[tuple[str, str]]:
    """A take's settings and what became of them, as text."""
    knobs = {} if take.settings is None else take.settings.to_dict()
    knobs = {k: v for k, v in knobs.items() if v is not None and k not in _INTERNAL}
    knobs |= {"guider": guider} if (guider := take.item.options.get("guider")) else {}
    rows = [(name.replace("_", " "), str(value)) for name, value in knobs.items()]
    if take.summary is not None:
        active, calls = int(take.summary.active.sum()), len(take.summary.progress)
        gains = take.summary.gain[take.summary.active]
        mean = f"{np.nanmean(gains):.3f} (highest {np.nanmax(gains):.3f})" if np.isfinite(gains).any() else "–"
        rows += [
            ("layers matched", str(len(take.summary.layers))),
            ("active", f"in {active} of {count(calls, 'forward call')}"),
            ("mean gain while active", mean),
            ("progress read from", take.summary.progress_source),
        ]
        if take.summary.no_effect:
            rows.append(("acted nowhere", take.summary.no_effect))
        elif take.summary.unreached:
            rows.append(("layers that did not run", ", ".join(take.summary.unreached)))
    return rows


_INTERNAL = {"attention_maps", "observe_only"}


def _python(take: Take) -> str:
    """The line of Python that does the same to any pipeline."""
    assert isinstance(take.settings, Settings)
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
