from __future__ import annotations

import tempfile

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from storage.arrays import ArraySpec, object_keys, region_keys
from storage.errors import WorkspaceError
from storage.workspace import Workspace

DTYPES = st.sampled_from(["uint8", "bool", "int32", "int64", "float16", "float32"])
VALUES = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)))


@settings(max_examples=20, deadline=None)
@given(values=VALUES, data=st.data())
def test_write_then_read_is_identity_for_any_chunks(values: npt.NDArray[np.generic], data: st.DataObject) -> None:
    chunks = tuple(data.draw(st.integers(1, side + 1)) for side in values.shape)
    shard_rows = data.draw(st.sampled_from([None, chunks[0], 3 * chunks[0]]))
    rows = shard_rows or chunks[0]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(folder)
        artifact = workspace.artifact(workspace.ref("a", "d"))
        artifact.require_array("v", shape=values.shape, chunks=chunks, dtype=values.dtype, shard_rows=shard_rows)
        for start in range(0, len(values), rows):
            artifact.write_region("v", start, values[start : start + rows])
        again = workspace.artifact(artifact.complete())
        assert again.is_complete()
        assert again.read_region("v").tobytes() == values.tobytes()
        assert again.array("v").dtype == values.dtype


@pytest.mark.parametrize(
    ("start", "stop", "indices"), [(0, 2, [0]), (2, 4, [1]), (4, 5, [2]), (0, 5, [0, 1, 2]), (1, 3, [0, 1]), (2, 2, [])]
)
def test_the_keys_of_a_region_are_those_of_the_chunks_with_its_rows(start: int, stop: int, indices: list[int]) -> None:
    spec = ArraySpec(shape=(5, 3, 4), chunks=(2, 2, 4), dtype=np.dtype("uint8"))
    expected = [key for key in object_keys(spec) if int(key.split("/")[1]) in indices]
    assert list(region_keys(spec, start, stop)) == expected


def test_the_keys_of_an_array_of_one_axis_have_one_number() -> None:
    assert list(region_keys(ArraySpec(shape=(5,), chunks=(2,), dtype=np.dtype("uint8")), 4, 5)) == ["c/2"]


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": (2,)},
        {"chunks": (2, 0)},
        {"shape": (-1, 3)},
        {"shape": (), "chunks": ()},
        {"dimension_names": ("t",)},
        {"shard_rows": 0},
        {"shard_rows": 3},
    ],
)
def test_an_invalid_array_is_refused(change: dict[str, tuple[int, ...]]) -> None:
    valid = {"shape": (5, 3), "chunks": (2, 3), "dtype": np.dtype("uint8")}
    with pytest.raises(WorkspaceError):
        ArraySpec(**(valid | change))  # type: ignore[arg-type]
