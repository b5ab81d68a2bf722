from __future__ import annotations

import tempfile

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from storage.arrays import ArraySpec, chunk_keys, row_keys
from storage.errors import WorkspaceError
from storage.workspace import Workspace

DTYPES = st.sampled_from(["uint8", "bool", "int32", "int64", "float16", "float32"])
VALUES = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)))


@settings(max_examples=20, deadline=None)
@given(values=VALUES, data=st.data())
def test_write_then_read_is_identity_for_any_chunks(values: npt.NDArray[np.generic], data: st.DataObject) -> None:
    chunks = tuple(data.draw(st.integers(1, side + 1)) for side in values.shape)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(folder)
        artifact = workspace.artifact(workspace.ref("a", "d"))
        artifact.require_array("v", shape=values.shape, chunks=chunks, dtype=values.dtype)
        for start in range(0, len(values), chunks[0]):
            artifact.write_region("v", start, values[start : start + chunks[0]])
        again = workspace.artifact(artifact.complete())
        assert again.is_complete()
        assert again.read_region("v").tobytes() == values.tobytes()
        assert again.array("v").dtype == values.dtype


def test_the_keys_of_a_row_are_those_of_the_grid_at_that_place() -> None:
    spec = ArraySpec(shape=(5, 3, 4), chunks=(2, 2, 4), dtype=np.dtype("uint8"))
    assert list(row_keys(spec, 1)) == ["c/1/0/0", "c/1/1/0"]
    assert [key for row in range(3) for key in row_keys(spec, row)] == list(chunk_keys(spec.shape, spec.chunks))
    assert list(row_keys(ArraySpec(shape=(5,), chunks=(2,), dtype=np.dtype("uint8")), 2)) == ["c/2"]


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": (2,)},
        {"chunks": (2, 0)},
        {"shape": (-1, 3)},
        {"shape": (), "chunks": ()},
        {"dimension_names": ("t",)},
    ],
)
def test_an_impossible_array_is_refused(change: dict[str, tuple[int, ...]]) -> None:
    possible = {"shape": (5, 3), "chunks": (2, 3), "dtype": np.dtype("uint8")}
    with pytest.raises(WorkspaceError):
        ArraySpec(**(possible | change))  # type: ignore[arg-type]
