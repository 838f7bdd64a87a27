"""The web page in a real browser, on the embedded model: generate, stop, queue, restart, restore, compare, share.

Skipped where there is no Gradio, or no Chromium (CHROMIUM=/path/to/chromium names one; Debian: apt-get install
chromium).
"""

import os
import socket

import numpy as np
import pytest
from chromium import needs_chromium, playwright

pytest.importorskip("gradio", reason="pip install 'enhance-a-video[web]'")

from enhance_a_video.generation import video
from enhance_a_video.web.page import serve

pytestmark = needs_chromium
WAIT = 120_000  # ms
PROMPT = "A red ball moves left over a green meadow."


@pytest.fixture
def served(tmp_path):
    """Serves the folder; called again, it closes the page first: a restart."""
    running = []

    def start():
        stop()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        running.append(serve(tmp_path / "ui", port=port))
        return running[-1][0].local_url

    def stop():
        while running:
            blocks, desk = running.pop()
            desk.maker.stop(wait=60)
            blocks.close(verbose=False)

    yield start
    stop()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(chromium, request):
    """A page in a fresh profile, whose errors fail the test."""
    width, height = request.param
    context = chromium.new_context(viewport={"width": width, "height": height})
    page, wrong = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not wrong


def opened(page, url):
    page.goto(url)
    playwright.expect(page.get_by_role("button", name="Generate")).to_be_visible()
    page.wait_for_timeout(2500)  # Gradio hears the first click only then


def unfold(page, *names):
    for name in names:
        page.get_by_role("button", name=name).click()


def printed(page, text):
    playwright.expect(page.locator(".ev-message, .ev-wrong").first).to_contain_text(text)


def shown(page, text):
    playwright.expect(page.locator(".ev-title").first).to_contain_text(text, timeout=WAIT)
    page.wait_for_function("document.querySelector('wipe-player')?.canvas?.width > 0 || null", timeout=WAIT)


def pixels(page, at):
    """The canvas with the line at a place from 0 to 1, of the first frame, as numbers."""
    return page.evaluate(
        """async (at) => { const one = document.querySelector("wipe-player"); one.video.pause();
        const back = (done) => { one.video.onseeked = done; one.video.currentTime = 0; };
        if (one.video.currentTime) await new Promise(back);
        one.wipe.value = at; one.draw();
        return [...one.canvas.getContext("2d").getImageData(0, 0, one.canvas.width, one.canvas.height).data]; }""",
        at,
    )


def jobs(page):
    return page.locator("#ev-jobs label")


