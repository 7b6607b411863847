"""How the command line speaks: tables and progress on a terminal, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

#: Results go to standard output, everything said on the way to standard error.
OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(document, sys.stdout, indent=2, sort_keys=True, default=str)
    sys.stdout.write("\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns whose name ends in a space are aligned to the right."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.endswith(" ") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    OUT.print(table)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print names and values, one a line."""
    print_table(title, ("", ""), list(facts.items()))


class _Rate(ProgressColumn):
    """Frames and megabytes a second, and clusters so far."""

    def render(self, task: Task) -> Text:
        """One task's figures."""
        speed = task.speed or 0.0
        megabytes = speed * task.fields.get("frame_bytes", 0) / 1e6
        text = f"{speed:.1f} frames/s  {megabytes:.0f} MB/s"
        if "clusters" in task.fields:
            text += f"  {task.fields['clusters']} clusters"
        return Text(text)


@contextmanager
def frame_progress(enabled: bool) -> Iterator[Progress]:
    """Progress bars that count frames; on standard error, gone when done."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=ERR,
        transient=True,
        disable=not enabled,
    ) as progress:
        yield progress
