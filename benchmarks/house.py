"""Draws the package from its code: wings, their rooms, what imports what, and how many lines each has.

    python benchmarks/house.py --out docs/reference/house.svg               # the picture of the architecture page
    python benchmarks/house.py --out docs/reference/house-before.svg --commit 69bddd0  # the same of an earlier commit
    python benchmarks/house.py --out docs/reference/house.svg --png house.png  # and as PNG
    python benchmarks/house.py --numbers b50adcd HEAD        # no picture: a table of sizes

A room is a module or a package. Those of the library and the front desks lie directly under src/enhance_a_video, those
of generation and the lab in a folder of their own.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "enhance_a_video"

# Each wing may import from those before it, and from none after it.
WINGS: dict[str, tuple[str, ...]] = {
    "library": (
        "errors", "wording", "extras", "limits", "intensity", "axes", "policies", "sharding", "settings", "progress",
        "record", "operators", "attention", "alternatives", "models", "enhanced_layer", "notices", "passes", "probe",
        "denoiser", "enhancement", "described",
    ),
    "generation": (
        "terminal", "events", "files", "prompts", "shape", "media", "credentials", "video", "measures", "embedded",
        "peers", "requests", "loading", "preview", "guidance", "pipelines", "preflight", "making", "again", "restore",
        "workers", "batch", "watermark", "content", "switches",
    ),
    "lab": (
        "stats", "metrics", "database", "pages", "pictures", "comparison", "report", "comparing", "study", "tune",
        "score", "vote",
    ),
    "cli": ("web", "cli"),
}  # fmt: skip
FOLDERS = ("generation", "lab")  # wings whose rooms lie in a folder of their own
# Rooms of earlier commits, for their pictures.
FORMER = {"team": "generation", "job": "cli", "toy": "generation", "plan": "generation"} | dict.fromkeys(
    ("cross_frame", "seam", "families", "policy", "schedule", "layer", "query_key", "parallel"), "library"
)
WING = {room: wing for wing, rooms in WINGS.items() for room in rooms}


def room_of(path: Path, source: Path = SOURCE) -> str:
    return room_at(path.relative_to(source).with_suffix("").parts)


def room_at(parts: tuple[str, ...]) -> str:
    """The room of a module, of its dotted name's parts below this package."""
    return parts[1] if parts[0] in FOLDERS and len(parts) > 1 else parts[0]


def imported_rooms(path: Path, source: Path = SOURCE) -> set[str]:
    """Rooms of this package that a file imports, at its top or inside a function."""
    found = set()
    folder = path.relative_to(source).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - node.level + 1] + tuple(node.module.split(".") if node.module else ())
            is_room = base and base not in {(wing,) for wing in FOLDERS}
            rooms = [base] if is_room else [(*base, alias.name) for alias in node.names]
            found |= {room_at(parts) for parts in rooms}
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


# ------------------------------------------------------------------------------------------------------ the drawing

COLOURS = {"library": "#3b7dd8", "generation": "#2f9e6e", "lab": "#b7791f", "cli": "#8a5cc2"}
TITLES = {
    "library": "the library: torch, numpy", "generation": "generation: [video]", "lab": "the lab: [lab]",
    "cli": "the front desk: [cli]",
}  # fmt: skip
WIDE, HIGH, GAP, ROW = 1.75, 0.62, 0.16, 8  # a room, the space between two, rooms in a row


