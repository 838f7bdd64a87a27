"""The house drawn from the code: its wings, their rooms, what imports what, and how many lines each has.

    python benchmarks/house.py --out docs/house.svg          # the picture of docs/architecture.md
    python benchmarks/house.py --check                       # only what tests/test_house.py holds

A room is a module or a package directly under src/enhance_a_video. Moving a wing's rooms into a folder of its own is
then a matter of this list.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "enhance_a_video"

# Each wing may import from those before it, and from none after it.
WINGS: dict[str, tuple[str, ...]] = {
    "library": (
        "errors", "wording", "extras", "limits", "intensity", "policy", "query_key", "parallel", "settings", "schedule",
        "record", "seam", "operators", "alternatives", "families", "layer", "probe", "denoiser", "enhancement",
        "attention",
    ),
    "generation": (
        "terminal", "events", "files", "prompts", "shape", "media", "video", "measures", "toy", "plan", "loading",
        "pipelines", "preflight", "making", "workers", "batch",
    ),
    "lab": (
        "stats", "metrics", "database", "pages", "pictures", "comparison", "report", "comparing", "study", "tune",
        "score", "vote",
    ),
    "cli": ("cli",),
}  # fmt: skip
WING = {room: wing for wing, rooms in WINGS.items() for room in rooms}


def room_of(path: Path, source: Path = SOURCE) -> str:
    return path.relative_to(source).parts[0].removesuffix(".py")


def imported_rooms(path: Path, source: Path = SOURCE) -> set[str]:
    """Rooms of this package that a file imports, at its top or inside a function."""
    found = set()
    depth = len(path.relative_to(source).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def arrows(source: Path = SOURCE) -> dict[str, set[str]]:
    """room -> the other rooms that it imports."""
    files = [path for path in sorted(source.rglob("*.py")) if room_of(path, source) != "__init__"]
    rooms = {room_of(path, source) for path in files}
    found: dict[str, set[str]] = {room: set() for room in sorted(rooms)}
    for path in files:
        room = room_of(path, source)
        found[room] |= (imported_rooms(path, source) & rooms) - {room}
    return found


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """room -> its floor: one above the highest room that it imports. ValueError where rooms import each other."""
    found: dict[str, int] = {}
    while len(found) < len(graph):
        ready = {room for room, below in graph.items() if room not in found and below <= found.keys()}
        if not ready:
            raise ValueError(f"These rooms import each other: {', '.join(sorted(graph.keys() - found.keys()))}")
        found |= {room: 1 + max((found[other] for other in graph[room]), default=-1) for room in ready}
    return found


def outside_imports(path: Path) -> Iterator[str]:
    """The packages that importing a file imports: those of its top level, functions left out."""
    open_nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while open_nodes:
        for node in ast.iter_child_nodes(open_nodes.pop()):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module.split(".")[0]
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                open_nodes.append(node)
