from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import TaskInputError
from tasks.planning.manifest_table import SUFFIXES, cell_text, manifest_suffix, read_table, write_table

Cells = dict[str, list[Any]]


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.lists(
    st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), min_size=1, max_size=4, unique=True
)


@st.composite
def tables(draw: st.DrawFn) -> Cells:
    count = draw(st.integers(1, 4))
    return {name: draw(st.lists(texts, min_size=count, max_size=count)) for name in draw(names)}


@given(tables(), st.sampled_from(SUFFIXES))
def test_any_text_that_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, cells: Cells, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"m{suffix}"
    write_table(path, cells)
    assert read_table(str(path)).columns == cells


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_types_and_gaps_survive_in_forms_that_have_them(suffix: str, tmp_path: Path) -> None:
    cells: Cells = {"a": [1, None], "b": [0.5, None], "c": [True, False], "d": [["x"], []], "e": [None, "x"]}
    write_table(tmp_path / f"m{suffix}", cells)
    assert read_table(str(tmp_path / f"m{suffix}")).columns == cells


def test_csv_has_a_text_for_every_value(tmp_path: Path) -> None:
    write_table(tmp_path / "m.csv", {"a": [1, None], "b": [0.1, 2.0], "c": [True, False]})
    assert (tmp_path / "m.csv").read_text() == "a,b,c\n1,0.1,true\n,2,false\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "\ufeffid,prompt\r\n007,None\r\n1e3,\r\n"),
        ("m.csv", '\nid,prompt\n"007","None"\n\n1e3,""\n'),
        ("m.tsv", "id\tprompt\n007\tNone\n1e3\t\n"),
        ("m.JSON", '[{"id": "007", "prompt": "None"}, {"prompt": "", "id": "1e3"}]'),
        ("m.jsonl", '{"id": "007", "prompt": "None"}\r\n\n{"id": "1e3", "prompt": ""}'),
    ],
)
def test_text_stays_as_it_is_written(name: str, content: str, tmp_path: Path) -> None:
    table = read_table(written(tmp_path, name, content.lstrip("\n") if name != "m.csv" else content.removeprefix("\n")))
    assert table.columns == {"id": ["007", "1e3"], "prompt": ["None", ""]}
    assert (len(table), table.faults, table.folder) == (2, (), str(tmp_path))


def test_a_parquet_file_of_pandas_has_its_columns_and_not_its_index(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "b", "c"], "steps": [20, None, 30]}).iloc[[2, 0, 1]]
    frame.to_parquet(tmp_path / "m.parquet")
    columns = read_table(str(tmp_path / "m.parquet")).columns
    assert list(columns) == ["id", "steps"]
    assert [cell_text(value) for value in columns["steps"]] == ["30", "20", ""]


def test_keys_that_some_objects_lack_are_empty_there(tmp_path: Path) -> None:
    path = written(tmp_path, "m.jsonl", '{"id": "a"}\n{"id": "b", "note": "x"}')
    assert read_table(path).columns == {"id": ["a", "b"], "note": [None, "x"]}


@pytest.mark.parametrize(
    ("name", "content", "faults"),
    [
        ("m.csv", "id,prompt\na,x\nb\nc,x,y\nd,x\n", ["row 2: it has 1 cells", "row 3: it has 3 cells"]),
        ("m.jsonl", '{"id": "a"}\n{"id":\n[1]\n{"id": "d"}', ["row 2: not JSON", "row 3: not a JSON object"]),
    ],
)
def test_rows_of_another_form_are_faults_and_the_others_keep_their_numbers(
    name: str, content: str, faults: list[str], tmp_path: Path
) -> None:
    table = read_table(written(tmp_path, name, content))
    assert len(table) == 4
    assert table.columns["id"][3] == "d"
    for fault, words in zip(table.faults, faults, strict=True):
        assert str(fault).startswith(words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.txt", "id", "must end with one of .csv, .tsv"),
        ("gone.csv", None, "There is no manifest"),
        ("m.csv", "", "it is empty"),
        ("m.csv", "id,id\na,b", "two columns 'id'"),
        ("m.csv", "id,,\na,b,c", "two columns without a name"),
        ("m.csv", 'id,prompt\na,"x\nb,y', "cannot be read"),
        ("m.csv", b"\xff\xfe\x00", "cannot be read"),
        ("m.json", "{", "cannot be read"),
        ("m.json", '{"id": ["a"]}', "expected a list of objects"),
        ("m.json", "[1]", "expected a list of objects"),
        ("m.jsonl", b"\xff", "cannot be read"),
        ("m.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused_in_one_sentence(
    name: str, content: str | bytes | None, words: str, tmp_path: Path
) -> None:
    path = str(tmp_path / name) if content is None else written(tmp_path, name, content)
    with pytest.raises(TaskInputError, match=words) as caught:
        read_table(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_by_url_is_read_and_its_folder_is_a_url() -> None:
    with fsspec.open("memory://manifests/m.csv", "wb") as file:
        file.write(b"id\na\n")
    table = read_table("memory://manifests/m.csv")
    assert (table.columns, table.folder) == ({"id": ["a"]}, "memory://manifests")
    with pytest.raises(TaskInputError, match=r"There is no manifest memory://manifests/gone\.csv"):
        read_table("memory://manifests/gone.csv")
    with pytest.raises(TaskInputError, match="has the scheme nowhere"):
        read_table("nowhere://m.csv")


def test_a_suffix_is_found_in_paths_and_urls() -> None:
    assert [manifest_suffix(path) for path in ("a/m.CSV", "https://x/m.csv?v=1", "m", "m.mp4", "what?.csv")] == [
        ".csv",
        ".csv",
        "",
        "",
        ".csv",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" a ", "a"),
        (None, ""),
        (math.nan, ""),
        (True, "true"),
        (7, "7"),
        (7.0, "7"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (["a", 1], '["a", 1]'),
        (pd.Timestamp("2020-01-02").date(), "2020-01-02"),
    ],
)
def test_a_cell_has_a_text(value: object, text: str) -> None:
    assert cell_text(value) == text


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("[]")
    with pytest.raises(TaskInputError, match="cannot be written"):
        write_table(path, {"a": [object()]})
    with pytest.raises(TaskInputError, match="must end with"):
        write_table(tmp_path / "m.txt", {"a": ["b"]})
    assert json.loads(path.read_text()) == []
    assert [file.name for file in tmp_path.iterdir()] == ["m.json"]
    with pytest.raises(TaskInputError, match="cannot be written"):
        write_table(tmp_path / "m.parquet", {"a": [1, "b"]})


FORMULAS = ["=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(A1)", "'=1", "-1.5", "a star", "", "'tis"]


@pytest.mark.parametrize("name", ["m.csv", "m.tsv"])
def test_formulas_are_escaped_and_read_back(name: str, tmp_path: Path) -> None:
    columns = {"id": [str(number) for number in range(len(FORMULAS))], "prompt": FORMULAS, "=1+1": FORMULAS}
    write_table(tmp_path / name, columns)
    assert read_table(str(tmp_path / name)).columns == columns
    text = (tmp_path / name).read_text()
    assert not any(f"{mark}{sign}" in text for mark in (",", "\t", "\n", '"') for sign in ("=", "+", "@", "-2"))
