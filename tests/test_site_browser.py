"""The documentation site in a real browser, from the disk: nothing is wider than the page, and search finds."""

import pytest
from chromium import needs_chromium
from test_site import site  # noqa: F401

pytestmark = needs_chromium
PAGES = ("index", "guide/start", "guide/knobs", "guide/recipes", "guide/troubleshooting", "results/index")


@pytest.fixture
def opened(chromium, site):  # noqa: F811
    """Opens a page of the site at a width; an error in it and a request that leaves the disk fail the test."""
    contexts, wrong = [], []

    def open_page(name: str, width: int):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(90_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto((site[0] / f"{name}.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_page(opened, name, width):
    page = opened(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pictures = "[...document.images].map((one) => [one.naturalWidth, one.getBoundingClientRect().right])"
    for natural, right in page.evaluate(pictures):
        assert natural > 0 and right <= width


def test_search_finds_without_a_server(opened):
    page = opened("guide/ui", 1280)
    page.keyboard.press("/")
    page.keyboard.type("identity drifts")
    link = page.locator(".md-search-result__link").first
    link.wait_for()
    link.click()
    page.wait_for_url("**/guide/knobs.html*")
