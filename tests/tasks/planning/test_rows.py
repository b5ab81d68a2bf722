from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.planning import row_checks
from tasks.planning.dataset import dataset_request
from tasks.planning.faults import Fault, ManifestError
from tasks.planning.manifest_table import write_table
from tasks.planning.request import edit_request
from tasks.planning.row import Row, manifest_columns, output_path
from tasks.planning.rows import order_by_source, read_rows, sample_rows, shard_rows
from tasks.planning.source_facts import read_source_facts

Manifest = Callable[..., str]
PICTURES = "(.png, .jpg, .jpeg, .webp and others)"
ROW = {"id": "a", "source": "clips/1.mp4", "prompt": "a star"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with clips that are empty: none is opened."""
    for name in ("1.mp4", "2.mp4", "cat/3.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).touch()
    return tmp_path


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    """Write rows next to the clips, in the form that the name asks for."""

    def write(*rows: dict[str, Any], name: str = "m.csv") -> str:
        columns = dict.fromkeys(column for row in rows for column in row)
        missing = "" if name.endswith(("csv", "tsv")) else None
        write_table(folder / name, {column: [row.get(column, missing) for row in rows] for column in columns})
        return str(folder / name)

    return write


def read(source: str, **fields: Any) -> tuple[Row, ...]:
    return read_rows(dataset_request(source=source, **fields))


def faults(source: str, **fields: Any) -> list[tuple[int, str, str, str]]:
    with pytest.raises(ManifestError) as caught:
        read(source, **fields)
    return [(fault.row, fault.id, fault.column, fault.reason) for fault in caught.value.faults]


def draw(purpose: str, seed: int, row_id: str, variant: int) -> int:
    """Draw as the documentation says."""
    return int(sha256(f"{purpose}\0{seed}\0{variant}\0{row_id}".encode()).hexdigest()[:16], 16)


# Reading


def test_control_videos_are_named_as_sources_are(manifest: Manifest, folder: Path) -> None:
    cells = {"controlnet": "canny=auto:0.3; depth=some/net", "control": "depth=clips/2.mp4"}
    (row,) = read(manifest({**ROW, **cells}))
    assert row.request.controlnet == ("canny=auto:0.3", "depth=some/net")
    assert row.request.control == (f"depth={folder / 'clips' / '2.mp4'}",)
    write_table(folder / "again.csv", manifest_columns([row]))
    assert read(str(folder / "again.csv"))[0].request == row.request
    ((_, _, column, reason),) = faults(manifest({**ROW, **cells, "control": "depth=../x.mp4"}))
    assert column == "control"
    assert "x.mp4" in reason


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.json", "m.parquet"])
def test_every_form_of_a_manifest_gives_the_same_edit(name: str, manifest: Manifest, folder: Path) -> None:
    text = name.endswith(("csv", "tsv"))
    settings = {
        "source_prompt": "a ring",
        "negative_prompt": "grey",
        "model": "some/model",
        "vae": "some/vae",
        "lora": "a style.safetensors:0.5; b.safetensors",
        "controlnet": "auto",
        "flow": "raft",
        "keyframe_interval": "4" if text else 4,
        "steps": "20" if text else 20,
        "seed": "7" if text else 7,
        "size": "512x288",
        "guidance_scale": "7.5" if text else 7.5,
        "injection": "0.5" if text else 0.5,
        "preset": "paper",
        "set": "mask.relative=0.02 editing.keep_grow=2",
        "full_resolution": "true" if text else True,
        "start": "0.5" if text else 0.5,
        "end": "0:02",
        "frames": "12" if text else 12,
        "format": "mov",
        "codec": "hevc",
        "crf": "30" if text else 30,
    }
    (row,) = read(manifest({**ROW, **settings, "note": "x"}, name=name))
    video = str(folder / "clips" / "1.mp4")
    assert row.request == edit_request(video=video, prompt="a star", **settings)
    assert (row.number, row.id, row.variant, row.source, row.output) == (1, "a", 0, video, "a")
    assert row.extra == {"note": "x"}


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_text_that_looks_like_something_else_stays_text(name: str, manifest: Manifest) -> None:
    words = ["None", "1e3", "007", "2020-01-01", "true", "NaN", "null", "1.0"]
    rows = read(manifest(*[{**ROW, "id": word, "prompt": word, "note": word} for word in words], name=name))
    assert [(row.id, row.prompt, row.extra["note"]) for row in rows] == [(word, word, word) for word in words]


def test_numbers_are_ids_and_gaps_in_a_column_of_numbers_are_empty(folder: Path) -> None:
    frame = pd.DataFrame([{**ROW, "id": 1, "steps": 20}, {**ROW, "id": 2}])
    frame.to_parquet(folder / "m.parquet")
    assert [(row.id, row.settings["steps"]) for row in read(str(folder / "m.parquet"))] == [("1", 20), ("2", 50)]


def test_an_empty_cell_takes_the_defaults_of_all_rows(manifest: Manifest) -> None:
    source = manifest(
        {**ROW, "steps": "30", "negative_prompt": "dark"}, {**ROW, "id": "b"}, {**ROW, "id": "c", "prompt": ""}
    )
    rows = read(source, prompt="a {id}", defaults={"steps": 20, "negative_prompt": "grey", "seed": 3, "flow": "raft"})
    assert [row.settings["steps"] for row in rows] == [30, 20, 20]
    assert [row.negative_prompt for row in rows] == ["dark", "grey", "grey"]
    assert [row.prompt for row in rows] == ["a star", "a star", "a c"]
    assert [(row.request.seed, row.request.flow) for row in rows] == [(3, "raft")] * 3


def test_a_size_in_json_may_be_two_numbers(manifest: Manifest) -> None:
    rows = read(manifest({**ROW, "size": [288, 512]}, {**ROW, "id": "b", "size": "512x288"}, name="m.json"))
    assert [row.settings["size"] for row in rows] == [(288, 512)] * 2


def test_a_row_says_how_its_result_ends(manifest: Manifest) -> None:
    cells = [{"format": format_, "id": str(number)} for number, format_ in enumerate(["", "webm", "png"])]
    rows = read(manifest(*({**ROW, **cell} for cell in cells)))
    assert [row.suffix for row in rows] == [".mp4", ".webm", ".zip"]


def test_settings_of_the_encoding_that_do_not_fit_are_a_fault_of_their_row(manifest: Manifest) -> None:
    source = manifest({**ROW, "format": "webm", "codec": "h264"}, {**ROW, "id": "b", "format": "mov"})
    reason = "the output cannot be written: webm cannot contain h264: choose vp9 or av1, or another format"
    assert faults(source) == [(1, "a", "format", reason)]


def test_further_columns_are_carried_along_as_they_are(manifest: Manifest) -> None:
    extra = {"tags": ["a", 1], "score": 0.5, "note": " x ", "none": None}
    (row,) = read(manifest({**ROW, **extra}, name="m.jsonl"))
    assert row.extra == extra
    assert [row.text(name) for name in extra] == ['["a", 1]', "0.5", "x", ""]


def test_relative_sources_start_at_the_manifest_and_others_stay(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = ["clips/1.mp4", str(folder / "clips" / "2.mp4"), "https://example.org/a b.mp4", "~/clips/2.mp4"]
    monkeypatch.setenv("HOME", str(folder))
    rows = read(manifest(*[{**ROW, "id": str(i), "source": source} for i, source in enumerate(sources)]))
    clips = folder / "clips"
    assert [row.source for row in rows] == [
        f"{clips}/1.mp4",
        f"{clips}/2.mp4",
        "https://example.org/a b.mp4",
        f"{clips}/2.mp4",
    ]
    monkeypatch.chdir(folder)
    assert read("m.csv")[0].source == f"{clips}/1.mp4"


def test_relative_sources_of_a_manifest_by_url_are_urls() -> None:
    with fsspec.open("memory://rows/m.csv", "wb") as file:
        file.write(b"id,source,prompt\na,clips/1.mp4,a star\n")
    assert [row.source for row in read("memory://rows/m.csv")] == ["memory://rows/clips/1.mp4"]


def test_a_folder_is_a_manifest(folder: Path) -> None:
    rows = read(str(folder / "clips"), prompt="{index}: {name}, {stem} in {folder}")
    assert [(row.id, row.output) for row in rows] == [("1", "1"), ("2", "2"), ("cat/3", "cat/3")]
    assert [row.prompt for row in rows] == ["1: 1.mp4, 1 in clips", "2: 2.mp4, 2 in clips", "3: 3.mp4, 3 in cat"]
    assert rows[2].extra == {"name": "3.mp4", "stem": "3", "folder": "cat", "index": "3"}
    assert [row.id for row in read(f"{folder}/clips/**/3.*", prompt="x")] == ["cat/3"]


def test_two_clips_of_one_name_and_different_forms_are_a_fault(folder: Path) -> None:
    (folder / "clips" / "1.mov").touch()
    assert faults(str(folder / "clips"), prompt="x") == [(2, "1", "id", "row 1 has it, too")]


# Prompts, variants


def test_prompts_take_columns_and_the_source_prompt(manifest: Manifest) -> None:
    row = {
        **ROW,
        "source_prompt": "a {noun}",
        "prompt": "{source_prompt}, {style} {{x}}",
        "negative_prompt": "no {noun}",
    }
    (row_read,) = read(manifest({**row, "noun": "cat {y}", "style": "oil"}))
    assert row_read.source_prompt == "a cat {y}"
    assert row_read.prompt == "a cat {y}, oil {x}"
    assert row_read.negative_prompt == "no cat {y}"


def test_choices_and_seeds_of_variants_are_those_of_the_documentation(manifest: Manifest) -> None:
    colours = ["red", "green", "blue"]
    row = {**ROW, "prompt": "{a|the} {red|green|blue} star", "source_prompt": "{red|green|blue}", "seed": "5"}
    rows = read(manifest({**row, "variants": "40"}))
    assert [row.variant for row in rows] == list(range(40))
    for row_read in rows:
        drawn = [draw(f"choice {i} of prompt", 5, "a", row_read.variant) for i in (0, 1)]
        assert row_read.prompt == f"{['a', 'the'][drawn[0] % 2]} {colours[drawn[1] % 3]} star"
        assert row_read.source_prompt == colours[draw("choice 0 of source_prompt", 5, "a", row_read.variant) % 3]
        expected = draw("seed", 5, "a", row_read.variant) % 2**31 if row_read.variant else 5
        assert row_read.request.seed == expected
    assert len({row.prompt for row in rows}) == 6
    assert len({row.request.seed for row in rows}) == 40


def test_rows_without_a_seed_share_that_of_wave_edit(manifest: Manifest) -> None:
    rows = read(manifest(ROW, {**ROW, "id": "b"}))
    assert {row.request.seed for row in rows} == {edit_request(video="x", prompt="x").seed}


@given(st.permutations(["a", "b", "c", "d"]), st.integers(1, 4), st.integers(1, 5))
def test_variants_depend_on_nothing_but_seed_id_and_number(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], kept: int, variants: int
) -> None:
    def written(ids: Sequence[str], count: int) -> dict[tuple[str, int], tuple[str, int]]:
        path = tmp_path_factory.mktemp("m") / "m.csv"
        prompts = ["{a|b|c|d} {e|f|g}"] * len(ids)
        write_table(path, {"id": ids, "source": ["https://example.org/x"] * len(ids), "prompt": prompts})
        return {row.key: (row.prompt, row.request.seed) for row in read(str(path), variants=count)}

    every, some = written(["a", "b", "c", "d"], 5), written(order[:kept], variants)
    assert len(some) == kept * variants
    assert some.items() <= every.items()


def test_a_single_variant_is_asked_for_by_its_number(manifest: Manifest) -> None:
    every = read(manifest({**ROW, "prompt": "{a|b|c} star", "variants": "8"}))
    rows = [{**ROW, "prompt": "{a|b|c} star", "variant": str(number)} for number in (6, 2)]
    some = read(manifest(*rows))
    assert [(row.key, row.request) for row in some] == [(every[i].key, every[i].request) for i in (6, 2)]


# Faults


def test_every_fault_is_in_the_list_with_row_id_column_and_reason(manifest: Manifest, folder: Path) -> None:
    source = manifest(
        {**ROW, "steps": "20"},
        {**ROW, "id": "b", "steps": "0", "size": "big", "source": "gone.mp4"},
        {**ROW, "id": "", "source": " ", "prompt": ""},
        {**ROW, "prompt": "a {colr} {", "id": "d"},
        {**ROW, "prompt": "a {colr}", "source_prompt": "}", "id": "e", "colour": "x"},
        {**ROW, "variants": "0", "seed": "-1", "id": "f"},
        {**ROW, "variants": "2", "variant": "1", "id": "g"},
        {**ROW},
        {**ROW, "id": "a?"},
        {**ROW, "id": "a_"},
        {**ROW, "id": "h" * 201},
        {**ROW, "id": "i", "source": "clips"},
        {**ROW, "id": "j", "prompt": "{colour}"},
        {**ROW, "id": "b", "seed": "x"},
        {**ROW, "id": "k", "set": "mask.relativ=1"},
    )
    assert (15, "k", "set", "unknown setting mask.relativ: did you mean mask.relative?") in faults(source)
    assert [fault for fault in faults(source) if fault[0] < 15] == [
        (2, "b", "source", f"there is no file {folder}/gone.mp4"),
        (2, "b", "steps", "it cannot be '0', input should be greater than or equal to 1"),
        (2, "b", "size", "the size 'big' is not of the form WxH, for example 512x288"),
        (3, "", "id", "it is empty"),
        (3, "", "source", "it is empty"),
        (3, "", "prompt", "it is empty"),
        (4, "d", "prompt", "the prompt has a { without its } at position 10: write {{ for a brace"),
        (5, "e", "source_prompt", "the prompt has a } without its { at position 1: write }} for a brace"),
        (5, "e", "prompt", "there is no column 'colr' to refer to; near it is colour"),
        (6, "f", "seed", "it cannot be '-1', input should be greater than or equal to 0"),
        (6, "f", "variants", "it cannot be '0', input should be greater than or equal to 1"),
        (7, "g", "variant", "the row has a number of variants as well"),
        (8, "a", "id", "row 1 has it, too"),
        (10, "a_", "id", "its result would be a_, like that of row 9"),
        (11, "h" * 201, "id", "it has more than 200 bytes, too many for a file's name"),
        (
            12,
            "i",
            "source",
            f"{folder}/clips is a folder without pictures (.png, .jpg, .jpeg, .webp and others): name a video file",
        ),
        (13, "j", "prompt", "it is empty once it is filled in"),
        (14, "b", "seed", "it cannot be 'x', input should be a valid integer, unable to parse string as an integer"),
        (14, "b", "id", "row 2 has it, too"),
    ]


def test_the_message_counts_the_faults_and_states_the_first(manifest: Manifest) -> None:
    source = manifest(ROW, {**ROW, "id": "b", "steps": "0"}, {**ROW, "id": "c", "source": ""})
    with pytest.raises(ManifestError) as caught:
        read(source)
    assert str(caught.value) == (
        f"The manifest {source} has 2 faults, the first in row 2, column steps: "
        "it cannot be '0', input should be greater than or equal to 1."
    )
    source = manifest({**ROW, "source": ""})
    with pytest.raises(TaskInputError, match=r"has 1 fault, in row 1, column source: it is empty\.$"):
        read(source)


def test_an_error_arrives_whole_from_another_process() -> None:
    error = ManifestError(
        "manifest m.csv", [Fault(row=2, id="b", column="steps", reason="x"), Fault(row=3, reason="y")]
    )
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  (as Dask and Prefect send errors)
    assert (str(copy), copy.faults) == (str(error), error.faults)


@pytest.mark.parametrize(
    ("row", "fields", "expected"),
    [
        ({"id": "a", "video": "x"}, {}, [("source", "id, video"), ("prompt", "id, video")]),
        ({"sauce": "x", "prompt": "x"}, {}, [("id", "sauce, prompt"), ("source", "near it is sauce")]),
        ({"id": "a"}, {"prompt": "x"}, [("source", "there are id")]),
    ],
)
def test_missing_columns_are_faults_of_the_whole(
    row: dict[str, str], fields: dict[str, str], expected: list[tuple[str, str]], manifest: Manifest
) -> None:
    found = faults(manifest(row), **fields)
    assert [(number, column) for number, _, column, _ in found] == [(0, column) for column, _ in expected]
    assert all(words in reason for (_, words), (*_, reason) in zip(expected, found, strict=True))


def test_rows_that_do_not_fit_the_form_are_in_the_list_with_the_others(folder: Path) -> None:
    (folder / "m.csv").write_text("id,source,prompt\na,clips/1.mp4\nb,gone.mp4,x\nc,clips/1.mp4,x\n")
    assert [fault[:3] for fault in faults(str(folder / "m.csv"))] == [(1, "", ""), (2, "b", "source")]


def test_cells_that_are_not_text_are_faults(manifest: Manifest) -> None:
    source = manifest({"id": ["a"], "source": {}, "prompt": []}, {**ROW, "size": {"a": 1}}, name="m.json")
    assert [fault[2:] for fault in faults(source)][:3] == [
        (name, "it is not text") for name in ("id", "source", "prompt")
    ]
    assert [fault[:3] for fault in faults(source)][3:] == [(2, "a", "size")]


@pytest.mark.parametrize("source", ["~nobody-here/1.mp4", "a\0b.mp4", "x" * 300, "clips/1.mp4/2.mp4"])
def test_a_source_that_cannot_be_a_file_is_a_fault(source: str, manifest: Manifest) -> None:
    assert [fault[:3] for fault in faults(manifest({**ROW, "source": source}))] == [(1, "a", "source")]


def test_a_result_never_overwrites_a_source(manifest: Manifest, folder: Path) -> None:
    source = manifest({**ROW, "id": "x"}, {**ROW, "id": "2"}, {**ROW, "id": "y", "source": "clips/2.mp4"})
    assert faults(source, output=str(folder / "clips")) == [
        (2, "2", "id", f"its result would overwrite the source {folder}/clips/2.mp4")
    ]
    assert len(read(source, output=str(folder / "edits"))) == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"prompt": "a {folde}"},
            "The prompt 'a {folde}' cannot be used: there is no column 'folde' to refer to; near",
        ),
        ({"prompt": "a {"}, "The prompt 'a {' cannot be used: the prompt has a { without its }"),
        ({"prompt": "x", "defaults": {"source_prompt": "{x}"}}, "The source prompt '{x}' cannot be used"),
        ({"prompt": "x", "where": "foldr = 'cat'"}, "The filter has 'foldr' at position 1"),
        ({"prompt": "x", "only": "failed"}, "no status of earlier runs"),
    ],
)
def test_what_the_request_gets_wrong_is_one_sentence_and_not_a_fault_of_each_row(
    fields: dict[str, Any], words: str, folder: Path
) -> None:
    with pytest.raises(TaskInputError) as caught:
        read(str(folder / "clips"), **fields)
    assert words in str(caught.value)
    assert not isinstance(caught.value, ManifestError)


def test_a_manifest_without_rows_is_refused(folder: Path) -> None:
    (folder / "m.csv").write_text("id,source,prompt\n")
    with pytest.raises(TaskInputError, match=r"m\.csv has no rows"):
        read(str(folder / "m.csv"))


def test_all_rows_are_checked_even_those_that_are_not_taken(manifest: Manifest) -> None:
    source = manifest(ROW, {**ROW, "id": "b", "steps": "0"})
    assert len(faults(source, limit=1)) == len(faults(source, where="id = 'a'")) == 1


# Outputs


@pytest.mark.parametrize(
    ("row_id", "variant", "layout", "expected"),
    [
        ("a", 0, "tree", "a"),
        ("a/b.c", 0, "tree", "a/b.c"),
        ("a/b.c", 2, "tree", "a/b.c-v2"),
        ("a/b.c", 2, "flat", "a__b.c-v2"),
        ("a/b.c", 2, "webdataset", "a__b_c-v2"),
        ("../../etc/x", 0, "tree", "_/_/etc/x"),
        ("/a//b/", 0, "tree", "a/b"),
        ("/", 1, "tree", "_-v1"),
        (".hidden", 0, "tree", "_hidden"),
        ('a\\b:*?"<>|\n', 0, "tree", "a_b________"),
        ("a. /b ", 0, "tree", "a/b"),
        ("Äx", 0, "tree", "Äx"),
    ],
)
def test_an_id_becomes_a_path_that_every_file_system_takes(
    row_id: str, variant: int, layout: Any, expected: str
) -> None:
    assert output_path(row_id, variant=variant, layout=layout) == expected


@given(st.text(min_size=1, max_size=60))
def test_no_id_leads_out_of_the_output_folder(row_id: str) -> None:
    for layout in ("tree", "flat", "webdataset"):
        try:
            parts = Path(output_path(row_id, variant=0, layout=layout)).parts
        except ValueError:  # too long, or not valid Unicode
            continue
        assert parts
        assert not any(part.startswith((".", "/")) for part in parts)


# Which rows, in what order


def rows_of(sources: Sequence[str]) -> tuple[Row, ...]:
    """Return one row for each source, with the ids 0, 1, 2 and so on."""
    return tuple(
        Row(
            number=i + 1,
            id=str(i),
            variant=0,
            source=source,
            prompt="x",
            source_prompt="",
            negative_prompt=None,
            seed=0,
            settings={},
            output=str(i),
            extra={},
        )
        for i, source in enumerate(sources)
    )


sources = st.lists(st.sampled_from("abcdefgh"), max_size=40)


@given(sources)
def test_rows_of_one_source_are_put_next_to_one_another(names: list[str]) -> None:
    ordered = order_by_source(rows_of(names))
    assert [(row.source, row.number) for row in ordered] == sorted(
        ((row.source, row.number) for row in rows_of(names)), key=lambda item: (names.index(item[0]), item[1])
    )


@given(sources, st.integers(1, 6))
def test_shards_divide_the_rows_by_source_and_evenly(names: list[str], count: int) -> None:
    rows = rows_of(names)
    shards = [shard_rows(rows, f"{i}/{count}") for i in range(1, count + 1)]
    assert sorted(row.number for shard in shards for row in shard) == [row.number for row in rows]
    assert all(list(shard) == sorted(shard, key=lambda row: row.number) for shard in shards)
    owners = [{row.source for row in shard} for shard in shards]
    assert sum(map(len, owners)) == len(set(names))
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= max(Counter(names).values(), default=0)


def test_shards_have_the_same_number_of_rows_and_not_of_sources() -> None:
    assert [len(shard_rows(rows_of("aaaaaabcdefg"), f"{i}/2")) for i in (1, 2)] == [6, 6]


@given(sources, st.integers(1, 6), st.randoms())
def test_a_shard_does_not_depend_on_the_order_of_the_rows(names: list[str], count: int, random: Any) -> None:
    rows = list(rows_of(names))
    before = {row.id for row in shard_rows(rows, f"1/{count}")}
    random.shuffle(rows)
    assert {row.id for row in shard_rows(rows, f"1/{count}")} == before


@given(sources, st.integers(0, 5), st.integers(1, 40))
def test_a_sample_is_reproducible_and_a_larger_data_set_keeps_its_order(
    names: list[str], seed: int, count: int
) -> None:
    rows = rows_of(names)
    order = [row.id for row in sample_rows(rows, seed=seed, count=len(rows))]
    assert sorted(order) == sorted(row.id for row in rows)
    assert [row.id for row in sample_rows(rows, seed=seed, count=count)] == order[:count]
    some = [row.id for row in sample_rows(rows[: len(rows) // 2], seed=seed, count=len(rows))]
    assert some == [row_id for row_id in order if row_id in some]


def test_samples_of_different_seeds_differ() -> None:
    rows = rows_of("a" * 50)
    samples = {tuple(row.id for row in sample_rows(rows, seed=seed, count=10)) for seed in range(5)}
    assert len(samples) == 5
    assert sample_rows(rows, seed=0, count=50) != list(rows)


@pytest.fixture
def many(manifest: Manifest) -> str:
    """Return a manifest of 30 rows over two sources."""
    return manifest(
        *[{**ROW, "id": str(i), "source": f"https://example.org/{i % 5}", "kind": "ab"[i % 2]} for i in range(30)]
    )


def taken(source: str, *, known: dict[tuple[str, int], str] | None = None, **fields: Any) -> list[int]:
    return [int(row.id) for row in read_rows(dataset_request(source=source, **fields), known=known)]


def test_a_filter_sees_columns_settings_and_defaults(many: str) -> None:
    assert taken(many, where="kind = 'b' and id < 6") == [1, 3, 5]
    assert taken(many, where="source like '*/4' and prompt = 'a star' and variant = 0") == [4, 9, 14, 19, 24, 29]
    assert taken(many, where="steps = 20") == []
    assert taken(many, where="steps = 20 and size = '512x288'", defaults={"steps": 20, "size": "512x288"}) == [
        *range(30)
    ]
    assert taken(many, where="full_resolution = false and guidance_scale is empty") == [*range(30)]


def test_the_filter_comes_before_the_limit(many: str) -> None:
    assert taken(many, where="kind = 'b'", limit=2) == [1, 3]
    sample = taken(many, where="kind = 'b'", limit=4, sample=1)
    assert sample == taken(many, where="kind = 'b'", limit=4, sample=1)
    assert len(sample) == 4
    assert all(number % 2 for number in sample)


def test_only_failed_and_only_missing_take_what_the_status_says(many: str) -> None:
    known = {(str(i), 0): "done" for i in range(28)} | {("3", 0): "failed", ("4", 0): "set aside", ("29", 1): "done"}
    known |= {("5", 0): "cancelled"}
    assert taken(many, known=known, only="failed") == [3]
    assert taken(many, known=known, only="missing") == [5, 28, 29]
    assert taken(many, known=known, only="all") == [*range(30)]
    assert taken(many, known=known, only="failed", limit=1, where="id > 3") == []


def test_shards_of_one_data_set_never_meet_whatever_was_finished_meanwhile(many: str) -> None:
    before = {(str(i), 0): "done" for i in range(30) if i % 5 == 0}
    later = before | {(str(i), 0): "done" for i in range(30) if i % 5 == 1}
    first = taken(many, known=before, only="missing", shard="1/2")
    second = taken(many, known=later, only="missing", shard="2/2")
    assert not set(first) & set(second)
    assert {number % 5 for number in first}.isdisjoint(number % 5 for number in second)
    whole = [taken(many, shard=f"{i}/3", limit=11) for i in (1, 2, 3)]
    assert sorted(number for part in whole for number in part) == [*range(11)]


# Writing and reading again


settings = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.integers(1, 1000),
        "size": st.tuples(st.integers(8, 4096), st.integers(8, 4096)).map(lambda size: f"{size[0]}x{size[1]}"),
        "injection": st.floats(0, 1),
        "full_resolution": st.booleans(),
        "start": st.floats(0, 2),
        "end": st.sampled_from(["2.5", "1:00"]),
        "frames": st.sampled_from(["7", "1:", "2:9"]),
        "format": st.sampled_from(["mp4", "mkv"]),
        "gop": st.integers(1, 99),
        "flow": st.sampled_from(["dis", "raft"]),
        "preset": st.sampled_from(["default", "paper"]),
        "controlnet": st.sampled_from(["none", "auto"]),
        "set": st.sampled_from(["mask.relative=0.02", "mask.relative=0.02 editing.keep_grow=2"]),
        "seed": st.integers(0, 2**31 - 1),
        "variants": st.integers(1, 3),
        "note": st.text(st.characters(exclude_categories=["Cs"])),
        "negative_prompt": st.text("ab{} ", min_size=1).map(
            lambda text: f"x{text}".replace("{", "{{").replace("}", "}}")
        ),
    },
)


@given(st.lists(settings, min_size=1, max_size=4), st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet"]))
def test_rows_that_are_written_and_read_again_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, cells: list[dict[str, Any]], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("m")
    rows = [
        {"id": f"x/{i}", "source": "https://example.org/x", "prompt": "{a|b|{id}} {{x}}", "note": "", **cell}
        for i, cell in enumerate(cells)
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    write_table(folder / f"m{suffix}", {name: [row.get(name) for row in rows] for name in names})
    first = read(str(folder / f"m{suffix}"), defaults={"keyframe_interval": 3})
    write_table(folder / f"n{suffix}", manifest_columns(first))
    second = read(str(folder / f"n{suffix}"))
    assert [row.request for row in second] == [row.request for row in first]
    assert [(row.key, row.output, row.extra) for row in second] == [(row.key, row.output, row.extra) for row in first]


# Speed


def test_what_twenty_thousand_rows_have_in_common_is_checked_once(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = Counter[str]()
    for name in ("check_settings", "check_source", "parse_template"):
        original = getattr(row_checks, name)

        def counting(*args: Any, name: str = name, original: Callable[..., Any] = original, **named: Any) -> Any:
            checked[name] += 1
            return original(*args, **named)

        monkeypatch.setattr(row_checks, name, counting)
    for i in range(200):
        (folder / f"{i}.mp4").touch()
    rows = [
        {
            "id": f"row {i}",
            "source": f"{i % 200}.mp4",
            "prompt": f"{{a|b}} star {i % 7}",
            "steps": f"{20 + i % 3}",
            "seed": f"{i % 5}",
        }
        for i in range(20_000)
    ]
    assert len(read(manifest(*rows))) == 20_000
    assert checked == {"check_settings": 3 + 5, "check_source": 200, "parse_template": 7}


# Pictures


def pictures(folder: Path) -> Path:
    for number in range(3):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_a_folder_and_a_glob_of_pictures_are_sources_with_a_rate(manifest: Manifest, folder: Path) -> None:
    pictures(folder / "clips" / "cat")
    rows = read(
        manifest(
            ROW | {"id": "a", "source": "clips/cat", "rate": "12"},
            ROW | {"id": "b", "source": "clips/cat/*.png", "rate": "30000/1001"},
            ROW | {"id": "c", "source": "clips/cat/1.png", "rate": "1"},
            ROW | {"id": "d", "source": "clips/1.mp4", "rate": ""},
        )
    )
    assert [row.clip for row in rows] == [
        (str(folder / "clips/cat"), 12),
        (str(folder / "clips/cat/*.png"), Fraction(30000, 1001)),
        (str(folder / "clips/cat/1.png"), 1),
        (str(folder / "clips/1.mp4"), None),
    ]
    assert [row.request.rate for row in rows] == ["12", "30000/1001", "1", None]


def test_pictures_of_a_manifest_are_below_its_folder_and_a_rate_is_theirs_alone(
    manifest: Manifest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = pictures(tmp_path_factory.mktemp("outside"))
    (folder / "clips" / "linked").mkdir()
    (folder / "clips" / "linked" / "0.png").symlink_to(outside / "0.png")
    found = faults(
        manifest(
            ROW | {"id": "a", "source": str(outside)},
            ROW | {"id": "b", "source": f"{outside}/*.png"},
            ROW | {"id": "c", "source": "clips/linked"},
            ROW | {"id": "d", "source": "clips/1.mp4", "rate": "12"},
            ROW | {"id": "e", "source": "clips/*.webp"},
        )
    )
    assert [(row, column) for row, _, column, _ in found] == [
        (1, "source"),
        (2, "source"),
        (3, "source"),
        (4, "rate"),
        (5, "source"),
    ]
    reasons = [reason for *_, reason in found]
    assert all("outside of the manifest's folder" in reason for reason in reasons[:3])
    assert reasons[3] == "it is for pictures, and the source has times of its own"
    assert "is a glob without pictures" in reasons[4]


def test_facts_of_pictures_are_read_again_when_one_of_them_changes(folder: Path, tmp_path: Path) -> None:
    clip = (str(pictures(folder / "clips" / "cat")), Fraction(12))
    workspace = Workspace.open(tmp_path / "workspace")
    first, other = (read_source_facts([each], workspace, remember=True)[each].clip for each in (clip, (clip[0], None)))
    assert first is not None
    assert other is not None
    assert (first.frame_count, first.rate, other.rate) == (3, 12.0, 25.0)
    Image.new("RGB", (16, 16), "white").save(folder / "clips" / "cat" / "9.png")
    again = read_source_facts([clip], workspace, remember=True)[clip].clip
    assert again is not None
    assert again.frame_count == 4
    assert again.digest != first.digest
