"""What all pages have in common: numbers and plurals, explained terms, escaped text, nothing from elsewhere."""

import re
from pathlib import Path

import numpy as np
import pytest

from enhance_a_video import Settings
from enhance_a_video.embedded.checker import TRUTH_MEASURES
from enhance_a_video.generation.measures import Measure
from enhance_a_video.generation.requests import ClipRequest
from enhance_a_video.lab import pages, report
from enhance_a_video.lab.comparison import Comparison, MeasureSet, Take, general_measures
from enhance_a_video.lab.pages import drawing, words
from enhance_a_video.lab.stats import Paired, paired
from enhance_a_video.wording import count


@pytest.mark.parametrize(
    ("number", "noun", "plural", "text"),
    [
        (0, "clip", None, "0 clips"),
        (1, "clip", None, "1 clip"),
        (2, "clip", None, "2 clips"),
        (2500, "prompt", None, "2,500 prompts"),
        (1, "pair of prompt and seed", "pairs of prompt and seed", "1 pair of prompt and seed"),
        (3, "pair of prompt and seed", "pairs of prompt and seed", "3 pairs of prompt and seed"),
    ],
)
def test_a_noun_follows_its_number(number, noun, plural, text):
    assert count(number, noun, plural) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(0.98049, 4, "0.9805"), (-1.5, 1, "−1.5"), (float("nan"), 2, "–"), (0, 0, "0")]
)
def test_numbers(value, digits, text):
    assert words.number(value, digits) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(-0.154, "−15.4 %"), (0.0, "+0.0 %"), (-0.00021, "−0.02 %"), (0.0000004, "+0.0000 %"), (float("nan"), "")],
)
def test_a_small_change_is_not_shown_as_none(share, text):
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("before", "after", "verdict", "start"),
    [
        ([10.0], [9.0], "better", "Steadier: warping error −10.0 % ("),
        ([10.0], [11.0], "worse", "Less steady: warping error +10.0 % ("),
        ([10.0, 11.0], [10.5, 10.6], "unclear", "No clear change in steadiness: warping error +0.5 % ("),
        ([10.0], [10.0], "same", "Exactly as steady: warping error +0.0 % ("),
        ([10.0, 10.0], [9.0, 8.0], "maybe better", "Perhaps steadier: warping error −15.0 % ("),
    ],
)
def test_steadiness_as_a_sentence(before, after, verdict, start):
    text = words.steadiness(paired(before, after), verdict)
    assert text.startswith(start) and ("95 % interval" in text) == (len(before) > 1)


# ------------------------------------------------------------------------------------------------------- legends


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("<td>pooled</td>", "pooled score"),
        ("+0.134 sd", "sd"),
        ("-1.0 ± 0.4", "±"),
        ("−0.43 ± 0.41°", "°"),
        ("a weak model", "weak"),
        ("<th>clipped</th>", "clipped"),
        ("<th>mass</th>", "cross-frame mass"),
        ("<th>mean gain</th>", "gain"),
        ("Warping error ↓", "↑ ↓"),
        ("<td>Motion ·</td>", "·"),
        ("p, corrected", "p"),
        ("win/tie/loss", "win / tie / loss"),
        ("odds 2.0", "odds"),
        ("<span>maybe worse</span>", "maybe better, maybe worse"),
        ("seed 3", "seed"),
        ("dE*ab", "dE*ab"),
        ("1 - IoU", "1 − IoU"),
    ],
)
def test_terms_and_signs_are_explained_where_they_occur(text, term):
    assert term in [found for found, _ in words.terms(text)]
    assert term in words.visible(words.legend(text)).split("\n")


def test_only_what_occurs_in_the_visible_text_is_explained():
    assert (
        words.terms("<p class='gain' title='odds'>Nothing here</p><script>let seed = 1</script><pre>mass</pre>") == []
    )
    assert words.legend("<p>Nothing here</p>") == "<p>Nothing here</p>"


