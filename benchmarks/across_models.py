"""Compares settings over the models of a study: tables for each model, a choice for all, and whether that holds.

    enhance-a-video study studies/models.yaml --out runs/models --workers 2        # or make models-study
    python benchmarks/across_models.py studies/models.yaml runs/models [--split 125] [--out table.md]

For each model a table: the change of every measure in percent of the plain mean, corrected over that model's tests, and
the pooled score in standard deviations of that model's plain clips. Then, over the models (each counting alike):

    choice        pooled scores on the first --split prompts (else half of them), the highest first
    confirmation  the same settings on the other prompts, on which nothing was chosen
    motion        whether what moves less was true motion: each clip's distance from the world's own clip of its prompt
    by clip       what a choice for each clip could be worth: the setting (plain included) whose no-reference reward is
                  highest on the finished clip, the best that any preview could find, judged by the truth; and the same
                  choice made by the truth itself, which nobody has, to show how much chance there is in a maximum

Settings may have been run on different numbers of prompts: each is compared on those that the plain model has too.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from enhance_a_video.lab.stats import Paired, paired
from enhance_a_video.lab.study import Study, analyse, read_study
from enhance_a_video.lab.study.analysis import known_weights, scores_of, spreads_of, table_of
from enhance_a_video.lab.study.run import WORLD, targets
from enhance_a_video.lab.study.store import Clip, Store
from enhance_a_video.lab.tune.reward import Reward, rows_of

LEAST = 4  # prompts: a setting with fewer is left out


@dataclass(frozen=True)
class Scores:
    """Of one model, (prompts,) each. NaN where a clip is missing.

    pooled: by setting, over all measures with a direction. truth: the same over the checker's alone. clips: by setting,
    the plain model's as well, the measures of each.
    """

    pooled: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    clips: dict[str, list[dict[str, float]]]


def of_model(study: Study, model: str) -> Study:
    return replace(study, models=(model,))


def part(study: Study, first: int, last: int) -> Study:
    """The study of some of its prompts."""
    scenes = study.scenes[first:last] if study.scenes is not None else None
    return replace(study, prompts=study.prompts[first:last], scenes=scenes)


@functools.cache
def stored(folder: Path) -> dict[tuple[str, str], Clip]:
    """All clips of the folder, read once."""
    with Store(folder) as store:
        return store.clips()


def scores(study: Study, folder: Path) -> Scores:
    """Of a study of one model."""
    clips = stored(folder)
    wanted = targets(study, known_weights(study, clips))
    table = table_of(study, wanted, {where: clips[where] for where in wanted if where in clips})
    spreads = spreads_of(table, study.baseline)
    varied = [name for name in study.pooled if spreads[table.column(name)] > 0]
    truth = [row.name for row in study.measures if row.truth and row.name in varied]
    return Scores(
        {label: scores_of(table, study, label, spreads, varied) for label in study.others},
        {label: scores_of(table, study, label, spreads, truth) for label in study.others},
        {label: _clips(table.values[label], study) for label in study.settings},
    )


def _clips(values: np.ndarray, study: Study) -> list[dict[str, float]]:
    return [dict(zip((row.name for row in study.measures), clip, strict=True)) for clip in values]


def judged(study: Study, clips: dict[str, list[dict[str, float]]]) -> dict[str, np.ndarray]:
    """The no-reference reward of each clip of each setting, one by one."""
    plain = clips[study.baseline]
    reward = Reward.of(
        rows_of("no-reference", study.measures), [clip for clip in plain if np.isfinite(list(clip.values())).any()]
    )
    return {
        label: np.array([reward(*pair) for pair in zip(plain, clips[label], strict=True)]) for label in study.others
    }


def against_nothing(values: np.ndarray) -> Paired:
    values = values[np.isfinite(values)]
    return paired(np.zeros_like(values), values, method="bootstrap")


# ------------------------------------------------------------------------------------------------------- tables


def model_table(study: Study, folder: Path) -> list[str]:
    """A row for each measure that any setting changed, a column for each setting."""
    ran = {label: int(np.isfinite(score).sum()) for label, score in scores(study, folder).pooled.items()}
    there = [label for label, prompts in ran.items() if prompts >= LEAST]
    study = replace(study, settings={label: study.settings[label] for label in (study.baseline, *there)})
    results = analyse(study, folder)
    lines = [
        f"| measure | better | world | plain | {' | '.join(study.others)} |",
        "|---" * (len(study.others) + 4) + "|",
    ]
    for row in study.measures:
        if row.name not in results.baseline:
            continue
        plain = results.baseline[row.name][0]
        cells = [_change(results.effects[label].get(row.name), plain) for label in study.others]
        better = {"neither": "–"}.get(row.better, row.better)
        world = f"{results.ceiling[row.name]:.4g}" if row.name in results.ceiling else "–"
        lines.append(f"| {row.label} | {better} | {world} | {plain:.4g} | {' | '.join(cells)} |")
    pooled = [_marked(_span(e.change), e.adjusted, e.change.clear) for e in results.pooled.values()]
    counts = [_counts([e.verdict for e in results.effects[label].values()]) for label in study.others]
    gains = [f"{results.gains[label]:.2f}" if label in results.gains else "–" for label in study.others]
    return [
        *lines,
        f"| prompts | | | {results.pairs} | {' | '.join(str(ran[label]) for label in there)} |",
        f"| **pooled, sd** | higher | | 0 | {' | '.join(pooled)} |",
        f"| significantly better, worse | | | | {' | '.join(counts)} |",
        f"| mean gain (or tau) | | | 1 | {' | '.join(gains)} |",
    ]


def _change(effect: Any, plain: float) -> str:
    if effect is None:
        return "–"
    if not plain:
        return "±0" if not effect.change.difference else f"{effect.change.difference:+.2g}"
    scale = 100 / abs(plain)
    half = (effect.change.high - effect.change.low) / 2 * scale
    digits = 3 if half < 0.02 else 2 if half < 0.5 else 1
    text = f"{effect.change.difference * scale:+.{digits}f} ± {half:.{digits}f}"
    return _marked(text, effect.adjusted, effect.change.clear)


def _marked(text: str, adjusted: float, clear: bool) -> str:
    return f"**{text}**" if adjusted < 0.05 else f"{text}°" if clear else text


def _span(change: Paired) -> str:
    return f"{change.difference:+.3f} ({change.low:+.3f} … {change.high:+.3f})"


def _counts(verdicts: Sequence[str]) -> str:
    return f"{verdicts.count('better')}, {verdicts.count('worse')}"


def choice(study: Study, folder: Path, first: int, last: int, against: str | None = None) -> list[str]:
    """Pooled score of each setting on some of the prompts, for each model and over all of them; and how far it is
    behind `against`, the best of them if that is None."""
    each = {model: scores(part(of_model(study, model), first, last), folder) for model in study.models}
    means = {label: np.mean([one.pooled[label] for one in each.values()], axis=0) for label in study.others}
    there = [label for label in study.others if np.isfinite(means[label]).sum() >= LEAST]
    if not there:
        return ["Not run yet on all models."]
    order = sorted(there, key=lambda label: -float(np.nanmean(means[label])))
    chosen = against if against in there else order[0]
    lines = [f"| setting | over the models | {' | '.join(map(_name, study.models))} | {chosen} minus it |"]
    lines.append("|---" * (len(study.models) + 3) + "|")
    for label in order:
        cells = [_span(against_nothing(one.pooled[label])) for one in each.values()]
        rival = "–" if label == chosen else _span(against_nothing(means[chosen] - means[label]))
        lines.append(f"| {label} | {_span(against_nothing(means[label]))} | {' | '.join(cells)} | {rival} |")
    return lines


def _figure(width: float, height: float) -> Any:
    """An empty figure, inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def picture(study: Study, folder: Path, path: Path) -> None:
    """Pooled score of each setting on each model, all prompts, with its interval."""
    each = {model: scores(of_model(study, model), folder).pooled for model in study.models}
    there = [label for label in study.others if any(np.isfinite(one[label]).sum() >= LEAST for one in each.values())]
    figure = _figure(8, 0.9 + 0.42 * len(there))
    axes = figure.subplots()
    for n, (model, one) in enumerate(each.items()):
        for row, label in enumerate(there):
            if np.isfinite(one[label]).sum() < LEAST:
                continue
            found, place = against_nothing(one[label]), row + 0.2 * (n - (len(each) - 1) / 2)
            axes.plot([found.low, found.high], [place, place], color=f"C{n}", linewidth=2)
            axes.plot(found.difference, place, "o", color=f"C{n}", label=_name(model) if row == 0 else None)
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(there)), there)
    axes.invert_yaxis()
    axes.set_xlabel("pooled score against the plain model, sd of its clips: right is better; 95 % intervals")
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=110)


