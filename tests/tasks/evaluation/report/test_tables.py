from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.report.tables import (
    Cell,
    Table,
    decimals,
    differences_table,
    group_tables,
    markdown,
    means_table,
    measure_table,
    metric_row,
    targets_table,
)
from tasks.evaluation.results import Results
from tasks.evaluation.statistics import paired_difference
from tests._evaluation import make_results

NAN = math.nan
PSNR = Measure(name="PSNR", unit="dB", better="higher", target=30.0)
SECONDS = Measure(name="seconds", unit="s", better="lower", target=2.0, target_method="new")
CALLS = Measure(name="calls", unit="")
LPIPS = Measure(name="LPIPS", unit="", better="lower")


@pytest.fixture
def results() -> Results:
    return make_results(
        {
            "old": {"PSNR": [30, 32, 28, 31], "seconds": [2, 2.5, 1.5, 2], "calls": [50] * 4, "LPIPS": [NAN] * 4},
            "new": {
                "PSNR": [31, 33.1, 29, 32.1],
                "seconds": [4, NAN, 3.6, 4],
                "calls": [100] * 4,
                "LPIPS": [NAN] * 4,
            },
            "odd": {"PSNR": [30, 31, 29, NAN], "seconds": [NAN] * 4, "calls": [50] * 4, "LPIPS": [NAN] * 4},
        },
        measures=(PSNR, SECONDS, CALLS, LPIPS),
        factors={
            "old": {"warp": "none", "steps": 50, "pnp": False},
            "new": {"warp": "group", "steps": 50, "pnp": True},
            "odd": {"warp": "none", "steps": 50, "pnp": None},
        },
        groups=("calm", "calm", "cut", "cut"),
    )


def test_means_are_shown_with_their_deviation_and_the_best_is_bold(results: Results) -> None:
    assert (
        markdown(means_table(results))
        == """\
| method | warp | pnp | PSNR (dB) ↑ | seconds (s) ↓ | calls |
| :-- | :-- | :-- | --: | --: | --: |
| old | none | no | 30.25 ± 1.71 | **2.00 ± 0.41** | 50 ± 0 |
| new | group | yes | **31.30 ± 1.76** | 3.87 ± 0.23 (n = 3) | 100 ± 0 |
| odd | none | – | 30.00 ± 1.00 (n = 3) | – | 50 ± 0 |"""  # noqa: RUF001
    )


def test_differences_from_the_baseline_are_paired_by_clip(results: Results) -> None:
    assert (
        markdown(differences_table(results))
        == """\
| method | warp | pnp | PSNR (dB) ↑ | seconds (s) ↓ | calls |
| :-- | :-- | :-- | --: | --: | --: |
| new | group | yes | +1.05 [+0.96, +1.14] better | +2.03 [+1.89, +2.18] (n = 3) worse | +50 [+50, +50] |
| odd | none | – | +0.00 [-2.48, +2.48] (n = 3) | – | +0 [+0, +0] |"""  # noqa: RUF001
    )


def test_the_table_of_one_metric_has_four_columns_and_verdicts(results: Results) -> None:
    table = measure_table(results, PSNR)
    assert table.title == "PSNR (dB) ↑"
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["old", "30.25 ± 1.71", "", "the baseline"],
        ["new", "31.30 ± 1.76", "+1.05 [+0.96, +1.14]", "better"],
        ["odd", "30.00 ± 1.00 (n = 3)", "+0.00 [-2.48, +2.48] (n = 3)", "no difference shown"],
    ]


WARPS = Measure(name="warp error", unit="1e-3", better="lower", average="median")


def test_a_median_is_shown_without_a_deviation_and_named_in_the_heading() -> None:
    found = make_results({"old": {"warp error": [1, 2, 30]}, "new": {"warp error": [2, 3, 4]}}, measures=(WARPS,))
    assert (
        markdown(means_table(found))
        == """\
| method | warp error (1e-3, median) ↓ |
| :-- | --: |
| old | **2** |
| new | 3 |"""
    )
    assert measure_table(found, WARPS).headings[1] == "median"


def test_a_reference_row_is_never_the_best_and_not_compared() -> None:
    found = make_results(
        {"old": {"PSNR": [30, 32]}, "new": {"PSNR": [31, 33]}, "true edit": {"PSNR": [100, 100]}}, measures=(PSNR,)
    )
    methods = (*found.methods[:2], replace(found.methods[2], reference=True))
    found = replace(found, methods=methods)
    means = means_table(found)
    assert [row[-1].mark for row in means.rows] == [False, True, False]
    assert "no methods" in means.note
    assert [row[0].text for row in differences_table(found).rows] == ["new"]
    assert [row[-1].text for row in measure_table(found, PSNR).rows] == ["the baseline", "better", ""]


def test_factors_of_reference_rows_make_no_column_and_settings_are_listed() -> None:
    found = make_results(
        {"old": {"PSNR": [30, 32]}, "new": {"PSNR": [31, 33]}, "true edit": {"PSNR": [100, 100]}},
        measures=(PSNR,),
        factors={
            "old": {"settings": {"steps": 20}, "frames": "edited"},
            "new": {"settings": {"steps": 20, "warp": False}, "frames": "edited"},
            "true edit": {"settings": None, "frames": "true edit"},
        },
    )
    methods = (*found.methods[:2], replace(found.methods[2], reference=True))
    table = means_table(replace(found, methods=methods))
    assert table.headings[:2] == ("method", "settings")
    assert "frames" not in table.headings
    assert [row[1].text for row in table.rows] == ["steps 20", "steps 20, warp no", "\u2013"]


