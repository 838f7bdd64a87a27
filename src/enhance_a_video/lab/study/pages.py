"""Writes the report of a study: one HTML file that needs nothing else, and the same tables as Markdown."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import OutputExistsError
from ...generation.events import Report, silent
from ...generation.files import explained, refuse_existing, write_text
from .. import pages
from ..pages.words import number, terms
from . import view
from .analysis import Case, Results
from .run import ensure_videos
from .size import StudySize, make_plan
from .store import FILE

HTML, MARKDOWN = "report.html", "report.md"
KINDS = ("random", "worst", "best")
FIRST_SHOWN = 2  # pairs of each kind that are not folded


def write_pages(results: Results, folder: str | Path, *, progress: Report = silent) -> list[Path]:
    """Writes report.html and report.md beside the results; earlier ones of the same study are replaced.

    Args:
        progress: called while videos that were not kept are generated again.

    Raises:
        VideoFileError: the pages cannot be written; noticed before a video is generated.
    """
    folder = Path(folder)
    written = [folder / HTML, folder / MARKDOWN]
    refuse_existing(written, force=True)
    plan = make_plan(results.study, folder)
    videos = _videos(results, folder, progress)
    write_text(written[0], html(results, plan, videos), force=True)
    write_text(written[1], markdown(results, plan), force=True)
    return written


def refuse_foreign(folder: str | Path, *, write: bool = False) -> None:
    """Pages without a database beside them are somebody else's. write: this run is to write them.

    Raises:
        OutputExistsError: naming them. VideoFileError: they cannot be written.
    """
    folder = Path(folder)
    written = [folder / HTML, folder / MARKDOWN]
    with explained(folder, "use"):
        there = [str(path) for path in written if path.exists()]
        if there and not (folder / FILE).exists():
            raise OutputExistsError(f"Already there, and not of a study: {', '.join(there)}. Choose another --out.")
    if write:
        refuse_existing(written, force=True)


# ------------------------------------------------------------------------------------------------------------ HTML


def html(results: Results, plan: StudySize, videos: dict[str, bytes]) -> str:
    """The page. videos: clip's key -> mp4."""
    from markupsafe import Markup

    study = results.study
    factors = view.grouped(results.parts)
    shown = [(label, _kinds(results, label)) for label in _shown(results)]
    clips = {key: base64.b64encode(data).decode() for key, data in videos.items()}
    return pages.render(
        "study.html",
        view=view,
        results=results,
        study=study,
        plan=plan,
        lead=study.others if len(study.others) <= 3 else _shown(results),
        videos_shown=shown,
        first_shown=FIRST_SHOWN,
        more={label: sum(max(0, len(cases) - FIRST_SHOWN) for *_, cases in kinds) for label, kinds in shown},
        settings=[view.pooled_line(results, label) for label in study.others],
        tables=_tables(results),
        forest=view.forest(results),
        factors=[(name, parts, view.by_factor(parts, study.others)) for name, parts in factors.items()],
        baseline=view.baseline_lines(results),
        needs=view.needs(plan),
        knobs=_knobs(results),
        runs=results.runs,
        videos=Markup(json.dumps(clips)),  # keys are hexadecimal, values base64
    )


def _kinds(results: Results, label: str) -> list[tuple[str, str, list[Case]]]:
    """(kind, heading, pairs) of a setting's videos."""
    cases = results.cases[label]
    return [(kind, _heading(kind, len(cases[kind])), cases[kind]) for kind in KINDS]


def _heading(kind: str, number: int) -> str:
    if kind == "random":
        return "Drawn at random"
    return f"The {kind}" if number == 1 else f"The {number} {kind}"


def _tables(results: Results) -> list[tuple[str, str, list[tuple[str, list[dict[str, Any]]]]]]:
    """(setting, verdict, groups of rows): against the truth, from the frames alone."""
    found = []
    for label in results.study.others:
        effects = list(results.effects[label].values())
        groups = [
            ("Against the truth: what the prompt describes", [view.line(e) for e in effects if e.row.truth]),
            ("From the frames alone, without the prompt", [view.line(e) for e in effects if not e.row.truth]),
        ]
        found.append((label, view.verdict(results, label), [(name, rows) for name, rows in groups if rows]))
    return found


