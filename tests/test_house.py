"""The house itself: imports run downward, the front door is small, the documents name what exists."""

import ast
import re
from pathlib import Path

import pytest

import enhance_a_video

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "enhance_a_video"

# Each room may import from the rooms of the floors below it, and from none beside or above it.
FLOORS = [
    {"errors"},
    {"limits"},
    {"intensity", "policy", "query_key", "stats", "metrics", "files", "terminal", "prompts", "shape"},
    {"parallel", "database", "media"},
    {"settings", "schedule", "record", "seam", "video", "toy", "team", "pages"},
    {"alternatives", "cross_frame", "pictures"},
    {"families", "plan", "layer"},
    {"probe"},
    {"denoiser"},
    {"enhancement", "loading"},
    {"attention", "pipelines"},
    {"comparison", "preflight"},
    {"report"},
    {"study"},
    {"job", "batch", "score", "vote", "tune"},
    {"cli"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this package that a file imports, at its top or inside a function."""
    found = set()
    depth = len(path.relative_to(SOURCE).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            found |= {name for name in names if name in FLOOR}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_downward(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in FLOOR, f"{room} has no floor: put it into FLOORS and docs/architecture.md"
    upward = {other for other in imported_rooms(path) if other != room and FLOOR[other] >= FLOOR[room]}
    assert not upward, f"{room} imports {upward} from its own floor or above"


@pytest.mark.parametrize("room", ["intensity", "policy", "metrics", "stats", "errors"])
def test_the_maths_never_knows_the_model(room):
    files = [SOURCE / f"{room}.py"] if (SOURCE / f"{room}.py").exists() else (SOURCE / room).rglob("*.py")
    for file in files:
        assert not re.search(r"^\s*(from|import) (diffusers|transformers)", file.read_text(), re.MULTILINE), file


def test_the_front_door():
    assert enhance_a_video.__all__ == [
        "Enhancement",
        "Odds",
        "Settings",
        "Strength",
        "Summary",
        "Temperature",
        "cross_frame_intensity",
        "enhance",
        "enhance_attention",
        "errors",
    ]
    for name in enhance_a_video.__all__:
        assert getattr(enhance_a_video, name) is not None


def test_every_error_is_drawn_in_the_tree():
    from enhance_a_video import errors

    classes = [n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, Exception)]
    assert classes
    for name in classes:
        assert name in (errors.__doc__ or ""), name


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))])
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_the_architecture_page_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in FLOOR:
        assert re.search(rf"\b{room}\b", text), f"docs/architecture.md does not mention {room}"