def price(study: Study, folder: Path, path: Path) -> None:
    """What each setting gives and what it takes: pooled score against the change of motion, a panel for each model."""
    figure = _figure(4.2 * len(study.models), 4.2)
    panels = figure.subplots(1, len(study.models), squeeze=False)[0]
    for axes, model in zip(panels, study.models, strict=True):
        one = scores(of_model(study, model), folder)
        before = np.array([clip["motion"] for clip in one.clips[study.baseline]])
        for n, label in enumerate(study.others):
            after = np.array([clip["motion"] for clip in one.clips[label]])
            kept = np.isfinite(before + after + one.pooled[label])
            if kept.sum() < LEAST:
                continue
            found = against_nothing(one.pooled[label][kept])
            motion = 100 * (after[kept].mean() / before[kept].mean() - 1)
            axes.plot([motion, motion], [found.low, found.high], color=f"C{n % 10}", linewidth=1)
            axes.plot(motion, found.difference, "os"[n // 10 % 2], color=f"C{n % 10}", label=label)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set(title=_name(model), xlabel="change of motion, %")
    panels[0].set_ylabel("pooled score, sd: higher is better")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=110)


def by_clip(study: Study, folder: Path) -> list[str]:
    """A choice for each clip, by the no-reference reward and by the truth itself."""
    lines = ["| model | best single setting | chosen by the no-reference reward | by the truth (for comparison) |"]
    lines.append("|---" * 4 + "|")
    for model in study.models:
        one = scores(of_model(study, model), folder)
        counts = {label: int(np.isfinite(one.truth[label]).sum()) for label in study.others}
        most = max(max(counts.values()), LEAST)  # those that ran on far fewer would leave few prompts for all
        labels = [label for label, count in counts.items() if count >= 0.6 * most]
        if not labels:
            continue
        truth = np.stack([np.zeros_like(one.truth[labels[0]]), *(one.truth[label] for label in labels)])
        kept = np.isfinite(truth).all(0)
        if kept.sum() < LEAST:
            continue
        rewards = judged(of_model(study, model), one.clips)
        seen = np.stack([np.zeros(len(kept)), *(rewards[label] for label in labels)])[:, kept]
        truth = truth[:, kept]
        at = np.arange(truth.shape[1])
        single = int(truth.mean(1).argmax())
        cells = [
            f"{[study.baseline, *labels][single]}: {_span(against_nothing(truth[single]))}",
            _span(against_nothing(truth[seen.argmax(0), at])),
            _span(against_nothing(truth.max(0))),
        ]
        lines.append(f"| {_name(model)} | {' | '.join(cells)} |")
    return lines


def motion(study: Study, folder: Path) -> list[str]:
    """How far the motion of a clip is from that of the world's own clip of its prompt, without and with a setting."""
    world = [stored(folder).get((f"{WORLD}-{scene}", WORLD)) for scene in study.scenes or ()]
    lines = ["| model | measure | setting | world | plain | with it | mean distance, plain | its change |"]
    lines.append("|---" * 8 + "|")
    for model in study.models:
        clips = scores(of_model(study, model), folder).clips
        for row in (row for row in study.measures if row.name in ("motion", "path_length")):
            for label in study.others:
                three = [[one.measures[row.name] if one else np.nan for one in world]]
                three += [[clip[row.name] for clip in clips[which]] for which in (study.baseline, label)]
                if len({len(values) for values in three}) > 1:  # several clips a prompt
                    continue
                own, plain, changed = (values := np.array(three))[:, np.isfinite(values).all(0)]
                if len(own) < LEAST:
                    continue
                change = against_nothing(abs(changed - own) - abs(plain - own))
                numbers = [f"{x.mean():.3g}" for x in (own, plain, changed, abs(plain - own))]
                lines.append(f"| {_name(model)} | {row.label} | {label} | {' | '.join(numbers)} | {_span(change)} |")
    return lines


def _name(model: str) -> str:
    return Path(model).name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=None, help="only the first so many prompts")
    parser.add_argument("--split", type=int, default=None, help="prompts of the choice; default: half")
    parser.add_argument("--chosen", default=None, help="the setting that the others are confirmed against")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--picture", type=Path, default=None, help="of the pooled scores, .png")
    parser.add_argument("--price", type=Path, default=None, help="a picture of score against motion, .png")
    args = parser.parse_args()
    study = read_study(args.study)
    study = part(study, 0, args.first or len(study.prompts))
    half = args.split or len(study.prompts) // 2
    lines = [
        f"# {study.name}: every setting on every model",
        "",
        "Written by `benchmarks/across_models.py` (see there). Change in percent of the plain mean ± half its 95 % "
        "interval; **bold**: significant after Holm's correction over the model's tests; °: the uncorrected interval "
        "excludes zero. What it means: [results](index.md).",
        "",
    ]
    for model in study.models:
        lines += [f"## {_name(model)}", "", *model_table(of_model(study, model), args.folder), ""]
    first = study.scenes[0] if study.scenes is not None else 0
    lines += [f"## Choice: prompts {first} to {first + half - 1}", "", *choice(study, args.folder, 0, half), ""]
    rest = choice(study, args.folder, half, len(study.prompts), args.chosen)
    lines += [f"## Confirmation: prompts from {first + half} on", "", *rest, ""]
    if study.scenes is not None:
        lines += ["## Motion, beside that of the world's own clips", "", *motion(study, args.folder), ""]
    lines += ["## A choice for each clip, judged by the truth", "", *by_clip(study, args.folder), ""]
    text = "\n".join(lines)
    print(text)
    if args.picture:
        picture(study, args.folder, args.picture)
    if args.price:
        price(study, args.folder, args.price)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
