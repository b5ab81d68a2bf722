"""Damaged files of every container: a clip, or one sentence; never a crash, a hang or memory without bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests._mutations import mutated, save_videos

ROOT = Path(__file__).parents[3]


def outcomes(paths: list[Path]) -> list[dict[str, Any]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "tests._decoding"],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return [json.loads(line) for line in ended.stdout.splitlines()]


def damaged(folder: Path, *, each: int) -> list[Path]:
    """Write damaged copies of every video."""
    found = list[Path]()
    for source in save_videos(folder):
        for number, data in enumerate(islice(mutated(source.read_bytes(), seed=14), each)):
            path = folder / f"{number}-{source.name}"
            path.write_bytes(data)
            found.append(path)
    return found


def check(paths: list[Path]) -> Counter[str]:
    """Check what became of each file, and count the kinds."""
    results = outcomes(paths)
    assert len(results) == len(paths)
    wrong = {path.name: found for path, found in zip(paths, results, strict=True) if not is_clear(path, found)}
    assert wrong == {}
    return Counter(next(iter(found)) for found in results)


def is_clear(path: Path, found: dict[str, Any]) -> bool:
    """Return whether there are frames, or a sentence of one line that names the file."""
    if "refused" in found:
        message: str = found["refused"]
        return path.name in message and "\n" not in message and len(message) < 500
    return bool(found.get("frames"))


def test_a_damaged_file_is_decoded_or_refused_in_one_sentence(tmp_path: Path) -> None:
    assert check(damaged(tmp_path, each=6)[::9]).total() == 12


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_200_damaged_files_of_all_containers_are_decoded_or_refused_in_one_sentence(tmp_path: Path) -> None:
    counts = check([*damaged(tmp_path, each=12), *save_videos(tmp_path)])
    print(dict(counts))  # noqa: T201
    assert counts["frames"] > 50
    assert counts["refused"] > 10
