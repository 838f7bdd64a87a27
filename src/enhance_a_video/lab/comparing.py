"""`Comparing`: a comparison as a folder, with every seed's videos, stills of the first one's, and a report.

Of a model that makes pictures, or with one frame, the same with pictures in place of the videos and without stills; of
one that makes sound, with sound files, and without stills and measures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import limits
from ..errors import EnhanceAVideoError, SettingsError
from ..generation import pipelines, preflight, video
from ..generation.credentials import Claim
from ..generation.events import Report, silent
from ..generation.files import refuse_existing, write_into, write_text
from ..generation.loading import check_axes, makes, rows_of
from ..generation.making import check_rows, opened
from ..generation.pipelines import Notice
from ..generation.preflight import between_frames
from ..generation.prompts import checked_prompt
from ..generation.requests import ClipRequest, check_panels
from ..generation.shape import frames_per_latent, made_frames
from ..models import Model
from ..settings import Settings
from ..wording import count
from . import pictures, report
from .comparison import Comparison, MeasureSet, Take, compare_seeds, measures_for, truth_measures

_PAGE = 30_000_000  # bytes of videos that a report contains; further seeds' play from their files


@dataclass(frozen=True)
class Kept:
    """The written videos of one seed of a comparison. videos: label -> path, in the order of the panels."""

    seed: int
    videos: dict[str, Path]
    side_by_side: Path | None

    @property
    def folder(self) -> Path:
        return next(iter(self.videos.values())).parent

    def relative_to(self, folder: Path) -> dict[str, str]:
        """Label -> path relative to `folder`, as in a link; side by side first."""
        named = {**({"side by side": self.side_by_side} if self.side_by_side else {}), **self.videos}
        return {label: path.relative_to(folder).as_posix() for label, path in named.items()}

    def to_dict(self) -> dict[str, Any]:
        videos = {label: str(path) for label, path in self.videos.items()}
        both = {"side_by_side": str(self.side_by_side)} if self.side_by_side else {}
        return {"seed": self.seed, "videos": videos, **both}


@dataclass(frozen=True)
class Compared:
    """The files of a comparison's folder: those that all seeds share, and the videos of each seed."""

    comparison: Comparison
    files: tuple[Path, ...]
    pairs: tuple[Kept, ...]
    about: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        files = {path.name.replace("-", "_").split(".")[0]: str(path) for path in self.files}
        pairs = [kept.to_dict() for kept in self.pairs]
        return {**self.comparison.to_dict(), "about": dict(self.about), "files": files, "pairs": pairs}


