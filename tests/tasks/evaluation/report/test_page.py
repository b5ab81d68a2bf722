from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from storage.video import probe, read_frames
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.evaluation.comparisons.comparison import Measure, Method
from tasks.evaluation.plan import EvaluationPlan, load_planned_clip
from tasks.evaluation.previews import GAIN, amplified_difference, legible
from tasks.evaluation.report.film_selection import choose_clips, choose_methods, shown_clips, worst_clip
from tasks.evaluation.report.page import report_html
from tasks.evaluation.report.plots import difference_plot, distribution_plot
from tasks.evaluation.report.publish import LINES, METRICS, REPORT, TABLE, check_folder, write_results
from tasks.evaluation.results import COLUMNS, Results, collect_results, metrics_parquet
from tasks.evaluation.run import RESULT, measure_clip
from tests._evaluation import coarse_plan, make_results, with_coarse

PSNR = Measure(name="PSNR", unit="dB", better="higher")
ERROR = Measure(name="error", unit="px", better="lower")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluationPlan]:
    with pytest.MonkeyPatch.context() as patch:
        plan = coarse_plan(with_coarse(patch), tmp_path_factory.mktemp("workspace"), clips=3)
        for clip in plan.clips:
            measure_clip(plan, clip)
        yield plan


@pytest.fixture(scope="module")
def results(plan: EvaluationPlan) -> Results:
    return collect_results(plan)


@pytest.fixture(scope="module")
def page(plan: EvaluationPlan, results: Results) -> str:
    return report_html(plan, results)


