"""A study's results as text and pictures, for the HTML page and for the Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...wording import count
from ..pages import drawing, words
from ..pages.drawing import styled, svg
from ..pages.words import capital, digits, listed, number, within
from ..stats import Paired
from .analysis import ALPHA, Effect, Part, Results
from .size import StudySize

COLOURS = {
    "better": drawing.GOOD, "maybe better": drawing.PALE_GOOD, "worse": drawing.BAD, "maybe worse": drawing.PALE_BAD,
    "more": drawing.OTHER, "less": drawing.OTHER, "maybe more": drawing.PALE_OTHER, "maybe less": drawing.PALE_OTHER,
}  # fmt: skip
_SETTINGS = ("#4f6bff", "#d9822b", "#1f9d68", "#a35bd6", "#d6453b", "#1b9aa0", "#9a8560", "#7d879c")
_A_ROW = 4  # settings beside each other in the forest plot

DIRECTION = {"higher": "higher is better", "lower": "lower is better", "neither": "no good direction"}
CORRECTION = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}


# ------------------------------------------------------------------------------------------------------- sentences


def headline(results: Results) -> str:
    """What was compared, in a sentence."""
    study = results.study
    seeds = {len(prompt.seeds or ()) for prompt in study.prompts}
    noises = count(seeds.pop(), "seed") if len(seeds) == 1 else "several seeds"
    parts = [count(len(study.prompts), "prompt"), f"{noises} each"]
    parts += [f"{name} {', '.join(map(str, values))}" for name, values in study.factors.items()]
    what, pairs = count(len(study.others), "setting"), count(results.pairs, "pair")
    of = "" if len(study.others) == 1 else " for each setting"
    return f"{what} against “{study.baseline}” on {', '.join(parts)}: {pairs} of clips{of}."


def result(results: Results, label: str) -> str:
    """What a setting did, for somebody who makes videos: steadier or not, how many measures, at what cost in motion."""
    effects = results.effects[label]
    steady = effects.get(words.STEADINESS)
    parts = [] if steady is None else [words.steadiness(steady.change, steady.verdict)]
    verdicts = [effect.verdict for effect in effects.values() if effect.row.better != "neither"]
    better, worse = (verdicts.count(word) or "none" for word in ("better", "worse"))
    parts.append(f"Of {count(len(verdicts), 'measure')} with a good direction, {better} better and {worse} worse.")
    pooled = results.pooled[label]
    if math.isfinite(pooled.change.difference):
        word = {"unclear": "no clear change"}.get(pooled.verdict, pooled.verdict)
        parts.append(f"Pooled score: {word} ({number(pooled.change.difference, 3, sign=True)} sd).")
    motion = effects.get("motion")
    if motion is not None and motion.verdict in ("more", "less"):
        parts.append(f"Motion {percent(motion.change.relative)}.")
    return " ".join(parts)


def warnings(results: Results) -> list[str]:
    """Warnings that a reader needs before believing a number."""
    found = []
    if not results.complete:
        found.append(
            f"Not finished: {results.done} of {count(results.planned, 'clip')} stored with all "
            "measures. Everything below is of what is there."
        )
    if results.failures:
        first = next(iter(results.failures.values()))
        lost = count(len(results.failures), "clip")
        found.append(f"{lost} could not be made and so are missing below. The first: {first}")
    for name in ("enhance-a-video", "torch", "diffusers"):
        versions = sorted({run["about"]["versions"][name] for run in results.runs})
        if len(versions) > 1:
            found.append(f"The clips were made with several versions of {name}: {', '.join(versions)}.")
    digests = {run["digest"] for run in results.runs}
    if digests - {results.study.digest}:
        found.append(
            "The study's file was changed after some of these clips were made (see the runs below). Clips that the "
            "study as it is now does not contain are left out."
        )
    if results.units < 30:
        found.append(f"Compared on only {units(results.units, results.unit)}: read the intervals, not the means.")
    return found


def verdict(results: Results, label: str) -> str:
    """One sentence that counts what got better and what got worse, naming both."""
    effects = [effect for effect in results.effects[label].values() if effect.row.better != "neither"]
    named = {word: [_named(e) for e in effects if e.verdict == word] for word in ("better", "worse")}
    maybe = sum(effect.verdict.startswith("maybe") for effect in effects)
    better, worse = (f"{len(found) or 'none'} {word}{listed(found)}" for word, found in named.items())
    rest = f"; in {maybe} more the interval excludes zero, but not after correction" if maybe else ""
    return f"Of {count(len(effects), 'measure')} with a good direction, {better} and {worse}{rest}."


def _named(effect: Effect) -> str:
    share = effect.change.relative
    label = within(effect.row.label)
    return label if math.isnan(share) else f"{label} {percent(share)}"


def method(results: Results) -> list[str]:
    """How the numbers came about, paragraph by paragraph."""
    study, baseline = results.study, f"“{results.study.baseline}”"
    rows, others = len(study.measures), len(study.others)
    if results.unit == "prompt":
        unit = (
            "Pairs of one prompt are not independent, so they are averaged first: the "
            f"{results.units} prompts are the observations, and what is found is meant to hold for prompts like them."
        )
    else:
        unit = (
            "With so few prompts, each prompt and seed is an observation (averaged over conditions): what is found "
            "holds for these prompts, under other noise."
        )
    drawn = (
        "percentile bootstrap over the observations (10,000 resamples, fixed seed)"
        if results.method == "bootstrap"
        else "Student's t (a bootstrap of so few observations would be too narrow)"
    )
    *alike, last = ["prompt", "initial noise", *study.factors]
    pooled = ", ".join(within(label_of(results, name)) for name in results.pooled_from) or "nothing"
    return [
        f"Pairs. Every clip of a setting is compared with the clip of {baseline} of the same "
        f"{', '.join(alike)} and {last}. {unit}",
        f"Intervals are 95 %, by {drawn}. Relative changes are in percent of the mean of {baseline}, which is taken as "
        "fixed. A clip in which a measure finds nothing to measure leaves its pair out of that measure.",
        "Significance: two-sided paired t-test over the observations, corrected with "
        f"{CORRECTION[study.correction]} over all {count(rows, 'measure')} × {count(others, 'setting')} = "
        f"{count(rows * others, 'test')}; the pooled score apart, over the {count(others, 'setting')}. “Better”, "
        f"“worse”, “more” and “less” mean a corrected p below {ALPHA}; “maybe” means that only the uncorrected "
        "interval excludes zero. Parts of the study (by length, steps, guidance or model) are not corrected: they "
        "are for looking.",
        "Win/tie/loss counts pairs of clips: better, exactly equal, worse (without a good direction: more, equal, "
        "less).",
        "Pooled score. For each pair, the change in every measure that has a direction is divided by the standard "
        f"deviation of that measure over all clips of {baseline}, signed so that positive is better, and averaged. "
        "Measures overlap and are weighted alike, so it ranks settings on this study's list and is not a quality in "
        f"itself. It pools: {pooled}.",
    ]


def label_of(results: Results, name: str) -> str:
    return next(row.label for row in results.study.measures if row.name == name)


def plural(unit: str) -> str:
    return {"prompt": "prompts", "prompt and seed": "pairs of prompt and seed"}[unit]


def units(number: int, unit: str) -> str:
    """ "1 prompt", "12 pairs of prompt and seed": how many observations."""
    singular = {"prompt": "prompt", "prompt and seed": "pair of prompt and seed"}[unit]
    return count(number, singular, plural(unit))


# ---------------------------------------------------------------------------------------------------------- tables


def percent(share: float, places: int = 1) -> str:
    return "–" if not math.isfinite(share) else number(100 * share, places, sign=True) + " %"


def probability(p: float) -> str:
    if not math.isfinite(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def span(low: float, high: float, places: int) -> str:
    return f"{number(low, places, sign=True)} … {number(high, places, sign=True)}"


def line(effect: Effect) -> dict[str, Any]:
    """One row of a measures table, as text."""
    change = effect.change
    places = _places(change)
    scale = abs(change.before) or math.nan
    half = 100 * (change.high - change.low) / 2 / scale
    fine = max(1, min(4, 1 - math.floor(math.log10(half)))) if half > 0 else 1  # of 0.98, a thousandth can be a lot
    return {
        "effect": effect,
        "label": capital(effect.row.label),
        "unit": effect.row.unit,
        "direction": DIRECTION[effect.row.better],
        "before": number(change.before, places),
        "after": number(change.after, places),
        "difference": number(change.difference, places, sign=True),
        "span": span(change.low, change.high, places),
        "relative": percent(change.relative, fine),
        "relative_span": span(100 * change.low / scale, 100 * change.high / scale, fine) + " %"
        if math.isfinite(scale)
        else "–",
        "score": f"{effect.wins}/{effect.ties}/{effect.losses}",
        "p": probability(effect.p),
        "adjusted": probability(effect.adjusted),
        "verdict": effect.verdict,
    }


def baseline_lines(results: Results) -> list[dict[str, Any]]:
    """The baseline itself: its means, and what the world's own clips get."""
    found = []
    for row in results.study.measures:
        if row.name in results.baseline:
            mean, low, high = results.baseline[row.name]
            places = digits(mean)
            found.append(
                {
                    "row": row,
                    "label": capital(row.label),
                    "mean": number(mean, places),
                    "span": f"{number(low, places)} … {number(high, places)}",
                    "ceiling": f"{results.ceiling[row.name]:.4g}" if row.name in results.ceiling else "–",
                }
            )
    return found


