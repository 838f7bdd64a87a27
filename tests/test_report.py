"""The report: everything inside, and words that the numbers allow."""

import re
from dataclasses import replace

import numpy as np
import pytest

from enhance_a_video import Settings
from enhance_a_video.generation.measures import Measure
from enhance_a_video.generation.pipelines import load
from enhance_a_video.generation.requests import ClipRequest
from enhance_a_video.lab import report
from enhance_a_video.lab.comparison import Comparison, MeasureSet, Take, compare_seeds
from enhance_a_video.lab.stats import Paired, paired

ROWS = (
    Measure("truth", "Right things", "higher", "share", needs="truth"),
    Measure("error", "Error", "lower", "1e-4"),
    Measure("motion", "Motion", "neither", "px/frame"),
)
FRAMES = np.zeros((3, 8, 8, 3), np.uint8)


def take(label: str, settings: Settings | None) -> Take:
    return Take(ClipRequest("a prompt", 0, label, settings), FRAMES, None, 1.0, 8)


def comparison(values: dict[str, tuple[list[float], list[float]]], prompt: str = "a prompt") -> Comparison:
    seeds = len(next(iter(values.values()))[0])
    takes = [take("without", None), take("with", Settings())]
    columns = {
        label: {name: list(pair[n]) for name, pair in values.items()} for n, label in enumerate(("without", "with"))
    }
    rows = tuple(row for row in ROWS if row.name in values)
    return Comparison(
        prompt, tuple(range(seeds)), tuple(takes), columns, MeasureSet(rows, lambda frames: {}, "a <note>")
    )


def render(compared: Comparison, **changes) -> str:
    arguments = {"title": "Title", "about": {"model": "embedded"}, "command": "enhance-a-video demo"} | changes
    return report.render(compared, {0: {"without": b"first", "with": b"second"}}, **arguments)


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
    assert "1 of 2 measures" in text and "1 got worse (right things −50.0 %)" in text and "--seeds 8" in text


def test_what_got_worse_is_reported():
    text = report.verdict(comparison({"error": (GOOD, BAD), "truth": (BAD, GOOD)}), "with")
    assert "0 of 2" in text and "2 clearly worse (error +88.0 %, right things −46.8 %)" in text


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


def test_the_python_line_has_every_setting_that_matters():
    shown = take("x", Settings(temperature=4.0, start=0.0, end=1.0, layers="blocks.1"))
    assert report._python(shown) == "enhance(pipe, temperature=4.0, start=0.0, end=1.0, layers='blocks.1')"


def test_nothing_to_measure_is_reported():
    page = render(comparison({"error": ([1.0], [2.0]), "truth": ([float("nan")], [1.0])}))
    assert "nothing to measure" in page


def test_whisker_stays_in_its_picture():
    picture = report._whisker(ROWS[1], Paired(1, 2, 1, -2, 4, 5))
    places = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([\d.]+)"', picture)]
    zero, _, low, high, dot = places
    assert all(0 <= place <= 100 for place in places) and low < zero == 50 < dot < high


def test_the_first_sentence_is_the_result():
    steady = Measure("warping_error", "Warping error", "lower", "1e-4")
    values = {"warping_error": (BAD, GOOD), "motion": (BAD, GOOD)}
    compared = comparison(values)
    compared = replace(compared, measures=MeasureSet((steady, ROWS[2]), lambda frames: {}, ""))
    text = report.headline(compared, "with")
    assert text.startswith("Steadier: warping error −46.8 % (") and "Motion −46.8 %. Mean of 4 seeds." in text
    one = replace(
        compared, seeds=(0,), values={k: {n: v[:1] for n, v in m.items()} for k, m in compared.values.items()}
    )
    assert "one seed, which does not show what is usual" in report.headline(one, "with")
    page = render(compared)
    assert page.index("Steadier: ") < page.index("<video") < page.index("<table")


def test_every_pair_of_clips_is_on_the_page():
    videos = {seed: {"without": b"%d" % seed, "with": f"seed-{seed}/enhanced #1.mp4"} for seed in range(4)}
    pairs = {seed: {"without": "a.mp4", "with": f"seed-{seed}/enhanced #1.mp4"} for seed in range(4)}
    page = report.render(comparison({"error": (BAD, GOOD)}), videos, title="T", about={}, command="c", pairs=pairs)
    assert page.count("<video") == 8 and page.count('class="player"') == 4 and page.count("data:video/mp4") == 4
    for seed in range(4):
        assert page.count(f'"seed-{seed}/enhanced%20%231.mp4"') == 2  # the video itself and a link
    assert page.count("made in 1.0 s") == 2 and "<small>seed 3</small>" in page


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
