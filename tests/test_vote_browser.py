"""The voting page in a real browser: pairs are judged by what is seen, and the file of votes is checked.

Skipped where there is no Chromium (CHROMIUM=/path/to/chromium names one; Debian: apt-get install chromium).
"""

import json
import sqlite3
import threading
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pytest
from chromium import needs_chromium, playwright
from vote_folders import compared, folder_of_folders, write

from enhance_a_video.lab.vote import FILE, Ballots, Server, find_pairs, results

pytestmark = needs_chromium


@contextmanager
def serving(folder):
    with Server(Ballots(folder / FILE, find_pairs(folder).pairs)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def page(chromium):
    """A page in a fresh profile, whose errors fail the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page, wrong = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert not wrong


def begin(page, url: str, name: str) -> None:
    page.goto(url)
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Start").click()


def shown(page, place: str) -> None:
    """Waits until a pair is there and both videos run."""
    playwright.expect(page.locator("#progress")).to_have_text(f"Pair {place}")
    playwright.expect(page.locator("body")).not_to_have_class("loading")
    until(page, "clips.every((video) => video.currentTime > 0 && !video.paused)")


def until(page, condition: str) -> None:
    """Asks again and again: the page's own policy forbids what wait_for_function does."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"this did not come true: {condition}")


def side_of_with(page) -> str:
    """Looks at the pictures: "with" is the red one."""
    red = """(id) => {
        const video = document.getElementById(id), canvas = document.createElement("canvas");
        canvas.width = canvas.height = 1;
        canvas.getContext("2d").drawImage(video, 0, video.videoHeight - 4, 4, 4, 0, 0, 1, 1);
        const [r, g, b] = canvas.getContext("2d").getImageData(0, 0, 1, 1).data;
        return r > b + 50;
    }"""
    left, right = (page.evaluate(red, side) for side in ("left", "right"))
    assert left != right
    return "left" if left else "right"


def test_votes_for_what_is_seen_reach_the_file(page, tmp_path):
    folder = folder_of_folders(tmp_path, 4)
    texts, hosts = [], set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("response", lambda reply: texts.append(reply) if reply.url.startswith("http") else None)
    with serving(folder) as server:
        begin(page, server.url, "Ada")
        sides, other = [], {"left": "right", "right": "left"}
        for number in range(1, 5):
            shown(page, f"{number} of 4")
            assert "a bar moves right, number" in page.locator("#prompt").inner_text()
            sides.append(side_of_with(page))
            save = page.locator("#save")
            assert save.is_disabled()
            if number % 2:  # steadier: with; matches better: equal; looks better: without
                for question, answer in (("steadier", sides[-1]), ("matches", "equal"), ("looks", other[sides[-1]])):
                    box = page.get_by_role("group", name=question)
                    box.get_by_text({"equal": "About equal"}.get(answer, answer.capitalize()), exact=True).click()
                save.click()
            else:  # the same with keys; one is taken back
                keys = {"left": "1", "equal": "2", "right": "3"}
                for key in (keys[sides[-1]], "1", "Backspace", keys["equal"], keys[other[sides[-1]]]):
                    page.keyboard.press(key)
                playwright.expect(save).to_be_enabled()
                page.keyboard.press("Enter")
        playwright.expect(page.locator("#thanks")).to_contain_text("All 4 pairs are judged")
        bodies = [(reply.url, reply.headers, reply.body()) for reply in texts]
        page.reload()
        playwright.expect(page.locator("#thanks")).to_contain_text("Thank you, Ada")
    assert hosts - {""} == {urlsplit(server.url).netloc}  # nothing from elsewhere; blob: has no host

    rows = {row.question.key: row.wins for row in results(folder).rows}
    assert (rows["consistency"].wins, rows["prompt"].ties, rows["quality"].losses) == (4, 4, 4)
    with closing(sqlite3.connect(folder / FILE)) as db:
        times = db.execute("SELECT DISTINCT seconds FROM votes").fetchall()
        assert db.execute("SELECT count(*) FROM votes").fetchone() == (12,)
    assert all(0 <= seconds < 600 for (seconds,) in times)
    assert sum("/clip/" in url for url, *_ in bodies) == 8
    for url, headers, body in bodies:
        for word in (b"baseline", b"enhanced", b"without", b"strength", b"take-"):
            assert word not in url.encode() + json.dumps(headers).encode() + body, url


def test_a_reload_goes_on_and_another_voter_begins_anew(page, tmp_path):
    with serving(folder_of_folders(tmp_path, 3)) as server:
        begin(page, server.url, "Ada")
        shown(page, "1 of 3")
        for key in ("1", "1", "1", "Enter"):
            page.keyboard.press(key)
        shown(page, "2 of 3")
        prompt, side = page.locator("#prompt").inner_text(), side_of_with(page)
        page.reload()
        shown(page, "2 of 3")
        assert (page.locator("#prompt").inner_text(), side_of_with(page)) == (prompt, side)
        page.get_by_role("button", name="Not you?").click()
        page.get_by_label("Your name").fill("Bob")
        page.keyboard.press("Enter")
        shown(page, "1 of 3")
        page.get_by_role("button", name="Not you?").click()
        page.get_by_label("Your name").fill(" ADA ")
        page.keyboard.press("Enter")
        shown(page, "2 of 3")


def test_both_videos_stop_run_slow_down_and_loop_together(page, tmp_path):
    with serving(compared(tmp_path)) as server:
        begin(page, server.url, "Ada")
        shown(page, "1 of 1")
        again = """Promise.all(clips.map((video) => new Promise((done) => video.addEventListener("ended", () =>
            video.addEventListener("seeked", () => done(video.currentTime), { once: true })))))"""
        assert all(time < 0.3 for time in page.evaluate(again))  # one second long: it came round
        page.keyboard.press("p")
        page.wait_for_timeout(100)
        first, second = page.evaluate("clips.map((video) => video.currentTime)")
        assert first == pytest.approx(second, abs=0.02) and page.evaluate("clips.every((video) => video.paused)")
        playwright.expect(page.locator("#play")).to_contain_text("Play")
        page.get_by_role("button", name="From the start").click()
        page.get_by_role("button", name="Half speed").click()
        until(page, "clips.every((video) => !video.paused && video.playbackRate < 0.7)")
        playwright.expect(page.locator("#slow")).to_have_attribute("aria-pressed", "true")


def test_a_server_that_is_away_loses_nothing(page, tmp_path):
    folder = folder_of_folders(tmp_path, 2)
    with serving(folder) as server:
        begin(page, server.url, "Ada")
        shown(page, "1 of 2")
        page.context.set_offline(True)
        for key in ("1", "2", "3", "Enter"):
            page.keyboard.press(key)
        playwright.expect(page.get_by_role("alert")).to_contain_text("does not answer")
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        shown(page, "2 of 2")
    assert results(folder).voters == {"Ada": 1}


def test_a_second_window_cannot_vote_twice(page, tmp_path):
    with serving(folder_of_folders(tmp_path, 2)) as server:
        begin(page, server.url, "Ada")
        shown(page, "1 of 2")
        second = page.context.new_page()
        second.goto(server.url)
        shown(second, "1 of 2")
        for window, keys in ((page, "111"), (second, "333")):
            for key in (*keys, "Enter"):
                window.keyboard.press(key)
            shown(window, "2 of 2")
        playwright.expect(second.get_by_role("alert")).to_contain_text("the first answers count")
        assert {row.wins.votes for row in results(tmp_path).rows} == {1}


@pytest.mark.parametrize(("width", "height"), [(360, 640), (390, 844), (768, 1024), (1366, 700), (1920, 1080)])
def test_it_fits_phones_and_laptops(page, tmp_path, width, height):
    for name, label in (("baseline", "without"), ("enhanced", "with")):
        write(tmp_path / f"{name}.mp4", label, height=270, width=480)
    page.set_viewport_size({"width": width, "height": height})
    with serving(tmp_path) as server:
        begin(page, server.url, "Ada")
        shown(page, "1 of 1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = [page.locator(f"#{side}").bounding_box() for side in ("left", "right")]
        for box in boxes:
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= height
            assert box["width"] / box["height"] == pytest.approx(480 / 270, rel=0.02)
        piled = boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
        assert piled == (width < height)  # one above the other where that shows more
        assert page.get_by_text("Top", exact=True).first.is_visible() == piled
        assert page.get_by_role("group", name="matches").count() == 0  # no text is known: no such question
