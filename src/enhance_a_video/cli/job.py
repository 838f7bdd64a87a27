"""What the commands do: check the outputs, load, generate, measure, write, and say it on the terminal or as JSON."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import limits, pictures, pipelines, preflight, report, video
from ..comparison import Comparison, Take, compare_seeds, general_judge, truth_judge
from ..errors import SettingsError
from ..files import refuse_existing, write_into, write_text
from ..making import brief, generate_with
from ..plan import Item, check_panels
from ..prompts import checked_prompt
from ..settings import Settings
from ..shape import frames_per_latent, made_frames
from ..terminal import print_json
from ..wording import count
from .screen import Screen

Panels = Sequence[tuple[str, Settings | None]]

# Nothing is written under another name: all of them are checked before the first step of the denoising.
_SHARED = ("side_by_side.mp4", "strip.png", "steadiness.png", "report.html")
_PAGE = 30_000_000  # bytes of videos that a report contains; further seeds' play from their files


@dataclass(frozen=True)
class Kept:
    """The written videos of one seed of a comparison. videos: label -> path, in the order of the panels."""

    seed: int
    videos: dict[str, Path]
    side_by_side: Path

    def relative_to(self, folder: Path) -> dict[str, str]:
        """Label -> path relative to `folder`, as in a link; side by side first."""
        named = {"side by side": self.side_by_side, **self.videos}
        return {label: path.relative_to(folder).as_posix() for label, path in named.items()}

    def to_dict(self) -> dict[str, Any]:
        videos = {label: str(path) for label, path in self.videos.items()}
        return {"seed": self.seed, "videos": videos, "side_by_side": str(self.side_by_side)}


@dataclass
class Job:
    """One run of a command with one model.

    model, load: as pipelines.load takes them. options: those of pipelines.generate.
    json: one JSON object on stdout, everything else on stderr.
    note: a remark on the measures of a comparison, printed and in the report.
    """

    model: str
    load: dict[str, Any]
    force: bool = False
    json: bool = False
    command: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        self.warnings: list[str] = []  # what is not done as requested, one sentence each
        self.err = Screen(stderr=True)
        self.say = self.err if self.json else Screen()

    def generate(self, out: Path, prompt: str, seed: int, settings: Settings | None) -> None:
        """One video in one file."""
        checked_prompt(prompt)
        video.check_video_target(out, self.options.get("fps", 1))
        refuse_existing([out], force=self.force)
        pipe, known = self._open()
        self._check(pipe, [Item(prompt, seed, "", settings, self.options)])
        fps = self.options.get("fps", known["fps"])
        started = time.perf_counter()
        with self._steps(1) as step:
            frames, summary = generate_with(
                pipe, prompt, settings, seed=seed, progress=partial(step, "denoising", seed), notice=self.warn,
                **self.options,
            )  # fmt: skip
        data = {
            "command": "generate", "out": str(out), "model": self.model, "prompt": prompt, "seed": seed, "fps": fps,
            "frames": len(frames), "height": frames.shape[1], "width": frames.shape[2],
            "seconds": round(time.perf_counter() - started, 3),
            "settings": settings.to_dict() if settings else None, "enhancement": brief(summary),
            "about": pipelines.describe(pipe), "warnings": self.warnings,
        }  # fmt: skip
        recorded = ("model", "prompt", "seed", "settings", "frames", "height", "width", "warnings")
        comment = jsonlib.dumps({name: data[name] for name in recorded})
        write_into(
            out.parent,
            lambda folder: video.write_video(folder / out.name, frames, fps, force=self.force, comment=comment),
        )
        if self.json:
            print_json(data)
            return
        if summary is not None:
            self.say.print(str(summary), highlight=False, markup=False)
        shape = (
            f"{count(len(frames), 'frame')}, {frames.shape[2]}x{frames.shape[1]}, {fps:g} fps, {data['seconds']:.1f} s"
        )
        self.say.print(f"[bold green]Written:[/] {escape(str(out))}  [dim]({shape})[/]", soft_wrap=True)

    def compare(
        self, folder: Path, panels: Panels, prompt: str | None, seed: int | None, seeds: int = 1, *, title: str
    ) -> None:
        """The same prompt and seeds under every panel's settings: videos of every seed, measures, report.

        The first seed's videos lie in the folder itself, those of the others in its seed-N; each is written as soon as
        it is made."""
        if prompt is not None:
            checked_prompt(prompt)
        check_panels(panels)
        names = _names(len(panels))
        video.check_video_target(folder / names[0], self.options.get("fps", 1))
        self._refuse_existing(folder, names, range(seed or 0, (seed or 0) + seeds))
        pipe, known = self._open()
        asked = known | self.options
        prompt = known.get("prompt") if prompt is None else prompt
        if prompt is None:
            raise SettingsError(f"{self.model} comes without a prompt of its own: give one with --prompt.")
        frames = asked.get("frames", 2)
        if frames < 2 or (made_frames(pipe, frames) or frames) < 2:
            raise SettingsError(
                f"A comparison needs a video, and of {count(frames, 'frame')} this model makes 1: ask for more than one"
                f"{f', {ratio + 1} or more' if (ratio := frames_per_latent(pipe) or 1) > 1 else ''}."
            )
        first = known.get("seed", 0) if seed is None else seed
        chosen = limits.seeds_from(first, seeds)
        self._check(pipe, [Item(prompt, first, label, settings, self.options) for label, settings in panels])
        self._refuse_existing(folder, names, chosen)
        embedded = self.model == pipelines.EMBEDDED
        judge = truth_judge(prompt, asked.get("height"), asked.get("width")) if embedded else general_judge()
        judge = replace(judge, note=" ".join(filter(None, (judge.note, self.note))))
        pairs: list[Kept] = []
        try:
            with self._steps(len(panels) * seeds) as step:
                comparison = compare_seeds(
                    pipe, prompt, chosen, panels, judge=judge, progress=step, **self.options,
                    keep=lambda takes: pairs.append(self._keep(folder, names, takes, prompt, asked["fps"], not pairs)),
                    notice=self.warn,
                )  # fmt: skip
        except KeyboardInterrupt:
            done = (
                f"The videos of {len(pairs)} of {count(seeds, 'seed')} are in {folder}"
                if pairs
                else "Nothing is written"
            )
            raise KeyboardInterrupt(f"Stopped. {done}.") from None
        about = self._about(pipe, comparison, asked)
        files = [folder / name for name in (*names, *_SHARED)]
        write_into(
            folder,
            lambda place: self._write(
                comparison, [place / path.name for path in files], pairs, asked["fps"], about, title
            ),
        )
        if self.json:
            data = {"model": self.model, **comparison.to_dict(), "about": about, "files": _by_name(files)}
            data |= {"pairs": [kept.to_dict() for kept in pairs], "warnings": self.warnings}
            print_json({"command": self.command.split()[1], **data})
            return
        self._tell(comparison, files, pairs)

    def _refuse_existing(self, folder: Path, names: Sequence[str], seeds: range) -> None:
        """Refuses outputs that are there; makes only the folder itself, as a model that cannot be loaded leaves no
        empty ones."""
        own = [folder / name for name in (*names, *_SHARED)]
        others = [_seed_folder(folder, seed) / name for seed in seeds[1:] for name in (*names, _SHARED[0])]
        refuse_existing([*own, *(path for path in others if path.exists())], force=self.force)

    def _keep(
        self, folder: Path, names: Sequence[str], takes: Sequence[Take], prompt: str, fps: float, first: bool
    ) -> Kept:
        """Writes one seed's videos, and all of them side by side; tiny clips enlarged to a size one can watch."""
        seed = takes[0].seed

        def write(place: Path) -> Kept:
            videos = {}
            for name, take in zip(names, takes, strict=True):
                settings = take.settings.to_dict() if take.settings else None
                facts = {"prompt": prompt, "seed": seed, "panel": take.label, "settings": settings}
                videos[take.label] = video.write_video(
                    place / name, video.enlarged(take.frames), fps, force=self.force, comment=jsonlib.dumps(facts)
                )
            both = pictures.side_by_side([take.frames for take in takes], [take.label for take in takes])
            return Kept(seed, videos, video.write_video(place / _SHARED[0], both, fps, force=self.force))

        return write_into(folder if first else _seed_folder(folder, seed), write)

    def _open(self) -> tuple[Any, dict[str, Any]]:
        """The pipeline and its defaults, without the chatter of the libraries."""
        pipelines.quiet()
        with self.err.status(f"loading {escape(self.model)}"):
            pipe = pipelines.load(self.model, **self.load)
        return pipe, pipelines.defaults(pipe)

    def _check(self, pipe: Any, items: Sequence[Item]) -> None:
        """Reports, before the work, what will not be done as requested. SettingsError for what the pipeline refuses."""
        for text in preflight.notices(pipe, items):
            self.warn(text)

    def warn(self, text: str) -> None:
        """Reports something that is not done as requested, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.err.print(f"[yellow]Note:[/] {escape(text)}", highlight=False, soft_wrap=True)

    @contextmanager
    def _steps(self, runs: int) -> Iterator[Callable[[str, int, int, int], None]]:
        """A progress bar over all steps of `runs` videos: call it with (what, seed, steps done, steps in all)."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.err, transient=True) as bar:
            task, begun = bar.add_task("starting", total=None), []

            def step(what: str, seed: int, done: int, total: int) -> None:
                if (what, seed) not in begun:
                    begun.append((what, seed))
                text = f"{escape(what)}, seed {seed}" + (", decoding" if done == total else "")
                bar.update(task, description=text, total=runs * total, completed=(len(begun) - 1) * total + done)

            yield step

    def _about(self, pipe: Any, comparison: Comparison, asked: dict[str, Any]) -> dict[str, str]:
        shape = comparison.takes[0].frames.shape
        named = ("steps", "guidance", "negative")
        return {
            "model": self.model,
            "video": f"{shape[0]} frames, {shape[2]}×{shape[1]}, {asked['fps']:g} fps",
            "seeds": ", ".join(map(str, comparison.seeds)),
            **{name: str(asked[name]) for name in named if asked.get(name) is not None},
            **pipelines.describe(pipe),
        }

    def _write(
        self,
        comparison: Comparison,
        files: list[Path],
        pairs: Sequence[Kept],
        fps: float,
        about: dict[str, str],
        title: str,
    ) -> None:
        """What all seeds share: the film strip of the first one, the picture of its steadiness, and the report."""
        *_, strip, steadiness, page = files
        labels, clips = [take.label for take in comparison.takes], [take.frames for take in comparison.takes]
        video.write_png(strip, pictures.film_strip(clips, labels), force=self.force)
        video.write_png(steadiness, pictures.steadiness_picture(clips, labels), force=self.force)
        links = {kept.seed: kept.relative_to(pairs[0].side_by_side.parent) for kept in pairs} if len(pairs) > 1 else {}
        text = report.render(
            comparison, _sources(pairs, links), title=title, about=about, command=self.command, fps=fps, pairs=links
        )
        write_text(page, text, force=self.force)

    def _tell(self, comparison: Comparison, files: list[Path], pairs: Sequence[Kept]) -> None:
        for take in comparison.takes[1:]:
            self.say.print(_table(comparison, take.label))
            self.say.print(escape(report.verdict(comparison, take.label)), highlight=False)
        if comparison.judge.note:
            self.say.print(f"[dim]{escape(comparison.judge.note)}[/]", highlight=False)
        self.say.print("\n[bold green]Written:[/]")
        for path in files:
            self.say.print(f"  {escape(str(path))}", highlight=False, soft_wrap=True)
        for kept in pairs[1:]:
            self.say.print(f"  {escape(str(kept.side_by_side.parent))}", highlight=False, soft_wrap=True)
        self.say.print(f"\nOpen [bold]{escape(str(files[-1]))}[/] in a browser.", highlight=False, soft_wrap=True)


def _table(comparison: Comparison, label: str) -> Table:
    """The measures of one panel against the first, for a terminal of 80 columns."""
    many = len(comparison.seeds) > 1
    table = Table(
        title=escape(f"{label}, against {comparison.takes[0].label}"), title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("measure", max_width=26)
    for name in ("without", "with", "difference", *(["95 %"] if many else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for item in report.table(comparison, label):
        values = [item.get(key, "") for key in ("before", "after", "difference", *(["half"] if many else []))]
        word = {"nothing to measure": "–"}.get(item["judgement"], item["judgement"])
        style = {"better": "green", "worse": "red"}.get(word, "dim")
        label = item["row"].label
        table.add_row(label[:1].upper() + label[1:], *values, f"[{style}]{word}[/]")
    return table


def _names(panels: int) -> list[str]:
    """The files of one seed's videos, one for each panel."""
    return ["baseline.mp4", "enhanced.mp4", *(f"panel-{number}.mp4" for number in range(3, panels + 1))]


def _seed_folder(folder: Path, seed: int) -> Path:
    """Where the videos of a further seed lie; `vote` looks for this name."""
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


def _by_name(files: list[Path]) -> dict[str, str]:
    return {path.name.replace("-", "_").split(".")[0]: str(path) for path in files}
