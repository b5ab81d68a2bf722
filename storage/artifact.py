"""Artifacts: the results of one stage in the workspace, which count once their completion record is written.

An artifact is a Zarr group with its digest as an attribute. It contains arrays, files, one small JSON document per
finished part under `parts/`, and `complete.json`, which is written last and lists every chunk and file with its size.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt
import zarr
from zarr.abc.store import Store

from storage import _layout as layout
from storage import arrays
from storage._ownership import claim, is_owned
from storage.arrays import AnyArray, ArraySpec
from storage.digest import to_json
from storage.errors import AbsentError, DamagedError, WorkspaceError
from storage.files import Files, is_partial
from storage.reference import ArtifactRef
from storage.row_access import RowReader, RowWriter

__all__ = ["Artifact"]


@dataclass(slots=True, kw_only=True)
class Artifact:
    """One artifact, opened by `Workspace.artifact`.

    The digest decides who owns the path. Opened by a reference, an artifact can be written; content of another digest
    at its path does not count, and the first write removes it. Opened by its path alone, it can only be read.
    """

    workspace_url: str
    files: Files
    store: Store
    path: str
    """Path inside the workspace."""
    digest: str | None = None
    """Digest of everything that determines the content; None for an artifact opened by its path alone."""
    _claimed: bool = False
    _owned: bool = False
    _new: bool = False
    """Whether this object has created the artifact."""
    _arrays: dict[str, zarr.Array[Any]] = field(default_factory=dict)

    # --- completion -------------------------------------------------------------------------------------------

    def is_complete(self) -> bool:
        """Return whether there is a record of this digest, and the group and every file in it have their sizes."""
        record = self._read_record()
        if record is None or record["digest"] != (self.digest or record["digest"]):
            return False
        return layout.is_whole(record, self.files.sizes(self.path))

    def record(self) -> dict[str, Any]:
        """Return the completion record: digest, metadata, and every array and file with the sizes in bytes.

        Raises:
            WorkspaceError: if there is none.
        """
        record = self._read_record()
        if record is None:
            raise WorkspaceError(f"{self._where} is not complete: run the stage that makes it")
        return record

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata passed to `complete`. Raises WorkspaceError if the artifact has no record."""
        return cast("dict[str, Any]", self.record()["metadata"])

    def ref(self) -> ArtifactRef:
        """Return the artifact's reference.

        Raises:
            WorkspaceError: if the artifact was opened by its path and has no record with its digest.
        """
        digest = self.digest if self.digest is not None else self.record()["digest"]
        return ArtifactRef(workspace=self.workspace_url, path=self.path, digest=digest)

    def complete(self, metadata: Mapping[str, object] | None = None) -> ArtifactRef:
        """Write the completion record, after which the artifact counts, and return its reference.

        The record depends only on the content, so two processes may complete the same artifact.

        Raises:
            WorkspaceError: if an array lacks a chunk.
            StorageError: if the metadata has no JSON form.
        """
        self._claim()
        record = layout.build_record(self._present(), digest=self.ref().digest, metadata=to_json(dict(metadata or {})))
        for name, sizes in record["arrays"].items():
            self._check_chunks(name, sizes)
        self.files.write(self._key(layout.RECORD), layout.dump(record))
        return self.ref()

    def discard(self) -> None:
        """Remove everything under the artifact: the record first, the description of each array last."""
        self._arrays.clear()
        self._claimed = self._owned = self._new = False
        self.files.delete(self._key(key) for key in sorted(self.files.sizes(self.path), key=layout.removal_order))

    # --- arrays -----------------------------------------------------------------------------------------------

    def require_array(
        self,
        name: str,
        *,
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: npt.DTypeLike,
        shard_rows: int | None = None,
        dimension_names: Sequence[str] | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> zarr.Array[Any]:
        """Open the array with its values if it exists with this description, else create it empty.

        A damaged description counts as another one.

        Chunks are compressed with zstd and end with a crc32c, so that reading a torn or corrupt one raises an error.
        With `shard_rows`, so many rows along axis 0 are stored as one object, written as a whole; a chunk of it can
        still be read alone.

        Raises:
            WorkspaceError: if the name or the description is invalid.
        """
        spec = ArraySpec.normalised(
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            shard_rows=shard_rows,
            dimension_names=dimension_names,
            attributes=attributes,
        )
        self._claim()
        path = self._key(layout.checked_name(name))
        if self._new and name not in self._arrays:
            self._arrays[name] = self._create_array(path, spec)
            return self._arrays[name]
        try:
            array = arrays.open_array(self.store, path)
        except FileNotFoundError:
            array = self._create_array(path, spec)
        except DamagedError:
            array = self._replace_array(name, spec)
        if ArraySpec.of(array) != spec:
            array = self._replace_array(name, spec)
        self._arrays[name] = array
        return array

    def array(self, name: str) -> zarr.Array[Any]:
        """Open an existing array.

        An absent chunk reads as zeros and a damaged one raises Zarr's own error: check `is_complete` or
        `readable_prefix` first, or read with `read_region`.

        Raises:
            WorkspaceError: if the array does not exist.
        """
        if name not in self._arrays:
            with self._missing("array", name):
                self._arrays[name] = arrays.open_array(self.store, self._key(layout.checked_name(name)))
        return self._arrays[name]

    def write_region(self, name: str, start: int, values: AnyArray) -> None:
        """Write rows `start` to `start + len(values)` along axis 0.

        Only whole chunks, or whole shards where the array has them, and values of the same kind. What is there already
        is replaced, damaged or not.

        Raises:
            WorkspaceError: if the region cuts a chunk (or shard) or leaves the array, or the values do not fit.
        """
        array = self.array(name)
        try:
            arrays.write_region(array, start, values)
        except DamagedError:
            keys = arrays.region_keys(ArraySpec.of(array), start, start + len(values))
            self.files.delete(self._key(f"{name}/{key}") for key in keys)
            arrays.write_region(array, start, values)

    def read_region(self, name: str, start: int = 0, stop: int | None = None) -> AnyArray:
        """Read rows `start` to `stop` along axis 0.

        Raises:
            WorkspaceError: if there is no such array or a chunk is damaged.
        """
        array = self.array(name)
        return arrays.read_region(array, start, array.shape[0] if stop is None else stop)

    def resize_array(self, name: str, length: int) -> zarr.Array[Any]:
        """Change an array's length along axis 0 and keep its values, for content of initially unknown length."""
        array = self.array(name)
        array.resize((length, *array.shape[1:]))
        del self._arrays[name]
        return self.array(name)

    def readable_prefix(self, name: str) -> int:
        """Count the leading rows along axis 0 that exist and pass their checksums.

        Every counted row is read. It is 0 if the array does not exist, or its description is damaged.
        """
        try:
            array = self.array(name)
        except (AbsentError, DamagedError):
            return 0
        return arrays.readable_prefix(array, self.files.sizes(self._key(name)))

    def object_rows(self, name: str) -> int:
        """Return how many rows along axis 0 one stored object, a chunk or a shard, contains.

        Raises:
            WorkspaceError: if the array does not exist.
        """
        return ArraySpec.of(self.array(name)).objects[0]

    def row_reader(self, name: str, *, keep_bytes: int = 0) -> RowReader:
        """Return a reader of single rows, which reads each object once while it fits in `keep_bytes` of memory.

        Raises:
            WorkspaceError: if the array does not exist.
        """
        return RowReader(self, name, keep_bytes=keep_bytes)

    def row_writer(self, name: str, start: int = 0) -> RowWriter:
        """Return a writer of single rows from `start`, which writes each object once it has all its rows.

        Raises:
            WorkspaceError: if the array does not exist, or `start` is inside an object.
        """
        return RowWriter(self, name, start)

    # --- parts ------------------------------------------------------------------------------------------------

    def complete_part(
        self,
        name: str,
        metadata: Mapping[str, object] | None = None,
        *,
        regions: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """Record, atomically, that a part is finished; call it after the part's content is written.

        Args:
            name: the part, one word.
            metadata: values that `parts_metadata` returns.
            regions: rows (start, stop) along axis 0 that the part wrote, by array. With them the part counts only
                while those chunks exist with their present sizes.

        Raises:
            WorkspaceError: if a chunk of the regions is missing, or the name is not one word.
            StorageError: if the metadata has no JSON form.
        """
        self._claim()
        chunks = self._region_sizes(regions or {})
        part = {"digest": self.digest, "chunks": chunks, "metadata": to_json(dict(metadata or {}))}
        self.files.write(self._key(layout.part_key(name)), layout.dump(part))

    def completed_parts(self) -> set[str]:
        """Return the names of all finished parts of this digest that still have all their chunks.

        Lists the artifact and reads the record of every part; see `has_part` for one part.
        """
        present = self._present()
        keys = [self._key(key) for key in present if key.startswith(f"{layout.PARTS}/")]
        parts = {
            Path(key).stem: layout.load_part(data, digest=self.digest)
            for key, data in self.files.read_many(keys).items()
        }
        return {name for name, part in parts.items() if part is not None and layout.has_chunks(part, present)}

    def has_part(self, name: str) -> bool:
        """Return whether a part of this digest is finished and still has all its chunks.

        Makes no listing: reads the part's record and the sizes of its own chunks, whatever the number of parts.

        Raises:
            WorkspaceError: if the name is not one word.
        """
        part = self._read_parts([name])[name]
        return part is not None and layout.has_chunks(part, self._sizes_of(part["chunks"]))

    def parts_metadata(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the metadata of several parts by name, in the given order, from one batch of reads.

        Raises:
            WorkspaceError: if a part has no record of this digest; the message names the first one.
        """
        found = {}
        for name, part in self._read_parts(names).items():
            if part is None:
                raise WorkspaceError(f"{self._where} has no finished part {name}")
            found[name] = part["metadata"]
        return found

    def _read_parts(self, names: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """Read the records of parts, by name; None for a part that is not finished."""
        keys = {name: self._key(layout.part_key(name)) for name in names}
        found = self.files.read_many(keys.values())
        return {name: layout.load_part(found.get(key), digest=self.digest) for name, key in keys.items()}

    def _region_sizes(self, regions: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """Return the sizes of the regions' chunks, by key relative to the artifact."""
        found: dict[str, int] = {}
        for name, (start, stop) in regions.items():
            keys = [f"{name}/{key}" for key in arrays.region_keys(ArraySpec.of(self.array(name)), start, stop)]
            sizes = self._sizes_of(keys)
            if len(sizes) < len(keys):
                raise WorkspaceError(f"{self._where}: rows {start} to {stop} of {name} are not all written")
            found |= sizes
        return found

    # --- files ------------------------------------------------------------------------------------------------

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file as a whole.

        Raises:
            WorkspaceError: if the name is reserved or leaves the artifact.
        """
        self._claim()
        self.files.write(self._key(layout.checked_name(name)), data)

    def read_bytes(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            WorkspaceError: if there is no such file.
        """
        with self._missing("file", name):
            return self.files.read(self._key(layout.checked_name(name)))

    def write_json(self, name: str, value: object) -> None:
        """Write a value as JSON.

        Raises:
            StorageError: if it has no JSON form (NaN and infinity have none).
        """
        self.write_bytes(name, layout.dump(to_json(value)))

    def read_json(self, name: str) -> Any:
        """Return the value of a JSON file.

        Raises:
            WorkspaceError: if there is no such file or it is damaged.
        """
        try:
            return json.loads(self.read_bytes(name))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise WorkspaceError(f"{name} in {self._where} is not valid JSON ({error})") from error

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        """Yield a local path for reading the file, valid inside the context.

        Raises:
            WorkspaceError: if there is no such file.
        """
        with contextlib.ExitStack() as stack:
            with self._missing("file", name):
                path = stack.enter_context(self.files.local_copy(self._key(layout.checked_name(name))))
            yield path

    @contextlib.contextmanager
    def local_output(self, name: str) -> Iterator[Path]:
        """Yield a local path, same suffix, to write to; it becomes the file if the context ends without an error."""
        self._claim()
        with self.files.local_output(self._key(layout.checked_name(name))) as path:
            yield path

    def has_file(self, name: str) -> bool:
        """Return whether there is a file of that name.

        Raises:
            WorkspaceError: if the name is reserved or leaves the artifact.
        """
        with contextlib.suppress(AbsentError), self._missing("file", layout.checked_name(name)):
            return bool(self._sizes_of([name]))
        return False

    # --- inside -----------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"{self.workspace_url}/{self.path}"

    def _key(self, name: str) -> str:
        return f"{self.path}/{name}"

    @contextlib.contextmanager
    def _missing(self, kind: str, name: str) -> Iterator[None]:
        """Raise AbsentError if the artifact belongs to another digest, or the body finds no file."""
        try:
            # Also for an artifact opened by its path: to open an array, Zarr's local store creates its root folder
            self._owned = self._owned or is_owned(self.files, self.path, self.digest)
            if not self._owned:
                raise FileNotFoundError(self._key(layout.NODE))
            yield
        except FileNotFoundError as error:
            raise AbsentError(f"{self._where} has no {kind} {name}") from error

    def _create_array(self, path: str, spec: ArraySpec) -> zarr.Array[Any]:
        metadata = arrays.describe(spec)
        self.files.write(f"{path}/{layout.NODE}", arrays.document(metadata))
        return arrays.attach(self.store, path, metadata)

    def _present(self) -> dict[str, int]:
        return {key: size for key, size in self.files.sizes(self.path).items() if not is_partial(key)}

    def _sizes_of(self, names: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those files that exist, by name relative to the artifact, without a listing."""
        keys = {self._key(name): name for name in names}
        return {keys[key]: size for key, size in self.files.sizes_of(keys).items()}

    def _read_record(self) -> dict[str, Any] | None:
        return layout.load_record(self.files.read_many([key := self._key(layout.RECORD)]).get(key))

    def _check_chunks(self, name: str, sizes: Mapping[str, int]) -> None:
        spec = ArraySpec.of(self.array(name))
        missing = [key for key in arrays.object_keys(spec) if key not in sizes]
        if missing:
            raise WorkspaceError(
                f"{self._where} cannot be completed: {name} lacks {len(missing)} chunks, the first {missing[0]}"
            )

    def _replace_array(self, name: str, spec: ArraySpec) -> zarr.Array[Any]:
        # The record and the parts go too: they list chunks of the array
        gone = (layout.RECORD, f"{layout.PARTS}/", f"{name}/")
        keys = sorted((key for key in self._present() if key.startswith(gone)), key=layout.removal_order)
        self.files.delete(self._key(key) for key in keys)
        return self._create_array(self._key(name), spec)

    def _claim(self) -> None:
        """Become the owner of the path, before the first write."""
        if self._claimed:
            return
        if self.digest is None:
            raise WorkspaceError(f"{self._where} was opened by its path: open it by a reference to write to it")
        self._new = claim(self.files, self.path, self.digest, discard=self.discard)
        self._claimed = self._owned = True