def _places(change: Paired) -> int:
    """Decimals that show two digits of the interval's half, or four of the mean where there is none."""
    half = (change.high - change.low) / 2
    if math.isfinite(half) and half > 0:
        return max(0, min(6, 1 - math.floor(math.log10(half))))
    return 3 if change.difference == 0 else digits(change.before)


def pooled_line(results: Results, label: str) -> dict[str, Any]:
    """One row of the summary of settings."""
    effect = results.pooled[label]
    words = [one.verdict for one in results.effects[label].values()]
    return {
        "label": label,
        "effect": effect,
        "value": number(effect.change.difference, 3, sign=True),
        "span": span(effect.change.low, effect.change.high, 3),
        "adjusted": probability(effect.adjusted),
        "verdict": effect.verdict,
        "score": f"{effect.wins}/{effect.ties}/{effect.losses}",
        "better": words.count("better"),
        "worse": words.count("worse"),
        "seconds": number(results.seconds.get(label, math.nan), 1),
        "gain": number(results.gains.get(label, math.nan), 3),
    }


def rival(pair: Paired | None) -> str:
    """One cell of the table of settings against settings."""
    if pair is None:
        return "–"
    return f"{number(pair.difference, 3, sign=True)} ± {number((pair.high - pair.low) / 2, 3)}"


