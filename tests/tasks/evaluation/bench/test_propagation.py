from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.errors import TaskInputError
from tasks.evaluation.bench import _contact_sheets, _interval, _probe_memory
from tasks.evaluation.bench._clips import clip_interval, restyled
from tasks.evaluation.bench._contact_sheets import check_sheets, sheet_figures
from tasks.evaluation.bench._fusion import fusion_figures
from tasks.evaluation.bench._interval import memory_figures
from tasks.evaluation.bench._pairs import EbSynth, Pair, drawn_pairs
from tasks.evaluation.bench._scenes import drawn_interval
from tasks.evaluation.bench._synthesis import FULL_SCHEDULE, patch_errors, synthesis_figures
from tasks.evaluation.bench.figures import BenchRequest, Figure, bench_line
from tasks.evaluation.bench.propagation import BENCH
from tasks.evaluation.bench.registry import bench
from tests._clips import save_clip
from wave_ops.propagation import PUBLISHED_GUIDES, Exemplar, PropagationSettings, synthesise


def found(figures: Iterator[Figure]) -> dict[str, Figure]:
    return {f"{figure.measure.name}/{figure.subject}": figure for figure in figures}


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in processes of its own, which take seconds to start."""
    monkeypatch.setattr(_interval, "_probe", lambda size, length: {"before": 100, "peak": 200 + length, "seconds": 6})


@pytest.fixture
def pair() -> Pair:
    return drawn_pairs((20, 24))[1]


def plain_errors(pair: Pair, image: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel: 5 x 5, weight a third per channel, borders repeated."""
    height, width = image.shape[:2]
    layers = [(1, pair.style, image)]
    layers += list(zip((6, 0.5, 0.5, 2), pair.source, pair.target, strict=True))
    error = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        for dy, dx in np.ndindex(5, 5):
            there = (
                np.clip(int(matches[1, y, x]) + dy - 2, 0, height - 1),
                np.clip(int(matches[0, y, x]) + dx - 2, 0, width - 1),
            )
            here = np.clip(y + dy - 2, 0, height - 1), np.clip(x + dx - 2, 0, width - 1)
            error[y, x] += sum(w / 3 * ((a[there].astype(float) - b[here]) ** 2).sum() for w, a, b in layers)
    return error


@pytest.mark.parametrize("settings", [PUBLISHED_GUIDES, FULL_SCHEDULE])
def test_the_error_is_the_weighted_squared_difference_of_patches(pair: Pair, settings: PropagationSettings) -> None:
    exemplar = Exemplar.build(pair.style, pair.source, settings=settings)
    made = synthesise(exemplar, pair.target, starts=(pair.start,))
    plain = plain_errors(pair, made.image, made.matches)
    assert plain.max() > 1000
    np.testing.assert_allclose(patch_errors(pair, made, settings), plain, rtol=1e-6)
    np.testing.assert_allclose(made.error, plain, rtol=1e-3, atol=1)


def test_figures_are_divided_by_those_of_the_other_tool(pair: Pair) -> None:
    plain = found(synthesis_figures(pair))
    mean, median = (plain[f"error {name}/hard"].value for name in ("mean", "median"))
    error = np.full((20, 24), np.inf, np.float32)
    error[:10] = -1
    ebsynth = EbSynth(cpu_seconds=1e9, error_mean=mean / 2, error_median=median * 2, error=error)
    beside = found(synthesis_figures(replace(pair, ebsynth=ebsynth)))
    assert beside["error mean ratio/hard"].value == pytest.approx(2)
    assert beside["error median ratio/hard"].value == pytest.approx(0.5)
    assert beside["pixels no worse/hard"].value == 0.5
    seconds = beside["synthesis CPU seconds/hard"].value
    assert beside["CPU seconds ratio/hard"].value == pytest.approx(seconds / 1e9)
    assert beside["CPU seconds to aim/hard"].value == pytest.approx(seconds / 1e9 / 0.02)
    holds = {name: bench_line("b", figure)["holds"] for name, figure in beside.items()}
    assert (holds["error mean ratio/hard"], holds["CPU seconds ratio/hard"]) == (False, True)


def test_without_another_tool_its_bars_are_open_and_the_control_has_none(pair: Pair) -> None:
    lines = [bench_line("b", figure) for figure in found(synthesis_figures(pair)).values()]
    assert {line["metric"]: line["bar"] for line in lines if line["value"] is None} == {
        "CPU seconds ratio/hard": 0.05,
        "error mean ratio/hard": 1.0,
        "error median ratio/hard": 1.0,
    }
    control = found(synthesis_figures(pair, full_schedule=True))
    assert [name for name, figure in control.items() if figure.measure.bar] == ["error mistold/hard, full schedule"]


