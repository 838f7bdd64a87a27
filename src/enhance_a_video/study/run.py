"""Making the clips of a study: what is stored is not made again, what fails is recorded and the rest goes on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .. import files, limits, pipelines, video
from ..errors import EnhanceAVideoError, VideoFileError
from ..making import brief, generate_with
from ..metrics import measure
from ..plan import Item, as_text, settings_text
from ..preflight import notices_about
from ..record import Summary
from ..team import Team, device_for
from ..toy import checker, model_folder, world
from .definition import Study, Trial, held_out_prompt
from .store import Store, only_one

Progress = Callable[[int, int, int], None]  # (clips stored, clips in all, of these failed now)
PREVIEW = (128, 256)  # shortest side of the small videos in pixels: at least, at most
WORLD = "world"  # stands for model, weights and setting of the clips that the embedded world paints itself
_HOPELESS = 3  # so many failures with nothing made before end the run


@dataclass(frozen=True)
class Task:
    """What a worker needs to make one clip."""

    key: str
    weights: str
    model: str
    load: Mapping[str, Any]
    item: Item
    measures: tuple[str, ...]
    video: Path | None


@dataclass(frozen=True)
class Made:
    """What came out: a clip's row and measures, or what went wrong. With both, its small video could not be kept."""

    task: Task
    clip: Mapping[str, Any] | None = None
    measures: Mapping[str, float] | None = None
    error: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    planned: int
    made: int
    stored: int  # of the planned ones, earlier runs included
    failures: dict[str, str]  # clip's key -> error


def run(
    study: Study,
    folder: str | Path,
    *,
    workers: int = 1,
    first: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Outcome:
    """Makes what is missing of a study.

    Args:
        folder: of the results, continued where it has some.
        workers: processes; more than one have one thread each (and a GPU each, where there are several).
        first: only the first so many prompts: a pilot.
        command: for the record.

    Raises:
        SettingsError: a number of workers that cannot be; a model that cannot be loaded.
        EnhanceAVideoError: the folder is in use, its disk full or gone; the first clips all fail alike; workers keep
            dying. What is stored stays.
    """
    limits.whole("workers", workers, 1, limits.MAX_WORKERS)
    for model in study.models:
        pipelines.check(model, **{name: value for name, value in study.load.items() if name != "batch"})
    folder = Path(folder)
    with Store(folder) as store, only_one(folder):
        wanted = targets(study, {model: weights_of(model, study.load) for model in study.models}, first)
        tasks = [_task(study, folder, *where, trial) for where, trial in missing(study, store, wanted).items()]
        stored, made = len(wanted) - len(tasks), 0
        failures: dict[str, str] = {}
        if progress:
            progress(stored, len(wanted), 0)
        scenes = _unmeasured(study, store, first)
        if not tasks and not scenes:
            return Outcome(len(wanted), 0, stored, failures)
        files.refuse_existing([task.video for task in tasks[:1] if task.video], force=True)
        record = store.begin_run(study.digest, study.text, command, workers, about(study))
        groups = grouped(tasks, study.load.get("batch", 1))
        with Team(make_in, min(workers, len(groups))) if workers > 1 else nullcontext() as team:
            for result in made_by(team, groups):
                if result.clip is None:
                    failures[result.task.key] = result.error
                    store.add_failure(result.task.key, result.task.weights, result.error, record)
                    if not made and len(failures) == _HOPELESS:
                        raise EnhanceAVideoError(f"The first {_HOPELESS} clips failed, the last with: {result.error}")
                else:
                    store.add(result.clip, result.measures or {}, record)
                    made += 1
                    if result.error:  # every later video would be refused as well
                        raise VideoFileError(f"{result.error} The clips so far are stored: the same command goes on.")
                if progress:
                    progress(stored + made, len(wanted), len(failures))
        _measure_world(study, store, record, scenes)
        store.end_run(record)
    return Outcome(len(wanted), made, stored + made, failures)


def _unmeasured(study: Study, store: Store, first: int | None) -> list[int]:
    """The held-out scenes of the study whose own clips, as the world paints them, are not measured yet."""
    names, clips = {row.name for row in study.measures}, store.clips()
    done = {key for (key, weights), clip in clips.items() if weights == WORLD and names <= set(clip.measures)}
    return [scene for scene in (study.scenes or range(0))[:first] if f"{WORLD}-{scene}" not in done]


def _measure_world(study: Study, store: Store, record: int, scenes: Sequence[int]) -> None:
    """The same measures of the world's own clips of these scenes: what a perfect model would get."""
    names = tuple(row.name for row in study.measures)
    for scene in scenes:
        item = Item(held_out_prompt(scene), scene, WORLD)
        task = Task(f"{WORLD}-{scene}", WORLD, WORLD, {}, item, names, None)
        frames, _ = world.render(world.held_out_scene(scene))
        store.add(_row(task, frames, None, 0.0), _measure(frames, task), record)


def notices(study: Study, first: int | None = None) -> list[str]:
    """What the clips of a study, or of its first prompts, will not be, a sentence each: `preflight.notices`.

    Raises:
        SettingsError: options that the pipeline of a model does not take.
    """
    pipelines.quiet()
    trials = study.trials(first)
    found = []
    for model in study.models:
        named = f"{model}: " if len(study.models) > 1 else ""
        own = [trial.item for trial in trials if trial.model == model]
        found += [named + text for text in notices_about(model, own)]
    return found


def targets(study: Study, weights: Mapping[str, str], first: int | None = None) -> dict[tuple[str, str], Trial]:
    """(key, weights) -> trial for every clip of the study. `weights`: model -> `weights_of`."""
    return {(trial.item.key, weights[trial.model]): trial for trial in study.trials(first)}


def missing(study: Study, store: Store, wanted: Mapping[tuple[str, str], Trial]) -> dict[tuple[str, str], Trial]:
    """The clips that are not stored with all measures of the study."""
    names = {row.name for row in study.measures}
    clips = store.clips()
    return {where: trial for where, trial in wanted.items() if where not in clips or names - set(clips[where].measures)}


def video_path(folder: Path, key: str, weights: str) -> Path:
    """Where the small video of a clip is kept."""
    return folder / "clips" / f"{key}-{weights[:6]}.mp4"


def ensure_videos(
    study: Study, folder: Path, wanted: Mapping[tuple[str, str], Trial], progress: Progress | None = None
) -> dict[tuple[str, str], Path]:
    """The small videos of these clips; those that were not kept are generated again, from the same noise."""
    paths = {where: video_path(folder, *where) for where in wanted}
    again = [(where, trial) for where, trial in wanted.items() if not paths[where].exists()]
    for number, (where, trial) in enumerate(again):
        task = _task(study, folder, *where, trial)
        result = make(replace(task, measures=(), video=paths[where]))
        if result.error:
            raise EnhanceAVideoError(f"A clip of the report could not be generated again: {result.error}")
        if progress:
            progress(number + 1, len(again), 0)
    return paths


def weights_of(model: str, load: Mapping[str, Any]) -> str:
    """16 hex digits that change when the model's weights, its defaults or the precision change.

    A folder by its files (of a large one samples are read), a hub id by its revision in the local cache.
    """
    told = hashlib.sha256(f"{load.get('dtype', 'auto')} {load.get('vae_tiling', False)}".encode())
    if load.get("batch", 1) > 1:  # kernels round otherwise for several clips at once: such clips pair with such clips
        told.update(f" batch {load['batch']}".encode())
    folder = _folder(model)
    if folder.is_dir():
        for path in sorted(
            path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".md", ".jsonl")
        ):
            told.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}".encode())
            told.update(_sampled(path))
    else:
        told.update(f"{model} {_revision(model)}".encode())
    return told.hexdigest()[:16]


