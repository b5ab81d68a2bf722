from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks.evaluation.statistics import Difference, Summary, corrected, paired_difference, summarise

NAN, INF = math.nan, math.inf
value_lists = st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=2, max_size=20)


def test_a_summary_follows_the_textbook_formulas() -> None:
    values = [30.0, 31.0, 29.0, 34.0]
    found = summarise(values)
    mean = sum(values) / 4
    sd = math.sqrt(sum((value - mean) ** 2 for value in values) / 3)
    half = 3.182446305284263 * sd / 2  # t of 3 degrees of freedom at 97.5 %
    assert found.n == 4
    assert (found.mean, found.sd) == pytest.approx((mean, sd))
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))


@given(value_lists)
def test_intervals_agree_with_those_of_scipy(values: list[float]) -> None:
    found = summarise(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95) if len(set(values)) > 1 else (values[0],) * 2
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "n", "mean", "sd"),
    [
        ([], 0, None, None),
        ([NAN], 0, None, None),
        ([2.5], 1, 2.5, None),
        ([2.5, NAN, INF], 1, 2.5, None),
        ([2.0, 2.0], 2, 2.0, 0.0),
        ([1.0, NAN, 3.0], 2, 2.0, math.sqrt(2)),
    ],
)
def test_with_too_few_values_mean_deviation_or_interval_are_none(
    values: list[float], n: int, mean: float | None, sd: float | None
) -> None:
    found = summarise(values)
    assert (found.n, found.mean, found.sd) == (n, mean, pytest.approx(sd) if sd else sd)
    assert (found.low is None) == (found.high is None) == (n < 2)


@given(value_lists)
def test_paired_differences_agree_with_those_of_scipy(values: list[float]) -> None:
    other = np.roll(values, 1)
    found = paired_difference(values, other, better="higher").summary
    if found.sd:
        low, high = stats.ttest_rel(values, other).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "baseline", "better", "verdict", "n"),
    [
        ([3, 4, 5, 6], [1, 2.1, 3, 4.1], "higher", "better", 4),
        ([3, 4, 5, 6], [1, 2.1, 3, 4.1], "lower", "worse", 4),
        ([3, 4, 5, 6], [1, 2.1, 3, 4.1], None, None, 4),
        ([3, 1, 5, 2], [1, 3, 2, 4], "higher", "no difference shown", 4),
        ([7, 7], [5, 5], "lower", "worse", 2),  # no variance, a difference
        ([5, 5], [5, 5], "lower", "no difference shown", 2),  # no variance, none
        ([9], [1], "higher", "no difference shown", 1),  # one clip shows nothing
        ([9, NAN, 9], [NAN, 1, 1], "higher", "no difference shown", 1),
        ([NAN, 1], [1, NAN], "higher", None, 0),
        ([INF, 1], [INF, 1], "higher", "no difference shown", 1),
    ],
)
def test_the_verdict_follows_from_the_interval_of_the_paired_differences(
    values: list[float], baseline: list[float], better: str, verdict: str | None, n: int
) -> None:
    found = paired_difference(values, baseline, better=better)  # type: ignore[arg-type]
    assert (found.verdict, found.summary.n) == (verdict, n)


def test_a_median_is_not_moved_by_one_clip_and_has_the_interval_of_the_sign_test() -> None:
    values = [4.0, 1.0, 3.0, 2.0, 5.0, 900.0]
    found = summarise(values, average="median")
    assert (found.n, found.mean, found.sd) == (6, 3.5, None)
    assert (found.low, found.high) == (1.0, 900.0)  # with six clips only the ends leave less than 5 % outside
    twelve = summarise(np.arange(1.0, 13), average="median")
    assert (twelve.mean, twelve.low, twelve.high) == (6.5, 3, 10)
    assert summarise([1.0, 2.0, 3.0], average="median").low is None


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1, 1, 1, 1, 1, 900], "worse"),
        ([1, 1, 1, 1, 900], "no difference shown"),  # five signs alone are not enough
        ([1, 1, 1, -1, 1, 900], "no difference shown"),
        ([0, 0, 0, 0, 0, 900], "no difference shown"),
    ],
)
def test_a_median_differs_if_enough_clips_differ_in_one_direction(values: list[float], verdict: str) -> None:
    found = paired_difference(values, np.zeros(len(values)), better="lower", average="median")
    assert found.verdict == verdict


@given(value_lists)
def test_p_values_agree_with_those_of_scipy(values: list[float]) -> None:
    other = np.roll(values, 1)
    found = paired_difference(values, other, better="higher")
    if found.summary.sd:
        assert found.p_value == pytest.approx(stats.ttest_rel(values, other).pvalue, abs=1e-9)
        assert (found.verdict != "no difference shown") == (found.p_value <= 0.05)


def _with_p_values(*p_values: float | None) -> list[Difference]:
    return [
        Difference(
            summary=Summary(n=9, mean=1.0),
            verdict=None if p is None else "better" if p <= 0.05 else "no difference shown",
            p_value=p,
        )
        for p in p_values
    ]


def test_p_values_are_corrected_as_by_holm() -> None:
    # The example of R's p.adjust: 0.01 * 4, 0.02 * 3, 0.03 * 2 raised to the one before, 0.04 * 1 likewise
    found = corrected(_with_p_values(0.03, 0.01, 0.04, 0.02))
    assert [each.p_value for each in found] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [each.verdict for each in found] == ["no difference shown", "better", *["no difference shown"] * 2]


def test_metrics_without_a_direction_do_not_count_in_the_correction() -> None:
    found = corrected(_with_p_values(None, 0.03, None))
    assert [each.verdict for each in found] == [None, "better", None]
    assert corrected([]) == ()


def test_of_many_equal_methods_hardly_ever_one_differs_after_the_correction() -> None:
    rng, wrong = np.random.default_rng(0), []
    for _ in range(200):
        found = [paired_difference(rng.normal(size=8), np.zeros(8), better="higher") for _ in range(20)]
        plain, kept = ([each.verdict != "no difference shown" for each in items] for items in (found, corrected(found)))
        wrong.append((any(plain), any(kept)))
    plainly, corrected_ones = np.mean(wrong, axis=0)
    assert plainly > 0.5
    assert corrected_ones < 0.08


def test_paired_differences_show_what_the_means_alone_do_not() -> None:
    """Clips differ far more from each other than methods do."""
    baseline = np.array([10.0, 20.0, 30.0, 40.0])
    method = baseline + np.array([0.5, 0.6, 0.4, 0.5])
    assert paired_difference(method, baseline, better="higher").verdict == "better"
    means = summarise(method), summarise(baseline)
    assert means[0].low is not None
    assert means[1].high is not None
    assert means[0].low < means[1].high


def test_ninety_five_percent_of_intervals_contain_the_true_mean() -> None:
    draws = np.random.default_rng(0).normal(3, 2, (2000, 6))
    ends = [(found.low, found.high) for found in map(summarise, draws)]
    covered = np.mean([low is not None and high is not None and low < 3 < high for low, high in ends])
    assert covered == pytest.approx(0.95, abs=0.015)