def _shown(results: Results) -> tuple[str, ...]:
    return results.study.videos.show or results.study.others


def _videos(results: Results, folder: Path, progress: Report) -> dict[str, bytes]:
    """clip's key -> mp4 of every clip that the page shows, each once."""
    study = results.study
    plain = {trial.pair: trial for trial in study.trials() if trial.item.label == study.baseline}
    wanted = {}
    for label in _shown(results):
        for cases in results.cases[label].values():
            for case in cases:
                wanted[case.clip] = case.trial
                wanted[case.baseline] = plain[case.trial.pair]
    paths = ensure_videos(study, folder, wanted, progress)
    return {f"{key}-{weights}": path.read_bytes() for (key, weights), path in paths.items()}


def _knobs(results: Results) -> list[tuple[str, str]]:
    """Each setting's knobs as text."""
    hidden = {"attention_maps", "observe_only", "per_sample", "sites"}
    found = []
    for label, settings in results.study.settings.items():
        knobs = {} if settings is None else {k: v for k, v in settings.to_dict().items() if v is not None}
        knobs |= {name: _words(value) for name, value in results.study.own.get(label, {}).items()}
        text = ", ".join(f"{name} {value}" for name, value in knobs.items() if name not in hidden)
        found.append((label, text or "the plain model"))
    return found


def _words(value: Any) -> str:
    """A guider's name with its knobs; anything else as it is."""
    if not isinstance(value, Mapping):
        return str(value)
    knobs = ", ".join(f"{name} {one}" for name, one in value.items() if name != "name" and one is not None)
    return f"{value['name']} ({knobs})"


# -------------------------------------------------------------------------------------------------------- Markdown


def markdown(results: Results, plan: StudySize) -> str:
    """The same tables for a repository or a paper's supplement; the videos are in the HTML."""
    study = results.study
    parts = [f"# {study.name}", *(f"**{label}:** {view.result(results, label)}" for label in study.others)]
    parts += [view.headline(results)]
    parts += [f"> **{text}**" for text in view.warnings(results)]
    lines = [view.pooled_line(results, label) for label in study.others]
    parts += [
        "## Pooled score",
        _table(
            ["setting", "pooled, sd", "95 % interval", "p corrected", "", "win/tie/loss", "better", "worse",
             "mean gain", "s a clip"],
            [[r["label"], r["value"], r["span"], r["adjusted"], r["verdict"], r["score"], r["better"], r["worse"],
              r["gain"], r["seconds"]] for r in lines],
        ),
    ]  # fmt: skip
    if results.rivals:
        parts += ["### Setting against setting: pooled score of the row minus that of the column", _rivals(results)]
    for label, verdict, groups in _tables(results):
        rows = [
            [f"{r['label']}, {r['unit']}", r["direction"], r["before"], r["after"], r["difference"], r["span"],
             r["relative"], r["relative_span"], r["score"], r["p"], r["adjusted"], _bold(r["verdict"])]
            for _, group in groups for r in group
        ]  # fmt: skip
        head = ["measure", "", study.baseline, label, "change", "95 % interval", "relative", "95 % interval",
                "win/tie/loss", "p", "p corrected", ""]  # fmt: skip
        parts += [f"## {label}, against {study.baseline}", verdict, _table(head, rows)]
    for factor, group in view.grouped(results.parts).items():
        parts.append(f"## By {factor} (not corrected: for looking)")
        for label in study.others:
            parts.append(_part_table(results, label, group))
    parts += [f"## {study.baseline} itself", _baseline_table(results)]
    parts += ["## Was the study large enough?", needs_text(plan), needs_table(plan)]
    for label in _shown(results):
        parts += [f"## Cases: {label} (videos: {HTML})", _case_table(results, label)]
    explained = [f"- **{term}**: {text}" for term, text in terms("\n\n".join(parts))]
    parts += ["## What the words and signs mean", "\n".join(explained), "## How it was done", *view.method(results)]
    return "\n\n".join([*parts, _provenance(results)]) + "\n"


