"""Makes the clips of a study: what is stored is not made again, what fails is recorded and the rest goes on."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...embedded import checker, model_folder, world
from ...errors import EnhanceAVideoError, VideoFileError
from ...generation import files, loading, pipelines, video
from ...generation.events import Report, silent
from ...generation.making import Made
from ...generation.preflight import notices_about
from ...generation.requests import ClipRequest
from ...generation.workers import Count, Pool, grouped
from ..metrics import measure
from .definition import Study, Trial, held_out_prompt
from .store import Store, only_one

PREVIEW = (128, 256)  # shortest side of the small videos in pixels: at least, at most
WORLD = "world"  # stands for model, weights and setting of the clips that the embedded world paints itself
_HOPELESS = 3  # so many failures with nothing made before end the run


@dataclass(frozen=True)
class Measured:
    """A worker's result for a clip: its record (making.Made.record), measures, and its small video as an mp4."""

    record: Mapping[str, Any]
    measures: Mapping[str, float]
    preview: bytes = b""


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    planned: int
    made: int
    stored: int  # of the planned ones, earlier runs included
    failures: dict[str, str]  # clip's key -> error


@dataclass(frozen=True)
class Into:
    """Where the clips of one model, with these weights, are stored while a run makes them."""

    store: Store
    run: int
    model: str
    weights: str

    def add(self, made: Measured) -> None:
        self.store.add(made.record, made.measures, model=self.model, weights=self.weights, run=self.run)

    def add_failure(self, key: str, error: str) -> None:
        self.store.add_failure(key, self.weights, error, self.run)


def run(
    study: Study,
    folder: str | Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    first: int | None = None,
    command: str = "",
    progress: Report = silent,
) -> Outcome:
    """Makes what is missing of a study.

    Args:
        folder: of the results, continued where it has some.
        workers, ray: as `workers.open_pool`; a single worker works in this process.
        first: only the first so many prompts: a pilot.
        command: for the record.
        progress: called at every change.

    Raises:
        SettingsError: a number of workers that cannot be; a model that cannot be loaded.
        EnhanceAVideoError: the folder is in use, its disk full or gone; the first clips all fail alike; workers keep
            dying. What is stored stays.
    """
    load = {name: value for name, value in study.load.items() if name != "batch"}
    for model in study.models if ray is None else ():  # a cluster's machines may have a model that this one has not
        pipelines.check(model, **load)
        rows = loading.rows_of(model)
        loading.check_videos(model, rows)
        loading.check_axes(rows, study.settings.values())
    folder = Path(folder)
    with Store(folder) as store, only_one(folder):
        weights = {model: weights_of(model, study.load) for model in study.models}
        wanted = targets(study, weights, first)
        left, scenes = missing(study, store, wanted), _unmeasured(study, store, first)
        count, failures = Count(len(wanted), progress, done=len(wanted) - len(left)), dict[str, str]()
        count.changed()
        if left or scenes:
            if left and study.videos.keep:
                files.refuse_existing([video_path(folder, *next(iter(left)))], force=True)
            record = store.begin_run(study.digest, study.text, command, workers or 1, about(study))
            for model in dict.fromkeys(trial.model for trial in left.values()):
                items = [trial.item for trial in left.values() if trial.model == model]
                with count.open(model, load, workers=workers, ray=ray, here=True) as pool:
                    failures |= _make(study, folder, Into(store, record, model, weights[model]), pool, items, count)
            _measure_world(study, store, record, scenes)
            store.end_run(record)
    return Outcome(len(wanted), count.made, count.before + count.made, failures)


def _make(
    study: Study, folder: Path, into: Into, pool: Pool, items: Sequence[ClipRequest], count: Count
) -> dict[str, str]:
    """Makes and stores the clips of one model. Returns clip's key -> error of those that failed."""
    failures, noted = dict[str, str](), set[str]()
    keep = partial(measured, names=tuple(row.name for row in study.measures), preview=study.videos.keep)
    for item, answer in pool.make(grouped(items, keep, study.load.get("batch", 1))):
        if answer.error:
            failures[item.key] = answer.error
            into.add_failure(item.key, answer.error)
            count.failed += 1
            if not count.made and count.failed == _HOPELESS:
                raise EnhanceAVideoError(f"The first {_HOPELESS} clips failed, the last with: {answer.error}")
        else:
            into.add(answer.value)
            count.made += 1
            _write_preview(video_path(folder, item.key, into.weights), answer.value.preview)
            for note in set(answer.value.record["warnings"]) - noted:
                noted.add(note)
                count.changed(note, True)
        count.changed()
    return failures


def _write_preview(path: Path, preview: bytes) -> None:
    try:
        if preview:
            files.write_bytes(path, preview, force=True)
    except VideoFileError as error:  # every later video would be refused as well
        raise VideoFileError(f"{error} The clips so far are stored: the same command goes on.") from None


