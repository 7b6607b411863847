"""How the command line speaks: tables and progress on a terminal, JSON for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

#: Wide enough that no line is ever broken in a file or a pipe, where nobody sees an edge.
_NO_EDGE = 10_000

#: Results go to standard output, everything said on the way to standard error.
OUT = Console(highlight=False, width=None if sys.stdout.isatty() else _NO_EDGE)
ERR = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _NO_EDGE)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; numbers that JSON does not know (NaN, infinity) become null."""
    json.dump(_plain(document), sys.stdout, indent=2, sort_keys=True, allow_nan=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return str(value) if isinstance(value, Path) else value


def print_line(text: object) -> None:
    """Print a line of result as it is: not broken, not coloured."""
    OUT.print(str(text), markup=False, soft_wrap=True)


def print_error(text: str) -> None:
    """Print a line on standard error."""
    ERR.print(text, style="red", markup=False, soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns whose name ends in a space are aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.endswith(" ") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    OUT.print(table)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print names and values, one a line that the terminal breaks where it must, so that paths can be copied whole."""
    OUT.print(title, style="bold", markup=False)
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print_line(f"  {name:<{width}}  {value}")


class _Rate(ProgressColumn):
    """Frames and megabytes a second, and clusters so far."""

    def render(self, task: Task) -> Text:
        """One task's figures; none before there are frames."""
        if not task.total:
            return Text()
        speed = task.speed or 0.0
        text = f"{speed:.1f} frames/s"
        if "frame_bytes" in task.fields:
            text += f"  {speed * task.fields['frame_bytes'] / 1e6:.0f} MB/s"
        if "clusters" in task.fields:
            text += f"  {task.fields['clusters']} clusters"
        return Text(text)


@contextmanager
def frame_progress(enabled: bool) -> Iterator[Progress]:
    """Progress bars that count frames; on standard error if that is a terminal, gone when done."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=ERR,
        transient=True,
        disable=not (enabled and ERR.is_terminal),
    ) as progress:
        yield progress
