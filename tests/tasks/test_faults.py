"""Every write of an edit fails once, in every way: the same command finishes it, and computes nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.faults import Effect, Faults
from tasks.planning.request import EditRequest, edit_request
from tests._clips import save_clip
from tests._faults import Quiet, check_left, fails_then_resumes, interrupted, resumes, run_quietly

EFFECTS: tuple[Effect, ...] = ("error", "kill", "half", "lost")


@pytest.fixture(scope="module")
def request_(sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> EditRequest:
    clip = save_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=3)
    texts = {"prompt": "a blue star", "source_prompt": "a red star"}
    return edit_request(video=str(clip), model=str(sd15), steps=1, keyframe_interval=2, **texts)


@pytest.fixture(scope="module")
def quiet(request_: EditRequest, tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    return run_quietly(request_, str(tmp_path_factory.mktemp("quiet")))


def place(folder: Path, effect: Effect) -> str:
    """Return a workspace: the answers of an object store get lost, those of a folder do not."""
    return f"memory://{folder}" if effect == "lost" else str(folder / "workspace")


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_edit_with_a_tenth_of_its_writes_failing_one_after_the_other_is_that_without(
    tmp_path: Path, request_: EditRequest, quiet: Quiet, effect: Effect
) -> None:
    url = place(tmp_path, effect)
    keys = [key for key in quiet.keys if not key.startswith("tables/")]  # those of tables are never written again
    for key in keys[2 * EFFECTS.index(effect) + 2 :: 10]:
        faults = Faults(choose=lambda _, each, key=key: effect if each == key else None)
        assert interrupted(request_, url, faults, dies=effect == "kill")
        check_left(url, quiet)
    resumes(request_, url, quiet)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("effect", EFFECTS)
def test_an_edit_with_any_of_its_writes_failing_is_resumed_to_the_same_frames(
    tmp_path: Path, request_: EditRequest, quiet: Quiet, effect: Effect
) -> None:
    for number, key in enumerate(quiet.keys):
        if effect == "half" and key.endswith(".parquet"):
            continue  # a damaged file of records is reported with its name; see tests/storage/test_record_files.py
        fails_then_resumes(request_, place(tmp_path / str(number), effect), quiet, number=number, effect=effect)