class Elements(HTMLParser):
    """Counts elements, and checks that every opened element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_has_no_external_references(page: str) -> None:
    assert not re.search(r"https?://|//www|src=\"(?!data:)|@import|url\((?!#)", page)
    assert len(page) < 20 * 2**20


def test_the_report_is_well_formed_and_contains_tables_plots_and_films(page: str) -> None:
    elements = Elements(page)
    assert elements.open == []
    assert elements.seen.count("svg") == 2 + 3  # differences of the two metrics that differ, distributions of all three
    assert elements.seen.count("video") == 3 * (1 + 2 * 3)  # each clip's source, and each method's film and difference
    assert elements.seen.count("table") == 1 + 2 + 2  # targets, means and differences, two groups


def test_what_does_not_fit_in_the_width_of_a_page_stands_in_further_tables(
    page: str, plan: EvaluationPlan, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.evaluation.report.page._COLUMNS_PER_TABLE", 2)
    narrow = report_html(plan, results)
    heads = [re.findall("<th>(.*?)</th>", head) for head in re.findall("<thead>(.*?)</thead>", narrow)]
    assert max(len(head) for head in heads) == 2
    assert [heading for head in heads for heading in head] == re.findall("<th>(.*?)</th>", page)
    assert sorted(re.findall('<td class="[^l]*?"><span>(.*?)</span>', narrow)) == sorted(
        re.findall('<td class="[^l]*?"><span>(.*?)</span>', page)
    )


def test_the_films_decode_to_the_clip_in_their_stated_size(
    page: str, plan: EvaluationPlan, results: Results, tmp_path: Path
) -> None:
    films = re.findall(r'<video src="data:video/mp4;base64,([^"]+)" width="(\d+)" height="(\d+)" autoplay loop', page)
    for film, width, height in films:
        path = tmp_path / "film.mp4"
        path.write_bytes(base64.b64decode(film))
        info = probe(path)
        assert (info.frame_count, info.width, info.height) == (4, int(width), int(height)) == (4, 192, 192)
    first = results.clips.index(choose_clips(results)[0])
    path.write_bytes(base64.b64decode(films[0][0]))
    source = np.stack([frame for _, frame in read_frames(path)])[:, 3::6, 3::6].astype(float)
    assert np.abs(source - load_planned_clip(plan.request, plan.clips[first]).frames).mean() < 5


def test_text_in_the_page_is_escaped(page: str) -> None:
    assert "How coarse may &lt;b&gt;a copy&lt;/b&gt; be?" in page
    assert "<b>a copy" not in page


def test_the_report_lists_the_set_up_and_the_metrics_that_were_not_measured(page: str) -> None:
    for words in (
        "wave evaluate coarse --clips 3",
        "3: 2 calm, 1 hard motion",
        "tiny, mmmm",
        "float32 on cpu",
        "torch ",
        "LPIPS",
        "every 2",
        "at least 15 dB",
    ):
        assert words in page
    assert "Not measured in this run: LPIPS." in page


def test_all_files_are_written_with_the_same_values(plan: EvaluationPlan, tmp_path: Path) -> None:
    results = write_results(plan, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([LINES, METRICS, REPORT, TABLE])
    metrics = pd.read_parquet(tmp_path / "out" / METRICS)
    assert tuple(name for name in map(str, metrics) if not name.startswith("factor.")) == COLUMNS
    assert len(metrics) == 3 * 3 * 4  # clips, methods, measures
    assert set(metrics["factor.step"]) == {2, 4, 8}
    lines = [json.loads(line) for line in (tmp_path / "out" / LINES).read_text().splitlines()]
    mean = metrics[(metrics["method"] == "every 4") & (metrics["measure"] == "PSNR")]["value"].mean()
    assert next(line["value"] for line in lines if line["metric"] == "PSNR/every 4") == pytest.approx(mean)
    assert f"| every 4 | 4 | {mean:.2f} ± " in (tmp_path / "out" / TABLE).read_text()
    assert results.metrics["value"].equals(metrics["value"])


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ((None, 2, True), [None, "2", "true"]),
        ((None, "group", [1, 2]), [None, "group", "[1, 2]"]),
        ((None, "group", "x"), [None, "group", "x"]),
        ((1, None, 2), [1, None, 2]),
        ((0.5, None, 2.0), [0.5, None, 2.0]),
        ((True, False, None), [True, False, None]),
    ],
)
def test_factors_keep_their_type_and_become_text_if_they_have_several_types(
    values: tuple[object, ...], stored: list[object], plan: EvaluationPlan, tmp_path: Path
) -> None:
    methods = tuple(Method(name=f"m{i}", factors={"warp": value}) for i, value in enumerate(values))
    other = replace(plan, methods=methods, clips=plan.clips[:1], workspace=str(tmp_path))
    for method in methods:
        outcome = Workspace.open(tmp_path).artifact(other.ref(plan.clips[0], method))
        outcome.complete({"scores": {"PSNR": 1.0}, "seconds": 0.0})
    found = pd.read_parquet(io.BytesIO(metrics_parquet(collect_results(other)))).drop_duplicates("method")
    assert [None if value is pd.NA else value for value in found["factor.warp"].astype(object)] == stored


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    check_folder(tmp_path / "new" / "folder")
    with pytest.raises(TaskInputError, match="is not a writable folder"):
        check_folder(tmp_path / "file" / "folder")


def test_a_clip_without_stored_films_is_not_shown(plan: EvaluationPlan, results: Results, tmp_path: Path) -> None:
    copied = replace(plan, workspace=str(shutil.copytree(plan.workspace, tmp_path / "copy")))
    for clip in plan.clips[1:]:
        for method in plan.methods:
            (Path(copied.workspace) / plan.ref(clip, method).path / RESULT).unlink()
    assert [clip.name for clip in shown_clips(copied, results)] == [plan.clips[0].name]


def test_clips_beyond_the_size_limit_are_not_shown(plan: EvaluationPlan, results: Results) -> None:
    every = shown_clips(plan, results)
    assert [clip.name for clip in every] == list(choose_clips(results))
    room = every[0].size + every[1].size
    assert shown_clips(plan, results, most_bytes=room)[:2] == every[:2]
    assert (
        shown_clips(plan, results, most_bytes=every[0].size - 1)
        == tuple(clip for clip in every if clip.size < every[0].size)[:1]
    )


@pytest.mark.parametrize(("measure", "worst"), [(PSNR, "clip-3"), (ERROR, "clip-2")])
def test_the_worst_clip_of_the_baseline_is_first_followed_by_the_groups_in_turn(measure: Measure, worst: str) -> None:
    values = [30.0, 31.0, 40.0, 20.0, np.nan, 25.0, 25.0, 25.0]
    by_method = {"old": {measure.name: values}, "new": {measure.name: values[::-1]}}
    groups = ("calm", "calm", "calm", "calm", "cut", "cut", "cut", "cut")
    results = make_results(by_method, measures=(measure,), groups=groups)
    assert worst_clip(results) == worst
    turns = ["clip-0", "clip-4", "clip-1", "clip-5", "clip-2", "clip-6", "clip-3", "clip-7"]
    expected = [worst, *(name for name in turns if name != worst)]
    assert choose_clips(results) == tuple(expected[:6])


def many(measure: Measure) -> Results:
    values = {f"m{i}": {measure.name: [float(value)]} for i, value in enumerate([5, 9, 1, 8, 2, 7, 3, 6, 4, 0])}
    return make_results(values, measures=(measure,))


@pytest.mark.parametrize(
    ("measure", "names"), [(PSNR, ["m0", "m1", "m2", "m3", "m5", "m9"]), (ERROR, ["m0", "m1", "m2", "m3", "m4", "m9"])]
)
def test_of_many_methods_the_baseline_the_best_and_the_worst_are_shown(measure: Measure, names: list[str]) -> None:
    assert [method.name for method in choose_methods(many(measure), most=6)] == names


def test_all_methods_are_shown_if_they_are_few() -> None:
    assert len(choose_methods(many(PSNR), most=10)) == 10


@pytest.mark.parametrize(
    ("size", "shown"),
    [((64, 64), (192, 192)), ((48, 100), (96, 200)), ((300, 200), (300, 200)), ((300, 600), (192, 384))],
)
def test_films_are_resized_to_between_192_and_384_pixels(size: tuple[int, int], shown: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    resized = legible(frames)
    assert resized.shape[1:3] == shown
    if shown[0] > size[0]:
        factor = shown[0] // size[0]
        assert np.array_equal(resized[:, ::factor, ::factor], frames)
        assert np.array_equal(resized[:, 1::factor, 1::factor], frames)


def test_differences_are_amplified_around_grey() -> None:
    reference = np.full((2, 4, 4, 3), 100, np.uint8)
    made = reference.copy()
    made[0, 0, 0], made[0, 1, 1], made[1, 2, 2] = 110, 90, 255
    found = amplified_difference(made, reference)
    assert found is not None
    assert found[0, 0, 0, 0] == 128 + 10 * GAIN
    assert found[0, 1, 1, 0] == 128 - 10 * GAIN
    assert found[1, 2, 2, 0] == 255
    assert (found == 128).sum() == found.size - 9


def test_frames_of_different_lengths_have_no_difference() -> None:
    assert amplified_difference(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((3, 4, 4, 3), np.uint8)) is None


def test_plots_escape_names_and_take_the_text_colour_of_the_page() -> None:
    values = {"old": {"PSNR": [30.0, 31.0]}, "$x_1$ <b>&": {"PSNR": [31.0, 33.0]}}
    results = make_results(values, measures=(PSNR,))
    for plot in (difference_plot(results, PSNR), distribution_plot(results, PSNR, results.methods)):
        assert plot is not None
        assert plot.startswith("<svg")
        assert "$x_1$ &lt;b&gt;&amp;" in plot
        assert "currentColor" in plot
        assert "#010203" not in plot
        assert "http" not in plot


def test_methods_without_values_are_not_drawn() -> None:
    results = make_results({"old": {"PSNR": [30.0]}, "new": {"PSNR": [np.nan]}}, measures=(PSNR,))
    assert difference_plot(results, PSNR) is None
    assert "new" not in (distribution_plot(results, PSNR, results.methods) or "new")
