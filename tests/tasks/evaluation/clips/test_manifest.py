from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from storage.video import read_frames, write_video
from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.clips.manifest import FRAMES, read_clip, read_manifest
from tasks.evaluation.plan import load_planned_clip, planned_clips
from tasks.evaluation.request import EvaluationRequest
from tests._clips import save_clip
from tests._evaluation import CoarseCopies

ROW = {"video": "clip.mp4", "source_prompt": "a star", "prompt": "a ring"}
Writer = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    save_clip(folder / "clip.mp4")
    (folder / "notes.mp4").write_text("no video")
    return folder


@pytest.fixture
def write(folder: Path) -> Writer:
    """Write rows next to the clip, in the format of the file name."""

    def write(*rows: dict[str, Any], name: str = "clips.csv") -> Path:
        path, table = folder / name, pd.DataFrame(list(rows))
        if path.suffix == ".csv":
            table.to_csv(path, index=False)
        elif path.suffix == ".json":
            path.write_text(json.dumps(list(rows)))
        else:
            table.to_parquet(path)
        return path

    return write


@pytest.mark.parametrize("name", ["clips.csv", "clips.json", "clips.parquet"])
def test_all_formats_of_a_table_are_read_with_the_same_result(name: str, write: Writer, folder: Path) -> None:
    (row,) = read_manifest(write(ROW, name=name))
    assert (row.name, row.source_prompt, row.prompt, row.frames) == ("clip", "a star", "a ring", FRAMES)
    assert Path(row.video) == folder / "clip.mp4"


def test_a_manifest_of_a_data_set_is_read_with_its_own_names_of_columns(write: Writer) -> None:
    (row,) = read_manifest(write(ROW, name="own.csv"))
    (other,) = read_manifest(
        write({"id": "clip/1", "source": "clip.mp4", **{key: ROW[key] for key in ("source_prompt", "prompt")}})
    )
    assert (other.name, other.digest) == ("clip/1", row.digest)


def test_a_mask_is_read_with_the_clip_and_is_part_of_its_digest(write: Writer, folder: Path) -> None:
    (plain,) = read_manifest(write({**ROW, "mask": ""}))
    assert (plain.mask, plain.digest) == ("", read_manifest(write(ROW))[0].digest)
    assert read_clip(plain).mask is None
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :32] = 255
    digests = {plain.digest}
    for side in (mask, 255 - mask):
        Image.fromarray(side).save(folder / "mask.png")
        (row,) = read_manifest(write({**ROW, "frames": 3, "mask": "mask.png"}))
        np.testing.assert_array_equal(read_clip(row).mask, np.stack([side > 0] * 3))
        digests.add(row.digest)
    assert len(digests) == 3


def test_a_mask_outside_of_the_manifests_folder_is_refused_unless_it_is_allowed(
    tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "mask.png")
    elsewhere = {**ROW, "mask": str(tmp_path / "mask.png")}
    with pytest.raises(TaskInputError, match=r"names a mask .* outside of the manifest's folder"):
        read_manifest(write(elsewhere))
    monkeypatch.setenv("WAVE_SOURCE_ROOTS", str(tmp_path))
    assert read_manifest(write(elsewhere))[0].mask == str(tmp_path / "mask.png")


def test_text_that_looks_like_none_numbers_or_dates_stays_text(write: Writer) -> None:
    rows = [{**ROW, "prompt": text} for text in ("None", "1e3", "2020-01-01")]
    for name in ("clips.csv", "clips.json"):
        assert [row.prompt for row in read_manifest(write(*rows, name=name))] == ["None", "1e3", "2020-01-01"]


def test_a_clip_consists_of_its_first_frames_and_one_edit(write: Writer, folder: Path) -> None:
    (row,) = read_manifest(write({**ROW, "name": "star", "frames": 3}))
    clip = read_clip(row)
    expected = [frame for _, frame in read_frames(folder / "clip.mp4")][:3]
    assert np.array_equal(clip.frames, expected)
    assert (clip.name, clip.group, clip.caption, clip.digest) == ("star", "real", "a star", row.digest)
    assert [(edit.kind, edit.prompt, edit.truth) for edit in clip.edits] == [("prompt", "a ring", None)]


