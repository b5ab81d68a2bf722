"""Zarr v3 arrays as this project stores them: zstd, a checksum in every chunk, every chunk written.

Convention: chunk keys are Zarr's default, `c/0/1/...`; a region is a range along axis 0 made of whole chunks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ContainsArrayError

from storage.digest import JSON, to_json
from storage.errors import DamagedError, WorkspaceError

__all__ = [
    "ArraySpec",
    "chunk_keys",
    "create_array",
    "open_array",
    "read_region",
    "readable_prefix",
    "region_keys",
    "write_region",
]

AnyArray: TypeAlias = npt.NDArray[Any]
# By default Zarr omits chunks of zeros, which would then look like chunks that were never written
_CONFIG: Any = {"write_empty_chunks": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """Everything about an array except its values."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    dimension_names: tuple[str, ...] | None = None
    attributes: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.chunks) or not self.shape:
            raise WorkspaceError(f"an array needs as many chunk sizes as axes, got {self.shape} and {self.chunks}")
        if any(size < 0 for size in self.shape) or any(size < 1 for size in self.chunks):
            raise WorkspaceError(f"an array cannot have the shape {self.shape} with chunks {self.chunks}")
        if self.dimension_names is not None and len(self.dimension_names) != len(self.shape):
            raise WorkspaceError(f"an array of {len(self.shape)} axes got the dimension names {self.dimension_names}")

    @classmethod
    def normalised(
        cls,
        *,
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: npt.DTypeLike,
        dimension_names: Sequence[str] | None,
        attributes: Mapping[str, object] | None,
    ) -> ArraySpec:
        """Build a specification that compares equal to that of the array stored from it.

        Raises:
            WorkspaceError: if shape, chunks and dimension names do not fit together.
            StorageError: if the attributes have no JSON form.
        """
        return cls(
            shape=tuple(int(size) for size in shape),
            chunks=tuple(int(size) for size in chunks),
            dtype=np.dtype(dtype),
            dimension_names=None if dimension_names is None else tuple(dimension_names),
            attributes=cast("dict[str, JSON]", to_json(dict(attributes or {}))),
        )

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ArraySpec:
        """Return the specification of an existing array."""
        names = getattr(array.metadata, "dimension_names", None)
        return cls(
            shape=tuple(array.shape),
            chunks=tuple(array.chunks),
            dtype=np.dtype(array.dtype),
            dimension_names=None if names is None else tuple(names),
            attributes=cast("dict[str, JSON]", array.attrs.asdict()),
        )


def create_array(store: Store, path: str, spec: ArraySpec) -> zarr.Array[Any]:
    """Create an array; if another process has just created it, open that one."""
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
    """Open an array for reading and writing.

    Raises:
        FileNotFoundError: if there is none.
    """
    return zarr.open_array(store, path=path, mode="r+", zarr_format=3).with_config(_CONFIG)


def chunk_keys(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[str]:
    """Yield the keys of all chunks of an array, in C order."""
    counts = [math.ceil(size / chunk) for size, chunk in zip(shape, chunks, strict=True)]
    for index in itertools.product(*map(range, counts)):
        yield "/".join(["c", *map(str, index)])


def region_keys(spec: ArraySpec, start: int, stop: int) -> Iterator[str]:
    """Yield the keys of the chunks that contain rows `start` to `stop` along axis 0, in C order."""
    for index in range(start // spec.chunks[0], -(-stop // spec.chunks[0])):
        for key in chunk_keys(spec.shape[1:], spec.chunks[1:]):
            yield f"c/{index}{key[1:]}"


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
        raise WorkspaceError(f"{array.path} stores {array.dtype}, got {values.dtype}")
    array[start:stop] = values.astype(array.dtype, copy=False)


def read_region(array: zarr.Array[Any], start: int, stop: int) -> AnyArray:
    """Read rows `start` to `stop` along axis 0.

    Raises:
        DamagedError: if a chunk fails its checksum.
    """
    try:
        return np.asarray(array[start:stop])
    except WorkspaceError:  # of the store: a chunk that cannot be reached is not a damaged one
        raise
    except (ValueError, RuntimeError) as error:  # of the checksum, or of the decompressor
        raise DamagedError(
            f"rows {start} to {stop} of {array.path} are damaged ({error}); delete that folder and run again"
        ) from error


def readable_prefix(array: zarr.Array[Any], present: Collection[str]) -> int:
    """Count the leading chunks along axis 0 that are among the present keys and pass their checksum."""
    spec = ArraySpec.of(array)
    starts = range(0, spec.shape[0], spec.chunks[0])
    for index, start in enumerate(starts):
        stop = min(start + spec.chunks[0], spec.shape[0])
        if not all(key in present for key in region_keys(spec, start, stop)):
            return index
        try:
            read_region(array, start, stop)
        except DamagedError:
            return index
    return len(starts)


def _check_region(array: zarr.Array[Any], start: int, stop: int) -> None:
    chunk, length = array.chunks[0], array.shape[0]
    if not 0 <= start <= stop <= length:
        raise WorkspaceError(f"rows {start} to {stop} are outside {array.path}, which has {length}")
    if start % chunk or (stop % chunk and stop != length):
        raise WorkspaceError(
            f"rows {start} to {stop} cut a chunk of {array.path}: its chunks are {chunk} rows long, write whole ones"
        )
