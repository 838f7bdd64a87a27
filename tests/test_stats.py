"""Paired comparisons: intervals, p-values, corrections and sample sizes against known numbers."""

import numpy as np
import pytest

from enhance_a_video.errors import SettingsError
from enhance_a_video.lab.stats import (
    adjusted,
    detectable,
    interval,
    p_value,
    paired,
    sample_size,
    student_quantile,
    student_tails,
)


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.7062), (2, 4.30265), (7, 2.36462), (30, 2.04227), (199, 1.97196), (5000, 1.96044)],
)
def test_student_quantile_is_the_tabled_one(freedom, expected):
    assert student_quantile(0.975, freedom) == pytest.approx(expected, rel=2e-5)
    assert student_quantile(0.025, freedom) == pytest.approx(-expected, rel=2e-5)
    assert student_quantile(0.5, freedom) == 0


def test_paired_difference_by_hand():
    result = paired([1.0, 2.0, 3.0], [2.0, 2.5, 4.5])  # differences 1, 0.5, 1.5: mean 1, sd 0.5
    assert result.difference == pytest.approx(1)
    assert (result.low, result.high) == pytest.approx(
        (1 - 4.30265 * 0.5 / 3**0.5, 1 + 4.30265 * 0.5 / 3**0.5), rel=1e-4
    )
    assert result.relative == pytest.approx(0.5)
    assert result.pairs == 3
    assert not result.clear


@pytest.mark.parametrize(("method", "n", "trials"), [("t", 8, 200), ("t", 40, 200), ("bootstrap", 100, 40)])
def test_intervals_cover_as_often_as_they_claim(method, n, trials):
    random = np.random.default_rng(0)
    held = []
    for _ in range(trials):
        low, high = interval(random.exponential(size=n) + random.normal(size=n), method=method)
        held.append(low <= 1 <= high)
    assert 0.85 <= np.mean(held) <= 1


def test_a_clear_difference_is_called_clear():
    before = np.random.default_rng(0).normal(size=30)
    assert paired(before, before + 0.1).clear
    assert paired(before, before - 0.1).clear
    assert not paired(before, before).clear


def test_one_pair_has_no_interval():
    result = paired([1.0], [2.0])
    assert np.isnan(result.low) and np.isnan(result.high) and not result.clear
    data = result.to_dict()
    assert data["low"] is None and data["difference"] == 1


def test_pairs_with_nothing_to_measure_are_left_out():
    result = paired([1.0, np.nan, 3.0], [2.0, 5.0, 4.0])
    assert result.pairs == 2 and result.difference == 1


def test_bootstrap_repeats_itself():
    values = np.random.default_rng(1).normal(size=50)
    assert interval(values, method="bootstrap") == interval(values, method="bootstrap")


# Two-sided tails as scipy.stats.t.sf gives them (2·sf(|t|, v), scipy 1.17).
@pytest.mark.parametrize(
    ("t", "freedom", "expected"),
    [
        (0.5, 1, 0.7048327646991335),
        (2.0, 1, 0.2951672353008665),
        (2.5, 3, 0.08770664700806556),
        (2.2, 7, 0.06373101530263678),
        (-3.1, 39, 0.003584729830609665),
        (10.0, 199, 2.467187260518278e-19),
        (30.0, 199, 8.942928760574429e-76),
        (1.96, 5000, 0.050051252291819504),
        (0.0, 9, 1.0),
        (0.01, 20, 0.9921203661793977),
    ],
)
def test_student_tails_are_scipys(t, freedom, expected):
    assert student_tails(t, freedom) == pytest.approx(expected, rel=1e-8)


def test_p_value_is_scipys():
    values = [0.3, -0.1, 0.5, 0.2, 0.4, 0.1, -0.2, 0.6]
    assert p_value(values) == pytest.approx(0.058321711731645, rel=1e-8)  # scipy.stats.ttest_1samp(values, 0)
    assert p_value([*values, np.nan]) == p_value(values)
    assert p_value([-x for x in values]) == p_value(values)


def test_p_value_where_nothing_varies():
    assert p_value([0.0, 0.0, 0.0]) == 1
    assert p_value([0.5, 0.5, 0.5]) == 0
    assert np.isnan(p_value([0.5])) and np.isnan(p_value([np.nan, np.nan]))