def _baseline_table(results: Results) -> str:
    own = ["the world's own clips"] if results.ceiling else []
    rows = [
        [r["label"], view.DIRECTION[r["row"].better], *([r["ceiling"]] if own else []), r["mean"], r["span"]]
        for r in view.baseline_lines(results)
    ]
    return _table(["measure", "", *own, results.study.baseline, "95 % interval"], rows)


def needs_text(plan: StudySize) -> str:
    power = plan.study.power
    return (
        f"From the spread of the paired differences so far: how many {view.plural(plan.unit)} a change by the named "
        f"effect needs to be found with a chance of {power.power:.0%}, when it is the only test and when it is one of "
        f"all tests of this study; and what the planned {view.units(plan.units, plan.unit)} can find."
    )


def needs_table(plan: StudySize) -> str:
    head = ["measure", "effect", "sd of differences", "needed, alone", "needed, corrected", "planned ones find", ""]
    rows = [
        [r["label"], r["effect"], r["spread"], r["alone"], r["all"], r["finds"],
         {None: "", True: "enough", False: "too few"}[r["enough"]]]
        for r in view.needs(plan)
    ]  # fmt: skip
    return _table(head, rows)


def _rivals(results: Results) -> str:
    labels = results.study.others
    rows = [[a, *("" if a == b else view.rival(results.rivals.get((a, b))) for b in labels)] for a in labels]
    return _table(["", *labels], rows)


def _part_table(results: Results, label: str, group: Sequence[Any]) -> str:
    rows = [["Pooled score, sd", *(_pooled_cell(part.pooled[label]) for part in group)]]
    for row in results.study.measures:
        if any(row.name in part.effects[label] for part in group):
            rows.append(
                [view.capital(row.label), *(view.part_cell(part.effects[label].get(row.name)) for part in group)]
            )
    return _table([label, *(part.value for part in group)], rows)


def _pooled_cell(effect: Any) -> str:
    half = (effect.change.high - effect.change.low) / 2
    return f"{number(effect.change.difference, 3, sign=True)} ± {number(half, 3)}"


def _case_table(results: Results, label: str) -> str:
    rows = []
    for kind, cases in results.cases[label].items():
        for case in cases:
            reasons = "; ".join(f"{name} {number(z, 1, sign=True)} sd" for name, *_, z in case.reasons)
            where = ", ".join(f"{k} {v}" for k, v in case.trial.condition.items())
            prompt = case.trial.item.prompt
            rows.append([kind, number(case.score, 2, sign=True), prompt, case.trial.item.seed, where, reasons])
    return _table(["", "score, sd", "prompt", "seed", "", "what moved it"], rows)


def _provenance(results: Results) -> str:
    study = results.study
    rows = [
        [run["started"], run["digest"], run["workers"], run["about"]["machine"]["cpu"],
         ", ".join(f"{k} {v}" for k, v in run["about"]["versions"].items()), f"`{run['command']}`"]
        for run in results.runs
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"Hash of the study: `{study.digest}`. Models and weights: "
            + ", ".join(f"{model} (`{weights}`)" for model, weights in results.weights.items())
            + ". Settings: "
            + "; ".join(f"{label}: {text}" for label, text in _knobs(results))
            + ".",
            _table(["started (UTC)", "hash", "workers", "machine", "versions", "command"], rows),
            f"~~~~~~yaml\n{study.text.strip()}\n~~~~~~",
        ]
    )


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(_cell, head)) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows])


def _cell(value: Any) -> str:
    """What a user wrote may hold a line end, or a bar, which ends a cell even in code."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _bold(word: str) -> str:
    return f"**{word}**" if word in ("better", "worse", "more", "less") else word