def part_cell(effect: Effect | None) -> str:
    """A part's effect: relative change and half its interval."""
    if effect is None:
        return "–"
    change = effect.change
    if not change.before:
        return number(change.difference, 3, sign=True)
    half = abs(100 * (change.high - change.low) / 2 / change.before)
    return f"{percent(change.relative)} ± {number(half, 1)}"


def needs(plan: StudySize) -> list[dict[str, Any]]:
    """The rows of the table of clips needed."""
    rows = []
    for need in plan.needs:
        relative = need.row.name != "pooled"
        scale = abs(need.mean) if relative else 1.0
        share = (lambda x, scale=scale: _share(x / scale) if scale else "–") if relative else _sd
        rows.append(
            {
                "label": capital(need.row.label),
                "effect": share(need.effect) if need.effect else "–",
                "spread": share(need.spread) if need.spread else "–",
                "alone": "–" if need.alone is None else f"{need.alone:,}",
                "all": "–" if need.all is None else f"{need.all:,}",
                "finds": share(need.finds) if math.isfinite(need.finds) and need.spread else "–",
                "enough": None if need.all is None else need.all <= plan.units,
            }
        )
    return rows


def _share(value: float) -> str:
    """A share in percent with two digits that count."""
    share = 100 * value
    return number(share, max(0, min(4, 1 - math.floor(math.log10(share))))) + " %"


def _sd(value: float) -> str:
    return f"{value:.3f} sd"


