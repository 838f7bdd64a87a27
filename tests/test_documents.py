"""README and docs run as written: every command line parses, every Python block compiles and imports what exists."""

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest
import typer

from enhance_a_video import Settings, enhance_attention
from enhance_a_video.cli.commands import app

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *ROOT.glob("models/*/*.md"),
]
UsageError = typer.BadParameter.__base__  # click's own, or that of the click inside typer
COMMAND = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def blocks(page, language):
    """Of one language, whatever the fence says besides (test_documents_run.py)."""
    fence = rf"^```{language}(?: \{{[^\n]*\}})?\n(.*?)^```"
    return re.findall(fence, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page):
    """Command lines as lists of words: of the sh blocks, and of the text where `code` begins with a command."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`((?:enhance-a-video|make) [^`]+)`", outside.replace("\n", " "))
    for line in lines:
        words = shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", line), comments=True)
        while words:
            end = next((n for n, word in enumerate(words) if word in ("&&", "|", ";", ">")), len(words))
            if words[:end]:
                yield words[:end]
            words = words[end + 1 :]


ALL = [(page.relative_to(ROOT), words) for page in PAGES for words in commands(page)]
PYTHON = [
    pytest.param(page, block, id=f"{page.relative_to(ROOT)}-{n}")
    for page in PAGES
    for n, block in enumerate(blocks(page, "python"))
]


def parsed(words):
    """What the command line makes of these words, without running it. Raises UsageError."""
    context = COMMAND.make_context("enhance-a-video", [], resilient_parsing=True)
    context.resilient_parsing = False  # the command below it inherits this
    name, command, rest = COMMAND.resolve_command(context, list(words))
    if rest:  # a name alone stands for the command
        command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(("page", "words"), [c for c in ALL if c[1][0] == "enhance-a-video"], ids=lambda v: str(v)[:90])
def test_command_lines_parse(page, words):
    try:
        parsed(words[1:])
    except UsageError as error:
        pytest.fail(f"{page}: {shlex.join(words)}: {error.format_message()}")


def test_what_cannot_run_is_found():
    with pytest.raises(UsageError, match="prompt"):
        parsed(["compare", "--seeds", "8"])
    with pytest.raises(UsageError, match="--nothing"):
        parsed(["demo", "--nothing"])
    with pytest.raises(UsageError):
        parsed(["dmeo"])


@pytest.mark.parametrize(
    ("page", "words"), [c for c in ALL if c[1][0] in ("make", "python")], ids=lambda v: str(v)[:90]
)
def test_scripts_and_targets_are_there(page, words):
    if words[0] == "make":
        assert {w for w in words[1:] if "=" not in w and not w.startswith("-")} <= TARGETS
    elif words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file()
    elif words[1] == "-m" and words[2].startswith("enhance_a_video"):
        assert importlib.util.find_spec(words[2])


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python_blocks_import_what_exists(page, block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("enhance_a_video", "diffusers"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "enhance":
            Settings(**literals(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "enhance_attention":
            known = inspect.signature(enhance_attention).parameters
            assert {k.arg for k in node.keywords} <= set(known) or any(p.kind is p.VAR_KEYWORD for p in known.values())


def literals(call):
    """The keyword arguments of a call that can be evaluated here: not files, not the block's own names."""
    found = {}
    for keyword in call.keywords:
        try:
            value = eval(compile(ast.Expression(keyword.value), "block", "eval"), {"slice": slice})
        except NameError:
            continue
        if not str(value).endswith(".json"):
            found[keyword.arg] = value
    return found


def test_the_example_of_the_readme_runs_and_saves_a_video(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = next(block for block in blocks(ROOT / "README.md", "python") if "from_pretrained" in block)
    model, prompt = re.search(r'from_pretrained\(("[^"]+")', block)[1], re.search(r'pipe\(("[^"]+")', block)[1]
    small = f"{prompt}, height=32, width=32, num_frames=9, num_inference_steps=2"
    for text, other in {model: repr(str(tiny_folder)), '"cuda"': '"cpu"', f"pipe({prompt}": f"pipe({small}"}.items():
        assert text in block
        block = block.replace(text, other)
    exec(compile(block, "README.md", "exec"), {})
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 0
    assert "forward calls" in capsys.readouterr().out


def said():
    """All that the package's code says in text, as one: what a message fills in is left out."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def explained():
    """The messages in the first column of the tables that begin with "the message", without what they fill in."""
    text = (ROOT / "docs" / "guide" / "troubleshooting.md").read_text(encoding="utf-8")
    for table in re.findall(r"^\| the message \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        for message in re.findall(r"^\| [^|]*?`([^`]+)`", table, re.MULTILINE):
            yield from (part.strip(" .,") for part in message.split("..."))


def test_the_messages_that_the_guide_explains_are_there():
    parts, text = [part for part in explained() if part], said()
    assert len(parts) > 25
    assert not [part for part in parts if part not in text]
