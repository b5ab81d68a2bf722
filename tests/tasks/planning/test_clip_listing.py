from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from tasks.errors import TaskInputError
from tasks.planning.clip_listing import is_listing, list_clips


def ids(source: Path | str, *, exclude: Path | str | None = None) -> list[object]:
    return list(list_clips(str(source), exclude=None if exclude is None else str(exclude)).columns["id"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of files that are empty: a listing opens none."""
    root = tmp_path / "clips"
    for name in ("10.mp4", "9.MOV", "cat/Clip 2.mp4", "cat/clip 10.webm", "cat/small/a.b.mkv", "cat/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_lists_every_video_below_it_in_natural_order(folder: Path) -> None:
    table = list_clips(str(folder))
    assert table.columns == {
        "id": ["9", "10", "cat/Clip 2", "cat/clip 10", "cat/small/a.b"],
        "source": [
            str(folder / name)
            for name in ("9.MOV", "10.mp4", "cat/Clip 2.mp4", "cat/clip 10.webm", "cat/small/a.b.mkv")
        ],
        "name": ["9.MOV", "10.mp4", "Clip 2.mp4", "clip 10.webm", "a.b.mkv"],
        "stem": ["9", "10", "Clip 2", "clip 10", "a.b"],
        "folder": ["clips", "clips", "cat", "cat", "small"],
        "index": ["1", "2", "3", "4", "5"],
    }
    assert table.title == f"folder {folder}"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["10"]),
        ("*", ["9", "10"]),
        ("*/*", ["cat/Clip 2", "cat/clip 10"]),
        ("**/*.mp4", ["10", "cat/Clip 2"]),
        ("cat/**", ["Clip 2", "clip 10", "small/a.b"]),
        ("c?t/Clip*", ["cat/Clip 2"]),
        ("[0-9].*", ["9"]),
    ],
)
def test_a_glob_lists_what_matches_with_ids_from_its_first_wildcard(
    pattern: str, expected: list[str], folder: Path
) -> None:
    assert ids(folder / pattern) == expected


def test_a_glob_looks_no_deeper_than_it_can_match_and_past_old_listings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    find = LocalFileSystem.find

    def finding(self: LocalFileSystem, path: str, **options: Any) -> Any:
        asked.append(options["maxdepth"])
        return find(self, path, **options)

    monkeypatch.setattr(LocalFileSystem, "find", finding)
    monkeypatch.setattr(LocalFileSystem, "invalidate_cache", lambda *_: asked.append("fresh"))
    for pattern in ("*.mp4", "*/*", "**/*.mp4"):
        ids(folder / pattern)
    assert asked == ["fresh", 1, "fresh", 2, "fresh", None]


def test_a_relative_source_is_listed_with_absolute_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert list_clips("clips").columns == list_clips(str(folder)).columns
    assert list_clips("clips/*.mp4").columns["source"] == [str(folder / "10.mp4")]


def test_a_folder_with_wildcards_in_its_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "clips [2020]").mkdir()
    (tmp_path / "clips [2020]" / "a.mp4").touch()
    assert ids(tmp_path / "clips [2020]") == ["a"]


@pytest.mark.parametrize("hidden", ["._a.mp4", ".partial-a.mp4", ".cache/a.mp4", "wave-workspace/clips/x/edited.mp4"])
def test_hidden_files_and_workspaces_are_left_out(hidden: str, folder: Path) -> None:
    before = ids(folder)
    (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
    (folder / hidden).touch()
    (folder / "wave-workspace").mkdir(exist_ok=True)
    (folder / "wave-workspace" / "zarr.json").touch()
    assert ids(folder) == before
    assert ids(folder / "**/*") == before


def test_the_results_of_the_night_before_are_not_sources(folder: Path, tmp_path: Path) -> None:
    before = ids(folder)
    (folder / "edited").mkdir()
    (folder / "edited" / "9.mp4").touch()
    (folder / "edited2.mp4").touch()
    assert ids(folder, exclude=folder / "edited") == [*before, "edited2"]
    (tmp_path / "link").symlink_to(folder / "edited")
    assert ids(folder, exclude=tmp_path / "link") == [*before, "edited2"]
    assert ids(folder, exclude=tmp_path) == [*before, "edited/9", "edited2"]
    assert ids(folder, exclude="memory://edited") == [*before, "edited/9", "edited2"]


def test_results_cannot_go_among_the_sources(folder: Path) -> None:
    with pytest.raises(TaskInputError, match="is the folder of the sources"):
        ids(folder, exclude=folder)
    with pytest.raises(TaskInputError, match="is the folder of the sources"):
        ids(folder / "*.mp4", exclude=folder)


def test_a_link_to_a_clip_is_a_clip(folder: Path) -> None:
    (folder / "link.mp4").symlink_to(folder / "10.mp4")
    assert "link" in ids(folder)


def test_a_folder_by_url_is_listed_with_urls() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/bucket/a/2.mp4": b"", "/bucket/a/10.mp4": b"", "/bucket/out/2.mp4": b"", "/bucket/x.txt": b""})
    table = list_clips("memory://bucket", exclude="memory://bucket/out/")
    assert table.columns["id"] == ["a/2", "a/10"]
    for source in table.columns["source"]:
        with fsspec.open(source, "rb") as file:
            assert file.read() == b""
    assert ids("memory://bucket/*/2.mp4") == ["a/2", "out/2"]
    filesystem.pipe("/bucket/a/3.mp4", b"")
    assert ids("memory://bucket/a/") == ["2", "3", "10"]


def test_what_is_a_listing_and_what_a_manifest(folder: Path) -> None:
    (folder / "odd.csv").mkdir()
    listings = [str(folder), f"{folder}/*.mp4", str(folder / "odd.csv"), "s3://bucket/clips", "s3://bucket/*.mp4"]
    assert all(is_listing(source) for source in listings)
    assert not any(is_listing(source) for source in ("m.csv", "gone/m.parquet", "https://x/m.csv?v=1"))
    with pytest.raises(TaskInputError, match=r"There is no folder nowhere; a manifest ends with one of \.csv"):
        is_listing("nowhere")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("EMPTY", "There is no video in the folder .*empty; videos end with .mp4"),
        ("EMPTY/*.mp4", "There is no video in the glob"),
        ("EMPTY/a**/*.mp4", "The glob .* cannot be used"),
        ("memory://nothing", "There is no video in the folder memory://nothing"),
        ("nowhere://clips", "nowhere://clips has the scheme nowhere"),
    ],
)
def test_a_place_without_videos_is_one_sentence(source: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskInputError, match=words) as caught:
        list_clips(source.replace("EMPTY", str(tmp_path / "empty")))
    assert "\n" not in str(caught.value)
