"""The documentation site: it builds without a warning, no link or anchor is dead, and nothing comes from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="pip install '.[docs]'")

ROOT = Path(__file__).parent.parent
LOADED = {"script": "src", "img": "src", "iframe": "src", "video": "src", "source": "src", "link": "href"}


class Page(HTMLParser):
    """What a page of the site has: places that links lead to, links, and files that it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.places, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in LOADED and given.get(LOADED[tag]) and given.get("rel") != "canonical":
            self.loaded.append(given[LOADED[tag]])


def build(config: Path, out: Path) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "mkdocs", "build", "--config-file", config, "--site-dir", out]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site: page, as a path below it -> what it has."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder, {path.relative_to(folder): Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def dead(folder, pages, here, link):
    """Whether a link of a page, by its path in the folder, leads nowhere in the site."""
    there = urlsplit(link)
    if there.scheme:
        return False
    target = Path(os.path.normpath(here.parent / unquote(there.path))) if there.path else here
    if target not in pages:
        return not (folder / target).is_file()
    return bool(there.fragment) and unquote(there.fragment) not in pages[target].places


def test_every_page_is_built(site):
    _, pages = site
    sources = {p.relative_to(ROOT / "docs").with_suffix(".html") for p in (ROOT / "docs").rglob("*.md")}
    assert sources and sources <= set(pages)


def test_no_link_and_no_anchor_is_dead(site):
    folder, pages = site
    links = [(name, link) for name, page in pages.items() if name.name != "404.html" for link in page.links]
    assert len(links) > 1000
    assert not [(str(name), link) for name, link in links if dead(folder, pages, name, link)]


def test_the_repositorys_own_pages_lead_to_places_that_are_there(site):
    """README and CONTRIBUTING link to docs/: the anchors are those of the site, which are GitHub's."""
    folder, pages = site
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        links = re.findall(r"\]\(docs/([^)#\s]+)\.md(#[^)\s]+)?\)", text)
        assert links
        for page, anchor in links:
            link = f"{page}.html{anchor}"
            assert not dead(folder, pages, Path("index.html"), link), f"{name}: docs/{page}.md{anchor}"


def test_nothing_is_fetched_from_elsewhere(site):
    folder, pages = site
    loaded = [(name, one) for name, page in pages.items() for one in page.loaded]
    assert loaded and not [(name, one) for name, one in loaded if urlsplit(one).scheme not in ("", "data")]
    styles = [path.read_text(encoding="utf-8") for path in folder.rglob("*.css")]
    assert styles and not [one for text in styles for one in re.findall(r"url\(['\"]?https?://[^)]*", text)]


@pytest.mark.parametrize(
    "mistake", ["[nowhere](nowhere.md)", "[no place](guide/ui.md#no-place)", "::: enhance_a_video.not_there"]
)
def test_a_mistake_in_a_page_stops_the_build(tmp_path, mistake):
    (tmp_path / "docs" / "guide").mkdir(parents=True)
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n{mistake}\n")
    (tmp_path / "docs" / "guide" / "ui.md").write_text("# The page\n\n[home](../index.md)\n")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = text[: text.index("\nnav:")].replace("benchmarks/", f"{ROOT}/benchmarks/").replace("[src]", f"[{ROOT}/src]")
    (tmp_path / "mkdocs.yml").write_text(text.replace("[iframe-worker.js]", "[]").replace("[site.css]", "[]"))
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode


def test_docstrings_are_read_as_they_are_written(site):
    """Aligned blocks and fields with a colon are lists of definitions; code and trees are code."""
    folder, _ = site
    text = {
        name: (folder / f"reference/api/{name}.html").read_text(encoding="utf-8") for name in ("library", "policies")
    }
    for page, entry in (("library", "strength"), ("library", "layers"), ("policies", "num_frames")):
        assert re.search(rf"<dt><code>{entry}</code></dt>\s*<dd>", text[page]), entry
    assert re.search(r"<pre>(?:(?!</pre>).)*├──", text["library"], re.DOTALL)