def test_cuts_are_detected_and_large_frames_are_shrunk(
    tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    shots = [np.kron(rng.integers(0, 256, (9, 16, 3), np.uint8), np.ones((80, 80, 1), np.uint8)) for _ in range(2)]
    frames = [shots[i // 5] for i in range(10)]
    write_video(tmp_path / "large.mp4", frames, timestamps=range(10), time_base=Fraction(1, 10))
    elsewhere = {**ROW, "video": str(tmp_path / "large.mp4")}
    with pytest.raises(TaskInputError, match="outside of the manifest's folder"):
        read_manifest(write(elsewhere))
    monkeypatch.setenv("WAVE_SOURCE_ROOTS", str(tmp_path))
    (row,) = read_manifest(write(elsewhere))
    clip = read_clip(row)
    assert clip.cuts == (5,)
    assert clip.frames.shape[1] * clip.frames.shape[2] <= 512 * 512
    assert clip.frames.shape[2] / clip.frames.shape[1] == pytest.approx(16 / 9, rel=0.01)


def test_the_digest_depends_on_the_content_and_the_edit_and_not_on_the_name(write: Writer) -> None:
    rows = [ROW, {**ROW, "name": "x"}, {**ROW, "prompt": "x"}, {**ROW, "source_prompt": "x"}, {**ROW, "frames": 2}]
    digests = [read_manifest(write(row))[0].digest for row in rows]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_rows_with_the_same_name_get_their_number_appended(write: Writer) -> None:
    rows = read_manifest(write(ROW, {**ROW, "name": "star"}, {**ROW, "prompt": "a disc"}))
    assert [row.name for row in rows] == ["clip-1", "star", "clip-3"]


def test_only_the_requested_number_of_rows_is_read(write: Writer) -> None:
    assert len(read_manifest(write(ROW, ROW, {**ROW, "video": "gone.mp4"}), count=2)) == 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"video": "clip.mp4", "prompt": "x"}], "lacks the column source_prompt; it has video, prompt"),
        ([ROW, {**ROW, "prompt": " "}], "Row 2 of .*clips.csv has no prompt"),
        ([{**ROW, "video": None}], "Row 1 of .* has no video"),
        ([ROW, ROW, {**ROW, "video": "gone.mp4"}], "Row 3 of .* names a video that cannot be used: there is no file"),
        ([{**ROW, "video": "notes.mp4"}], "Row 1 of .* names a video that cannot be used: .* not a video"),
        ([{**ROW, "video": "nowhere://x/y.mp4"}], "Row 1 of .* names a video that cannot be used"),
        ([{**ROW, "mask": "gone.png"}], "Row 1 of .* names a mask that cannot be used: The mask .* does not exist"),
        ([{**ROW, "frames": "many"}], "Row 1 of .* requests 'many' frames"),
        ([{**ROW, "frames": 0}], "Row 1 of .* requests '0' frames"),
        ([{**ROW, "frames": 2.5}], "Row 1 of .* requests '2.5' frames"),
    ],
)
def test_the_error_of_an_invalid_row_names_its_number(rows: list[dict[str, Any]], words: str, write: Writer) -> None:
    with pytest.raises(TaskInputError, match=words) as caught:
        read_manifest(write(*rows))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("clips.txt", b"", "must end with one of .csv"),
        ("missing.csv", None, "There is no manifest"),
        ("empty.csv", b"", "cannot be read"),
        ("heading.csv", b"video,source_prompt,prompt\n", "has no rows"),
        ("binary.csv", b"\xff\xfe\x00a,b", "cannot be read"),
        ("ragged.csv", b"a,b\n1,2,3,4\n5\n1,2,3,4,5,6", "cannot be read"),
        ("broken.json", b"{", "cannot be read"),
        ("number.json", b"3", "cannot be read|lacks the column"),
        ("broken.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_file_that_is_not_a_table_is_an_error(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TaskInputError, match=words) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


def test_a_comparison_runs_on_the_clips_of_the_manifest(write: Writer, coarse: CoarseCopies) -> None:
    request = EvaluationRequest(comparison="coarse", manifest=str(write(ROW, ROW)), clips=1)
    (clip,) = planned_clips(request)
    assert (clip.name, clip.group, clip.edit) == ("clip", "real", "prompt")
    assert len(load_planned_clip(request, clip).frames) == 7


def test_a_comparison_may_read_its_own_kind_of_manifest(
    coarse: CoarseCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Path, int | None]] = []

    def manifest_clips(_self: object, path: Path, *, count: int | None) -> tuple[EvaluationClip, ...]:
        calls.append((path, count))
        return coarse.clips(quick=True, count=1, seed=9)

    monkeypatch.setattr(CoarseCopies, "manifest_clips", manifest_clips, raising=False)
    request = EvaluationRequest(comparison="coarse", manifest=str(tmp_path), clips=3)
    (clip,) = planned_clips(request)
    assert calls == [(tmp_path, 3)]
    assert load_planned_clip(request, clip).digest == coarse.clips(quick=True, count=1, seed=9)[0].digest
