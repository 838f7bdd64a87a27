"""The pages in a real browser, at the width of a desk and of a phone: what fits, what comes first, what plays."""

import pytest
from chromium import needs_chromium
from test_pages import comparison_page
from test_study_analysis import gentle, plant, study_of
from vote_folders import clip

from enhance_a_video.generation import video
from enhance_a_video.lab.study import analyse, make_plan
from enhance_a_video.lab.study import pages as study_pages

pytestmark = needs_chromium
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return video.write_video(path, clip((40, 60, 200), frames=16, height=128, width=128), 8).read_bytes()


@pytest.fixture(scope="module")
def files(mp4, tmp_path_factory):
    """name -> a page as a file."""
    folder = tmp_path_factory.mktemp("pages")
    long = "a red ball " * 12 + "a-word-that-is-much-longer-than-a-line-of-a-phone-can-ever-be-" * 2
    plant(study := study_of(12), folder, gentle)
    results = analyse(study, folder)
    cases = [case for kinds in results.cases.values() for found in kinds.values() for case in found]
    keys = {"-".join(where) for case in cases for where in (case.clip, case.baseline)}
    texts = {
        "comparison": comparison_page(long, "with Enhance-A-Video", 3, mp4),
        "study": study_pages.html(results, make_plan(study, folder), dict.fromkeys(keys, mp4)),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def shown(chromium, files):
    """Opens a page at a width; errors in it, and requests for anything else, fail the test."""
    contexts, wrong = [], []

    def open_page(name: str, width: int, **options):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(90_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["comparison", "study"])
def test_nothing_is_wider_than_the_page(shown, name, width):
    page = shown(name, width)
    for unfolded in (False, True):
        page.evaluate("(on) => document.querySelectorAll('details').forEach((one) => { one.open = on; })", unfolded)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = """(width) => [...document.querySelectorAll("video, img, button, h1, h2, h3, p, summary, pre, dl")]
            .filter((one) => !one.closest(".scroll") && one.getBoundingClientRect().right > width)
            .map((one) => one.outerHTML.slice(0, 200))"""
        assert page.evaluate(wide, width) == []
    verdicts = "[...document.querySelectorAll('table .tag')].map((one) => one.getBoundingClientRect().right)"
    assert 0 < max(page.evaluate(verdicts)) <= width  # seen without scrolling the table


@pytest.mark.parametrize("name", ["comparison", "study"])
def test_the_result_comes_first_then_videos_then_numbers(shown, name):
    page = shown(name, 1280)
    place = "(what) => document.querySelector(what).getBoundingClientRect().top"
    result, clip, table = (page.evaluate(place, what) for what in (".result", "video", "table"))
    assert result < clip < 800 and (table == 0 or table > clip)  # 0: folded
    assert "warping error" in page.locator(".result").first.inner_text()


def test_videos_run_together_and_go_frame_by_frame(shown):
    page = shown("comparison", 1280)
    page.wait_for_function("[...document.querySelectorAll('video')].slice(0, 2).every((one) => one.currentTime > 0)")
    player = page.locator(".player").first
    player.get_by_role("button", name="Pause").click()
    times = "[...document.querySelectorAll('video')].slice(0, 2).map((one) => one.currentTime)"
    first, second = page.evaluate(times)
    assert first == second and player.get_by_role("button", name="Play").is_visible()
    player.get_by_role("slider", name="Position").fill("500")
    before, _ = page.evaluate(times)
    player.get_by_role("button", name="One frame on").click()
    after, other = page.evaluate(times)
    assert after == other and 0.05 < after - before < 0.2  # a frame lasts 1/8 s


def test_the_wipe_lays_one_video_over_the_other(shown):
    page = shown("comparison", 390)
    player = page.locator(".player").first
    player.get_by_role("button", name="Wipe").click()
    boxes = [player.locator("video").nth(n).bounding_box() for n in (0, 1)]
    assert boxes[0] == boxes[1]
    player.get_by_role("slider", name="Line between the two videos").fill("20")
    assert player.locator("video").nth(1).evaluate("(one) => getComputedStyle(one).clipPath").startswith("inset(")
    player.get_by_role("button", name="Wipe").click()
    assert player.locator("video").nth(0).bounding_box() != player.locator("video").nth(1).bounding_box()


def test_a_studys_clip_is_in_the_page_once_and_plays_when_it_comes_into_view(shown):
    page = shown("study", 1280)
    assert page.evaluate("document.querySelectorAll('video').length > Object.keys(stored).length")
    page.wait_for_function("document.querySelector('video').currentTime > 0")
    last = page.locator("section:has(video) > .cases, section:has(video) > div .case").last.locator("video").last
    last.scroll_into_view_if_needed()
    page.wait_for_function("(one) => one.currentTime > 0", arg=last.element_handle())


def test_nothing_moves_for_those_who_set_that(shown):
    page = shown("comparison", 1280, reduced_motion="reduce")
    page.wait_for_timeout(300)
    assert page.evaluate("[...document.querySelectorAll('video')].every((one) => one.paused)")
    page.locator(".player").first.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('video').currentTime > 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["comparison", "study"])
def test_text_stands_out_from_its_ground(shown, name, scheme):
    page = shown(name, 1280, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate(CONTRAST) == []


# WCAG 2: text needs a contrast of 4.5 to what lies behind it.
CONTRAST = """() => {
    const numbers = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
    const light = (colour) => numbers(colour).slice(0, 3).map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
    const ground = (one) => {
        for (let at = one; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor, part = numbers(colour);
            if (part.length === 3 || part[3] === 1) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const pale = [];
    for (const one of document.querySelectorAll("p, span, small, th, td, dt, dd, summary, button, h1, h2, h3, pre")) {
        if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
        const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) pale.push(one.outerHTML.slice(0, 120));
    }
    return pale;
}"""


def test_a_hostile_prompt_runs_nothing(chromium, tmp_path):
    hostile = """</script><img src=x onerror="window.hit = 1"><svg onload="window.hit = 1">"""
    path = tmp_path / "page.html"
    path.write_text(comparison_page(hostile, hostile), encoding="utf-8")
    page = chromium.new_page()
    page.goto(path.as_uri())
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit === undefined") and hostile in page.locator(".prompt").inner_text()
    page.close()
