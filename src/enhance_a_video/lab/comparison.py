"""Makes clips of one prompt and noise under several settings, measures them and compares them in pairs.

comparison = compare_seeds(pipe, prompt, range(8), [("without", None), ("with", Settings())])
comparison.differences()["with"]["temporal_flicker"]        # mean difference and its 95 % interval
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import limits
from ..errors import PromptError, SettingsError
from ..generation.events import Progress, Report, silent
from ..generation.making import Made, brief, make_clips
from ..generation.measures import Measure
from ..generation.pipelines import Notice, sound_rate
from ..generation.preflight import between_frames
from ..generation.requests import ClipRequest
from ..limits import or_none
from ..settings import Settings
from .metrics import MEASURES, measure
from .stats import Paired, paired


@dataclass(frozen=True)
class MeasureSet:
    """The measures of a comparison: their rows, the function that takes them, a word on what is missing."""

    rows: tuple[Measure, ...]
    measure: Callable[[np.ndarray], dict[str, float]]
    note: str = ""


@dataclass(frozen=True)
class Take(Made):
    """One clip of a comparison, with its measures."""

    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One prompt and its seeds under several settings; the others are compared with the first panel."""

    prompt: str
    seeds: tuple[int, ...]
    takes: tuple[Take, ...]  # of the first seed, one for each panel
    values: dict[str, dict[str, list[float]]]  # label -> measure -> one value per seed
    measures: MeasureSet = field(repr=False)

    @property
    def kind(self) -> str:
        """What is compared: "video", "picture" (clips of one frame) or "sound"."""
        take = self.takes[0]
        return "sound" if take.is_sound else "picture" if len(take.frames) == 1 else "video"

    @property
    def of_pictures(self) -> bool:
        return self.kind == "picture"

    @property
    def of_sound(self) -> bool:
        return self.kind == "sound"

    def differences(self) -> dict[str, dict[str, Paired]]:
        """label -> measure -> paired difference from the first panel, where there is a finite pair."""
        first, *others = self.values
        result: dict[str, dict[str, Paired]] = {}
        for label in others:
            pairs = {name: (self.values[first][name], self.values[label][name]) for name in self.values[first]}
            usable = {n: p for n, p in pairs.items() if np.isfinite(np.add(*p)).any()}
            result[label] = {name: paired(*pair) for name, pair in usable.items()}
        return result

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: panels with every seed's measures, and the paired differences; NaN becomes None."""
        panels = [
            {
                "label": take.label,
                "settings": None if take.settings is None else take.settings.to_dict(),
                **({"guider": take.item.options["guider"]} if take.item.options.get("guider") else {}),
                "seconds": round(take.seconds, 3),
                **({} if take.content is None else {"content_check": take.content.to_dict()}),
                "enhancement": None if take.settings is None else brief(take.summary),
                "measures": {name: [or_none(v) for v in seeds] for name, seeds in self.values[take.label].items()},
            }
            for take in self.takes
        ]
        pairs = {
            label: {name: pair.to_dict() for name, pair in row.items()} for label, row in self.differences().items()
        }
        return {
            "prompt": self.prompt,
            "seeds": list(self.seeds),
            "panels": panels,
            "measures": [row.to_dict() for row in self.measures.rows],
            "differences": pairs,
            "note": self.measures.note,
        }


def compare(
    pipe: Any,
    prompt: str,
    seed: int,
    panels: Sequence[tuple[str, Settings | None]],
    *,
    measures: MeasureSet | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    observe: bool = False,
    progress: Report = silent,
    notice: Notice = lambda text: None,
    **options: Any,
) -> list[Take]:
    """The same prompt and initial noise under several settings.

    Args:
        panels: (label, settings) in order; settings None is the plain model.
        measures: what to measure; by default all of `metrics.MEASURES`, of sound nothing.
        own: a panel's label -> options of its own, such as a guider; they come before the others.
        observe: record cross-frame mass and temporal attention maps in every panel, the plain one included
            (its frames stay the same; only its time includes the recording).
        progress: called after each step, with those of all panels in `total`.
        notice: called with a sentence about what is not done as requested, see `generate`.
        **options: of `generate`.

    Raises:
        SettingsError: fewer than two panels, labels that repeat; and as `generate` and `enhance`.
    """
    labels = [label for label, _ in panels]
    if len(panels) < 2 or len(set(labels)) < len(labels):
        raise SettingsError(f"A comparison needs two or more panels with different labels; found {labels}.")
    if options.get("frames") == 1 and all(settings is None or between_frames(settings) for _, settings in panels):
        raise SettingsError("frames=1: the method acts between frames, so there is nothing to compare. Give more.")
    measures = measures or measures_for(pipe)
    takes = []
    for number, (label, settings) in enumerate(panels):
        report = _part(progress, number, len(panels), f"{label}, seed {seed}")
        item = ClipRequest(prompt, seed, label, settings, {**options, **(own or {}).get(label, {})})
        (made,) = make_clips(pipe, [item], progress=report, observe=observe, notice=notice)
        takes.append(Take(**vars(made), measures=measures.measure(made.frames)))
    return takes