def test_corrections_by_hand():
    p = [0.04, 0.01, 0.03, 0.005, 0.01]
    # Holm: 0.005·5, 0.01·4, 0.01·3, 0.03·2, 0.04·1, then never below the one before.
    assert adjusted(p) == pytest.approx([0.06, 0.04, 0.06, 0.025, 0.04])
    # Benjamini-Hochberg: 0.04·5/5, 0.03·5/4, 0.01·5/3, 0.01·5/2, 0.005·5/1, then never above the one after.
    assert adjusted(p, "benjamini-hochberg") == pytest.approx([0.04, 0.05 / 3, 0.0375, 0.05 / 3, 0.05 / 3])


def test_corrections_are_those_of_statsmodels():
    """The 25 p-values of McDonald's handbook; expected: statsmodels 0.15 multipletests(p, method=...)."""
    p = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216, 0.222, 0.251, 0.269, 0.275, 0.34, 0.341,
         0.384, 0.569, 0.594, 0.696, 0.762, 0.94, 0.942, 0.975, 0.986]  # fmt: skip
    hochberg = [0.025, 0.1, 0.21, 0.21, 0.21, 0.25, 0.264286, 0.491071, 0.491071, 0.491071, 0.491071, 0.491071,
                0.491071, 0.491071, 0.532812, 0.532812, 0.564706, 0.781579, 0.781579, 0.87, 0.907143, 0.986, 0.986,
                0.986, 0.986]  # fmt: skip
    assert adjusted(p, "holm") == pytest.approx([0.025, 0.192, 0.897, 0.902, 0.902, *[1.0] * 20])
    assert adjusted(p, "benjamini-hochberg") == pytest.approx(hochberg, abs=1e-6)
    shuffled = np.random.default_rng(0).permutation(25)
    assert adjusted(np.array(p)[shuffled])[np.argsort(shuffled)] == pytest.approx(adjusted(p))


def test_a_test_that_could_not_be_made_does_not_count():
    got = adjusted([0.01, np.nan, 0.04])
    assert got[[0, 2]] == pytest.approx([0.02, 0.04]) and np.isnan(got[1])
    assert adjusted([]).size == 0


# statsmodels 0.15: TTestPower().solve_power(effect_size=d, alpha=a, power=power), exact.
@pytest.mark.parametrize(
    ("d", "alpha", "power", "exact"),
    [
        (0.2, 0.05, 0.8, 198.15),
        (0.5, 0.05, 0.8, 33.37),
        (0.5, 0.05, 0.9, 44.00),
        (0.1, 0.05, 0.8, 786.81),
        (1.0, 0.05, 0.8, 9.94),
        (0.2, 0.05 / 60, 0.8, 443.04),
    ],
)
def test_sample_size_is_that_of_statsmodels(d, alpha, power, exact):
    needed = sample_size(d * 3.0, 3.0, alpha=alpha, power=power)
    assert abs(needed - np.ceil(exact)) <= 1
    assert sample_size(-d, 1.0, alpha=alpha, power=power) == needed
    assert detectable(needed, 3.0, alpha=alpha, power=power) <= 3.0 * d  # and one pair fewer does not do
    assert detectable(needed - 1, 3.0, alpha=alpha, power=power) > 3.0 * d


def test_the_promised_power_is_reached():
    random = np.random.default_rng(0)
    n = sample_size(0.5, 1.0)
    found = [p_value(random.normal(0.5, 1.0, n)) < 0.05 for _ in range(400)]
    assert 0.74 <= np.mean(found) <= 0.86
    assert sample_size(1.0, 0.0) == 2 and detectable(1, 1.0) == np.inf


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: paired([1.0], [1.0, 2.0]), "found 2 and 1"),
        (lambda: paired([np.nan], [1.0]), "nothing to compare"),
        (lambda: paired([], []), "nothing to compare"),
        (lambda: interval([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: interval([1.0, 2.0], method="magic"), "bootstrap"),
        (lambda: adjusted([0.1], method="bonferoni"), "holm"),
        (lambda: adjusted([0.1, 1.2]), "between 0 and 1"),
        (lambda: sample_size(0.0, 1.0), "not 0"),
        (lambda: sample_size(1e-300, 1.0), "more pairs"),
        (lambda: sample_size(1.0, 1.0, power=80), "power"),
    ],
)
def test_bad_arguments_are_explained(call, says):
    with pytest.raises(SettingsError, match=says):
        call()
