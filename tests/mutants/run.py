"""Put each fault of the table into a copy of the tree, run the nearest tests there, and print which faults are caught.

Run as `make mutants`, or `python -m tests.mutants.run [WORD ...]` for the faults that contain a word. The working tree
is never changed. Exits with 1 if a fault survives that the table does not list as a survivor, or is caught though it is
listed, or does not fit the code any more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
TARGET = 0.95
SECONDS = 900


def main(words: Sequence[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.label for word in words)]
    copies: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="wave-mutants-") as folder:
        workers = max(1, min(os.cpu_count() or 1, len(chosen)))
        for number in range(workers):
            copies.put(_copy_tree(Path(folder) / str(number)))
        with ThreadPoolExecutor(workers) as pool:
            verdicts = list(pool.map(lambda mutant: _verdict(mutant, copies), chosen))
    caught = sum(verdict == "caught" for verdict in verdicts)
    sys.stdout.write(f"{caught} of {len(chosen)} faults caught ({100 * caught / max(len(chosen), 1):.0f} %)\n")
    unexpected = [line for mutant, verdict in zip(chosen, verdicts, strict=True) for line in _surprise(mutant, verdict)]
    sys.stdout.writelines(f"{line}\n" for line in unexpected)
    return int(bool(unexpected) or caught < TARGET * len(chosen))


def _verdict(mutant: Mutant, copies: SimpleQueue[Path]) -> str:
    """Return caught, survived or stale."""
    copy = copies.get()
    try:
        verdict = _try(mutant, copy)
    finally:
        copies.put(copy)
    sys.stdout.write(f"{verdict:<9} {mutant.label}{f' ({mutant.survives})' if mutant.survives else ''}\n")
    sys.stdout.flush()
    return verdict


def _try(mutant: Mutant, copy: Path) -> str:
    file = copy / mutant.file
    original = file.read_text(encoding="utf-8")
    if original.count(mutant.before) != 1:
        return "stale"
    file.write_text(original.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        return "caught" if _fails(copy, mutant.tests) else "survived"
    finally:
        file.write_text(original, encoding="utf-8")


def _fails(copy: Path, tests: Sequence[str]) -> bool:
    """Run tests in a copy of the tree. Raises RuntimeError where they cannot be run."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"NUMBA_CACHE_DIR": str(copy / ".numba")}
    ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS)
    if ended.returncode not in (0, 1, 2):  # 2: the fault breaks an import
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout[-2000:]}")
    return ended.returncode != 0


def _surprise(mutant: Mutant, verdict: str) -> Iterator[str]:
    if verdict == "stale":
        yield f"The fault {mutant.label!r} does not fit {mutant.file} any more: {mutant.before!r} must occur once."
    elif (verdict == "survived") != bool(mutant.survives):
        listed = "listed" if mutant.survives else "not listed"
        yield f"The fault {mutant.label!r} {verdict}, but is {listed} as a survivor."


def _copy_tree(target: Path) -> Path:
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "demo", "wave-workspace"))
    return target


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
