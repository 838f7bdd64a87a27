"""The report: everything inside, and words that the numbers allow."""

import re

import numpy as np
import pytest

from enhance_a_video import Settings, report
from enhance_a_video.comparison import Comparison, Judge, Row, Take, compare_seeds
from enhance_a_video.pipelines import load
from enhance_a_video.stats import Paired, paired

ROWS = (
    Row("truth", "Right things", "higher", "share", truth=True),
    Row("error", "Error", "lower", "1e-4"),
    Row("motion", "Motion", "neither", "px/frame"),
)
FRAMES = np.zeros((3, 8, 8, 3), np.uint8)


def comparison(values: dict[str, tuple[list[float], list[float]]], prompt: str = "a prompt") -> Comparison:
    seeds = len(next(iter(values.values()))[0])
    takes = [Take("without", None, 0, FRAMES, 1.0, {}), Take("with", Settings(), 0, FRAMES, 1.0, {})]
    columns = {
        label: {name: list(pair[n]) for name, pair in values.items()} for n, label in enumerate(("without", "with"))
    }
    rows = tuple(row for row in ROWS if row.name in values)
    return Comparison(prompt, tuple(range(seeds)), tuple(takes), columns, Judge(rows, lambda frames: {}, "a <note>"))


def render(compared: Comparison, **changes) -> str:
    arguments = {"title": "Title", "about": {"model": "embedded"}, "command": "enhance-a-video demo"} | changes
    return report.render(compared, [b"first", b"second"], **arguments)


GOOD, BAD = [1.0, 1.1, 1.2, 1.3], [2.0, 2.15, 2.2, 2.3]


@pytest.mark.parametrize(
    ("name", "before", "after", "word"),
    [
        ("error", BAD, GOOD, "better"),
        ("error", GOOD, BAD, "worse"),
        ("truth", GOOD, BAD, "better"),
        ("truth", BAD, GOOD, "worse"),
        ("motion", GOOD, BAD, "more"),
        ("motion", BAD, GOOD, "less"),
        ("error", [1.0, 2.0, 3.0], [2.0, 1.5, 3.1], "unclear"),
        ("error", [1.0, 2.0, 3.0], [2.0, 1.0, 3.0], "unclear"),  # the mean does not move, single clips do
        ("error", GOOD, GOOD, "same"),
        ("error", [1.0], [1.0], "same"),
        ("error", [1.0], [2.0], "worse"),
        ("truth", [1.0], [0.5], "worse"),
    ],
)
def test_the_word_follows_the_numbers(name, before, after, word):
    row = next(row for row in ROWS if row.name == name)
    assert report.judgement(row, paired(before, after)) == word


def test_one_clip_claims_nothing_about_the_average():
    text = report.verdict(comparison({"error": ([1.0], [0.5]), "truth": ([1.0], [0.5])}), "with")
    assert "1 of 2 measures" in text and "1 are worse" in text and "--seeds 8" in text


def test_what_got_worse_is_said():
    text = report.verdict(comparison({"error": (GOOD, BAD), "truth": (BAD, GOOD)}), "with")
    assert "0 of 2" in text and "2 clearly worse" in text


def test_the_page_contains_everything_and_fetches_nothing():
    page = render(comparison({"error": (BAD, GOOD), "truth": (BAD, GOOD), "motion": (GOOD, BAD)}))
    assert page.count("data:video/mp4;base64,") == 2
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', page)
    assert "url(" not in page.replace("url(#", "") and "@import" not in page
    for text in ("Right things", "Against the truth", "no good direction", "enhance(pipe, odds=", "a &lt;note&gt;"):
        assert text in page
    assert '<span class="tag worse">worse</span>' in page


def test_the_prompt_is_text():
    page = render(comparison({"error": ([1.0], [2.0])}, prompt="<script>alert(1)</script>"))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_the_python_line_says_every_setting_that_matters():
    take = Take("x", Settings(temperature=4.0, start=0.0, end=1.0, layers="blocks.1"), 0, FRAMES, 1.0, {})
    assert report._python(take) == "enhance(pipe, temperature=4.0, start=0.0, end=1.0, layers='blocks.1')"


def test_nothing_to_measure_is_said():
    page = render(comparison({"error": ([1.0], [2.0]), "truth": ([float("nan")], [1.0])}))
    assert "nothing to measure" in page


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(0.98049, 4, "0.9805"), (-1.5, 1, "−1.5"), (float("nan"), 2, "–"), (0, 0, "0")]
)
def test_numbers(value, digits, text):
    assert report.number(value, digits) == text


def test_whisker_stays_in_its_picture():
    places = report._whisker(Paired(1, 2, 1, -2, 4, 5))
    assert all(0 <= place <= 100 for place in places.values())
    assert places["dot"] > 50 > places["low"]


@pytest.fixture(scope="module")
def real(tiny_folder):
    return compare_seeds(load(tiny_folder), "a red ball", [0], [("without", None), ("with", Settings(strength=1.0))])


def test_plots_of_a_real_run(real):
    plain, enhanced = real.takes
    page = render(real)
    assert page.count("<svg") >= 2
    gain = report.gain_plot(enhanced.summary)
    assert "Gain" in gain and "denoising step" in gain
    maps = report.attention_plot(plain.summary, enhanced.summary)
    assert "without, step 1 of 3" in maps and "difference" in maps
    assert report.gain_plot(None) == report.attention_plot(None, enhanced.summary) == ""


def test_the_users_matplotlib_settings_stay(real):
    import matplotlib

    before = dict(matplotlib.rcParams)
    report.gain_plot(real.takes[1].summary)
    assert dict(matplotlib.rcParams) == before


def test_steps_join_the_calls_of_guidance(real):
    assert report._steps(real.takes[1].summary) == [slice(0, 2), slice(2, 4), slice(4, 6)]
