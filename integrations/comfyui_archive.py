"""Builds the ComfyUI node pack as one archive that drops into `custom_nodes/`: make comfyui.

It has the pack without its tests and, in `library/`, the wing of the package that imports torch and numpy alone
(benchmarks/house.py has its rooms), which is all that the pack needs. Nothing is installed where it is unpacked.
"""

import argparse
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACK, SOURCE = ROOT / "integrations" / "comfyui", ROOT / "src" / "enhance_a_video"
sys.path.insert(0, str(ROOT / "benchmarks"))
import house  # noqa: E402

FOLDER = "enhance-a-video"


def files() -> dict[str, Path]:
    """Name in the archive -> file."""
    found = {f"{FOLDER}/LICENSE": ROOT / "LICENSE"}
    for path in sorted(PACK.rglob("*")):
        inside = path.relative_to(PACK)
        if path.is_file() and "tests" not in inside.parts and "__pycache__" not in inside.parts:
            found[f"{FOLDER}/{inside.as_posix()}"] = path
    for path in sorted(SOURCE.rglob("*.py")):
        if house.WING.get(house.room_of(path), "library") == "library":
            found[f"{FOLDER}/library/{path.relative_to(SOURCE.parent).as_posix()}"] = path
    return found


def build(out: Path) -> Path:
    """Write the archive; the same files make the same bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files().items():
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "enhance-a-video-comfyui.zip")
    print(build(parser.parse_args().out))
