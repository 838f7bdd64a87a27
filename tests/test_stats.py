import numpy as np
import pytest

from enhance_a_video.errors import SettingsError
from enhance_a_video.stats import interval, paired, student_quantile


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
def test_intervals_cover_as_often_as_they_say(method, n, trials):
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


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: paired([1.0], [1.0, 2.0]), "found 2 and 1"),
        (lambda: paired([np.nan], [1.0]), "nothing to compare"),
        (lambda: paired([], []), "nothing to compare"),
        (lambda: interval([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: interval([1.0, 2.0], method="magic"), "bootstrap"),
    ],
)
def test_bad_arguments_are_explained(call, says):
    with pytest.raises(SettingsError, match=says):
        call()
