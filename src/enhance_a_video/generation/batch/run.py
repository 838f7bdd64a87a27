"""One run of a batch: the clips that its folder lacks, made by a pool of workers and kept as they are ready."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import loading, pipelines, preflight, video
from ..credentials import Claim
from ..events import Report, silent
from ..making import Made
from ..requests import ClipRequest
from ..workers import Count, Pool, Task
from .folder import Folder


@dataclass(frozen=True)
class Tally:
    """What a run did: items = there + adopted + made + failed + failed_before."""

    items: int
    there: int  # were done before
    adopted: int  # had been written just before a kill, and only got their line now
    made: int
    failed: int
    failed_before: int  # in an earlier run, and not tried again
    lost_workers: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    out: str | Path,
    items: Sequence[ClipRequest],
    *,
    model: str = "embedded",
    load: dict[str, Any] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    retry_failed: bool = False,
    progress: Report = silent,
) -> Tally:
    """Makes every item that the folder lacks.

    Args:
        items: from `requests.expand`.
        model, load: as `pipelines.load` takes them; a folder is named by its whole path in the manifest.
        workers: how many; None = one for each CUDA device here (on a Ray cluster: for each of its GPUs), else one.
        ray: None works on this machine; else the address of a Ray cluster ("": the one that Ray finds, or a new one).
        retry_failed: try clips again that failed in an earlier run.
        progress: called at every change.

    Raises:
        SettingsError, VideoFileError: as Folder; also what `pipelines.load` raised in the workers.
        MissingExtraError: ray without Ray installed.
        A clip that fails raises nothing: it is counted, and its line in the manifest has the error.
    """
    load = dict(load or {})
    folder_of_model = Path(model).expanduser()
    model = str(folder_of_model.resolve()) if folder_of_model.is_dir() else model
    pipelines.check_load(load)
    if ray is None:
        pipelines.check(model, **load)
        rows = loading.rows_of(model)
        loading.check_videos(model, rows)
        loading.check_axes(rows, [item.settings for item in items])
    else:  # a cluster's machines may have a folder that this one has not, but a folder that is here is theirs too
        pipelines.check_on_a_cluster(model)
    started = time.perf_counter()
    with Folder(out, model, load.get("dtype", "auto")) as folder:
        adopted = folder.adopt(items)
        status = {item.key: folder.status(item) for item in items}
        counts = Counter(status.values())
        open_ones = ("open", "failed") if retry_failed else ("open",)
        todo = [item for item in items if status[item.key] in open_ones]
        count = Count(len(todo), progress)
        if todo:
            with count.open(model, load, workers=workers, ray=ray) as pool:
                make_missing(pool, folder, todo, count)
    return Tally(
        items=len(items),
        there=counts["done"] - adopted,
        adopted=adopted,
        made=count.made,
        failed=count.failed,
        failed_before=0 if retry_failed else counts["failed"],
        lost_workers=count.pool.lost if count.pool else 0,
        seconds=round(time.perf_counter() - started, 3),
    )


def _encoded(pipe: Any, made: Made, known: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """In the worker: the clip as an mp4 that carries its own record, and the record."""
    notes = dict.fromkeys([*preflight.notices(pipe, [made.item]), *made.notes])
    record = {**known, **made.record(), "status": "done", "warnings": list(notes)}
    return video.video_bytes(made.frames, made.fps, comment=json.dumps(record), claim=Claim(record)), record


def make_missing(pool: Pool, folder: Folder, todo: Sequence[ClipRequest], count: Count) -> None:
    """Makes clips and keeps them in the folder, or there why they failed."""
    for item, answer in pool.make([Task((item,), partial(_encoded, known=folder.facts(item))) for item in todo]):
        if answer.error:
            folder.fail(item, answer.error)
            count.failed += 1
            count.changed(f"failed: {item.prompt!r}, seed {item.seed}, {item.label}: {answer.error}", True)
        else:
            clip, record = answer.value
            folder.keep(clip, record)
            count.made += 1
            count.changed(f"{record['file']} ({record['seconds']:.1f} s)")
