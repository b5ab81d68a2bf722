"""Prompt files of benchmarks in their published layouts, with rows that are made up."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import yaml

from tasks.errors import TaskInputError
from tasks.planning.benchmarks import BENCHMARKS, benchmark_columns
from tasks.planning.dataset import dataset_request
from tasks.planning.manifest_table import write_table
from tasks.planning.rows import read_rows

HEADING = (
    "Video name",
    "Our GT caption",
    "Style Change Caption",
    "Object Change Caption",
    "Background Change Caption",
    "Multiple Changes Caption",
    "Source",
)
LOVEU: Sequence[Sequence[Any]] = (
    HEADING,
    ("DAVIS Videos:",) + (None,) * 6,
    ("kite", "A kite flies.", "A kite flies, in oil.", "A crow flies.", "A kite over sea.", "A crow over sea.", "x"),
    (None,) * 7,
    ("boat", "A boat rests.", "A boat, in ink.", " A raft rests. ", None, "", "x"),
)


def write_five(path: Path, **changes: Any) -> Path:
    entries = [
        {"video_name": "kite", "source_prompt": "a red kite", "target_prompt": "a blue kite", "instruction": "x"},
        {"video_name": "boat", "source_prompt": "a boat", "target_prompt": "a raft {1}", "instruction": "x"},
        {"video_name": "kite", "source_prompt": "a red kite", "target_prompt": "a green kite", "instruction": "x"},
    ]
    path.write_text(json.dumps([entry | changes for entry in entries]))
    return path


def write_loveu_csv(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["" if cell is None else cell for cell in row] for row in LOVEU])
    return path


def write_loveu_xlsx(path: Path) -> Path:
    book = openpyxl.Workbook()
    for row in LOVEU:
        book.active.append(row)
    book.save(path)
    return path


def write_v2v(path: Path) -> Path:
    edits = [{"prompt": "a crow", "type": "object", "src_words": "kite"}, {"prompt": "a kite, pixel art"}]
    data = [{"video_id": "kite", "prompt": "a kite", "edit": edits}, {"video_id": "boat", "edit": edits[1:]}]
    path.write_text(yaml.safe_dump({"data": data}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with empty clips in folders of their own, and masks of one of them."""
    for name in ("videos/DAVIS_480p/kite.mp4", "videos/youtube_480p/boat.mp4", "masks/kite/00000.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def columns(folder: Path, file: Path, benchmark: str, *, masks: Path | None = None) -> dict[str, list[Any]]:
    found = benchmark_columns(
        file, benchmark=benchmark, videos=str(folder / "videos"), masks=masks, start=folder.absolute()
    )
    return {name: list(cells) for name, cells in found.items()}


KITE, BOAT = "videos/DAVIS_480p/kite.mp4", "videos/youtube_480p/boat.mp4"


def test_edits_of_five_bench_are_rows_with_the_kind_in_the_name_of_the_file(folder: Path) -> None:
    file = write_five(folder / "edit3_FiVE.json")
    found = columns(folder, file, "five-bench", masks=folder / "masks")
    assert found == {
        "id": ["kite/1", "boat/1", "kite/2"],
        "source": [KITE, BOAT, KITE],
        "source_prompt": ["a red kite", "a boat", "a red kite"],
        "prompt": ["a blue kite", "a raft {{1}}", "a green kite"],
        "kind": ["edit3"] * 3,
        "mask": ["masks/kite", "", "masks/kite"],
    }


@pytest.mark.parametrize("write", [write_loveu_csv, write_loveu_xlsx])
def test_each_caption_of_loveu_tgve_is_a_row_and_titles_and_empty_cells_are_none(
    write: Callable[[Path], Path], folder: Path
) -> None:
    file = write(folder / f"prompts.{write.__name__.rpartition('_')[2]}")
    found = columns(folder, file, "loveu-tgve")
    assert found["id"] == ["kite/1", "kite/2", "kite/3", "kite/4", "boat/1", "boat/2"]
    assert found["kind"] == ["style", "object", "background", "multiple", "style", "object"]
    assert found["source_prompt"] == ["A kite flies."] * 4 + ["A boat rests."] * 2
    assert found["prompt"][1] == "A crow flies."
    assert found["prompt"][-1] == "A raft rests."
    assert "mask" not in found


def test_each_edit_of_a_video_of_v2vbench_is_a_row(folder: Path) -> None:
    found = columns(folder, write_v2v(folder / "config.yaml"), "v2vbench")
    assert found["id"] == ["kite/1", "kite/2", "boat/1"]
    assert found["source_prompt"] == ["a kite", "a kite", ""]
    assert found["kind"] == ["object", "", ""]


def test_a_data_set_reads_the_rows_that_are_written(folder: Path) -> None:
    write_table(folder / "rows.csv", columns(folder, write_five(folder / "edit1_FiVE.json"), "five-bench"))
    rows = read_rows(dataset_request(source=str(folder / "rows.csv")))
    assert [(row.id, row.source_prompt, row.prompt) for row in rows] == [
        ("kite/1", "a red kite", "a blue kite"),
        ("boat/1", "a boat", "a raft {1}"),
        ("kite/2", "a red kite", "a green kite"),
    ]
    assert rows[0].source == str(folder / KITE)


@pytest.mark.parametrize(
    ("benchmark", "content", "words"),
    [
        ("five-bench", "[", "does not have the layout of five-bench"),
        ("five-bench", "[]", "it has no edits"),
        ("five-bench", '[{"video_name": "kite"}]', "an entry lacks 'source_prompt'"),
        ("five-bench", "[3]", "does not have the layout"),
        ("five-bench", '[{"video_name": 3, "source_prompt": "", "target_prompt": "x"}]', "the video cannot be 3"),
        ("five-bench", '[{"video_name": "kite", "source_prompt": "", "target_prompt": " "}]', "the prompt cannot be"),
        (
            "five-bench",
            '[{"video_name": "ox", "source_prompt": "", "target_prompt": "x"}]',
            "Of the 1 videos of .*, 1 are not in .*'ox'",
        ),
        ("loveu-tgve", "Video,Caption\n", "'Video name' is not in list"),
        ("v2vbench", "data: 3", "does not have the layout"),
        ("v2vbench", "data: [", "does not have the layout"),
        ("v2vbench", "{}", "lacks 'data'"),
        ("davis", "", "no benchmark 'davis'; choose from five-bench, loveu-tgve, v2vbench"),
    ],
)
def test_a_file_of_another_layout_and_a_missing_video_are_errors_in_one_sentence(
    benchmark: str, content: str, words: str, folder: Path
) -> None:
    (folder / "prompts.csv").write_text(content)
    with pytest.raises(TaskInputError, match=words) as caught:
        columns(folder, folder / "prompts.csv", benchmark)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_workbook_and_files_that_are_missing_are_errors(folder: Path) -> None:
    (folder / "prompts.xlsx").write_text("no workbook")
    with pytest.raises(TaskInputError, match="layout of loveu-tgve"):
        columns(folder, folder / "prompts.xlsx", "loveu-tgve")
    for benchmark in BENCHMARKS:
        with pytest.raises(TaskInputError, match=r"no prompt file .*gone\.json"):
            columns(folder, folder / "gone.json", benchmark)
    with pytest.raises(TaskInputError, match=r"no folder .* of masks"):
        columns(folder, write_five(folder / "edit1_FiVE.json"), "five-bench", masks=folder / "gone")


def test_two_videos_of_one_name_are_an_error(folder: Path) -> None:
    (folder / "videos" / "kite.mp4").touch()
    with pytest.raises(TaskInputError, match="two videos 'kite'"):
        columns(folder, write_five(folder / "edit1_FiVE.json"), "five-bench")
