from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from flows.cli import main
from tasks.planning.dataset import dataset_request
from tasks.planning.manifest_table import read_table
from tasks.planning.rows import read_rows
from tests._clips import save_clip


def run(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["wave", "manifest", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with clips that are empty."""
    for name in ("10.mp4", "9.mp4", "cat/ 1.mp4", "~2.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).touch()
    return tmp_path / "clips"


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.json", "m.parquet"])
def test_the_manifest_of_a_folder_has_the_rows_of_the_folder(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    prompt = "{red|blue} {folder}, {{index}}"
    assert run(folder, "--prompt", prompt, "-o", folder / name, monkeypatch=monkeypatch) == 0
    assert f"{folder / name} has 4 rows" in capfd.readouterr().out
    written = read_rows(dataset_request(source=str(folder / name), variants=3))
    assert written == read_rows(dataset_request(source=str(folder), prompt=prompt, variants=3))


def test_sources_below_the_manifest_are_relative_and_others_absolute(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert run("clips", "-o", "m.csv", monkeypatch=monkeypatch) == 0
    with Path("m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "id": "9",
        "source": "clips/9.mp4",
        "prompt": "",
        "name": "9.mp4",
        "stem": "9",
        "folder": "clips",
        "index": "1",
    }
    assert run("clips", "-o", "lists/m.csv", monkeypatch=monkeypatch) == 0
    assert read_table("lists/m.csv").columns["source"][0] == str(folder / "9.mp4")
    assert run("clips", "-o", "clips/m.csv", monkeypatch=monkeypatch) == 0
    assert read_table("clips/m.csv").columns["source"] == [
        "9.mp4",
        "10.mp4",
        "cat/ 1.mp4",
        str(folder / "~2.mp4"),  # else a reader would look for a person of this name
    ]


def test_a_probe_adds_columns_and_says_which_clips_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    save_clip(tmp_path / "1.mp4")
    (tmp_path / "2.mp4").write_text("no video")
    assert (
        run(tmp_path, "--probe", "--prompt", "{frame_count}", "-o", tmp_path / "m.jsonl", monkeypatch=monkeypatch) == 0
    )
    said = capfd.readouterr().err
    assert "Not read: " in said
    assert "2.mp4 is not a video" in said
    columns = read_table(str(tmp_path / "m.jsonl")).columns
    assert {name: columns[name] for name in ("id", "width", "height", "frame_count")} == {
        "id": ["1", "2"],
        "width": [64, None],
        "height": [48, None],
        "frame_count": [7, None],
    }
    assert columns["duration"] == [pytest.approx(8 / 12, abs=0.01), None]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["FOLDER", "-o", "m.txt"], "must end with one of .csv"),
        (["FOLDER", "-o", "old.csv"], "exists; --overwrite replaces it"),
        (["FOLDER", "-o", "dir.csv"], "is a folder"),
        (["FOLDER", "-o", "old.csv/m.csv"], "cannot be written"),
        (["nowhere", "-o", "m.csv"], "There is no video in the folder nowhere"),
        (["FOLDER", "-o", "m.csv", "--prompt", "{frame_count}"], "no column 'frame_count' to refer to"),
        (["FOLDER", "-o", "m.csv", "--prompt", "{"], "{ without its }"),
        (["FOLDER"], "--output"),
        ([], "Missing"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    arguments: list[str],
    words: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("COLUMNS", "200")
    Path("old.csv").write_text("old")
    Path("dir.csv").mkdir()
    assert run(*[argument.replace("FOLDER", "clips") for argument in arguments], monkeypatch=monkeypatch) != 0
    said = capfd.readouterr().err.strip()
    assert words in said
    assert "\n" not in said
    assert Path("old.csv").read_text() == "old"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["clips", "dir.csv", "old.csv"]


def test_a_manifest_is_replaced_when_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "m.csv"
    path.write_text("old")
    assert run(folder, "-o", path, "--overwrite", monkeypatch=monkeypatch) == 0
    assert len(read_table(str(path))) == 4


def test_a_prompt_file_of_a_benchmark_becomes_a_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    entry = {"video_name": "10", "source_prompt": "a cat", "target_prompt": "a dog"}
    prompts, out = folder / "edit1_FiVE.json", folder / "m.csv"
    prompts.write_text(json.dumps([entry]))
    arguments = (prompts, "--from", "five-bench", "--videos", folder, "-o", out)
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert "has 1 rows" in capfd.readouterr().out
    (row,) = read_rows(dataset_request(source=str(out)))
    assert (row.id, row.prompt, row.source) == ("10/1", "a dog", str(folder / "10.mp4"))
    assert run(*arguments[:3], "-o", folder / "n.csv", monkeypatch=monkeypatch) == 1
    assert "--videos" in capfd.readouterr().err
    assert run(folder, "--videos", folder, "-o", folder / "n.csv", monkeypatch=monkeypatch) == 1
    assert "--from" in capfd.readouterr().err