def weights_are_here(model: str) -> bool:
    """Whether `weights_of` can tell this model's."""
    return _folder(model).is_dir() or bool(_revision(model))


def _folder(model: str) -> Path:
    return model_folder() if model == pipelines.EMBEDDED else Path(model).expanduser()


def _sampled(path: Path, whole: int = 64 << 20, samples: int = 64, block: int = 64 << 10) -> bytes:
    """Digest of a file; of one above `whole` bytes, of evenly spaced blocks."""
    size, told = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        if size <= whole:
            told.update(file.read())
        else:
            for at in np.linspace(0, size - block, samples).astype(int):
                file.seek(int(at))
                told.update(file.read(block))
    return told.digest()


def _revision(model: str) -> str:
    """The commit of a hub id that loading would take; '' where it cannot be known (loading then says why)."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import try_to_load_from_cache

    try:
        DiffusionPipeline.load_config(model)  # brings the cache up to date, where the hub can be reached
        cached = try_to_load_from_cache(model, "model_index.json")
    except (OSError, ValueError):
        return ""
    return Path(cached).parent.name if isinstance(cached, str) else ""


def about(study: Study) -> dict[str, Any]:
    """What runs here, for the record: versions and the machine."""
    import torch

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "versions": versions_here(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "gpus": gpus,
        },
        "load": dict(study.load),
    }


def versions_here() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    names = ("enhance-a-video", "torch", "diffusers", "transformers", "numpy", "opencv-python-headless", "av")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _task(study: Study, folder: Path, key: str, weights: str, trial: Trial) -> Task:
    names = tuple(row.name for row in study.measures)
    path = video_path(folder, key, weights) if study.videos.keep else None
    return Task(key, weights, trial.model, study.load, trial.item, names, path)


# ---------------------------------------------------------------------------------------------------- one clip

_loaded: dict[str, Any] = {}  # one pipeline a process: the latest


def grouped(tasks: Iterable[Task], size: int) -> list[list[Task]]:
    """The tasks in groups of up to `size` that differ in prompt and seed only, in the order in which they fill."""
    open_groups: dict[str, list[Task]] = {}
    full = []
    for task in tasks:
        item = task.item
        how = None if item.settings is None else settings_text(item.settings)
        same = json.dumps([task.model, how, sorted((k, str(v)) for k, v in item.options.items())], default=str)
        group = open_groups.setdefault(same, [])
        group.append(task)
        if len(group) == size:
            full.append(open_groups.pop(same))
    return full + list(open_groups.values())


def make(task: Task) -> Made:
    """Generates, measures, keeps. What goes wrong with this clip is returned; what is wrong with the model raises."""
    return make_several([task])[0]


def make_several(tasks: Sequence[Task]) -> list[Made]:
    """`make` for tasks that differ in prompt and seed only, in one call of the pipeline where it can take several. If
    that fails, each is tried alone."""
    first, started = tasks[0], time.perf_counter()
    pipe = _pipe(first.model, first.load)
    if len(tasks) > 1 and not pipelines.defaults(pipe).get("several", True):
        return [make(task) for task in tasks]
    try:
        call = first.item.call() | {"seed": [task.item.seed for task in tasks]}
        videos, summary = generate_with(pipe, [task.item.prompt for task in tasks], first.item.settings, **call)
    except Exception as error:
        if len(tasks) > 1:
            return [make(task) for task in tasks]
        return [Made(first, error=f"{type(error).__name__}: {error}")]
    seconds = (time.perf_counter() - started) / len(tasks)
    return [_finish(pipe, task, frames, summary, seconds) for task, frames in zip(tasks, videos, strict=True)]


def _finish(pipe: Any, task: Task, frames: np.ndarray, summary: Summary | None, seconds: float) -> Made:
    """Measures a clip and keeps its video. seconds: what it took to generate."""
    started, refused = time.perf_counter(), ""
    try:
        measures = _measure(frames, task)
        if task.video is not None:
            video.write_video(task.video, preview(frames), pipelines.defaults(pipe)["fps"], force=True, crf=24)
    except VideoFileError as error:
        refused = str(error)
    except Exception as error:
        return Made(task, error=f"{type(error).__name__}: {error}")
    return Made(task, _row(task, frames, summary, seconds + time.perf_counter() - started), measures, refused)


def _row(task: Task, frames: np.ndarray, summary: Summary | None, seconds: float) -> dict[str, Any]:
    """A clip's row in the database."""
    item = task.item
    options = as_text(item.options)
    return {
        "key": task.key, "weights": task.weights, "model": task.model, "prompt": item.prompt, "seed": item.seed,
        "setting": item.label, "options": _json(options),
        "settings": None if item.settings is None else _json(item.settings.to_dict()),
        "frames": len(frames), "height": frames.shape[1], "width": frames.shape[2],
        "latent_frames": int(summary.num_frames.max()) if summary and len(summary.num_frames) else None,
        "seconds": seconds, "mean_gain": (brief(summary) or {}).get("mean_gain"),
    }  # fmt: skip


