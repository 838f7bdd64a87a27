"""Win rates and agreement against numbers worked out by hand or published, and whether the intervals cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enhance_a_video.errors import SettingsError
from enhance_a_video.lab.vote.statistics import agreement, krippendorff_alpha, win_rate


def test_one_vote_a_clip_is_wilsons_interval():
    found = win_rate([1] * 8 + [-1] * 2, range(10))
    assert (found.votes, found.wins, found.ties, found.losses, found.clips) == (10, 8, 0, 2, 10)
    assert found.rate == 0.8
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=5e-5)  # the textbook's 8 of 10
    assert not found.clear


def test_a_tie_is_half_a_win():
    found = win_rate([1, 0, 0, -1, 1], range(5))
    assert (found.wins, found.ties, found.losses) == (2, 2, 1)
    assert found.rate == pytest.approx(0.6)


def test_votes_on_one_clip_are_not_independent():
    # Sums of scores per clip 7, 6, 7, 6 of 10 each; p = 0.65. Deviations +-0.5, V = 4/3 / 1600, p (1 - p) / V = 273,
    # so n_eff = n = 40; t(3) = 3.1824; Wilson: 0.6197 +- 0.2165. (As copies: 4 votes, 0.5765 +- 0.3418, is wider.)
    votes = [vote for wins in (7, 6, 7, 6) for vote in [1] * wins + [-1] * (10 - wins)]
    found = win_rate(votes, [clip for clip in "abcd" for _ in range(10)])
    assert found.effective == 40
    assert (found.low, found.high) == pytest.approx((0.4032, 0.8362), abs=2e-4)


def test_at_worst_the_votes_on_a_clip_are_copies():
    # Clips with 4 and 2 votes: worth 36 / 20 votes. p = 2/3; V = 2 * (2 * (4/3)**2) / 36 = 0.1975; n_eff = 1.125 < 1.8.
    # Wilson with 1.8 and 1.96: (2/3 + 1.0671) / 3.1342 +- sqrt(2.1342 (0.2222 + 0.5335)) / 3.1342.
    found = win_rate([1, 1, 1, 1, -1, -1], ["a", "a", "a", "a", "b", "b"])
    assert found.effective == pytest.approx(1.8)
    assert (found.low, found.high) == pytest.approx((0.5532 - 0.4052, 0.5532 + 0.4052), abs=2e-4)
    assert found.high < 1


def test_voters_who_all_agree_are_one_voter():
    few = win_rate([1] * 6, range(6))
    many = win_rate([1] * 60, [clip for clip in range(6) for _ in range(10)])
    assert many.effective == 6
    assert (many.low, many.high) == (few.low, few.high)


def test_one_clip_has_no_interval():
    found = win_rate([1, 1, 0], ["a", "a", "a"])
    assert np.isnan([found.low, found.high]).all() and not found.clear


votes = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 5)), min_size=2, max_size=40)


@given(votes)
def test_exchanging_the_labels_mirrors_the_result(pairs):
    values, clips = zip(*pairs, strict=True)
    one, other = win_rate(values, clips), win_rate([-value for value in values], clips)
    assert one.rate == pytest.approx(1 - other.rate)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), nan_ok=True)
    if one.clips > 1:
        assert 0 <= one.low <= one.rate <= one.high <= 1
    assert agreement(values, clips).alpha == pytest.approx(
        agreement([-value for value in values], clips).alpha, nan_ok=True
    )


@pytest.mark.parametrize(("clips", "voters", "rate"), [(10, 3, 0.7), (30, 4, 0.9), (12, 1, 0.8)])
def test_the_interval_covers(clips, voters, rate):
    """On clips that differ (beta-binomial, correlation 0.3 within a clip), 95 % intervals hold the truth that often."""
    random = np.random.default_rng(0)
    hits, trials = 0, 400
    for _ in range(trials):
        own = random.beta(rate * 7 / 3, (1 - rate) * 7 / 3, clips)  # each clip's own win rate
        won = random.random((clips, voters)) < own[:, None]
        found = win_rate(np.where(won, 1, -1).ravel(), np.repeat(np.arange(clips), voters).tolist())
        hits += found.low <= rate <= found.high
    assert hits / trials >= 0.94


@pytest.mark.parametrize(
    ("values", "clips"), [([], []), ([1, 2], ["a", "b"]), ([1, float("nan")], ["a", "b"]), ([1, 1], ["a"])]
)
def test_what_is_no_vote_is_refused(values, clips):
    for function in (win_rate, agreement):
        with pytest.raises(SettingsError):
            function(values, clips)
    with pytest.raises(SettingsError, match="level"):
        win_rate([1], ["a"], level=1.0)


# ---------------------------------------------------------------------------------------------------- agreement


def test_krippendorffs_own_example():
    # Computing Krippendorff's Alpha-Reliability (2011), part C: 4 observers, missing values; interval: 0.849
    table = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
    columns = zip(*(row.split() for row in table), strict=True)
    units = [np.array([float(value) for value in column if value != "."]) for column in columns]
    assert krippendorff_alpha([unit for unit in units if len(unit) > 1]) == pytest.approx(0.849, abs=5e-4)


def test_agreement_by_hand():
    # Observed: a 0, b 2, c 0, d 4/2. Expected: 2 (9 * 6 - 0) / 8 = 13.5. alpha = 1 - 4 / 13.5. Same: 6 of 12 pairs.
    found = agreement([1, 1, 1, 0, -1, -1, 0, 0, -1], list("aabbccddd"))
    assert found.alpha == pytest.approx(1 - 4 / 13.5)
    assert (found.same, found.clips) == (0.5, 4)


def test_agreement_at_its_ends():
    assert agreement([1, 1, -1, -1, 0, 0], list("aabbcc")).alpha == 1
    assert agreement([1, -1, -1, 1], list("aabb")).alpha < 0
    random = np.random.default_rng(0)
    assert abs(agreement(random.integers(-1, 2, 3000), [n // 3 for n in range(3000)]).alpha) < 0.05


def test_agreement_has_a_reason_where_it_is_undefined():
    alone = agreement([1, 0, -1], list("abc"))
    assert np.isnan(alone.alpha) and np.isnan(alone.same) and "two voters" in alone.why
    equal = agreement([1, 1, 1, 1], list("aabb"))
    assert np.isnan(equal.alpha) and equal.same == 1 and "the same" in equal.why


def test_a_clip_with_one_vote_counts_for_nothing():
    assert agreement([1, 1, -1, 0, -1], list("aabbc")).alpha == agreement([1, 1, -1, 0], list("aabb")).alpha
