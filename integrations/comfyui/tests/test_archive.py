"""The archive that `make comfyui` builds: complete, small, and alone with torch and numpy."""

import subprocess
import sys
import zipfile

import comfyui_archive

# What the pack needs of ComfyUI and of its requirements (Pillow) is left to the tests on a real server.
ALONE = """
import sys
folder, blocked = sys.argv[1], sys.argv[2].split(",")
sys.modules |= dict.fromkeys(blocked)
import importlib.util
spec = importlib.util.spec_from_file_location("pack", folder + "/__init__.py", submodule_search_locations=[folder])
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
from pack import attention, choice, gains, layouts, patch, record
import enhance_a_video
assert enhance_a_video.__file__.startswith(folder), enhance_a_video.__file__
print(choice.Choice(), len(layouts.LAYOUTS), pack.WEB_DIRECTORY)
"""
BLOCKED = "diffusers,transformers,accelerate,safetensors,PIL,av,cv2,matplotlib,scipy,yaml,jinja2,typer,rich,comfy_api"


def test_it_runs_where_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(comfyui_archive.build(tmp_path / "pack.zip")) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / comfyui_archive.FOLDER
    command = [sys.executable, "-c", ALONE, str(folder), BLOCKED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("odds 2 19 ./web"), done.stdout


def test_it_has_what_comfyui_needs_and_no_more(tmp_path):
    names = set(comfyui_archive.files())
    inside = {name.removeprefix(f"{comfyui_archive.FOLDER}/") for name in names}
    for node in ("EnhanceAVideo", "EnhanceAVideoReport", "EnhanceAVideoCompare"):
        assert f"web/docs/{node}.md" in inside
    workflows = {name.rsplit(".", 1)[0] for name in inside if name.startswith("example_workflows/")}
    assert len(workflows) == 2 and {f"{name}.{end}" for name in workflows for end in ("json", "jpg")} <= inside
    assert not [name for name in inside if "tests" in name or "__pycache__" in name or "/cli/" in name]
    first, second = (comfyui_archive.build(tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert first == second and len(first) < 2_000_000
