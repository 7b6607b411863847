"""What a job wrote last, for messages."""

from __future__ import annotations

from pathlib import Path


def last_lines(path: Path, lines: int = 8) -> list[str]:
    """Last lines of a log; none if there is no such file, or it cannot be read."""
    try:
        return path.read_text(errors="replace").rstrip().splitlines()[-lines:]
    except OSError:
        return []


def indented(lines: list[str]) -> str:
    """Lines as they follow a message, each on a line of its own."""
    return "".join(f"\n    {line}" for line in lines)
