from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from storage.errors import StorageError
from storage.flo import read_flo
from tests._flo import write_flo


def test_a_flow_is_read_as_x_then_y_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "a.flo").write_bytes(b"PIEH" + struct.pack("<ii12f", 3, 2, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, 0.5))
    flow = read_flo(tmp_path / "a.flo")
    np.testing.assert_array_equal(flow, [[[1, 2, 3], [4, 5, 6]], [[-1, -2, -3], [-4, -5, 0.5]]])
    assert flow.dtype == np.float32
    assert flow.flags.writeable


def test_an_unknown_flow_is_nan_in_both_components(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(0, 9, (2, 4, 7)).astype(np.float32)
    marked = flow.copy()
    marked[0, 0, 0], marked[1, 1, 2], marked[0, 2, 3], marked[0, 3, 3] = 1.6e9, -2e9, np.nan, np.inf
    unknown = np.zeros((4, 7), bool)
    unknown[[0, 1, 2, 3], [0, 2, 3, 3]] = True
    write_flo(tmp_path / "a.flo", marked)
    np.testing.assert_array_equal(read_flo(tmp_path / "a.flo"), np.where(unknown, np.nan, flow))


def test_a_real_flow_is_read(shared: Path) -> None:
    flow = read_flo(shared / "reference" / "flow" / "middlebury_flow_gt.flo")
    known = ~np.isnan(flow).any(axis=0)
    assert flow.shape == (2, 388, 584)
    assert 0.9 < known.mean() < 1
    assert np.abs(flow[:, known]).max() < 10


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a .flo file"),
        (b"PIEH\x01\x00", "is not a .flo file"),
        (b"HEIP" + struct.pack("<ii2f", 1, 1, 0, 0), "is not a .flo file"),
        (b"PIEH" + struct.pack("<ii", 0, 4), "size is 0 x 4"),
        (b"PIEH" + struct.pack("<ii", 4, -1), "size is 4 x -1"),
        (b"PIEH" + struct.pack("<ii", 2**30, 2**30), "damaged: its size"),
        (b"PIEH" + struct.pack("<ii3f", 1, 2, 0, 0, 0), "take 28 bytes, it has 24"),
        (b"PIEH" + struct.pack("<ii3f", 1, 1, 0, 0, 0), "take 20 bytes, it has 24"),
    ],
)
def test_a_file_without_one_whole_flow_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.flo").write_bytes(data)
    with pytest.raises(StorageError, match=message):
        read_flo(tmp_path / "a.flo")


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent\.flo cannot be read"):
        read_flo(tmp_path / "absent.flo")