def test_a_method_with_its_own_baseline_is_compared_with_that_one() -> None:
    found = make_results(
        {"old": {"PSNR": [30, 32]}, "old, rough": {"PSNR": [20, 22]}, "new, rough": {"PSNR": [21, 23]}},
        measures=(PSNR,),
    )
    old, rough, new = found.methods
    methods = (old, replace(rough, baseline="old, rough"), replace(new, baseline="old, rough"))
    table = differences_table(replace(found, methods=methods))
    assert table.title == "Difference from old, rough, clip by clip"
    assert [[cell.text for cell in row] for row in table.rows] == [["new, rough", "+1 [+1, +1] better"]]


def test_verdicts_are_corrected_for_all_comparisons_of_the_run() -> None:
    """One of many methods differs by chance; alone it would be marked."""
    rng = np.random.default_rng(1)
    drawn = {f"method {i}": {"PSNR": rng.normal(size=8).tolist()} for i in range(40)}
    found = make_results({"old": {"PSNR": [0.0] * 8}, **drawn}, measures=(PSNR,))
    marked = [row[-1].text for row in differences_table(found).rows if {"better", "worse"} & set(row[-1].text.split())]
    alone = [paired_difference(values["PSNR"], [0.0] * 8, better="higher").verdict for name, values in drawn.items()]
    assert marked == []
    assert set(alone) & {"better", "worse"}


def test_each_group_has_its_own_table(results: Results) -> None:
    calm, cut = group_tables(results)
    assert (calm.title, cut.title) == ("calm (2 clips)", "cut (2 clips)")
    assert [cell.text for cell in cut.rows[2]] == ["odd", "none", "–", "29.00 (n = 1)", "–", "50 ± 0"]  # noqa: RUF001


def test_a_single_group_has_no_table() -> None:
    assert group_tables(make_results({"old": {"PSNR": [1.0, 2.0]}}, measures=(PSNR,))) == ()


def test_targets_are_shown_with_values_and_a_missed_one_is_bold(results: Results) -> None:
    table = targets_table(results)
    assert table is not None
    assert (
        markdown(table)
        == """\
| metric | method | target | value | met |
| :-- | :-- | --: | --: | --: |
| PSNR | old | at least 30 dB | 30.25 dB | yes |
| seconds | new | at most 2 s | 3.87 s | **no** |"""
    )


def test_without_targets_there_is_no_table_of_targets() -> None:
    assert targets_table(make_results({"old": {"calls": [1.0]}}, measures=(CALLS,))) is None


def test_the_heading_of_a_metric_with_missing_clips_states_their_number() -> None:
    values = {"old": {"PSNR": [30, NAN, 32]}, "new": {"PSNR": [30, NAN, 33]}}
    assert means_table(make_results(values, measures=(PSNR,))).headings[-1] == "PSNR (dB) ↑, n = 2"


def test_methods_with_equal_printed_means_are_both_highlighted() -> None:
    values = {"old": {"PSNR": [30.0001]}, "new": {"PSNR": [30.0]}, "odd": {"PSNR": [20.0]}}
    table = means_table(make_results(values, measures=(PSNR,)))
    assert [row[-1].mark for row in table.rows] == [True, True, False]


def test_if_all_means_are_equal_none_is_highlighted() -> None:
    values = {"old": {"PSNR": [30.0]}, "new": {"PSNR": [30.0]}}
    assert not any(row[-1].mark for row in means_table(make_results(values, measures=(PSNR,))).rows)


def test_a_factor_that_repeats_the_name_has_no_column() -> None:
    values = {"old": {"PSNR": [30.0]}, "new": {"PSNR": [31.0]}}
    assert means_table(make_results(values, measures=(PSNR,))).headings == ("method", "PSNR (dB) ↑")


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([], 0),
        ([None, NAN], 0),
        ([0.0], 0),
        ([50, 100.0], 0),
        ([1234.5], 0),
        ([123.4, 1], 1),
        ([12.34], 2),
        ([1.5, None], 2),
        ([0.95, 0.01], 3),
        ([0.0123], 4),
        ([1e-12], 8),
    ],
)
def test_decimals_follow_from_the_largest_value(values: list[float | None], places: int) -> None:
    assert decimals(values) == places


def test_markdown_escapes_the_text_of_cells() -> None:
    table = Table(title="", headings=("a|b",), rows=((Cell("*x* <b>\n\\"),),))
    assert markdown(table).splitlines()[0::2] == ["| a\\|b |", "| \\*x\\* &lt;b> \\\\ |"]


def test_a_difference_that_rounds_to_zero_has_no_minus_sign() -> None:
    results = make_results(
        {"old": {"PSNR": [30, 32, 28]}, "new": {"PSNR": [29.9999, 31.9998, 28]}, "far": {"PSNR": [20, 21, 19]}},
        measures=(PSNR,),
    )
    assert "| new | +0.00 [+0.00, +0.00]" in markdown(differences_table(results))


def test_a_fraction_is_printed_without_a_unit() -> None:
    success = Measure(name="edit success", unit="fraction", better="higher", target=0.85)
    cells = metric_row(success, "full", value=0.9, target=0.85)
    assert [cell.text for cell in cells] == ["edit success", "full", "at least 0.85", "0.900", "yes"]
