from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.errors import TaskInputError
from tasks.evaluation.bench import _contact_sheets, _interval, _probe_memory
from tasks.evaluation.bench._contact_sheets import check_contact_sheets, draw_contact_sheet
from tasks.evaluation.bench._fusion import measure_fusion
from tasks.evaluation.bench._interval import measure_memory
from tasks.evaluation.bench._pairs import EbSynth, Pair, drawn_pairs
from tasks.evaluation.bench._scenes import drawn_interval
from tasks.evaluation.bench._synthesis import FULL_SCHEDULE, measure_synthesis, patch_errors
from tasks.evaluation.bench._videos import restyle, video_interval
from tasks.evaluation.bench.measurements import BenchRequest, Measurement, measurement_record
from tasks.evaluation.bench.propagation import BENCH
from tasks.evaluation.bench.registry import bench
from tests._clips import save_clip
from wave_ops.propagation import PUBLISHED_GUIDES, Exemplar, PropagationSettings, synthesise


def by_name(measurements: Iterator[Measurement]) -> dict[str, Measurement]:
    return {f"{item.measure.name}/{item.subject}": item for item in measurements}


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the processes that measure memory, which take seconds to start."""
    monkeypatch.setattr(_interval, "_probe", lambda size, length: {"before": 100, "peak": 200 + length, "seconds": 6})


@pytest.fixture
def pair() -> Pair:
    return drawn_pairs((20, 24))[1]


def to_array(image: torch.Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).numpy()


def plain_errors(pair: Pair, image: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Compute the patch error by its definition, pixel by pixel: 5 x 5, a third of the weight per channel."""
    height, width = image.shape[:2]
    layers = [(1, to_array(pair.style), image)]
    layers += list(zip((6, 0.5, 0.5, 2), map(to_array, pair.source), map(to_array, pair.target), strict=True))
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
def test_the_patch_error_is_the_weighted_squared_difference_of_patches(
    pair: Pair, settings: PropagationSettings
) -> None:
    exemplar = Exemplar.build(pair.style, pair.source, settings=settings)
    painted = synthesise(exemplar, pair.target, starts=(pair.start,))
    plain = plain_errors(pair, to_array(painted.image), painted.matches[0].numpy())
    assert plain.max() > 1000
    np.testing.assert_allclose(patch_errors(pair, painted, settings), plain, rtol=1e-6)
    np.testing.assert_allclose(painted.error[0], plain, rtol=1e-3, atol=1)


def test_ratios_are_relative_to_the_results_of_ebsynth(pair: Pair) -> None:
    plain = by_name(measure_synthesis(pair))
    mean, median = (plain[f"error {name}/hard"].value for name in ("mean", "median"))
    error = np.full((20, 24), np.inf, np.float32)
    error[:10] = -1
    ebsynth = EbSynth(cpu_seconds=1e9, error_mean=mean / 2, error_median=median * 2, error=error)
    relative = by_name(measure_synthesis(replace(pair, ebsynth=ebsynth)))
    assert relative["error mean ratio/hard"].value == pytest.approx(2)
    assert relative["error median ratio/hard"].value == pytest.approx(0.5)
    assert relative["fraction not worse than EbSynth/hard"].value == 0.5
    seconds = relative["synthesis CPU seconds/hard"].value
    assert relative["CPU seconds ratio/hard"].value == pytest.approx(seconds / 1e9)
    assert relative["fraction of the time target/hard"].value == pytest.approx(seconds / 1e9 / 0.02)
    holds = {name: measurement_record("b", item)["holds"] for name, item in relative.items()}
    assert (holds["error mean ratio/hard"], holds["CPU seconds ratio/hard"]) == (False, True)


def test_without_ebsynth_its_targets_are_unknown_and_the_control_has_none(pair: Pair) -> None:
    records = [measurement_record("b", item) for item in by_name(measure_synthesis(pair)).values()]
    assert {record["metric"]: record["target"] for record in records if record["value"] is None} == {
        "CPU seconds ratio/hard": 0.05,
        "error mean ratio/hard": 1.0,
        "error median ratio/hard": 1.0,
    }
    control = by_name(measure_synthesis(pair, full_schedule=True))
    assert [name for name, item in control.items() if item.measure.target] == [
        "reported-error deviation/hard, full schedule"
    ]


def test_the_deviation_of_fusion_from_least_squares_is_small() -> None:
    measured = by_name(measure_fusion((31, 40), check_target=False))
    assert measured["fusion seconds/40x31"].measure.target is None
    assert 0 < measured["fusion deviation/40x31"].value < 1e-5