@pytest.mark.parametrize("row", [*general_measures().rows, *TRUTH_MEASURES], ids=lambda row: row.name)
def test_every_measure_is_explained_or_plain(row):
    plain = {"motion", "path_length", "shape_change", "debris"}
    explained = [term for term, _ in words.terms(words.capital(row.label))]
    assert explained or row.name in plain, row.label


# --------------------------------------------------------------------------------------------------- whole pages

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
HOSTILE = """</script><img src=x onerror=alert(1)> "quoted' & {{ 7 * 7 }} {% raw %} <b>bold</b>"""


def compared(prompt: str, label: str, seeds: int = 2) -> Comparison:
    labels = ("without", label)
    rows = (
        Measure("warping_error", "Warping error", "lower", "1e-4"),
        Measure("motion", "Motion", "neither", "px/frame"),
    )
    items = [ClipRequest("a ball", 0, name, None if name == "without" else Settings()) for name in labels]
    takes = [Take(item, FRAMES, None, 1.8, 8) for item in items]
    values = {
        name: {row.name: [2.0 - n + 0.1 * seed for seed in range(seeds)] for row in rows}
        for n, name in enumerate(labels)
    }
    return Comparison(prompt, tuple(range(seeds)), tuple(takes), values, MeasureSet(rows, lambda frames: {}))


def comparison_page(prompt: str = "a red ball", label: str = "with", seeds: int = 2, clip: bytes = b"clip") -> str:
    return report.render(
        compared(prompt, label, seeds), {seed: {"without": clip, label: clip} for seed in range(seeds)}, title=prompt,
        about={"model": prompt}, command=prompt, fps=8,
    )  # fmt: skip


def test_text_of_the_user_stays_text():
    page = comparison_page(HOSTILE, HOSTILE)
    assert "<img src=x" not in page and "<b>bold" not in page and "49" not in words.visible(page)
    assert page.count("</script>") == 1
    assert HOSTILE in words.visible(page).replace("\n", "")


def test_a_page_loads_nothing_from_elsewhere():
    page = comparison_page()
    assert not re.findall(r'(?:src|href|poster)="(?!data:)[^"#]', page)
    assert "@import" not in page and "http:" not in page.replace("http://www.w3.org/", "") and "https:" not in page


def test_a_page_can_be_used_without_seeing_it():
    page = comparison_page()
    for tag in re.findall(r"<(?:video|img|input)\b[^>]*>", page):
        assert re.search(r'(?:aria-label|alt)="[^"]+', tag), tag
    for tag in re.findall(r"<video\b[^>]*>", page):
        assert all(word in tag for word in ("muted", "loop", "playsinline", "autoplay"))
        assert not re.search(r"\bcontrols\b", tag)  # the browser's own would cover a small video
    assert '<html lang="en">' in page and 'name="viewport"' in page and 'content="light dark"' in page
    for part in re.findall(r'<div class="scroll"[^>]*>', page):
        assert 'tabindex="0"' in part and "aria-label" in part


def test_times_are_not_taken_for_lengths():
    assert "made in 1.8 s" in comparison_page() and not re.search(r"(?<!made in )1\.8 s", comparison_page())


def test_a_plot_follows_the_colour_scheme():
    from matplotlib.figure import Figure

    @drawing.styled
    def plot() -> str:
        figure = Figure()
        figure.subplots().set(title="a < b", xlabel="x")
        return drawing.svg(figure, 'the "description"')

    text = plot()
    assert "var(--ink)" in text and "var(--edge)" in text and "#1c2333" not in text
    assert 'aria-label="the &#34;description&#34;"' in text and "a &lt; b" in text
    css = (Path(pages.__path__[0]) / "page.css").read_text(encoding="utf-8")
    defined = set(re.findall(r"(--[\w-]+):", css.split("@media")[1]))
    assert set(drawing._VARIABLES.values()) <= defined


def test_one_pair_has_no_interval_to_draw():
    row = Measure("warping_error", "Warping error", "lower", "1e-4")
    assert report._whisker(row, Paired(1, 2, 1, float("nan"), float("nan"), 1)) == ""