@dataclass(frozen=True)
class Comparing:
    """The same prompt and seeds under every panel's settings, into one folder.

    The first seed's videos lie in the folder itself, those of the others in its seed-N; each is written as soon as it
    is made.

    model, load: as `pipelines.load` takes them. options: of `requests.ClipRequest`; own: label -> a panel's own, such
    as a guider. title, command, note: of the report; note is a remark on the measures. notice: called with what is not
    done as requested.
    """

    folder: Path
    panels: Sequence[tuple[str, Settings | None]]
    model: str
    load: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    title: str = "Enhance-A-Video, compared"
    command: str = ""
    note: str = ""
    force: bool = False
    notice: Notice = lambda text: None
    progress: Report = silent

    @cached_property
    def rows(self) -> list[Model]:
        """Of the model's denoisers; none where it cannot be read, as loading the model explains that."""
        try:
            return rows_of(self.model)
        except EnhanceAVideoError:
            return []

    @property
    def ending(self) -> str:
        """Of the files: .wav for sound, .png for pictures, else .mp4."""
        if makes("sounds", self.rows):
            return ".wav"
        return ".png" if self.options.get("frames") == 1 or makes("pictures", self.rows) else ".mp4"

    @property
    def names(self) -> list[str]:
        """The files of one seed's videos, one for each panel."""
        names = ["baseline", "enhanced", *(f"panel-{n}" for n in range(3, len(self.panels) + 1))]
        return [name + self.ending for name in names]

    @property
    def shared(self) -> list[str]:
        """The files of all panels. Nothing is written under another name: all of them are checked before the first step
        of the denoising."""
        stills = ["strip.png", "steadiness.png"] if self.ending == ".mp4" else []
        both = ["side_by_side" + self.ending] if self.ending != ".wav" else []
        return [*both, *stills, "report.html"]

    @property
    def each(self) -> list[str]:
        """The files of every seed."""
        return [*self.names, *(name for name in self.shared if name.startswith("side_by_side"))]

    def run(self, prompt: str | None, seed: int | None, seeds: int = 1) -> Compared:
        """Loads, generates, measures and writes; prompt and first seed are the model's own where they are None.

        Raises:
            SettingsError, PromptError, OutputExistsError, VideoFileError: before the model is loaded where that is
            possible, else before the first step. KeyboardInterrupt: with what is kept as its message.
        """
        if prompt is not None:
            checked_prompt(prompt)
        check_panels(self.panels, self.own)
        video.check_target(self.folder / self.names[0], self.options.get("fps", 1))
        self._refuse_existing(range(seed or 0, (seed or 0) + seeds))
        for options in (self.options, *self.own.values()):
            check_rows(self.model, self.rows, options)
        check_axes(self.rows, [settings for _, settings in self.panels])
        pipe = opened(self.model, self.load, self.progress)
        known = pipelines.defaults(pipe)
        options = known | self.options
        prompt = known.get("prompt") if prompt is None else prompt
        if prompt is None:
            raise SettingsError(f"{self.model} comes without a prompt of its own: give one with --prompt.")
        between = all(settings is None or between_frames(settings) for _, settings in self.panels)
        if self.ending == ".mp4" or (self.ending == ".png" and between):
            _refuse_one_frame(pipe, options.get("frames", 2))
        chosen = limits.seeds_from(known.get("seed", 0) if seed is None else seed, seeds)
        items = [
            ClipRequest(prompt, chosen[0], label, settings, {**self.options, **self.own.get(label, {})})
            for label, settings in self.panels
        ]
        for text in preflight.notices(pipe, items):
            self.notice(text)
        self._refuse_existing(chosen)
        comparison, pairs = self._compare(pipe, prompt, chosen, options)
        about = self._about(pipe, comparison, options)
        write_into(self.folder, lambda place: self._write_shared(place, comparison, pairs, options["fps"], about))
        files = tuple(self.folder / name for name in (*self.names, *self.shared))
        return Compared(comparison, files, tuple(pairs), about)

    def _compare(
        self, pipe: Any, prompt: str, seeds: range, options: Mapping[str, Any]
    ) -> tuple[Comparison, list[Kept]]:
        pairs: list[Kept] = []
        try:
            comparison = compare_seeds(
                pipe, prompt, seeds, self.panels, measures=self._measures(pipe, prompt, options),
                progress=self.progress, keep=lambda takes: pairs.append(self._keep(takes, not pairs)),
                notice=self.notice, own=self.own, **self.options,
            )  # fmt: skip
        except KeyboardInterrupt:
            done = f"The videos of {len(pairs)} of {count(len(seeds), 'seed')} are in {self.folder}"
            raise KeyboardInterrupt(f"Stopped. {done if pairs else 'Nothing is written'}.") from None
        return comparison, pairs

    def _measures(self, pipe: Any, prompt: str, options: Mapping[str, Any]) -> MeasureSet:
        embedded = self.model == pipelines.EMBEDDED
        size = options.get("height"), options.get("width")
        measures = truth_measures(prompt, *size) if embedded else measures_for(pipe)
        return replace(measures, note=" ".join(filter(None, (measures.note, self.note))))

    def _refuse_existing(self, seeds: range) -> None:
        """Refuses outputs that are there; makes only the folder itself, as a model that cannot be loaded leaves no
        empty ones."""
        own = [self.folder / name for name in (*self.names, *self.shared)]
        others = [_seed_folder(self.folder, seed) / name for seed in seeds[1:] for name in self.each]
        refuse_existing([*own, *(path for path in others if path.exists())], force=self.force)

    def _keep(self, takes: Sequence[Take], first: bool) -> Kept:
        """Writes one seed's videos, and all of them side by side; tiny clips enlarged to a size one can watch."""

        def write(place: Path) -> Kept:
            videos = {}
            for name, take in zip(self.names, takes, strict=True):
                record = {**take.record(), "model": self.model}
                videos[take.label] = video.write_clip(
                    place / name,
                    take.frames if take.is_sound else video.enlarged(take.frames),
                    take.fps,
                    force=self.force,
                    comment=json.dumps(record),
                    claim=Claim(record),
                )
            if takes[0].is_sound:
                return Kept(takes[0].seed, videos, None)
            both = pictures.side_by_side([take.frames for take in takes], [take.label for take in takes])
            path = video.write_clip(place / self.shared[0], both, takes[0].fps, force=self.force, claim=Claim(record))
            return Kept(takes[0].seed, videos, path)

        return write_into(self.folder if first else _seed_folder(self.folder, takes[0].seed), write)

    def _about(self, pipe: Any, comparison: Comparison, options: Mapping[str, Any]) -> dict[str, str]:
        named = ("steps", "guidance", "negative")
        return {
            "model": self.model,
            comparison.kind: comparison.takes[0].text.replace("x", "×"),
            "seeds": ", ".join(map(str, comparison.seeds)),
            **{name: str(options[name]) for name in named if options.get(name) is not None},
            **pipelines.describe(pipe),
        }

    def _write_shared(
        self, place: Path, comparison: Comparison, pairs: Sequence[Kept], fps: float, about: Mapping[str, str]
    ) -> None:
        """What all seeds share: the film strip of the first one, the picture of its steadiness, and the report."""
        labels, clips = [take.label for take in comparison.takes], [take.frames for take in comparison.takes]
        for name, draw in (("strip.png", pictures.film_strip), ("steadiness.png", pictures.steadiness_picture)):
            if name in self.shared:
                video.write_png(place / name, draw(clips, labels), force=self.force)
        links = {kept.seed: kept.relative_to(pairs[0].folder) for kept in pairs} if len(pairs) > 1 else {}
        how: dict[str, Any] = {"title": self.title, "about": about, "command": self.command, "fps": fps, "pairs": links}
        write_text(place / self.shared[-1], report.render(comparison, _sources(pairs, links), **how), force=self.force)


def _refuse_one_frame(pipe: Any, frames: int) -> None:
    if frames < 2 or (made_frames(pipe, frames) or frames) < 2:
        ratio = frames_per_latent(pipe) or 1
        raise SettingsError(
            f"A comparison needs a video, and of {count(frames, 'frame')} this model makes 1: give more than one"
            f"{f', {ratio + 1} or more' if ratio > 1 else ''}."
        )


def _seed_folder(folder: Path, seed: int) -> Path:
    """Where the videos of a further seed lie; `vote` finds it by this name."""
    return folder / f"seed-{seed}"


def _sources(pairs: Sequence[Kept], links: Mapping[int, Mapping[str, str]]) -> dict[int, dict[str, bytes | str]]:
    """seed -> label -> the video's bytes, or its address where the page would become too large to open."""
    found: dict[int, dict[str, bytes | str]] = {}
    room = _PAGE
    for kept in pairs:
        room -= sum(path.stat().st_size for path in kept.videos.values())
        inside = room >= 0 or kept is pairs[0]
        found[kept.seed] = {
            label: path.read_bytes() if inside else links[kept.seed][label] for label, path in kept.videos.items()
        }
    return found