def test_a_wrong_fusion_misses_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.evaluation.bench._fusion.fuse_gradients", lambda values, *_, **__: values)
    deviation = by_name(measure_fusion((16, 16), check_target=True))["fusion deviation/16x16"]
    assert measurement_record("b", deviation)["holds"] is False


def test_the_peak_memory_of_a_process_excludes_that_of_its_parent() -> None:
    ballast = np.ones(2**28, np.uint8)
    code = "from tasks.peak_memory import peak_memory; print(peak_memory())"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4]
    )
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system does not record the peak memory of a single process")
    assert ballast.all()
    assert 1 < float(ended.stdout) < 128


def test_the_probe_prints_memory_before_and_after_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    _probe_memory.main(16, 24, 2)
    printed = json.loads(capsys.readouterr().out)
    assert 0 < printed["before"] <= printed["peak"]
    assert printed["seconds"] > 0


@pytest.mark.slow
def test_memory_is_measured_in_a_process_that_imports_this_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    probed = _interval._probe((16, 24), 2)
    assert 50 < probed["before"] <= probed["peak"] < 4000
    assert probed["seconds"] > 0


def test_a_failed_process_is_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interval, "_PROBE", "tasks.evaluation.bench.nothing")
    with pytest.raises(TaskInputError, match=r"ended with code 1: .*nothing") as raised:
        next(measure_memory((16, 24), check_target=True))
    assert "\n" not in str(raised.value)


def test_memory_is_measured_for_two_lengths_with_its_growth(no_children: None) -> None:
    measured = by_name(measure_memory((72, 128), check_target=True))
    assert measured["peak memory/128x72, K = 8"].value == 208
    assert measured["peak memory/128x72, K = 8"].measure.target == 2048
    assert measured["memory growth/128x72, K = 4 to 8"].value == 4
    assert measured["CPU seconds per frame/128x72, K = 4"].value == 2


def test_a_quick_bench_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_children: None) -> None:
    monkeypatch.setattr("tasks.evaluation.bench.propagation._QUICK_SIZE", (32, 32))
    request = BenchRequest(quick=True, contact_sheets=tmp_path / "sheets")
    assert bench("propagation") is BENCH
    measured = [item for section in BENCH.sections(request) for item in section.measure()]
    records = [measurement_record(BENCH.name, item) for item in measured]
    metrics = [record["metric"] for record in records]
    assert len(set(metrics)) == len(metrics)
    assert {"synthesis CPU seconds/calm", "error mean/hard, full schedule", "interval CPU seconds/drawn"} < set(metrics)
    assert {record["metric"] for record in records if record["holds"] is False} == set()
    # Targets that are set for the full size do not apply
    seconds = [each for each in records if "seconds" in each["metric"] and "ratio" not in each["metric"]]
    assert {record["target"] for record in seconds} == {None}
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["drawn.png"]


def test_a_contact_sheet_shows_every_frame_in_seven_rows(tmp_path: Path) -> None:
    path = tmp_path / "new" / "drawn.png"
    (measurement,) = draw_contact_sheet(lambda: drawn_interval(3, (32, 32)), name="drawn", path=path)
    assert 10 < (measurement.value or 0) < 100
    with Image.open(path) as sheet:
        assert sheet.width == 4 * (320 + 6) - 6 + 20
        assert sheet.height == 28 + 7 * (28 + 320) + 12
        assert np.asarray(sheet).std() > 20
    assert [item.name for item in path.parent.iterdir()] == ["drawn.png"]


def test_a_failed_contact_sheet_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "drawn.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(_contact_sheets.Image.Image, "save", lambda image, buffer, _: buffer.write(b"ha") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(draw_contact_sheet(lambda: drawn_interval(2, (16, 16)), name="drawn", path=path))
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_contact_sheets_that_cannot_be_written_are_an_error_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TaskInputError, match="cannot be created"):
        check_contact_sheets(tmp_path / "file" / "below", ["drawn"])
    with pytest.raises(TaskInputError, match="different file names"):
        check_contact_sheets(tmp_path, ["a", "a"])


def test_the_interval_of_a_video_is_one_shot_with_restyled_keyframes(tmp_path: Path) -> None:
    interval, truth = video_interval(save_clip(tmp_path / "clip.mp4", frames=12), 4, (40, 48))
    assert interval.frames.shape == truth.shape == (5, 40, 48, 3)
    assert interval.to_prev.shape == interval.to_cur.shape == (4, 2, 40, 48)
    np.testing.assert_array_equal(interval.first, restyle(interval.frames[0]))
    assert np.abs(truth.astype(int) - interval.frames).mean() > 20
    with pytest.raises(TaskInputError, match="no 21 frames without a cut"):
        video_interval(tmp_path / "clip.mp4", 20, (40, 48))
