"""Fuzz what this project parses itself, guided by coverage, and print how often each target ran.

Run as `make fuzz`, or `python -m tests.fuzz.run [--seconds N] [TARGET ...]` with the dependency group `fuzz` (Atheris).
A target that fails leaves its input in a file and prints its name; once the fault is mended, move it to the corpus.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CORPUS", "main"]

CORPUS = Path(__file__).with_name("corpus")
ROOT = Path(__file__).parents[2]
_LONGEST_INPUT = 4096  # bytes
_SLOWEST = 20  # seconds for one input; more is a hang
_MEMORY = 4096  # MiB


def main(arguments: Sequence[str]) -> int:
    names = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *names], metavar="TARGET", help=", ".join(names))
    parser.add_argument("--seconds", type=int, default=600, help="for each target (600)")
    chosen = parser.parse_args(arguments)
    failed = [name for name in chosen.targets or names if fuzz(name, seconds=chosen.seconds)]
    return int(bool(failed))


def fuzz(name: str, *, seconds: int) -> bool:
    """Fuzz one target in a process of its own, print what came of it, and return whether it failed."""
    with tempfile.TemporaryDirectory(prefix="wave-fuzz-") as found:
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={_LONGEST_INPUT}",
            f"-timeout={_SLOWEST}",
            f"-rss_limit_mb={_MEMORY}",
            f"-artifact_prefix={tempfile.gettempdir()}/wave-fuzz-{name}-",
            "-print_final_stats=1",
        ]
        ended = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.one", name, *options, found, str(CORPUS / name)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    runs = re.findall(r"stat::number_of_executed_units: *(\d+)|^#(\d+)\s", ended.stdout, re.MULTILINE)
    coverage = re.findall(r" cov: (\d+)", ended.stdout)
    count = next((int(last[0] or last[1]) for last in reversed(runs)), 0)
    sys.stdout.write(f"{name}: {count:,} inputs, {coverage[-1] if coverage else 0} places in the code reached\n")
    if ended.returncode:
        sys.stdout.write(f"{ended.stdout[-6000:]}\n{name} failed\n")
    sys.stdout.flush()
    return ended.returncode != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