# ----------------------------------------------------------------------------------------------------------- plots


@styled
def forest(results: Results) -> str:
    """Inline SVG: every measure's standardised change with its interval, a panel for each setting."""
    from matplotlib.figure import Figure

    labels = results.study.others
    rows = _forest_rows(results)
    bands = [labels[n : n + _A_ROW] for n in range(0, len(labels), _A_ROW)]
    figure = Figure(figsize=(10.4, len(bands) * (0.245 * len(rows) + 0.85)), facecolor="none")
    figure.set_layout_engine("constrained", wspace=0.02, hspace=0.08)
    grid = figure.subplots(len(bands), min(len(labels), _A_ROW), squeeze=False, sharey=True, sharex=True)
    for axes in grid.flat:
        axes.set_visible(False)
    for band, row_of_axes in zip(bands, grid, strict=True):
        for label, axes in zip(band, row_of_axes, strict=False):
            axes.set_visible(True)
            _forest_panel(axes, results, label, rows)
    below = "; below the gap: right = more" if "" in rows else ""
    figure.supxlabel(
        f"change in standard deviations of the baseline; right = better{below}", fontsize=8.5, color=drawing.SOFT
    )
    for row_of_axes in grid:
        names = [capital(_short(results, name)) if name else "" for name in rows]
        row_of_axes[0].set_yticks(range(len(rows)), names)
    return svg(
        figure, "Change in every measure with its interval, a panel for each setting; the tables have the numbers"
    )


def _forest_rows(results: Results) -> list[str]:
    """pooled, the measures with a direction, a gap, those without; '' is the gap."""
    rows = [row for row in results.study.measures if any(row.name in found for found in results.effects.values())]
    directed = [row.name for row in rows if row.better != "neither"]
    other = [row.name for row in rows if row.better == "neither"]
    return ["pooled", *directed, *(["", *other] if other else [])]


def _short(results: Results, name: str) -> str:
    return "pooled score" if name == "pooled" else label_of(results, name)


def _forest_panel(axes: Any, results: Results, label: str, rows: Sequence[str]) -> None:
    axes.axvline(0, color=drawing.EDGE, linewidth=1, zorder=0)
    axes.axhspan(-0.5, 0.5, color=drawing.BAND, zorder=-1)
    for place, name in enumerate(rows):
        effect = results.pooled[label] if name == "pooled" else results.effects[label].get(name)
        if effect is None or not math.isfinite(effect.scaled[0]):
            continue
        middle, low, high = effect.scaled
        colour = COLOURS.get(effect.verdict, drawing.GREY)
        if math.isfinite(low):
            axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="round")
        axes.plot([middle], [place], "D" if name == "pooled" else "o", color=colour, markersize=4.6)
    axes.set_title(label)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", color=drawing.BAND, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


@styled
def by_factor(parts: Sequence[Part], labels: Sequence[str]) -> str:
    """Inline SVG: the pooled score of each setting for each value of a factor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.7), facecolor="none")
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    axes.axhline(0, color=drawing.EDGE, linewidth=1, zorder=0)
    for n, label in enumerate(labels):
        shift = min(0.09, 0.7 / len(labels)) * (n - (len(labels) - 1) / 2)
        for place, part in enumerate(parts):
            middle, low, high = part.pooled[label].scaled
            colour = _SETTINGS[n % len(_SETTINGS)]
            if math.isfinite(low):
                axes.plot([place + shift] * 2, [low, high], color=colour, linewidth=1.6, solid_capstyle="round")
            named = label if place == 0 else None
            axes.plot([place + shift], [middle], "o", color=colour, markersize=4.6, label=named)
    axes.set_xticks(range(len(parts)), [part.value for part in parts])
    axes.set_xlim(-0.5, len(parts) - 0.5)
    axes.set(xlabel=parts[0].factor, ylabel="pooled score, sd")
    axes.grid(axis="y", color=drawing.BAND, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(figure, f"Pooled score of each setting with its interval, by {parts[0].factor}")


def grouped(parts: Sequence[Part]) -> Mapping[str, list[Part]]:
    """factor -> its parts."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.factor, []).append(part)
    return found
