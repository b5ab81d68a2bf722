from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storage import StorageError
from storage.flo import read_flo, write_flo


@pytest.fixture
def flow() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 9, (2, 4, 7)).astype(np.float32)


def test_what_was_written_is_read(flow: NDArray[np.float32], tmp_path: Path) -> None:
    write_flo(tmp_path / "new" / "a.flo", flow)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.flo"]
    read = read_flo(tmp_path / "new" / "a.flo")
    assert read.dtype == np.float32
    assert np.array_equal(read, flow)
    assert read.flags.writeable


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    flow = np.array([[[1, 2]], [[-3, 0.5]]])
    write_flo(tmp_path / "a.flo", flow)
    assert (tmp_path / "a.flo").read_bytes() == b"PIEH" + struct.pack("<ii4f", 2, 1, 1, -3, 2, 0.5)


def test_an_unknown_flow_is_not_a_number_in_both_components(flow: NDArray[np.float32], tmp_path: Path) -> None:
    marked = flow.copy()
    marked[0, 0, 0], marked[1, 1, 2], marked[0, 2, 3], marked[0, 3, 3] = 1.6e9, -2e9, np.nan, np.inf
    unknown = np.zeros((4, 7), bool)
    unknown[[0, 1, 2, 3], [0, 2, 3, 3]] = True
    write_flo(tmp_path / "a.flo", marked)
    assert np.array_equal(read_flo(tmp_path / "a.flo"), np.where(unknown, np.float32(np.nan), flow), equal_nan=True)
    stored = np.frombuffer((tmp_path / "a.flo").read_bytes(), "<f4", offset=12).reshape(4, 7, 2)
    assert (stored[unknown] > 1e9).all()  # readers of the format know no NaN


def test_a_real_flow_is_read(shared: Path) -> None:
    flow = read_flo(shared / "reference" / "flow" / "middlebury_flow_gt.flo")
    known = ~np.isnan(flow).any(axis=0)
    assert flow.shape == (2, 388, 584)
    assert 0.9 < known.mean() < 1
    assert np.abs(flow[:, known]).max() < 10


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no .flo file"),
        (b"PIEH\x01\x00", "is no .flo file"),
        (b"HEIP" + struct.pack("<ii2f", 1, 1, 0, 0), "is no .flo file"),
        (b"PIEH" + struct.pack("<ii", 0, 4), "size is 0 x 4"),
        (b"PIEH" + struct.pack("<ii", 4, -1), "size is 4 x -1"),
        (b"PIEH" + struct.pack("<ii", 2**30, 2**30), "damaged: its size"),
        (b"PIEH" + struct.pack("<ii3f", 1, 2, 0, 0, 0), "take 28 bytes, it has 24"),
        (b"PIEH" + struct.pack("<ii3f", 1, 1, 0, 0, 0), "take 20 bytes, it has 24"),
    ],
)
def test_a_file_that_holds_no_whole_flow_gets_one_sentence(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.flo").write_bytes(data)
    with pytest.raises(StorageError, match=message):
        read_flo(tmp_path / "a.flo")


def test_a_file_that_is_not_there_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.flo cannot be read"):
        read_flo(tmp_path / "none.flo")


@pytest.mark.parametrize("shape", [(4, 7, 2), (2, 7), (1, 4, 7), (2, 0, 7)])
def test_an_array_that_is_no_flow_is_refused_and_leaves_no_file(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="A flow is"):
        write_flo(tmp_path / "a.flo", np.zeros(shape, np.float32))
    assert not list(tmp_path.iterdir())
