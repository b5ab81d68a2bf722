"""Zarr v3 arrays as this project lays them out: zstd, a checksum in every chunk, every chunk written.

Convention: chunk keys are Zarr's default, `c/0/1/...`; a region is a range along axis 0 made of whole chunks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ContainsArrayError

from storage.digest import JSON
from storage.errors import WorkspaceError

__all__ = ["ArraySpec", "chunk_keys", "create_array", "open_array", "read_region", "row_keys", "write_region"]

AnyArray: TypeAlias = npt.NDArray[Any]
# An empty-looking chunk that is absent could not be told from one that was never written
_CONFIG: Any = {"write_empty_chunks": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """What an array is, apart from its values."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    dimension_names: tuple[str, ...] | None = None
    attributes: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.chunks) or not self.shape:
            raise WorkspaceError(f"an array needs as many chunk sizes as axes: {self.shape} and {self.chunks}")
        if any(size < 0 for size in self.shape) or any(size < 1 for size in self.chunks):
            raise WorkspaceError(f"impossible shape {self.shape} with chunks {self.chunks}")
        if self.dimension_names is not None and len(self.dimension_names) != len(self.shape):
            raise WorkspaceError(f"{len(self.shape)} axes, but dimension names {self.dimension_names}")

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ArraySpec:
        """The specification of an existing array."""
        names = getattr(array.metadata, "dimension_names", None)
        return cls(
            shape=tuple(array.shape),
            chunks=tuple(array.chunks),
            dtype=np.dtype(array.dtype),
            dimension_names=None if names is None else tuple(names),
            attributes=cast("dict[str, JSON]", array.attrs.asdict()),
        )


def create_array(store: Store, path: str, spec: ArraySpec) -> zarr.Array[Any]:
    """Create an array; where another process was quicker, open its."""
    try:
        return zarr.create_array(
            store,
            name=path,
            shape=spec.shape,
            chunks=spec.chunks,
            dtype=spec.dtype,
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            dimension_names=spec.dimension_names,
            attributes=dict(spec.attributes),
            zarr_format=3,
            config=_CONFIG,
        )
    except ContainsArrayError:
        return open_array(store, path)


def open_array(store: Store, path: str) -> zarr.Array[Any]:
    """Open an array. Raises FileNotFoundError."""
    return zarr.open_array(store, path=path, mode="r+", zarr_format=3).with_config(_CONFIG)


def chunk_keys(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[str]:
    """The keys of all chunks of an array, in C order."""
    counts = [math.ceil(size / chunk) for size, chunk in zip(shape, chunks, strict=True)]
    for place in itertools.product(*map(range, counts)):
        yield "/".join(["c", *map(str, place)])


def row_keys(spec: ArraySpec, row: int) -> Iterator[str]:
    """The keys of the chunks at one place along axis 0 of the chunk grid."""
    for key in chunk_keys(spec.shape[1:], spec.chunks[1:]):
        yield f"c/{row}{key[1:]}"


def write_region(array: zarr.Array[Any], start: int, values: AnyArray) -> None:
    """Write whole chunks: rows `start` to `start + len(values)` along axis 0.

    Raises:
        WorkspaceError: if the region cuts a chunk, leaves the array, or the values do not fit shape and type.
    """
    stop = start + len(values)
    _check_region(array, start, stop)
    if values.shape[1:] != array.shape[1:]:
        raise WorkspaceError(f"rows of {array.path} are {array.shape[1:]}, got {values.shape[1:]}")
    if not np.can_cast(values.dtype, array.dtype, "same_kind"):
        raise WorkspaceError(f"{array.path} holds {array.dtype}, got {values.dtype}")
    array[start:stop] = values.astype(array.dtype, copy=False)


def read_region(array: zarr.Array[Any], start: int, stop: int) -> AnyArray:
    """Rows `start` to `stop` along axis 0.

    Raises:
        WorkspaceError: if a chunk fails its checksum.
    """
    try:
        return np.asarray(array[start:stop])
    except (ValueError, RuntimeError) as error:  # the checksum's error, or the decompressor's
        raise WorkspaceError(
            f"rows {start} to {stop} of {array.path} are damaged ({error}); delete that folder and run again"
        ) from error


def _check_region(array: zarr.Array[Any], start: int, stop: int) -> None:
    chunk, length = array.chunks[0], array.shape[0]
    if not 0 <= start <= stop <= length:
        raise WorkspaceError(f"rows {start} to {stop} lie outside {array.path}, which has {length}")
    if start % chunk or (stop % chunk and stop != length):
        raise WorkspaceError(
            f"rows {start} to {stop} cut a chunk of {array.path}: its chunks are {chunk} rows long, write whole ones"
        )
