"""What `wave bench` does on the terminal."""

from __future__ import annotations

from rich.console import Console

from flows.cli.tables import rich_table
from tasks.evaluation.bench.figures import BenchRequest, Figure, bench_line, bench_table
from tasks.evaluation.bench.registry import bench
from tasks.evaluation.report.jsonl import lines_text

__all__ = ["run_bench"]


def run_bench(name: str, request: BenchRequest, *, as_json: bool, consoles: tuple[Console, Console]) -> None:
    """Run a bench and print its figures: a table, or lines of JSON, each as soon as it is known, and nothing else.

    Raises:
        TaskInputError: there is no such bench, or it cannot be run as asked.
    """
    stdout, stderr = consoles
    with stderr.status("Preparing"):
        found = bench(name)
        sections = found.sections(request)
    figures: list[Figure] = []
    for section in sections:
        with stderr.status(f"Measuring {section.title}"):
            for figure in section.figures():
                figures.append(figure)
                if as_json:
                    stdout.out(lines_text([bench_line(found.name, figure)]), end="", highlight=False)
    if not as_json:
        stdout.print(rich_table(bench_table(found.title, figures)))
