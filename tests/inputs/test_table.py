from __future__ import annotations

from pathlib import Path

import pytest

from tests.inputs.table import Combination, Outcome, table, try_all, try_combination


@pytest.mark.slow
def test_everything_is_kept_of_clips_in_every_container_and_codec(tmp_path: Path) -> None:
    outcomes = list(try_all(tmp_path))
    assert [each for each in outcomes if not each.is_expected] == []
    assert len(outcomes) > 150
    assert {each.frames for each in outcomes} == {12}
    text = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()
    assert table(outcomes) in text


@pytest.mark.parametrize(("ending", "video"), [("avi", "libx264"), ("asf", "libx264"), ("avi", "mpeg2video")])
def test_frames_that_are_decoded_in_another_order_keep_their_times(ending: str, video: str, tmp_path: Path) -> None:
    found = try_combination(tmp_path, Combination(ending, video))
    assert found is not None
    assert (found.frames, found.failed, found.notes) == (12, (), ())


def test_what_cannot_be_written_has_no_outcome(tmp_path: Path) -> None:
    assert try_combination(tmp_path, Combination("webm", "libx264")) is None


def test_codecs_with_one_result_share_a_row() -> None:
    again = "was encoded again."
    outcomes = [
        Outcome(Combination("mkv", "libx264"), 12, (), ()),
        Outcome(Combination("mkv", "ffv1"), 12, ("duration",), ()),
        Outcome(Combination("mkv", "libx264", "pcm_u8"), 12, (), (f"Audio in pcm_u8 {again}",)),
        Outcome(Combination("mkv", "libx264", "pcm_alaw"), 12, (), (f"Audio in pcm_alaw {again}",)),
    ]
    assert table(outcomes).splitlines()[2:] == [
        "| .mkv | video | h264 | all |  |",
        "| .mkv | video | ffv1 | all but duration |  |",
        f"| .mkv | audio | pcm_u8, pcm_alaw | all | Audio {again} |",
    ]
