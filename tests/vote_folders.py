"""Folders to vote on, in every form that `vote` takes. Red is "with", blue is "without", so that a test can see it."""

import json
from pathlib import Path

import numpy as np

from enhance_a_video.generation import video

COLOURS = {"without": (40, 60, 200), "with": (210, 40, 50)}


def clip(colour, *, frames: int = 8, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """A coloured clip with a bar that moves; no two seeds give the same."""
    picture = np.full((frames, height, width, 3), colour, np.uint8)
    for number in range(frames):
        picture[number, 4 + seed % 30 : 10 + seed % 30, 4 * number : 4 * number + 8] = 255
    return picture


def write(path: Path, label: str, seed: int = 0, comment: str = "", **shape) -> Path:
    return video.write_video(path, clip(COLOURS.get(label, (20, 150, 60)), seed=seed, **shape), 8, comment=comment)


def comment_of(label: str, seed: int = 0, prompt: str = "a bar moves right", **more) -> str:
    """The comment that `compare` writes into a video."""
    return json.dumps({"prompt": prompt, "seed": seed, "panel": label, **more})


def compared(folder: Path, seed: int = 0, settings=None, prompt: str = "a bar moves right") -> Path:
    """What `compare` leaves: labels, prompt and seed in the files' comments."""
    for name, label, own in (("baseline", "without", None), ("enhanced", "with", settings or {"strength": 0.7})):
        write(folder / f"{name}.mp4", label, seed, comment_of(label, seed, prompt, settings=own))
    return folder


def folder_of_folders(folder: Path, count: int) -> Path:
    for seed in range(count):
        compared(folder / f"take-{seed}", seed, prompt=f"a bar moves right, number {seed}")
    return folder


def record(folder: Path, prompt: str, seed: int, label: str, settings, **changes) -> dict:
    """A clip and its line of a batch's manifest."""
    name = f"{prompt.replace(' ', '-')}_{seed}_{label}.mp4"
    line = {"key": f"{name}", "status": "done", "file": name, "prompt": prompt, "seed": seed, "label": label}
    line |= {"settings": settings, "options": {}} | changes
    if line["status"] == "done":
        write(folder / name, label, seed)
    return line


def manifest(folder: Path, lines: list[dict]) -> Path:
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
