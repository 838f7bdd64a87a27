"""ComfyUI's own page in a headless Chromium: our nodes on it, run, with their report, player and messages."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import real

real.start()
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium found; apt-get install chromium", allow_module_level=True)
LINE = """() => window.app.graph._nodes.find((n) => n.type === "EnhanceAVideo")
    .widgets.map((w) => String(w.value)).join(" ")"""  # what the node shows
EXAMPLES = sorted((Path(__file__).parents[1] / "example_workflows").glob("*.json"))

from .server import Server, prepared, running  # noqa: E402
from .test_server import enhance_node, workflow  # noqa: E402


@contextlib.contextmanager
def opened(server: Server, size: dict[str, int]) -> Iterator[Any]:
    """A page of the server, ready to be used."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=size)
        page.goto(server.address)
        page.wait_for_function("window.app?.extensionManager && window.app.canvas", timeout=120_000)
        page.wait_for_timeout(4000)
        page.keyboard.press("Escape")  # the window of templates
        yield page
        browser.close()


def run(page: Any, server: Server) -> None:
    """Queue the workflow on the page and wait until it is done."""
    before = len(server.get("/history"))
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    for _ in range(240):
        page.wait_for_timeout(500)
        if len(server.get("/history")) > before:
            break
    page.wait_for_timeout(3000)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with (
        running(prepared(tmp_path_factory.mktemp("comfyui"))) as server,
        opened(server, {"width": 1600, "height": 1000}) as page,
    ):
        page.server = server
        yield page


def test_the_page_runs_a_workflow_with_our_nodes(page):
    page.evaluate("graph => window.app.loadApiJson(graph, 'workflow')", workflow(enhance_node()))
    page.wait_for_timeout(1500)
    run(page, page.server)
    found = page.evaluate(
        """() => {
            const node = (type) => window.app.graph._nodes.find((n) => n.type === type);
            const videos = [...node("EnhanceAVideoCompare").comparePlayer.box.querySelectorAll("video")];
            return {
                title: node("EnhanceAVideo").title,
                widgets: node("EnhanceAVideo").widgets.map((w) => w.name),
                line: node("EnhanceAVideo").widgets.map((w) => String(w.value)).join(" "),
                report: node("EnhanceAVideoReport").imgs?.length,
                lengths: videos.map((v) => v.duration),
                playing: videos.map((v) => !v.paused),
            };
        }"""
    )
    assert {"gain", "gain.odds", "start_percent", "end_percent", "passes"} <= set(found["widgets"]), found
    assert "acted in 3 layers" in found["line"], found
    assert found["report"] == 1 and found["playing"] == [True, True], found
    assert found["lengths"] == [pytest.approx(17 / 16, abs=0.01)] * 2


def test_the_line_wipes_and_both_clips_stop_and_step_together(page):
    found = page.evaluate(
        """async () => {
            const { box } = window.app.graph._nodes.find((n) => n.type === "EnhanceAVideoCompare").comparePlayer;
            const [left, right] = box.querySelectorAll("video");
            const stage = left.parentElement, [play] = box.querySelectorAll("button");
            const time = box.querySelector("input");
            const wait = (ms) => new Promise((done) => setTimeout(done, ms));
            const rect = stage.getBoundingClientRect();
            stage.onpointermove({ offsetX: stage.clientWidth / 4 });
            const wiped = right.style.clipPath;
            play.click();
            time.value = 500;
            time.oninput();
            await wait(500);
            return { wiped, paused: [left.paused, right.paused], at: [left.currentTime, right.currentTime],
                     duration: left.duration, link: box.querySelector("a").href, rect: [rect.width, rect.height] };
        }"""
    )
    assert found["wiped"] == "inset(0px 0px 0px 25%)" and found["paused"] == [True, True], found
    assert found["at"] == [pytest.approx(found["duration"] / 2, abs=0.05)] * 2
    assert "type=output" in found["link"] and min(found["rect"]) > 100


def test_a_workflow_that_the_page_exports_runs_through_the_http_api(page):
    """What the page's *Export (API)* writes, posted as a script would."""
    page.evaluate("graph => window.app.loadApiJson(graph, 'workflow')", workflow(enhance_node(passes="conditional")))
    exported = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    (outputs,) = [o for o in page.server.run(exported)["outputs"].values() if "text" in o]
    assert outputs["text"][0].startswith("odds 2 with the prompt alone acted in 3 layers, 4 of 4 calls"), outputs


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_workflows_load_and_give_our_node_its_defaults(page, path):
    """As the page's templates load them: all nodes known, and the saved values where the node has them today."""
    workflow = json.loads(path.read_text())
    found = page.evaluate(
        """async workflow => {
            await window.app.loadGraphData(workflow);
            const { output } = await window.app.graphToPrompt();
            const known = window.app.graph._nodes.every((node) => node.type in LiteGraph.registered_node_types);
            return { known, nodes: Object.values(output) };
        }""",
        workflow,
    )
    assert found["known"]
    inputs = next(made["inputs"] for made in found["nodes"] if made["class_type"] == "EnhanceAVideo")
    link = inputs.pop("model")
    assert isinstance(link, list) and inputs == {
        "gain": "odds", "gain.odds": 2, "start_percent": 0, "end_percent": 1, "blocks": "", "passes": "both",
        "observe_only": False,
    }  # fmt: skip
    kinds = {made["class_type"] for made in found["nodes"]}
    assert ({"EnhanceAVideoCompare", "EnhanceAVideoReport"} <= kinds) == ("plain and" in path.stem)


@pytest.mark.parametrize("word", ["FETA", "flicker", "temporal consistency"])
def test_the_page_finds_the_node_by_what_people_call_it(page, word):
    page.mouse.dblclick(800, 500)
    page.wait_for_timeout(1500)
    page.keyboard.type(word)
    page.get_by_text("Enhance A Video", exact=True).first.wait_for(timeout=10_000)
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)


def test_the_page_shows_the_nodes_help(page):
    page.evaluate("graph => window.app.loadApiJson(graph, 'workflow')", {"1": enhance_node()})
    page.wait_for_timeout(1500)
    page.evaluate("() => window.app.canvas.selectNode(window.app.graph._nodes[0])")
    page.get_by_test_id("info-button").first.click()
    page.get_by_role("heading", name="What the node says").wait_for(timeout=10_000)


def test_help_pages_are_served(page):
    for kind in ("EnhanceAVideo", "EnhanceAVideoReport", "EnhanceAVideoCompare"):
        text = page.server.get(f"/extensions/enhance-a-video/docs/{kind}.md").decode()
        assert text.startswith("# ") and "##" in text


def test_the_nodes_work_as_the_pages_nodes_2_0(page):
    """The page's other way to draw nodes: HTML in place of a canvas. Last here, as it changes the page's setting."""
    page.evaluate("async () => await window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    page.wait_for_timeout(3000)
    page.evaluate(
        "graph => window.app.loadApiJson(graph, 'workflow')", workflow(enhance_node("odds", 1.7, passes="both"))
    )
    page.wait_for_timeout(1500)
    run(page, page.server)
    videos = page.evaluate(
        "() => [...document.querySelectorAll('video')].map((v) => [!v.paused, v.getBoundingClientRect().width > 100])"
    )
    assert videos == [[True, True]] * 2
    assert "odds 1.7 acted in 3 layers" in page.evaluate(LINE)