def _unmeasured(study: Study, store: Store, first: int | None) -> list[int]:
    """The held-out scenes of the study whose own clips, as the world paints them, are not measured yet."""
    names, clips = {row.name for row in study.measures}, store.clips()
    done = {key for (key, weights), clip in clips.items() if weights == WORLD and names <= set(clip.measures)}
    return [scene for scene in (study.scenes or range(0))[:first] if f"{WORLD}-{scene}" not in done]


def _measure_world(study: Study, store: Store, record: int, scenes: Sequence[int]) -> None:
    """The same measures of the world's own clips of these scenes: what a perfect model would get."""
    names = tuple(row.name for row in study.measures)
    for scene in scenes:
        frames, _ = world.render(world.held_out_scene(scene))
        made = Made(ClipRequest(held_out_prompt(scene), scene, WORLD), frames, None, 0.0, 0.0)
        record_of = {**made.record(), "key": f"{WORLD}-{scene}"}
        Into(store, record, WORLD, WORLD).add(Measured(record_of, _measure(frames, made.item.prompt, names)))


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
    study: Study, folder: Path, wanted: Mapping[tuple[str, str], Trial], progress: Report = silent
) -> dict[tuple[str, str], Path]:
    """The small videos of these clips; those that were not kept are generated again, from the same noise."""
    paths = {where: video_path(folder, *where) for where in wanted}
    again = {where: trial for where, trial in wanted.items() if not paths[where].exists()}
    count = Count(len(again), progress, doing="videos of the report")
    load = {name: value for name, value in study.load.items() if name != "batch"}
    for model in dict.fromkeys(trial.model for trial in again.values()):
        own = {trial.item.key: paths[where] for where, trial in again.items() if trial.model == model}
        items = [trial.item for trial in again.values() if trial.model == model]
        with count.open(model, load, workers=1, here=True) as pool:
            for item, answer in pool.make(grouped(items, partial(measured, names=(), preview=True))):
                if answer.error:
                    raise EnhanceAVideoError(f"A clip of the report could not be generated again: {answer.error}")
                files.write_bytes(own[item.key], answer.value.preview, force=True)
                count.made += 1
                count.changed()
    return paths


def weights_of(model: str, load: Mapping[str, Any]) -> str:
    """16 hex digits that change when the model's weights, its defaults or the precision change.

    A folder by its files (of a large one samples are read), a hub id by its revision in the local cache.
    """
    digest = hashlib.sha256(f"{load.get('dtype', 'auto')} {load.get('vae_tiling', False)}".encode())
    if load.get("batch", 1) > 1:  # kernels round otherwise for several clips at once: such clips pair with such clips
        digest.update(f" batch {load['batch']}".encode())
    folder = _folder(model)
    if folder.is_dir():
        for path in sorted(
            path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".md", ".jsonl")
        ):
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}".encode())
            digest.update(_sampled(path))
    else:
        digest.update(f"{model} {_revision(model)}".encode())
    return digest.hexdigest()[:16]


def weights_are_here(model: str) -> bool:
    """Whether `weights_of` finds this model's."""
    return _folder(model).is_dir() or bool(_revision(model))


def _folder(model: str) -> Path:
    return model_folder() if model == pipelines.EMBEDDED else Path(model).expanduser()


def _sampled(path: Path, whole: int = 64 << 20, samples: int = 64, block: int = 64 << 10) -> bytes:
    """Digest of a file; of one above `whole` bytes, of evenly spaced blocks."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        if size <= whole:
            digest.update(file.read())
        else:
            for at in np.linspace(0, size - block, samples).astype(int):
                file.seek(int(at))
                digest.update(file.read(block))
    return digest.digest()


def _revision(model: str) -> str:
    """The commit of a hub id that loading would take; '' where it cannot be known (loading then explains why)."""
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


# -------------------------------------------------------------------------------------------- one clip, in the worker


def measured(pipe: Any, made: Made, *, names: Sequence[str], preview: bool = False) -> Measured:
    """The measures of a clip, and its small video where that is to be kept; its seconds with those of measuring."""
    started = time.perf_counter()
    measures = _measure(made.frames, made.item.prompt, names)
    small = video.video_bytes(_small(made.frames), pipelines.defaults(pipe)["fps"], crf=24) if preview else b""
    return Measured({**made.record(), "seconds": made.seconds + time.perf_counter() - started}, measures, small)


def _measure(frames: np.ndarray, prompt: str, names: Sequence[str]) -> dict[str, float]:
    truth = [m.name for m in checker.TRUTH_MEASURES if m.name in names]
    general = [name for name in names if name not in truth]
    found = measure(frames, general) if general else {}  # a study of the truth alone; a video made for a page
    if truth:
        checked = checker.check(frames, world.parse_caption(prompt))
        found |= {name: checked[name] for name in truth}
    return found


def _small(frames: np.ndarray) -> np.ndarray:
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
