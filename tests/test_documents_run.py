"""What README and the docs show is run: every Python block and every command, page by page, in their order.

Published weights are tiny models of the real classes, and sizes are small (documents_world.py). A fence may say
otherwise: ```python {.not-run} needs what no test has (several GPUs, another program, hours) and is only checked by
test_documents.py; {.alternatives} is a list of calls of which a reader takes one.
"""

import ast
import re
import shlex

import documents_world as world
import pytest
from test_documents import PAGES, ROOT

from enhance_a_video import embedded, enhance
from enhance_a_video.enhancement import enhancement_of
from enhance_a_video.models import registry

FENCE = re.compile(r"^```(python|sh)(?: \{\.([\w-]+)\})?\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLASSES = ("", "not-run", "alternatives")
REAL = {"docs/guide/start.md"}  # pages whose commands run on the packaged model itself
VARIABLE = re.compile(r"^([A-Z_]+)=(\S+) ")


def steps(page):
    """(language, class, text) of the blocks of a page that say how they run."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def command_lines(text):
    """(variables, the words after the command's name) of each of its lines. "..." is a value of the reader's own."""
    for line in text.replace("\\\n", " ").splitlines():
        variables = {}
        while found := VARIABLE.match(line):
            variables[found[1]] = found[2].replace("'...'", "a value of one's own")
            line = line[found.end() :]
        if line.startswith("enhance-a-video "):
            yield variables, shlex.split(line, comments=True)[1:]


RUN = [page for page in PAGES if any(how != "not-run" for _, how, _ in steps(page))]


@pytest.fixture
def here(tmp_path, tiny_folder, monkeypatch, request):
    """A folder with the files that the docs take as given, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))  # a page may register a row
    world.files(tmp_path, tiny_folder)
    world.pipelines(monkeypatch)
    world.loading(monkeypatch, tiny_folder)
    world.commands_stop_at_once(monkeypatch)
    if request.node.callspec.id not in REAL:
        monkeypatch.setattr(embedded, "model_folder", lambda: tiny_folder)
    return tmp_path


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs_from_top_to_bottom(page, here, tiny_folder, tiny_pipe, command, monkeypatch):
    names = {"pipe": tiny_pipe, "enhance": enhance, "__name__": "page"}
    for number, (language, how, text) in enumerate(steps(page)):
        assert how in CLASSES, f"{page}: the fence's class .{how} is unknown: {CLASSES}"
        if how == "not-run":
            continue
        if language == "sh":
            for variables, words in command_lines(text):
                for name, value in variables.items():
                    monkeypatch.setenv(name, value)
                code, _, errors = command(*world.smaller(words, tiny_folder))
                assert code == 0, f"{shlex.join(words)}: {errors}"
        else:
            run_python(text.replace('"cuda"', '"cpu"'), how, names, f"{page.name}, block {number}")


def run_python(text, how, names, where):
    if how != "alternatives":
        exec(compile(text, where, "exec"), names)
        return
    for statement in ast.parse(text).body:
        exec(compile(ast.Module([statement], []), where, "exec"), names)
        if (left := enhancement_of(names["pipe"])) is not None:
            left.remove()


def test_no_page_hides_a_block_behind_an_unknown_fence():
    known = "python|sh|json|yaml|text|bibtex"  # no second name for one that is run
    for page in PAGES:
        fences = re.findall(r"^```(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(re.fullmatch(rf"({known})( \{{\.[\w-]+\}})?", fence) for fence in fences), f"{page}: {fences}"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("pipe('a cat', num_framez=9)", TypeError),
        ("pipe.vae.enable_tilling()", AttributeError),
        ("pipe.enable_model_cpu_offload(gpus=2)", TypeError),
        ("enhance(pipe, ods=2)", TypeError),
        ("WanPipeline.from_pretrained('Wan-AI/Wan2.1-T2V-1.3B')", KeyError),
    ],
)
def test_the_tiny_pipelines_refuse_what_the_real_ones_do(monkeypatch, line, error):
    world.pipelines(monkeypatch)
    names = {"enhance": enhance}
    load = "from diffusers import WanPipeline\npipe = WanPipeline.from_pretrained('Wan-AI/Wan2.1-T2V-1.3B-Diffusers')"
    run_python(load, "", names, "loading")
    with pytest.raises(error):
        run_python(line, "", names, "mistake")