def direct(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The arrows that no other way leads along: (room, room it imports)."""

    def reached(room: str) -> set[str]:
        found: set[str] = set()
        left = [room]
        while left:
            left += (new := graph[left.pop()] - found)
            found |= new
        return found

    below = {room: reached(room) for room in graph}
    return {(a, b) for a in graph for b in graph[a] if not any(b in below[c] for c in graph[a] - {b})}


def lines_of(source: Path) -> dict[str, int]:
    """room -> its lines of Python."""
    found: dict[str, int] = {}
    for path in source.rglob("*.py"):
        room = room_of(path, source)
        found[room] = found.get(room, 0) + len(path.read_text(encoding="utf-8").splitlines())
    return found


def loaded_by_the_library(source: Path) -> tuple[int, int, list[str]]:
    """Files and lines of this package that `import enhance_a_video` loads, and the other distributions loaded by it."""
    program = (
        "import sys, importlib.metadata as d, enhance_a_video; "
        "known = d.packages_distributions(); names = {n.split('.')[0] for n in sys.modules}; "
        "own = [m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'enhance_a_video']; "
        "print((own, sorted({x for n in names - sys.stdlib_module_names for x in known.get(n, ())})))"
    )
    out = subprocess.run([sys.executable, "-c", program], cwd=source.parent, capture_output=True, text=True, check=True)
    names, others = ast.literal_eval(out.stdout)
    files = [Path(name) for name in names if name]
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    return len(files), lines, [name for name in others if name != "enhance-a-video"]


def required(source: Path) -> int:
    """How many packages the wheel requires."""
    project = (source.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    return len(re.findall(r'"[^"]+"', re.search(r"^dependencies = \[(.*?)\]$", project, re.M | re.S)[1]))


def wings_of(graph: dict[str, set[str]]) -> dict[str, list[str]]:
    """wing -> its rooms; one hall where the rooms of the wings import each other."""
    wing = WING | FORMER
    order = list(WINGS)
    walls = all(order.index(wing[b]) <= order.index(wing[a]) for a in graph for b in graph[a])
    if not walls:
        return {"": list(graph)}
    return {name: [room for room in graph if wing[room] == name] for name in WINGS}


def places(graph: dict[str, set[str]], wings: dict[str, list[str]]) -> tuple[dict[str, tuple[float, float]], dict]:
    """room -> (x, y) of its middle, floors above each other; wing -> (lowest y, highest y)."""
    at: dict[str, tuple[float, float]] = {}
    bands, y = {}, 0.0
    for wing, rooms in wings.items():
        low, level = y, floors({room: graph[room] & set(rooms) for room in rooms})
        for floor in range(max(level.values()) + 1):
            row = sorted(room for room in rooms if level[room] == floor)
            for start in range(0, len(row), ROW):
                part = row[start : start + ROW]
                for n, room in enumerate(part):
                    at[room] = ((n - (len(part) - 1) / 2) * (WIDE + GAP), y)
                y += HIGH + 0.5
        bands[wing] = (low - HIGH / 2 - 0.25, y - 0.5 - HIGH / 2 + 0.25)
        y += 0.7
    return at, bands


def draw(source: Path, out: Path, png: Path | None = None) -> str:
    """Writes the picture. Returns what it shows in a line."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "house", "font.family": "DejaVu Sans"}
    graph, lines = arrows(source), lines_of(source)
    wings = wings_of(graph)
    at, bands = places(graph, wings)
    wide = ROW * (WIDE + GAP) / 2 + 0.3
    top = max(high for _, high in bands.values()) + 0.8
    figure = Figure(figsize=(2 * wide * 0.62, (top + 1) * 0.62), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-wide, wide), ylim=(-1, top))
    axes.axis("off")
    for wing, (low, high) in bands.items():
        colour, size = COLOURS.get(wing, "#666666"), sum(lines[room] for room in wings[wing])
        box = FancyBboxPatch((-wide + 0.15, low), 2 * wide - 0.3, high - low, boxstyle="round,pad=0,rounding_size=0.15",
                             facecolor=colour, alpha=0.08, edgecolor=colour)  # fmt: skip
        axes.add_patch(box)
        title = f"{TITLES.get(wing, 'one hall')}, {size:,} lines"
        axes.text(-wide + 0.3, high + 0.08, title, color=colour, fontsize=10, weight="bold")
    for a, b in sorted(direct(graph)):
        start, end = (at[a][0], at[a][1] - HIGH / 2), (at[b][0], at[b][1] + HIGH / 2)
        how = {"arrowstyle": "-|>", "color": "#888888", "alpha": 0.55, "linewidth": 0.7, "mutation_scale": 7}
        axes.annotate("", end, start, arrowprops=how, zorder=1)
    for room, (x, y) in at.items():
        colour = COLOURS[(WING | FORMER)[room]]
        axes.add_patch(
            FancyBboxPatch((x - WIDE / 2, y - HIGH / 2), WIDE, HIGH, boxstyle="round,pad=0,rounding_size=0.08",
                           facecolor="white", edgecolor=colour, linewidth=0.8 + lines[room] / 900, zorder=2)
        )  # fmt: skip
        axes.text(x, y + 0.08, room, ha="center", va="center", fontsize=8.5, zorder=3)
        axes.text(x, y - 0.18, f"{lines[room]:,}", ha="center", va="center", fontsize=6.5, color="#666666", zorder=3)
    files, read, _ = loaded_by_the_library(source)
    text = (
        f"{sum(lines.values()):,} lines in {len(list(source.rglob('*.py')))} files; the wheel requires "
        f"{required(source)} packages; import enhance_a_video loads {files} files, {read:,} lines"
    )
    axes.text(0, -0.75, text, ha="center", fontsize=8.5, color="#333333")
    figure.savefig(out, metadata={"Date": None})
    if png:
        figure.savefig(png, dpi=110)
    return text


def numbers(source: Path) -> dict[str, str]:
    """The size of the wheel and of what `import enhance_a_video` loads."""
    lines = sum(lines_of(source).values())
    files, read, others = loaded_by_the_library(source)
    return {
        "Python files in the wheel": f"{len(list(source.rglob('*.py')))}",
        "lines of Python in the wheel": f"{lines:,}",
        "packages that the wheel requires": f"{required(source)}",
        "files of its own that `import enhance_a_video` loads": f"{files}",
        "lines of its own that it loads": f"{read:,}",
        "other distributions that it loads": f"{len(others)}",
    }


def table(columns: dict[str, dict[str, str]]) -> str:
    """Markdown: a column for each commit."""
    rows = [["", *columns], ["---"] * (1 + len(columns))]
    rows += [[name, *(column[name] for column in columns.values())] for name in next(iter(columns.values()))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@contextmanager
def sources(commit: str | None) -> Iterator[Path]:
    """The package's folder at a commit; None is the working tree."""
    if commit is None:
        yield SOURCE
        return
    command = ["git", "archive", commit, "src", "pyproject.toml"]
    data = subprocess.run(command, cwd=SOURCE.parent.parent, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder, "src", "enhance_a_video")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="the picture, .svg")
    what.add_argument("--numbers", nargs="+", metavar="COMMIT", help="a table of sizes in place of a picture")
    parser.add_argument("--png", type=Path, help="the same as PNG")
    parser.add_argument("--commit", help="of an earlier state, in place of the working tree")
    given = parser.parse_args()
    if given.numbers:
        columns = {}
        for commit in given.numbers:
            with sources(commit) as source:
                columns[commit] = numbers(source)
        print(table(columns))
        return
    with sources(given.commit) as source:
        print(draw(source, given.out, given.png))


if __name__ == "__main__":
    main()
