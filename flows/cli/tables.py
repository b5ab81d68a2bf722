"""Tables of figures, laid out for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from tasks.evaluation.report.tables import Table

__all__ = ["rich_table"]


def rich_table(table: Table) -> RichTable:
    """Lay a table out for the terminal; texts are taken as they are."""
    made = RichTable(title=Text(table.title, style="bold"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, heading in enumerate(table.headings):
        figure = index >= table.labels
        made.add_column(Text(heading), justify="right" if figure else "left", no_wrap=figure)
    for row in table.rows:
        made.add_row(*(Text(cell.text, style="bold" if cell.mark else "") for cell in row))
    return made
