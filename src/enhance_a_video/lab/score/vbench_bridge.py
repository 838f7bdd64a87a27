"""Runs VBench's own code (PyPI `vbench`) for its own measures, with the weights that the user has.

VBench 0.1.5 pins numpy < 2 and transformers 4.33, which no recent diffusers runs with. So it lives in an environment
of its own, and is called there as a program: `vbench_worker.py`, a file that needs nothing of this package. The Python
may also be this one, where somebody made that fit. docs/guide/vbench.md has the commands.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from ...errors import ExternalToolError, MissingExtraError, SettingsError, VideoFileError
from ...generation import video
from ...generation.events import Progress, Report, silent
from ...generation.measures import Measure

_WORKER = Path(__file__).with_name("vbench_worker.py")
_HOW = (
    "Make it an environment of its own:  python -m venv vbench-env  &&  "
    "vbench-env/bin/pip install torch==2.5.1 torchvision==0.20.1 vbench  and name it:  "
    "--vbench-python vbench-env/bin/python  (docs/guide/vbench.md)."
)


def _dimension(name: str, unit: str = "0..1") -> Measure:
    source = "VBench's own code and weights, Huang et al. 2024"
    return Measure(f"vbench_{name}", f"VBench {name.replace('_', ' ')}", "higher", unit, source, "vbench")


# What VBench measures on videos of one's own; its other dimensions compare with what its own prompts name.
DIMENSIONS = {
    row.name: row
    for row in (
        _dimension("subject_consistency"), _dimension("background_consistency"), _dimension("temporal_flickering"),
        _dimension("motion_smoothness"), _dimension("dynamic_degree", "0 or 1"), _dimension("aesthetic_quality"),
        _dimension("imaging_quality"), _dimension("overall_consistency", "cosine"),
        _dimension("temporal_style", "cosine"),
    )
}  # fmt: skip
_SCALE = {"vbench_imaging_quality": 0.01}  # of VBench's value for one video to our unit


def check_vbench(dimensions: Sequence[str], python: str | None = None) -> None:
    """Raises SettingsError for an unknown dimension, MissingExtraError where that Python has no VBench."""
    known = [name.removeprefix("vbench_") for name in DIMENSIONS]
    unknown = [name for name in dimensions if name not in known]
    if unknown or not dimensions:
        raise SettingsError(
            f"VBench does not measure {', '.join(unknown) or 'nothing'} on videos of one's own. It measures: "
            f"{', '.join(known)}."
        )
    test = "import sys; sys.path.pop(0); import importlib.util as u; print('vbench', bool(u.find_spec('vbench')))"
    try:
        found = subprocess.run([python or sys.executable, "-c", test], capture_output=True, text=True)
    except OSError as error:
        raise SettingsError(f"{python} is not a Python that can be started ({error.strerror}).") from error
    if found.returncode or "vbench" not in found.stdout:  # a program that is no Python may well end with 0
        raise SettingsError(f"{python} is not a Python that can be started. {found.stderr.strip()[-300:]}".strip())
    if "vbench True" not in found.stdout:
        raise MissingExtraError(f"{python or 'This Python'} has no package vbench. {_HOW}")


def vbench(
    paths: Sequence[str | Path],
    dimensions: Sequence[str],
    *,
    python: str | None = None,
    device: str = "auto",
    progress: Report = silent,
) -> list[dict[str, float]]:
    """VBench's measures of each file.

    Args:
        paths: videos that can be read.
        dimensions: VBench's names, as in `DIMENSIONS` without the prefix.
        python: the Python of the environment that has `vbench`; this one by default.
        device: auto, cuda or cpu.
        progress: called with each line that VBench prints, as what it is doing.

    Returns:
        For each path a number for each dimension, by our name ("vbench_...").

    VBench takes its weights from $VBENCH_CACHE_DIR (~/.cache/vbench) and downloads those that are missing.

    Raises:
        SettingsError, MissingExtraError: as `check_vbench`.
        ExternalToolError: VBench stopped, with the end of what it printed, or left no results.
    """
    check_vbench(dimensions, python)
    with tempfile.TemporaryDirectory(prefix="vbench-") as place:
        videos, results = Path(place, "videos"), Path(place, "results")
        names = _laid_out(paths, videos)
        prompts = {name: prompt_of(path) for name, path in zip(names, paths, strict=True)}
        task = {"videos": str(videos), "results": str(results), "dimensions": list(dimensions), "prompts": prompts,
                "device": device}  # fmt: skip
        Path(place, "task.json").write_text(json.dumps(task), encoding="utf-8")
        _run([python or sys.executable, str(_WORKER), str(Path(place, "task.json"))], progress)
        try:
            found = json.loads(Path(results, "scores_eval_results.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise ExternalToolError(
                f"VBench ended without results. Is {python or sys.executable} the Python of its environment?"
            ) from error
    return _by_file(found, names, dimensions)


def prompt_of(path: str | Path) -> str:
    """The prompt a video was made with: what `enhance-a-video` wrote into it, else its name as VBench reads names."""
    try:
        written = json.loads(video.read_comment(path))
        if isinstance(written, dict) and isinstance(written.get("prompt"), str):
            return str(written["prompt"])
    except (ValueError, VideoFileError):
        pass
    return re.sub(r"-\d+$", "", Path(path).stem)


def _laid_out(paths: Sequence[str | Path], folder: Path) -> list[str]:
    """Puts all files into one folder, as VBench requires, under names that do not collide; returns the names."""
    folder.mkdir(parents=True)
    names = [f"{n:06d}.mp4" for n in range(len(paths))]  # its decoders go by content, its code by this ending
    for path, name in zip(paths, names, strict=True):
        try:
            (folder / name).symlink_to(Path(path).resolve())
        except OSError:  # a file system or a Windows account without links
            shutil.copy(path, folder / name)
    return names


def _run(command: list[str], progress: Report) -> None:
    """Runs a program, passes on each line that it prints, and complains with the last of them if it fails."""
    last: deque[str] = deque(maxlen=12)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                last.append(line.rstrip())
                progress(Progress(0, doing=line.strip()))
    if process.returncode:
        raise ExternalToolError(f"VBench stopped (exit code {process.returncode}). Its last lines:\n" + "\n".join(last))


def _by_file(found: dict, names: Sequence[str], dimensions: Sequence[str]) -> list[dict[str, float]]:
    """VBench's {dimension: [mean, [{"video_path", "video_results"}]]} by file, as numbers; NaN where there is none."""
    result: list[dict[str, float]] = [{} for _ in names]
    for dimension in dimensions:
        name = f"vbench_{dimension}"
        values = {Path(row["video_path"]).name: row["video_results"] for row in found[dimension][1]}
        for file, row in zip(names, result, strict=True):
            row[name] = float(values.get(file, float("nan"))) * _SCALE.get(name, 1.0)
    return result