def preview(frames: np.ndarray) -> np.ndarray:
    """A clip (T, H, W, 3) at a size for a page: a tiny one enlarged, a large one reduced."""
    import cv2

    low, high = PREVIEW
    frames = video.enlarged(frames, low)
    height, width = frames.shape[1:3]
    scale = high / min(height, width)
    if scale >= 1:
        return frames
    size = (round(width * scale), round(height * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def _pipe(model: str, load: Mapping[str, Any]) -> Any:
    if model not in _loaded:
        pipelines.quiet()
        _loaded.clear()
        _loaded[model] = pipelines.load(model, **{name: value for name, value in load.items() if name != "batch"})
    return _loaded[model]


def _measure(frames: np.ndarray, task: Task) -> dict[str, float]:
    truth = [m.name for m in checker.TRUTH_MEASURES if m.name in task.measures]
    general = [name for name in task.measures if name not in truth]
    found = measure(frames, general) if general else {}  # a study of the truth alone; a video made for a page
    if truth:
        checked = checker.check(frames, world.parse_caption(task.item.prompt))
        found |= {name: checked[name] for name in truth}
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --------------------------------------------------------------------------------------------------- processes


def made_by(team: Team[Sequence[Task], list[Made]] | None, groups: Iterable[Sequence[Task]]) -> Iterator[Made]:
    """What comes of these groups, made by a team of `make_in`, or one after the other here."""
    if team is None:
        for group in groups:
            yield from make_several(group)
        return
    for group, made, lost in team.run(groups):
        yield from made or [Made(task, error=lost) for task in group]


def make_in(tasks: Sequence[Task], worker: int) -> list[Made]:
    """`make_several` in a worker process: with several GPUs, on the one whose turn it is."""
    import torch

    device = device_for(worker, str(tasks[0].load.get("device", "auto")), torch.cuda.device_count())
    return make_several([replace(task, load={**task.load, "device": device}) for task in tasks])
