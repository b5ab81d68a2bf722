from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.digest import digest_file
from storage.errors import StorageError
from tasks.models import weights_digest as module
from tasks.models.weights_digest import cache_folder, weights_digest

LONG_AGO = 10**18


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_LEAST_BYTES", 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return written(tmp_path / "unet.safetensors", b"first")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the files that are read."""
    files: list[Path] = []

    def read(path: Path) -> str:
        files.append(path)
        return digest_file(path)

    monkeypatch.setattr(module, "digest_file_once", read)
    return files


def written(path: Path, content: bytes, *, modified: int = LONG_AGO) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(modified, modified))
    return path


def entries() -> list[Path]:
    return list((cache_folder() / "digests").iterdir())


def test_weights_that_have_not_changed_are_read_once(weights: Path, hashed: list[Path]) -> None:
    assert weights_digest(weights) == weights_digest(weights) == digest_file(weights)
    assert hashed == [weights]
    assert [entry.read_text() for entry in entries()] == [digest_file(weights)]


@pytest.mark.parametrize(("content", "modified"), [(b"longer", LONG_AGO), (b"other", LONG_AGO + 1)])
def test_another_size_or_time_is_another_file(weights: Path, content: bytes, modified: int) -> None:
    before = weights_digest(weights)
    assert weights_digest(written(weights, content, modified=modified)) == digest_file(weights) != before


def test_weights_at_another_path_are_read_for_themselves(weights: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "vae.safetensors", b"other")
    assert weights_digest(weights) != weights_digest(other) == digest_file(other)


def test_what_was_only_just_written_is_not_remembered(weights: Path, hashed: list[Path]) -> None:
    weights.write_bytes(b"fresh")
    assert weights_digest(weights) == weights_digest(weights)
    assert len(hashed) == 2


@pytest.mark.parametrize("damage", [b"", b"zz", b"\xff", b"0" * 23])
def test_a_damaged_entry_is_written_again(weights: Path, damage: bytes) -> None:
    digest = weights_digest(weights)
    (entry,) = entries()
    entry.write_bytes(damage)
    assert weights_digest(weights) == digest
    assert entry.read_text() == digest


def test_a_cache_that_cannot_be_written_is_no_error(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert weights_digest(weights) == digest_file(weights)


def test_small_files_leave_nothing_in_the_cache(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST_BYTES", 6)
    assert weights_digest(weights) == digest_file(weights)
    assert not cache_folder().exists()


def test_missing_weights_are_refused(weights: Path) -> None:
    weights.unlink()
    with pytest.raises(StorageError, match=r"cannot read .*unet\.safetensors"):
        weights_digest(weights)
