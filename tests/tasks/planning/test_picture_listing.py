from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.errors import VideoError
from storage.video import read_frames
from tasks.errors import TaskInputError
from tasks.planning.clip_listing import is_listing
from tasks.planning.input_video import check_video, clip_name, kept_downloads, local_video, packing_notes
from tasks.planning.manifest_table import read_table
from tasks.planning.picture_listing import is_pictures, list_pictures
from tasks.planning.request import edit_request


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of pictures, each of one grey that its number says."""
    folder = tmp_path / "shots"
    (folder / "more").mkdir(parents=True)
    for name in ("f10.png", "f9.PNG", "f100.png", ".hidden.png", "more/f1.png"):
        number = int("".join(filter(str.isdigit, name)) or 0)
        Image.new("RGB", (32, 24), (number, number, number)).save(folder / name, "PNG")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize(
    ("video", "names"),
    [
        ("shots", ["f9.PNG", "f10.png", "f100.png"]),
        ("shots/", ["f9.PNG", "f10.png", "f100.png"]),
        ("shots/f1*.png", ["f10.png", "f100.png"]),
        ("shots/**/*1*.png", ["f10.png", "f100.png", "f1.png"]),
        ("shots/f10.png", ["f10.png"]),
    ],
)
def test_pictures_are_listed_in_natural_order(
    video: str, names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert [path.name for path in list_pictures(video)] == names
    assert is_pictures(video) == (video != "shots/f10.png")


def test_a_file_with_a_bracket_in_its_name_is_no_glob(tmp_path: Path) -> None:
    (tmp_path / "clip[1].mp4").write_bytes(b"")
    assert not is_pictures(str(tmp_path / "clip[1].mp4"))


def test_a_path_that_cannot_be_reached_is_no_picture(tmp_path: Path) -> None:
    video = str(tmp_path / f"{'x' * 300}.png")
    assert not is_pictures(video)
    with pytest.raises(TaskInputError, match="There is no file"):
        list_pictures(video)
    with pytest.raises(VideoError, match="File name too long"):
        check_video(video)


@pytest.mark.parametrize("read", [check_video, list_pictures, is_listing, read_table])
def test_a_home_folder_that_does_not_exist_is_refused_in_one_sentence(read: Callable[[str], object]) -> None:
    with pytest.raises(TaskInputError, match=r"does not exist: write ./~no-such-user/a.csv for a name"):
        read("~no-such-user/a.csv")


@pytest.mark.parametrize(("rate", "noted"), [("12", False), (None, True)])
def test_pictures_become_a_clip_once_for_a_run(rate: str | None, noted: bool, folder: Path) -> None:
    chosen = edit_request(video=str(folder), prompt="x", rate=rate).picture_rate
    with kept_downloads(), local_video(str(folder), rate=chosen) as path:
        assert [int(frame.mean()) for _, frame in read_frames(path)] == [9, 10, 100]
        with local_video(str(folder), rate=chosen) as again:
            assert again == path
        lines = ["The pictures are shown at 25 per second: --rate chooses another rate."] if noted else []
        assert packing_notes(path) == lines
    assert not path.exists()


def test_one_picture_with_a_rate_lasts_for_that_time(folder: Path) -> None:
    with local_video(str(folder / "f10.png"), rate=edit_request(video="x", prompt="x", rate=4).picture_rate) as path:
        ((_, frame),) = read_frames(path)
    assert np.all(frame == 10)


def test_what_is_no_picture_is_refused_in_one_sentence(folder: Path, clip: Path) -> None:
    rate = edit_request(video="x", prompt="x", rate="30000/1001").picture_rate
    with pytest.raises(TaskInputError, match=r"The rate is for pictures, and clip\.mp4 has times of its own"):
        check_video(str(clip), rate=rate)
    for video in (str(folder / "more" / "empty"), str(folder / "*.gif")):
        Path(folder / "more" / "empty").mkdir(exist_ok=True)
        with pytest.raises(TaskInputError, match=r"without pictures \(\.png, \.jpg, \.jpeg, \.webp and others\)"):
            check_video(video)
    assert clip_name(f"{folder}/") == "shots"


@pytest.mark.parametrize("rate", ["0", "-1", "fast", "1/0", "nan", "2000", "1/" + "9" * 30])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(TaskInputError, match="is not a number of pictures per second"):
        edit_request(video="x", prompt="x", rate=rate)