def test_the_journey(page, served, tmp_path):
    width = page.viewport_size["width"]
    opened(page, served())

    # one clip, plain and enhanced in one player
    page.get_by_label("Prompt").fill(PROMPT)
    unfold(page, "Expert knobs")
    page.get_by_label("Steps").fill("2")
    page.get_by_label("Frames").fill("9")
    page.get_by_role("button", name="Generate").click()
    shown(page, "seed 0 · standard")
    left, right = pixels(page, 1), pixels(page, 0)
    assert len(left) == len(right) == 384 * 384 * 4 and left != right
    playwright.expect(page.locator(".ev-result").first).to_contain_text("The method acted in")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download enhanced").click()
    clip = tmp_path / download.value.suggested_filename
    download.value.save_as(clip)

    shots = os.environ.get("SCREENSHOTS")
    if shots:  # the picture of docs/guide/ui.md
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=f"{shots}/ui-{width}.png", full_page=True)

    # a queue of three, stopped at any moment
    page.get_by_label("Steps").fill("600")
    page.get_by_label("Seeds").fill("1-3")
    page.get_by_role("button", name="Generate").click()
    playwright.expect(page.locator(".ev-preview")).to_be_visible(timeout=WAIT)
    playwright.expect(page.locator(".ev-progress")).to_contain_text("left; 2 clips wait")
    page.get_by_role("button", name="Stop", exact=True).click()
    printed(page, "Stopping after this step")
    playwright.expect(page.locator(".ev-progress")).to_have_count(0, timeout=WAIT)
    unfold(page, "Queue")
    playwright.expect(jobs(page)).to_have_count(3)
    jobs(page).nth(0).click()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="No, keep it").click()
    playwright.expect(page.get_by_role("button", name="No, keep it")).to_have_count(0)
    playwright.expect(jobs(page)).to_have_count(3)
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Yes, delete").click()
    playwright.expect(jobs(page)).to_have_count(2)
    jobs(page).nth(1).click()
    page.get_by_role("button", name="Earlier").click()
    playwright.expect(jobs(page).nth(0)).to_contain_text("seed 3")
    page.get_by_label("Steps").fill("2")  # edit: the fields in its place
    page.get_by_label("Seeds").fill("5")
    page.get_by_role("button", name="Replace by the fields").click()
    playwright.expect(jobs(page).nth(0)).to_contain_text("seed 5")
    jobs(page).nth(1).click()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Yes, delete").click()
    playwright.expect(jobs(page)).to_have_count(1)

    # a restart loses nothing
    opened(page, served())
    shown(page, "seed 0 · standard")
    unfold(page, "Queue")
    playwright.expect(jobs(page)).to_have_count(1)
    page.get_by_role("button", name="Go on with the queue").click()
    shown(page, "seed 5 · standard")
    playwright.expect(page.locator("#ev-gallery .thumbnail-item")).to_have_count(2)

    # the settings of a dropped clip; what is none is refused in a sentence
    page.get_by_label("Prompt").fill("something else")
    (tmp_path / "bad.mp4").write_text("no video")
    page.locator("#ev-clip input[type=file]").set_input_files(tmp_path / "bad.mp4")
    printed(page, "bad.mp4 cannot be read as a video")
    page.locator("#ev-clip button[aria-label=Clear], #ev-clip button[title=Clear]").first.click()
    page.locator("#ev-clip input[type=file]").set_input_files(clip)
    printed(page, "The clip's settings are in the fields.")
    assert page.get_by_label("Prompt").input_value() == PROMPT and page.get_by_label("Seeds").input_value() == "0"

    # the clip that is shown, restored: beside what it was
    page.get_by_role("button", name="Restore this clip").click()
    shown(page, "seed 5 · restored, noise 0.1")
    playwright.expect(page.locator("#ev-gallery .thumbnail-item")).to_have_count(3)
    if shots:
        page.screenshot(path=f"{shots}/restored-{width}.png", full_page=True)

    # deleted only after a question
    page.get_by_role("button", name="Delete", exact=True).click()
    playwright.expect(page.get_by_text("Delete this clip and its files?")).to_be_visible()
    if shots:
        page.screenshot(path=f"{shots}/question-{width}.png")
    page.get_by_role("button", name="No, keep it").click()
    playwright.expect(page.locator("#ev-gallery .thumbnail-item")).to_have_count(3)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Yes, delete").click()
    printed(page, "Deleted.")
    playwright.expect(page.locator("#ev-gallery .thumbnail-item")).to_have_count(2)

    # a first picture, with a model that takes none: a sentence
    unfold(page, "Expert knobs")
    video.write_png(tmp_path / "first.png", np.zeros((64, 64, 3), np.uint8))
    page.locator("#ev-image input[type=file]").set_input_files(tmp_path / "first.png")
    playwright.expect(page.locator("#ev-image img")).to_be_visible()
    page.get_by_role("button", name="Generate").click()
    playwright.expect(page.locator(".ev-progress")).to_contain_text("image", timeout=WAIT)
    if shots:
        page.screenshot(path=f"{shots}/picture-{width}.png", full_page=True)

    # any two of the gallery in the player
    unfold(page, "Compare two clips")
    for label, number in (("A", 0), ("B", 3)):
        page.get_by_label(label, exact=True).click()
        page.get_by_role("option").nth(number).click()
    page.get_by_role("button", name="Compare", exact=True).click()
    playwright.expect(page.locator("wipe-player")).to_have_count(
        1
    )  # of the result, nothing is shown after it is deleted
    page.wait_for_function("document.querySelectorAll('wipe-player')[0].canvas.width > 0")

    # a link carries the settings
    unfold(page, "Presets, links")
    page.get_by_role("button", name="Link to these settings").click()
    printed(page, "finds these settings")
    link = page.locator("#ev-link textarea").input_value()
    other = page.context.new_page()
    opened(other, link)
    printed(other, "The settings of the link")
    assert other.get_by_label("Prompt").input_value() == PROMPT
    other.close()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_files_outside_of_the_gallery_are_not_given_out(chromium, served, tmp_path):
    url = served()
    for path in ("/etc/passwd", tmp_path / "ui" / "queue.json", tmp_path / "ui" / "gallery" / ".." / "queue.json"):
        page = chromium.new_page()
        assert page.request.get(f"{url}gradio_api/file={path}").status in (403, 404)
        page.close()
