"""The method against other training-free methods: effect against cost, from the clips of a study with guiders.

    enhance-a-video study studies/peers-tuning.yaml --out runs/peers-tuning       # three trials for each, other prompts
    enhance-a-video study studies/peers.yaml --out runs/peers                     # or make peers-study
    python benchmarks/peers.py studies/peers.yaml runs/peers --picture docs/results/peers.png
    python benchmarks/peers.py studies/peers-tuning.yaml runs/peers-tuning --trials

The cost of a setting is counted, not computed: forward passes of the transformer for a small clip, relative to the
plain model's. Only prompts are used on which every setting has its clip on every model, so that a study that was
stopped compares like with like; a model that lacks a setting altogether is left out. Over the models each counts alike.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from across_models import Scores, _figure, _marked, _name, _span, against_nothing, of_model, scores

from enhance_a_video.generation import peers, pipelines
from enhance_a_video.generation.making import make_clips
from enhance_a_video.lab.stats import adjusted, p_value
from enhance_a_video.lab.study import Study, read_study

SHOWN = {
    "warping_error": "warping error", "motion": "motion", "attributes_right": "asked right",
    "backdrop_flicker": "backdrop flicker", "colour_drift": "colour drift", "saturation": "saturation",
}  # fmt: skip
ODDS = "odds 2"


def complete(each: dict[str, Scores]) -> dict[str, Scores]:
    """The models that have every setting, and the prompts on which all of these have it."""
    enough = {m: one for m, one in each.items() if all(np.isfinite(v).sum() >= 4 for v in one.pooled.values())}
    if not enough:
        raise SystemExit("No model has a clip of every setting on four prompts yet: run the study first.")
    kept = np.all([np.isfinite(v) for one in enough.values() for v in one.pooled.values()], axis=0)
    return {
        model: Scores(
            {label: v[kept] for label, v in one.pooled.items()},
            {label: v[kept] for label, v in one.truth.items()},
            {label: [c for c, keep in zip(clips, kept, strict=True) if keep] for label, clips in one.clips.items()},
        )
        for model, one in enough.items()
    }


def change(each: dict[str, Scores], baseline: str, label: str, measure: str) -> np.ndarray:
    """Of each prompt, in percent of the plain mean, the mean over the models."""
    found = []
    for one in each.values():
        before, after = (np.array([clip[measure] for clip in one.clips[name]]) for name in (baseline, label))
        found.append(100 * (after - before) / np.nanmean(before))
    return np.mean(found, axis=0)


def costs(study: Study) -> dict[str, float]:
    """Forward passes relative to the plain model's, of the first model's smallest clip."""
    pipelines.quiet()
    load = {name: value for name, value in study.load.items() if name != "batch"}
    pipe = pipelines.load(study.models[0], **load)
    passes = {}
    for trial in replace(study, models=study.models[:1]).trials(1):
        item = replace(trial.item, options={**trial.item.options, "frames": 5})
        with peers.counted(pipe) as count:
            make_clips(pipe, [item])
        passes[trial.item.label] = count.passes
    return {label: n / passes[study.baseline] for label, n in passes.items()}


def table(study: Study, each: dict[str, Scores], cost: dict[str, float]) -> list[str]:
    """A row for each setting, the highest pooled score first."""
    means = {label: np.mean([one.pooled[label] for one in each.values()], axis=0) for label in study.others}
    p = dict(zip(means, adjusted([p_value(v) for v in means.values()]), strict=True))
    order = sorted(means, key=lambda label: -means[label].mean())
    heads = [
        "setting",
        "cost",
        "pooled, sd",
        *map(_name, each),
        f"minus {ODDS}",
        *(f"{one}, %" for one in SHOWN.values()),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for label in order:
        over = against_nothing(means[label])
        cells = [_marked(_span(over), p[label], over.clear)]
        cells += [
            _marked(_span(x), 1.0, x.clear) for x in (against_nothing(one.pooled[label]) for one in each.values())
        ]
        cells.append("–" if label == ODDS else _span(against_nothing(means[label] - means[ODDS])))
        for measure in SHOWN:
            found = against_nothing(change(each, study.baseline, label, measure))
            text = f"{found.difference:+.1f} ± {(found.high - found.low) / 2:.1f}"
            cells.append(_marked(text, 1.0, found.clear))
        lines.append(f"| {label} | {cost[label]:.2f} | {' | '.join(cells)} |")
    return lines


def added(study: Study, each: dict[str, Scores]) -> list[str]:
    """What odds change on top of each other method: that with odds minus that alone."""
    heads = ["on top of", "pooled, sd", *(f"{one}, %" for one in SHOWN.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    pairs = [(label, f"{label}, {ODDS}") for label in study.others if f"{label}, {ODDS}" in study.others]
    pairs += [("14 steps", f"{ODDS}, 14 steps")] if f"{ODDS}, 14 steps" in study.others else []
    for alone, both in pairs:
        found = against_nothing(np.mean([o.pooled[both] - o.pooled[alone] for o in each.values()], axis=0))
        cells = [_marked(_span(found), 1.0, found.clear)]
        for measure in SHOWN:
            two = (change(each, study.baseline, label, measure) for label in (both, alone))
            one = against_nothing(np.subtract(*two))
            cells.append(_marked(f"{one.difference:+.1f} ± {(one.high - one.low) / 2:.1f}", 1.0, one.clear))
        lines.append(f"| {alone} | {' | '.join(cells)} |")
    return lines


def trials(study: Study, each: dict[str, Scores]) -> list[str]:
    """The trials of a tuning, by method, and which is the best."""
    means = {label: np.mean([one.pooled[label] for one in each.values()], axis=0) for label in study.others}
    lines = [f"| trial | knobs | pooled, sd | {' | '.join(map(_name, each))} |", "|---" * (3 + len(each)) + "|"]
    for label, values in means.items():
        method = label.rsplit(" ", 1)[0]
        best = max((one for one in means if one.rsplit(" ", 1)[0] == method), key=lambda one: means[one].mean())
        knobs = ", ".join(f"{k} {v}" for k, v in study.own[label]["guider"].items() if k != "name")
        cells = [f"{values.mean():+.3f}", *(f"{one.pooled[label].mean():+.3f}" for one in each.values())]
        lines.append(f"| {f'**{label}**' if label == best else label} | {knobs} | {' | '.join(cells)} |")
    return lines


def picture(study: Study, each: dict[str, Scores], cost: dict[str, float], path: Path) -> None:
    """Pooled score over the models, a panel for each cost; with odds in another colour."""
    bands = [(0.0, 1.05, "1"), (1.05, 1.45, "1.2 to 1.4"), (1.45, 9.0, "from 1.5")]
    parts = [[label for label in study.others if low <= cost[label] < high] for low, high, _ in bands]
    figure = _figure(10, 5)
    panels = figure.subplots(1, len(bands), sharey=True, width_ratios=[max(len(part), 1) for part in parts])
    for axes, part, (_, _, title) in zip(panels, parts, bands, strict=True):
        score = {one: np.mean([model.pooled[one] for model in each.values()], axis=0) for one in part}
        order = sorted(part, key=lambda one: -score[one].mean())
        for place, label in enumerate(order):
            found, colour = against_nothing(score[label]), "C1" if ODDS in label else "C0"
            axes.plot([place, place], [found.low, found.high], color=colour, linewidth=2)
            axes.plot(place, found.difference, "o", color=colour)
        names = [one if title == "1" else f"{one} ({cost[one]:.1f})" for one in order]
        axes.set_xticks(range(len(order)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set_title(f"forward passes: {title}", fontsize=9)
    panels[0].set_ylabel("pooled score, sd of the plain clips; 95 % intervals")
    for colour, text in (("C1", f"with {ODDS}"), ("C0", "without")):
        panels[-1].plot([], [], "o", color=colour, label=text)
    panels[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", action="store_true", help="the table of a tuning")
    parser.add_argument("--picture", type=Path, default=None, help="effect against cost, .png")
    args = parser.parse_args()
    study = read_study(args.study)
    each = complete({model: scores(of_model(study, model), args.folder) for model in study.models})
    count = len(next(iter(each.values())).pooled[study.others[0]])
    print(f"{count} prompts, {' and '.join(map(_name, each))}\n")
    if args.trials:
        print("\n".join(trials(study, each)))
        return
    cost = costs(study)
    print("\n".join([*table(study, each, cost), "", *added(study, each)]))
    if args.picture:
        picture(study, each, cost, args.picture)


if __name__ == "__main__":
    main()