def compare_seeds(
    pipe: Any,
    prompt: str,
    seeds: Sequence[int],
    panels: Sequence[tuple[str, Settings | None]],
    *,
    measures: MeasureSet | None = None,
    keep: Callable[[Sequence[Take]], None] | None = None,
    progress: Report = silent,
    **options: Any,
) -> Comparison:
    """`compare` for each seed: frames and records of the first, measures of all.

    Args:
        keep: called with all panels' takes of a seed as soon as they are there; only the first seed's stay in memory.
    """
    if not limits.seeds(seeds):
        raise SettingsError("There is no seed to compare with: give one or more.")
    measures = measures or measures_for(pipe)
    values: dict[str, dict[str, list[float]]] = {label: {row.name: [] for row in measures.rows} for label, _ in panels}
    first: list[Take] = []
    for number, seed in enumerate(seeds):
        report = _part(progress, number, len(seeds))
        takes = compare(pipe, prompt, seed, panels, measures=measures, observe=not first, progress=report, **options)
        if keep:
            keep(takes)
        first = first or takes
        for take in takes:
            for name, value in take.measures.items():
                values[take.label][name].append(value)
    found = Comparison(prompt, tuple(seeds), tuple(first), values, measures)
    return _of_one_frame(found) if found.of_pictures else found


def _of_one_frame(found: Comparison) -> Comparison:
    """Without the measures that compare frames."""
    rows = [row for row in found.measures.rows if any(np.isfinite(by[row.name]).any() for by in found.values.values())]
    values = {label: {row.name: by[row.name] for row in rows} for label, by in found.values.items()}
    return replace(found, values=values, measures=replace(found.measures, rows=tuple(rows)))


def _part(progress: Report, number: int, parts: int, doing: str = "") -> Report:
    """The report of one of several equal parts of a piece of work."""

    def report(part: Progress) -> None:
        total = part.total or part.done
        text = doing + (", decoding" if part.done == total else "") if doing else part.doing
        progress(replace(part, done=number * total + part.done, total=parts * total, doing=text))

    return report


def measures_for(pipe: Any) -> MeasureSet:
    """Those that need no truth; of sound there are none."""
    return sound_measures() if sound_rate(pipe) else general_measures()


def general_measures(note: str = "") -> MeasureSet:
    """All measures that need no truth."""
    return MeasureSet(tuple(MEASURES.values()), measure, note)


def sound_measures() -> MeasureSet:
    """None: of sound nothing is measured."""
    return MeasureSet((), lambda sound: {}, "Nothing is measured of sound: listen, to several seeds.")


def truth_measures(prompt: str, height: int | None, width: int | None) -> MeasureSet:
    """The general measures and, for a prompt and size of the embedded world, its checker's truth."""
    from ..embedded import checker, world

    if (height, width) != (world.SIZE, world.SIZE):
        return general_measures(
            f"No truth to compare with: the embedded model's world is {world.SIZE}x{world.SIZE} pixels."
        )
    try:
        scene = world.parse_caption(prompt)
    except PromptError as error:
        return general_measures(
            f"No truth to compare with: the prompt lies outside the embedded model's world ({error})"
        )
    rows = (*checker.TRUTH_MEASURES, *MEASURES.values())
    return MeasureSet(rows, lambda frames: checker.check(frames, scene) | measure(frames))
