from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digest import digest_file, digest_file_once, digest_folder, digest_of
from storage.errors import StorageError

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


def reordered(value: object) -> object:
    """Return the value with the keys of every dict in reverse order and tuples in place of lists."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return tuple(reordered(item) for item in value) if isinstance(value, list) else value


def same(left: object, right: object) -> bool:
    """Compare as Python does, except that a boolean never equals a number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and left == right if isinstance(left, str | None) else left == right


@given(VALUES)
def test_the_order_of_keys_and_the_kind_of_sequence_do_not_change_a_digest(value: object) -> None:
    assert digest_of(value) == digest_of(reordered(value))


@given(VALUES, VALUES)
def test_two_values_have_the_same_digest_only_if_they_are_equal(left: object, right: object) -> None:
    assert (digest_of(left) == digest_of(right)) == same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("a", "b"), ("ab",)),
        (("a", "b"), (["a", "b"],)),
        ((1,), (True,)),
        ((1,), ("1",)),
        ((None,), ("null",)),
        ((0.1,), (0.1 + 1e-17 + 1e-16,)),
        (({"a": 1},), ({"a": 1, "b": None},)),
        ((), (None,)),
        (([],), ({},)),
    ],
)
def test_values_that_look_alike_have_different_digests(left: tuple[object, ...], right: tuple[object, ...]) -> None:
    assert digest_of(*left) != digest_of(*right)


def test_numbers_that_are_equal_have_the_same_digest() -> None:
    assert digest_of(2.0, -0.0, np.float32(0.5), np.int64(3)) == digest_of(2, 0, 0.5, 3)


def test_a_digest_is_short_hex_that_never_changes() -> None:
    assert digest_of("invert", 1, {"steps": 50, "window": (1, 781), "seed": None}) == digest_of(
        "invert", 1, {"seed": None, "window": [1, 781], "steps": 50.0}
    )
    assert digest_of("invert", 1) == "cd278f601a26add298a48667"


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, {1, 2}, object(), b"x", Path("x"), [np.zeros(2)]])
def test_values_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(StorageError):
        digest_of(value)


def test_a_files_digest_depends_on_its_bytes_alone(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in ("a", "b", "c"))
    first.write_bytes(b"12")
    copy.write_bytes(b"12")
    other.write_bytes(b"13")
    assert digest_file(first) == digest_file(copy) != digest_file(other)


def test_an_unchanged_file_is_hashed_once_and_a_changed_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def watched(path: Path) -> str:
        hashed.append(path)
        return digest_file(path)

    monkeypatch.setattr("storage.digest.digest_file", watched)
    weights = tmp_path / "weights"
    weights.write_bytes(b"12")
    os.utime(weights, ns=(1, 1))
    first = digest_file_once(weights)
    assert digest_file_once(str(weights)) == first == digest_file(weights)
    assert hashed == [weights]
    weights.write_bytes(b"123")
    os.utime(weights, ns=(1, 1))
    assert digest_file_once(weights) == digest_file(weights) != first
    weights.write_bytes(b"456")
    os.utime(weights, ns=(2, 2))
    assert digest_file_once(weights) == digest_file(weights)
    assert len(hashed) == 3


def test_a_folders_digest_depends_on_names_and_bytes_of_the_files_with_the_suffixes(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("words")

    def digest() -> str:
        return digest_folder(tmp_path, suffixes=(".json",))

    before = digest()
    (tmp_path / "README.md").write_text("other words")
    assert digest() == before
    (tmp_path / "unet" / "config.json").write_text("{ }")
    assert digest() != before
    (tmp_path / "unet" / "config.json").rename(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{}")
    assert digest() != before


@pytest.mark.parametrize("digest", [digest_file, digest_file_once, digest_folder])
def test_a_missing_file_or_folder_is_refused(digest, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StorageError, match="absent"):
        digest(tmp_path / "absent")


def test_a_folder_without_a_matching_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(StorageError, match="no file ending with"):
        digest_folder(tmp_path, suffixes=(".safetensors",))
