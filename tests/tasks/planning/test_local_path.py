from __future__ import annotations

from pathlib import Path

import pytest

from tasks.delivery import files_of, output_location
from tasks.errors import TaskInputError
from tasks.planning.clip_listing import list_clips
from tasks.planning.input_video import clip_name, local_video
from tasks.planning.local_path import file_url, local_path
from tasks.planning.row_checks import check_source
from tasks.planning.source_policy import SourcePolicy

NAMES = ["a b.mp4", "100%.mp4", "a%20b.mp4", "#1?.mp4", "ü.mp4"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_url_names_the_same_file_as_source_output_and_row(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"clip")
    url = path.as_uri()
    assert local_path(url) == path
    assert clip_name(url) == name
    with local_video(url) as copy:
        assert (copy.read_bytes(), copy.name) == (b"clip", name)
    files, key = files_of(url)
    assert files.read(key) == b"clip"
    policy = SourcePolicy()
    assert check_source(url, folder=str(tmp_path), policy=policy) == (url, "")
    assert "outside" in check_source(url, folder=str(tmp_path / "other"), policy=policy)[1]


def test_clips_below_a_file_url_are_listed_by_urls_that_name_them(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_bytes(b"")
    listed = list_clips(file_url(str(tmp_path))).columns["source"]
    assert sorted(map(str, map(local_path, map(str, listed)))) == sorted(str(tmp_path / name) for name in NAMES)


def test_a_row_is_delivered_below_a_file_url_under_its_own_name(tmp_path: Path) -> None:
    location = output_location(tmp_path.as_uri(), "cats/50%25 #1", suffix=".mp4")
    assert local_path(location) == tmp_path / "cats" / "50%25 #1.mp4"


@pytest.mark.parametrize("url", ["file://host/a.mp4", "file://a.mp4", "file://"])
def test_a_file_url_of_another_machine_is_refused(url: str) -> None:
    with pytest.raises(TaskInputError, match="must begin with file:///"):
        local_path(url)


@pytest.mark.parametrize("path", ["a\0b.mp4", "file:///a%00b.mp4"])
def test_a_path_with_a_zero_byte_is_refused(path: str) -> None:
    with pytest.raises(TaskInputError, match="zero byte"):
        local_path(path)