def test_fusion_is_the_least_squares_solution() -> None:
    figures = found(fusion_figures((31, 40), held=False))
    assert figures["fusion seconds/40x31"].measure.bar is None
    assert 0 < figures["fusion deviation/40x31"].value < 1e-5


def test_a_wrong_fusion_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.evaluation.bench._fusion.fuse_gradients", lambda values, *_, **__: values)
    figure = found(fusion_figures((16, 16), held=True))["fusion deviation/16x16"]
    assert bench_line("b", figure)["holds"] is False


def test_the_peak_of_a_process_leaves_out_what_its_parent_held() -> None:
    ballast = np.ones(2**28, np.uint8)
    code = "from tasks.evaluation.bench._peak import peak_memory; print(peak_memory())"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4]
    )
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system keeps no record of a process's own peak")
    assert ballast.all()
    assert 1 < float(ended.stdout) < 128


def test_the_probe_tells_memory_before_and_after_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    _probe_memory.main(16, 24, 2)
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["before"] <= told["peak"]
    assert told["seconds"] > 0


@pytest.mark.slow
def test_memory_is_measured_in_a_process_that_runs_this_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    probed = _interval._probe((16, 24), 2)
    assert 50 < probed["before"] <= probed["peak"] < 4000
    assert probed["seconds"] > 0


def test_a_process_that_fails_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interval, "_PROBE", "tasks.evaluation.bench.nothing")
    with pytest.raises(TaskInputError, match=r"ended with code 1: .*nothing") as raised:
        next(memory_figures((16, 24), held=True))
    assert "\n" not in str(raised.value)


def test_memory_is_told_for_two_lengths_with_its_growth(no_children: None) -> None:
    figures = found(memory_figures((72, 128), held=True))
    assert figures["peak memory/128x72, K = 8"].value == 208
    assert figures["peak memory/128x72, K = 8"].measure.bar == 2048
    assert figures["memory growth/128x72, K = 4 to 8"].value == 4
    assert figures["CPU seconds a frame/128x72, K = 4"].value == 2


def test_a_quick_bench_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_children: None) -> None:
    monkeypatch.setattr("tasks.evaluation.bench.propagation._QUICK_SIZE", (32, 32))
    request = BenchRequest(quick=True, sheets=tmp_path / "sheets")
    assert bench("propagation") is BENCH
    lines = [bench_line(BENCH.name, f) for section in BENCH.sections(request) for f in section.figures()]
    metrics = [line["metric"] for line in lines]
    assert len(set(metrics)) == len(metrics)
    assert {"synthesis CPU seconds/calm", "error mean/hard, full schedule", "interval CPU seconds/drawn"} < set(metrics)
    assert {line["metric"] for line in lines if line["holds"] is False} == set()
    # What is asked for at full size is not asked of a small one
    assert {line["bar"] for line in lines if "seconds" in line["metric"] and "ratio" not in line["metric"]} == {None}
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["drawn.png"]


def test_a_sheet_shows_every_frame_of_seven_rows(tmp_path: Path) -> None:
    path = tmp_path / "new" / "drawn.png"
    (figure,) = sheet_figures(lambda: drawn_interval(3, (32, 32)), name="drawn", path=path)
    assert 10 < (figure.value or 0) < 100
    with Image.open(path) as sheet:
        assert sheet.width == 4 * (320 + 6) - 6 + 20
        assert sheet.height == 28 + 7 * (28 + 320) + 12
        assert np.asarray(sheet).std() > 20
    assert [item.name for item in path.parent.iterdir()] == ["drawn.png"]


def test_a_sheet_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "drawn.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(_contact_sheets.Image.Image, "save", lambda image, buffer, _: buffer.write(b"ha") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(sheet_figures(lambda: drawn_interval(2, (16, 16)), name="drawn", path=path))
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_sheets_that_cannot_be_written_are_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TaskInputError, match="cannot be made"):
        check_sheets(tmp_path / "file" / "below", ["drawn"])
    with pytest.raises(TaskInputError, match="different names"):
        check_sheets(tmp_path, ["a", "a"])


def test_a_clip_gives_an_interval_of_one_shot_with_restyled_keyframes(tmp_path: Path) -> None:
    interval, wanted = clip_interval(save_clip(tmp_path / "clip.mp4", frames=12), 4, (40, 48))
    assert interval.frames.shape == wanted.shape == (5, 40, 48, 3)
    assert interval.to_prev.shape == interval.to_cur.shape == (4, 2, 40, 48)
    np.testing.assert_array_equal(interval.first, restyled(interval.frames[0]))
    assert np.abs(wanted.astype(int) - interval.frames).mean() > 20
    with pytest.raises(TaskInputError, match="no 21 frames without a cut"):
        clip_interval(tmp_path / "clip.mp4", 20, (40, 48))
