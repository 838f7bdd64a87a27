"""What each setting of a study gives and takes, a table a model: docs/results/axes.md, index.md (section 12).

    enhance-a-video study studies/axes.yaml --out runs/axes       # or make axes-study
    python benchmarks/axes.py studies/axes.yaml runs/axes

Only prompts are used on which every setting has its clip on every model (--each: on that model), so that a study that
was stopped compares like with like. A varied option, as the guidance weight, has tables for each of its values. Bold:
the pooled score is significant after Holm's correction over the model's settings; °: the uncorrected interval excludes
zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from across_models import Scores, _marked, _name, _span, against_nothing, of_model, scores
from peers import change, complete

from enhance_a_video.lab.stats import Paired, adjusted, p_value
from enhance_a_video.lab.study import Study, read_study

SHOWN = {
    "warping_error": "warping error", "backdrop_flicker": "backdrop flicker", "motion": "motion",
    "attributes_right": "requested right", "shape_change": "shape change", "colour_drift": "colour drift",
    "sharpness": "sharpness",
}  # fmt: skip


def percent(found: Paired) -> str:
    return _marked(f"{found.difference:+.1f} ± {(found.high - found.low) / 2:.1f}", 1.0, found.clear)


def table(study: Study, model: str, one: Scores) -> list[str]:
    """A row for each setting, in the order of the study."""
    p = dict(zip(study.others, adjusted([p_value(one.pooled[label]) for label in study.others]), strict=True))
    shown = {name: title for name, title in SHOWN.items() if name in one.clips[study.baseline][0]}
    heads = [_name(model), "pooled, sd", *(f"{title}, %" for title in shown.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for label in study.others:
        over = against_nothing(one.pooled[label])
        cells = [_marked(_span(over), p[label], over.clear)]
        cells += [percent(against_nothing(change({model: one}, study.baseline, label, name))) for name in shown]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def conditions(study: Study) -> Iterator[tuple[str, Study]]:
    """The study under each combination of its varied options, and a title."""
    for _, chosen in of_model(study, study.models[0]).conditions():
        title = "".join(f"{name} {value}: " for name, value in chosen.items())
        yield title, replace(study, options={**study.options, **chosen}, varied={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", action="store_true", help="each model by all of its own prompts, not by those of all")
    args = parser.parse_args()
    study = read_study(args.study)
    for title, under in conditions(study):
        found = {model: scores(of_model(under, model), args.folder) for model in study.models}
        groups = [{model: one} for model, one in found.items()] if args.each else [found]
        for each in map(complete, groups):
            count = len(next(iter(each.values())).pooled[study.others[0]])
            print(f"{title}{count} prompts, {' and '.join(map(_name, each))}\n")
            for model, one in each.items():
                print("\n".join(table(under, model, one)) + "\n")


if __name__ == "__main__":
    main()
