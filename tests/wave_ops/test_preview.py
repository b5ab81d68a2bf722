from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from wave_ops.errors import WaveOpsError
from wave_ops.preview import contact_sheet, side_by_side


def numbered(count: int, size: tuple[int, int]) -> np.ndarray:
    """Return frames of one colour each, (10 + index, 0, 0)."""
    frames = np.zeros((count, *size, 3), np.uint8)
    frames[..., 0] = 10 + np.arange(count)[:, None, None]
    return frames


def reds(sheet: np.ndarray) -> list[int]:
    """Return the red values of the cells, from left to right."""
    pure = (sheet[..., 1] == 0) & (sheet[..., 2] == 0)
    return list(dict.fromkeys(sheet[..., 0][pure].tolist()))


def test_a_sheet_shows_the_first_the_last_and_evenly_between() -> None:
    assert reds(contact_sheet({"source": numbered(22, (16, 16))}, columns=4)) == [10, 17, 24, 31]


def test_a_short_clip_shows_each_frame_once() -> None:
    assert reds(contact_sheet({"source": numbered(3, (16, 16))}, columns=8)) == [10, 11, 12]


def test_chosen_frames_are_shown_in_their_order() -> None:
    assert reds(contact_sheet({"source": numbered(9, (16, 16))}, frame_indices=[7, 0, 3])) == [17, 10, 13]


def test_every_row_shows_the_same_frames() -> None:
    sheet = contact_sheet({"a": numbered(9, (16, 16)), "b": numbered(9, (24, 8))}, frame_indices=[2])
    columns = np.flatnonzero((sheet == (12, 0, 0)).all(axis=2).any(axis=0))
    assert reds(sheet) == [12]
    assert columns.size == 192


def test_small_frames_are_enlarged_pixel_by_pixel() -> None:
    frames = np.random.default_rng(0).integers(0, 200, (1, 60, 64, 3), dtype=np.uint8)
    sheet = contact_sheet({"source": frames})
    cell = frames[0].repeat(3, axis=0).repeat(3, axis=1)
    top, left = next(
        (y, x)
        for y in range(sheet.shape[0] - 179)
        for x in (10,)
        if np.array_equal(sheet[y : y + 180, x : x + 192], cell)
    )
    assert (top, left) == (2 + 28 + 28, 10)


def test_large_frames_are_shrunk_to_the_cell() -> None:
    sheet = contact_sheet({"source": numbered(2, (720, 1280))}, columns=2)
    assert (sheet == (10, 0, 0)).all(axis=2).sum() == 192 * 108


def test_labels_and_frame_numbers_are_written_in_dark_ink() -> None:
    sheet = contact_sheet({"source": numbered(2, (64, 64))}, columns=2)
    other = contact_sheet({"edited": numbered(2, (64, 64))}, columns=2)
    assert (sheet[2:30] < 60).all(axis=2).sum() > 100
    assert (sheet[30:58] < 60).all(axis=2).sum() > 50
    assert np.array_equal(sheet[:30], other[:30])
    assert not np.array_equal(sheet[30:58], other[30:58])


@pytest.mark.parametrize("label", ["", "x" * 500, "two\nlines", "ein Bär, größer", "熊", "“quoted”"])
def test_any_label_is_drawn_inside_its_row(label) -> None:
    frames = numbered(2, (16, 16))
    assert contact_sheet({label: frames}).shape == contact_sheet({"source": frames}).shape


def test_two_clips_side_by_side_have_the_height_of_the_left_one() -> None:
    pair = side_by_side(numbered(3, (300, 200)), numbered(3, (150, 80)))
    assert pair.shape == (3, 300, 200 + 9 + 160 + 1, 3)
    assert (pair[2, :, :200] == (12, 0, 0)).all()
    assert (pair[2, :, 209:] == (12, 0, 0)).all()


def test_low_clips_are_enlarged_and_both_sides_are_even() -> None:
    pair = side_by_side(numbered(1, (51, 33)), numbered(1, (51, 33)))
    assert pair.shape == (1, 306, 6 * (33 + 2 + 33), 3)


def test_a_long_clip_can_be_drawn_in_pieces() -> None:
    left, right = numbered(5, (40, 30)), numbered(5, (20, 30))
    pieces = [side_by_side(left[i : i + 1], right[i : i + 1]) for i in range(5)]
    assert np.array_equal(side_by_side(left, right), np.concatenate(pieces))


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ({}, {}),
        ({"a": numbered(0, (8, 8))}, {}),
        ({"a": numbered(2, (8, 8)), "b": numbered(3, (8, 8))}, {}),
        ({"a": numbered(2, (8, 8)).astype(float)}, {}),
        ({"a": numbered(2, (8, 8))[0]}, {}),
        ({"a": numbered(2, (8, 8))}, {"columns": 0}),
        ({"a": numbered(2, (8, 8))}, {"frame_indices": [2]}),
        ({"a": numbered(2, (8, 8))}, {"frame_indices": [-1]}),
        ({"a": numbered(2, (8, 8))}, {"frame_indices": []}),
        ({"a": numbered(2, (8, 8))}, {"cell_side": 4}),
    ],
)
def test_rows_and_options_that_make_no_sheet_are_refused(rows, options) -> None:
    with pytest.raises(WaveOpsError, match="expected"):
        contact_sheet(rows, **options)


def test_a_sheet_of_the_shown_frames_alone_is_that_of_the_whole_clip() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (9, 24, 32, 3), np.uint8)
    whole = contact_sheet({"a": clip}, frame_indices=[0, 4, 8])
    assert np.array_equal(contact_sheet({"a": clip[[0, 4, 8]]}, frame_numbers=[0, 4, 8]), whole)
    with pytest.raises(WaveOpsError, match="3 frame numbers"):
        contact_sheet({"a": clip[[0, 4, 8]]}, frame_numbers=[0, 4])


def test_a_label_of_ten_thousand_letters_is_measured_a_few_times_and_shortened_as_far_as_needed(monkeypatch) -> None:
    measured: list[str] = []
    length = ImageDraw.ImageDraw.textlength
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "textlength",
        lambda draw, text, **more: measured.append(text) or length(draw, text, **more),
    )
    frames = numbered(2, (16, 16))
    long, short = contact_sheet({"x" * 10_000: frames}), contact_sheet({"x" * 200: frames})
    assert np.array_equal(long, short)
    assert len(measured) < 50
    font = ImageFont.load_default(18)
    width = short.shape[1] - 20
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    letters = max(n for n in range(200) if length(draw, "x" * n + "...", font=font) <= width)
    assert np.array_equal(short, contact_sheet({"x" * letters + "...": frames}))
