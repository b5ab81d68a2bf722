"""Artifacts: what one stage leaves in the workspace, true once its completion record is there.

An artifact is a Zarr group whose attributes carry its digest. It holds arrays, files, one small JSON per finished
part under `parts/`, and `complete.json`, which is written last and lists every chunk and file with its size.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store

from storage import _layout as layout
from storage import arrays
from storage.arrays import AnyArray, ArraySpec
from storage.digest import JSON, to_json
from storage.errors import WorkspaceError
from storage.files import Files, is_partial
from storage.reference import ArtifactRef

__all__ = ["Artifact"]


@dataclass(slots=True, kw_only=True)
class Artifact:
    """One artifact: open it through `Workspace.artifact`.

    Opened by a reference it can be written, and content of another digest at its path does not count and is removed
    by the first write. Opened by its path alone it can only be read.
    """

    workspace_url: str
    files: Files
    store: Store
    path: str
    digest: str | None = None
    _claimed: bool = False
    _owned: bool = False
    _arrays: dict[str, zarr.Array[Any]] = field(default_factory=dict)

    # --- completion -------------------------------------------------------------------------------------------

    def is_complete(self) -> bool:
        """Whether the record is there, of this digest, and all that it lists exists with its size."""
        record = self._read_record()
        if record is None or record["digest"] != (self.digest or record["digest"]):
            return False
        present = self.files.sizes(self.path)
        return all(present.get(key) == size for key, size in layout.recorded_sizes(record).items())

    def record(self) -> dict[str, Any]:
        """The completion record: digest, arrays and files with the sizes of their parts, metadata.

        Raises:
            WorkspaceError: if there is none.
        """
        record = self._read_record()
        if record is None:
            raise WorkspaceError(f"{self._where} is not complete: run the stage that makes it")
        return record

    @property
    def metadata(self) -> dict[str, Any]:
        """What was given at completion. Raises WorkspaceError where the artifact has no record."""
        return cast("dict[str, Any]", self.record()["metadata"])

    def ref(self) -> ArtifactRef:
        """The artifact's reference. Raises WorkspaceError where no digest is known."""
        digest = self.digest if self.digest is not None else self.record()["digest"]
        return ArtifactRef(workspace=self.workspace_url, path=self.path, digest=digest)

    def complete(self, metadata: Mapping[str, object] | None = None) -> ArtifactRef:
        """Write the completion record: from here on the artifact counts.

        The record depends on nothing but the content, so two processes that complete one artifact do no harm.

        Raises:
            WorkspaceError: if an array lacks a chunk, or the metadata is no JSON.
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
        self._claimed = self._owned = False
        self.files.delete(self._key(key) for key in sorted(self.files.sizes(self.path), key=layout.removal_order))

    # --- arrays -----------------------------------------------------------------------------------------------

    def require_array(
        self,
        name: str,
        *,
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: npt.DTypeLike,
        dimension_names: Sequence[str] | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> zarr.Array[Any]:
        """The array of this description: reopened with what it holds where it is the same, else created anew.

        Compressed with zstd, and every chunk ends with a crc32c, so that a torn or rotten one raises when read.

        Raises:
            WorkspaceError: if the name or the description is impossible.
        """
        spec = ArraySpec(
            shape=tuple(int(size) for size in shape),
            chunks=tuple(int(size) for size in chunks),
            dtype=np.dtype(dtype),
            dimension_names=None if dimension_names is None else tuple(dimension_names),
            attributes=cast("dict[str, JSON]", to_json(dict(attributes or {}))),
        )
        self._claim()
        path = self._key(layout.checked_name(name))
        try:
            array = arrays.open_array(self.store, path)
        except FileNotFoundError:
            array = arrays.create_array(self.store, path, spec)
        if ArraySpec.of(array) != spec:
            self._remove_array(name)
            array = arrays.create_array(self.store, path, spec)
        self._arrays[name] = array
        return array

    def array(self, name: str) -> zarr.Array[Any]:
        """An existing array.

        A chunk that is absent reads as zeros and a damaged one raises Zarr's own error: check `is_complete` or
        `readable_prefix` first, or read with `read_region`.

        Raises:
            WorkspaceError: if there is none of that name.
        """
        if name not in self._arrays:
            with self._missing("array", name):
                self._arrays[name] = arrays.open_array(self.store, self._key(layout.checked_name(name)))
        return self._arrays[name]

    def write_region(self, name: str, start: int, values: AnyArray) -> None:
        """Write rows `start` to `start + len(values)` along axis 0: whole chunks only, values of the same kind.

        Raises:
            WorkspaceError: if the region cuts a chunk or leaves the array, or the values do not fit.
        """
        arrays.write_region(self.array(name), start, values)

    def read_region(self, name: str, start: int = 0, stop: int | None = None) -> AnyArray:
        """Rows `start` to `stop` along axis 0.

        Raises:
            WorkspaceError: if there is no such array or a chunk is damaged.
        """
        array = self.array(name)
        return arrays.read_region(array, start, array.shape[0] if stop is None else stop)

    def resize_array(self, name: str, length: int) -> zarr.Array[Any]:
        """Give an array another length along axis 0, keeping its values; for content whose count shows late."""
        array = self.array(name)
        array.resize((length, *array.shape[1:]))
        del self._arrays[name]
        return self.array(name)

    def readable_prefix(self, name: str) -> int:
        """Number of leading chunks along axis 0 that exist and pass their checksum; 0 where there is no array.

        Chunks count, not rows: with more than one row per chunk, multiply. Reads all that it counts.
        """
        try:
            array = self.array(name)
        except WorkspaceError:
            return 0
        spec = ArraySpec.of(array)
        present = self.files.sizes(self._key(name))
        rows = -(-spec.shape[0] // spec.chunks[0])
        for row in range(rows):
            start = row * spec.chunks[0]
            if not all(key in present for key in arrays.row_keys(spec, row)):
                return row
            try:
                arrays.read_region(array, start, min(start + spec.chunks[0], spec.shape[0]))
            except WorkspaceError:
                return row
        return rows

    # --- parts ------------------------------------------------------------------------------------------------

    def complete_part(
        self,
        name: str,
        metadata: Mapping[str, object] | None = None,
        *,
        regions: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """Note, atomically, that a part is finished; written after the part's content.

        Args:
            name: the part, one word.
            metadata: what `part_metadata` gives back.
            regions: rows (start, stop) along axis 0 that the part wrote, by array. With them the part counts only
                as long as those chunks are there with their present sizes.

        Raises:
            WorkspaceError: if a chunk of the regions is missing, or the metadata is no JSON.
        """
        self._claim()
        part = {
            "digest": self.digest,
            "chunks": self._region_sizes(regions or {}),
            "metadata": to_json(dict(metadata or {})),
        }
        self.files.write(self._key(layout.part_key(name)), layout.dump(part))

    def completed_parts(self) -> set[str]:
        """Names of the finished parts of this digest whose chunks are all there."""
        present = self._present()
        keys = [self._key(key) for key in present if key.startswith(f"{layout.PARTS}/")]
        parts = {Path(key).stem: layout.load(data) for key, data in self.files.read_many(keys).items()}
        return {name for name, part in parts.items() if self._is_own(part) and _matches(part, present)}

    def has_part(self, name: str) -> bool:
        """Return whether a part of this digest is finished and all its chunks are there, without a listing.

        The cost does not depend on the number of parts, unlike that of `completed_parts`.

        Raises:
            WorkspaceError: if the part's name is not one word.
        """
        part = self._read_parts([name])[name]
        return self._is_own(part) and _matches(part, self._sizes_of(part["chunks"]))

    def part_metadata(self, name: str) -> dict[str, Any]:
        """What was given to `complete_part`.

        Raises:
            WorkspaceError: if there is no such part.
        """
        return self.parts_metadata([name])[name]

    def parts_metadata(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the metadata of several parts, by name in the given order, from one batched read.

        Raises:
            WorkspaceError: if a part is missing; the message names the first one.
        """
        parts = self._read_parts(names)
        for name, part in parts.items():
            if not self._is_own(part):
                raise WorkspaceError(f"{self._where} has no finished part {name}")
        return {name: part["metadata"] for name, part in parts.items()}

    def _read_parts(self, names: Iterable[str]) -> dict[str, Any]:
        """Read the records of parts; None where there is no readable one."""
        keys = {name: self._key(layout.part_key(name)) for name in names}
        found = self.files.read_many(keys.values())
        return {name: layout.load(found.get(key)) for name, key in keys.items()}

    def _is_own(self, part: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
        return part is not None and (self.digest is None or part.get("digest") == self.digest)

    def _region_sizes(self, regions: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """Return the sizes of the chunks of regions, by key relative to the artifact."""
        found: dict[str, int] = {}
        for name, (start, stop) in regions.items():
            spec = ArraySpec.of(self.array(name))
            rows = range(start // spec.chunks[0], -(-stop // spec.chunks[0]))
            keys = [f"{name}/{key}" for row in rows for key in arrays.row_keys(spec, row)]
            sizes = self._sizes_of(keys)
            if len(sizes) < len(keys):
                raise WorkspaceError(f"{self._where}: rows {start} to {stop} of {name} are not all written")
            found |= sizes
        return found

    # --- files ------------------------------------------------------------------------------------------------

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file as a whole."""
        self._claim()
        self.files.write(self._key(layout.checked_name(name)), data)

    def read_bytes(self, name: str) -> bytes:
        """The bytes of a file. Raises WorkspaceError where there is none."""
        with self._missing("file", name):
            return self.files.read(self._key(layout.checked_name(name)))

    def write_json(self, name: str, value: object) -> None:
        """Write a value as JSON. Raises StorageError where it has no JSON form (NaN and infinity have none)."""
        self.write_bytes(name, layout.dump(to_json(value)))

    def read_json(self, name: str) -> Any:
        """The value of a JSON file. Raises WorkspaceError where there is none or it is damaged."""
        try:
            return json.loads(self.read_bytes(name))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise WorkspaceError(f"{name} in {self._where} is no JSON ({error})") from error

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        """A local path for reading the file, while the context lasts. Raises WorkspaceError where there is none."""
        with contextlib.ExitStack() as stack:
            with self._missing("file", name):
                path = stack.enter_context(self.files.local_copy(self._key(layout.checked_name(name))))
            yield path

    @contextlib.contextmanager
    def local_output(self, name: str) -> Iterator[Path]:
        """A local path, same suffix, to write to; it becomes the file when the context ends without an error."""
        self._claim()
        with self.files.local_output(self._key(layout.checked_name(name))) as path:
            yield path

    def has_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        with contextlib.suppress(WorkspaceError), self._missing("file", layout.checked_name(name)):
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
        """Raise WorkspaceError where what the body opens is absent, or belongs to another digest."""
        try:
            self._check_owner()
            yield
        except FileNotFoundError as error:
            raise WorkspaceError(f"{self._where} holds no {kind} {name}") from error

    def _check_owner(self) -> None:
        # Also for an artifact opened by its path: Zarr's local store would create the folder of an absent workspace
        if self._claimed or self._owned:
            return
        node = layout.load(self.files.read(self._key(layout.NODE)))
        if node is None or (self.digest is not None and node.get("attributes") != {"digest": self.digest}):
            raise FileNotFoundError(self._key(layout.NODE))
        self._owned = True

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
        missing = [key for key in arrays.chunk_keys(spec.shape, spec.chunks) if key not in sizes]
        if missing:
            raise WorkspaceError(
                f"{self._where} cannot be completed: {name} lacks {len(missing)} chunks, the first {missing[0]}"
            )

    def _remove_array(self, name: str) -> None:
        # With the array go the record and the parts, which spoke of it
        gone = (layout.RECORD, f"{layout.PARTS}/", f"{name}/")
        keys = sorted((key for key in self._present() if key.startswith(gone)), key=layout.removal_order)
        self.files.delete(self._key(key) for key in keys)

    def _claim(self) -> None:
        """Make the group of this digest, removing what another digest left there."""
        if self._claimed:
            return
        if self.digest is None:
            raise WorkspaceError(f"{self._where} was opened by its path: open it by a reference to write to it")
        folders = self.path.split("/")
        ancestors = ["/".join([*folders[:depth], layout.NODE]) for depth in range(len(folders))]
        own = self._key(layout.NODE)
        found = self.files.read_many([*ancestors, own])
        node = layout.load(found.get(own))
        if node is None or node.get("attributes") != {"digest": self.digest}:
            if node is not None:
                self.discard()
            self.files.write(own, layout.group({"digest": self.digest}))
        for key in ancestors:
            if key not in found:
                self.files.write(key, layout.group({}))
        self._claimed = True


def _matches(part: Mapping[str, Any], present: Mapping[str, int]) -> bool:
    """Return whether all chunks of a part are present with their recorded sizes."""
    return all(present.get(key) == size for key, size in part["chunks"].items())
