"""Zarr v3 arrays as this project stores them: zstd, a checksum in every chunk, every chunk written.

A stored object is a chunk, or a shard: several rows along axis 0 in one object; its chunks can be read
separately.

Convention: keys of objects are Zarr's default, `c/0/1/...`; a region is a range along axis 0 made of whole objects.
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
from zarr.core.array import AsyncArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import MemoryStore, StorePath

from storage.digest import JSON, to_json
from storage.errors import DamagedError, WorkspaceError

__all__ = [
    "ArraySpec",
    "attach",
    "describe",
    "document",
    "object_keys",
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
    shard_rows: int | None = None
    """Rows along axis 0 in one shard, which is whole along the other axes; None for an object per chunk."""
    dimension_names: tuple[str, ...] | None = None
    attributes: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.chunks) or not self.shape:
            raise WorkspaceError(f"an array needs as many chunk sizes as axes, got {self.shape} and {self.chunks}")
        if any(size < 0 for size in self.shape) or any(size < 1 for size in self.chunks):
            raise WorkspaceError(f"an array cannot have the shape {self.shape} with chunks {self.chunks}")
        if self.shard_rows is not None and (self.shard_rows < 1 or self.shard_rows % self.chunks[0]):
            raise WorkspaceError(f"shards of {self.shard_rows} rows are not made of chunks of {self.chunks[0]} rows")
        if self.dimension_names is not None and len(self.dimension_names) != len(self.shape):
            raise WorkspaceError(f"an array of {len(self.shape)} axes got the dimension names {self.dimension_names}")

    @classmethod
    def normalised(
        cls,
        *,
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: npt.DTypeLike,
        shard_rows: int | None,
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
            shard_rows=shard_rows,
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
            shard_rows=None if array.shards is None else array.shards[0],
            dimension_names=None if names is None else tuple(names),
            attributes=cast("dict[str, JSON]", array.attrs.asdict()),
        )

    @property
    def objects(self) -> tuple[int, ...]:
        """The shape of what one stored object contains."""
        if self.shard_rows is None:
            return self.chunks
        whole = (-(-size // chunk) * chunk for size, chunk in zip(self.shape[1:], self.chunks[1:], strict=True))
        return (self.shard_rows, *(max(size, 1) for size in whole))


def describe(spec: ArraySpec) -> ArrayV3Metadata:
    """Return Zarr's description of an array that does not exist yet."""
    array = zarr.create_array(
        MemoryStore(),
        shape=spec.shape,
        chunks=spec.chunks,
        shards=None if spec.shard_rows is None else spec.objects,
        dtype=spec.dtype,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        dimension_names=spec.dimension_names,
        attributes=dict(spec.attributes),
        zarr_format=3,
    )
    return cast("ArrayV3Metadata", array.metadata)


def document(metadata: ArrayV3Metadata) -> bytes:
    """Return the content of an array's zarr.json."""
    return metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()


def attach(store: Store, path: str, metadata: ArrayV3Metadata) -> zarr.Array[Any]:
    """Return the array at a path from its known description, without reading it."""
    return zarr.Array(AsyncArray(metadata, StorePath(store, path))).with_config(_CONFIG)


def open_array(store: Store, path: str) -> zarr.Array[Any]:
    """Open an array for reading and writing.

    Raises:
        FileNotFoundError: if there is none.
        DamagedError: if its description cannot be parsed.
    """
    try:
        return zarr.open_array(store, path=path, mode="r+", zarr_format=3).with_config(_CONFIG)
    except (WorkspaceError, FileNotFoundError):  # what cannot be reached is not damaged, nor what is absent
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # of the JSON, or of what it lacks
        raise DamagedError(
            f"the description of {path} is damaged ({error}); delete that folder and run again"
        ) from error


def object_keys(spec: ArraySpec) -> Iterator[str]:
    """Yield the keys of all objects of an array, in C order."""
    return region_keys(spec, 0, spec.shape[0])


def region_keys(spec: ArraySpec, start: int, stop: int) -> Iterator[str]:
    """Yield the keys of the objects that contain rows `start` to `stop` along axis 0, in C order."""
    rows, *others = spec.objects
    counts = (math.ceil(size / side) for size, side in zip(spec.shape[1:], others, strict=True))
    for index in itertools.product(range(start // rows, -(-stop // rows)), *map(range, counts)):
        yield "/".join(["c", *map(str, index)])


def write_region(array: zarr.Array[Any], start: int, values: AnyArray) -> None:
    """Write whole objects: rows `start` to `start + len(values)` along axis 0.

    Zarr reads a shard that reaches beyond the end of the array before it writes it.

    Raises:
        WorkspaceError: if the region cuts an object, leaves the array, or the values do not fit shape and type.
        DamagedError: if such a shard was cut short by an earlier writer.
    """
    stop = start + len(values)
    _check_region(array, start, stop)
    if values.shape[1:] != array.shape[1:]:
        raise WorkspaceError(f"rows of {array.path} are {array.shape[1:]}, got {values.shape[1:]}")
    if not np.can_cast(values.dtype, array.dtype, "same_kind"):
        raise WorkspaceError(f"{array.path} stores {array.dtype}, got {values.dtype}")
    try:
        array[start:stop] = values.astype(array.dtype, copy=False)
    except WorkspaceError:  # of the store
        raise
    except (ValueError, RuntimeError) as error:
        raise DamagedError(
            f"rows {start} to {stop} of {array.path} are damaged ({error}); delete that folder and run again"
        ) from error


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
    """Count the leading rows with all objects among the present keys and all checksums valid."""
    spec = ArraySpec.of(array)
    length, rows = spec.shape[0], spec.objects[0]
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        if not all(key in present for key in region_keys(spec, start, stop)):
            return start
        try:
            read_region(array, start, stop)
        except DamagedError:
            return start
    return length


def _check_region(array: zarr.Array[Any], start: int, stop: int) -> None:
    spec = ArraySpec.of(array)
    rows, length = spec.objects[0], spec.shape[0]
    if not 0 <= start <= stop <= length:
        raise WorkspaceError(f"rows {start} to {stop} are outside {array.path}, which has {length}")
    if start % rows or (stop % rows and stop != length):
        what = "chunk" if spec.shard_rows is None else "shard"
        raise WorkspaceError(
            f"rows {start} to {stop} cut a {what} of {array.path}: its {what}s are {rows} rows long, write whole ones"
        )
