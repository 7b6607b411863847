"""What all measurements share: timing side by side, the limits of this machine, and tables of ratios.

Machines are shared and noisy, so an absolute time says little. Everything is measured *beside* something that does not
change (a copy of a frame, a library's function) in the same run, in turns, and the smallest CPU time of each counts:
what disturbs only ever adds.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

SHAPE = (2304, 2304)
FRAME_BYTES = 2 * SHAPE[0] * SHAPE[1]

#: Memory that is gone through in turn when bandwidth is measured: far more than a core's own caches hold.
_RING_FRAMES = 24

#: Multiply-adds of the compute kernel on each value: enough that loads and stores do not count.
_CHAIN = 16

Work = Callable[[], Any]


@dataclass(frozen=True)
class Limits:
    """What one core of this machine can do, as measured by :func:`limits`.

    Attributes
    ----------
    copy_ms : float
        CPU time of copying a frame (10.6 MB read, 10.6 MB written), ms.
    read_gb_s, copy_gb_s : float
        Bandwidth of reading memory, and of copying it (bytes read and written), GB/s.
    vector_gops, scalar_gops : float
        Multiply-adds on float64 in registers, counted as two operations each, 10^9 a second: many independent ones that
        the compiler puts in vectors, and one after the other each of which needs the last.
    """

    copy_ms: float
    read_gb_s: float
    copy_gb_s: float
    vector_gops: float
    scalar_gops: float


def best_s(works: Sequence[Work], repeats: int = 5, *, clock: Callable[[], float] = time.process_time) -> list[float]:
    """Smallest time of each of some works, called in turns after a warm-up.

    Parameters
    ----------
    works : sequence of callable
        What to measure side by side.
    repeats : int
        Turns.
    clock : callable
        CPU seconds of the process by default; pass ``time.perf_counter`` for wall time.

    Returns
    -------
    list of float
        Seconds, in the order of the works.
    """
    for work in works:
        work()
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for index, work in enumerate(works):
            start = clock()
            work()
            best[index] = min(best[index], clock() - start)
    return best


def frame_copy() -> Work:
    """Copy one frame, another one each time, so that it comes from memory and not from a cache."""
    ring, target = _ring()
    turn = iter(range(10**9))

    def copy() -> None:
        index = next(turn) % len(ring)
        np.copyto(target[(index + 1) % len(target)], ring[index])

    return copy


@lru_cache(maxsize=1)
def limits(repeats: int = 9) -> Limits:
    """Measure what one core can do here and now."""
    ring, _ = _ring()
    flat = ring.reshape(-1).view(np.uint64)
    values = np.full(256, 1.5)  # 2 KB: stays in the first-level cache
    rounds = 2000
    copy, read, vector, scalar = best_s(
        (
            frame_copy(),
            lambda: _sum(flat),
            lambda: _independent(values, rounds),
            lambda: _dependent(rounds * len(values) // 16),
        ),
        repeats,
    )
    operations = 2 * _CHAIN * rounds * len(values)
    return Limits(
        copy_ms=1e3 * copy,
        read_gb_s=flat.nbytes / read / 1e9,
        copy_gb_s=2 * FRAME_BYTES / copy / 1e9,
        vector_gops=operations / vector / 1e9,
        scalar_gops=operations / 16 / scalar / 1e9,
    )


def compute_yardstick() -> Work:
    """Do under a millisecond of dependent arithmetic in registers: no memory, no vectors."""
    return lambda: _dependent(40_000)


@lru_cache(maxsize=1)
def _ring() -> tuple[np.ndarray, np.ndarray]:
    # Written once, so that the pages are there.
    return np.full((_RING_FRAMES, *SHAPE), 99, np.uint16), np.full((4, *SHAPE), 1, np.uint16)


@njit(nogil=True, cache=True)
def _sum(values: Any) -> Any:
    total = np.uint64(0)
    for index in range(len(values)):
        total += values[index]
    return total


@njit(nogil=True, cache=True, fastmath={"contract"})
def _independent(values: Any, rounds: int) -> None:
    for _ in range(rounds):
        for index in range(len(values)):
            value = values[index]
            for _ in range(16):
                value = value * 0.999 + 0.001
            values[index] = value


@njit(nogil=True, cache=True, fastmath={"contract"})
def _dependent(rounds: int) -> float:
    value = 1.5
    for _ in range(rounds):
        for _ in range(16):
            value = value * 0.999 + 0.001
    return value


def machine() -> dict[str, Any]:
    """Name this machine: processor, cores, memory, system, Python."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def cpu_name() -> str:
    """Model of the processor with family and model number, since clouds hide the name."""
    found: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    if "model name" not in found:
        return platform.processor() or platform.machine()
    return f"{found['model name']} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def peak_mb() -> float:
    """Largest memory that this process has had, MB; not that of the parent, which ``getrusage`` hands down."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def in_fresh_process(module: str, task: str, **arguments: Any) -> Any:
    """Run ``task_<task>(**arguments)`` of a bench program in a new process, and give what it returns.

    Memory, imports and CPU are then those of the work alone. The program must hand its command line to :func:`served`.

    Raises
    ------
    subprocess.CalledProcessError
        The task failed; what it said went to standard error.
    """
    command = [sys.executable, "-m", module, "--task", task, json.dumps(arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def served(tasks: dict[str, Any]) -> bool:
    """Answer a call of :func:`in_fresh_process`, if this is one; ``tasks`` is the module's ``globals()``."""
    if sys.argv[1:2] != ["--task"]:
        return False
    print(json.dumps(tasks[f"task_{sys.argv[2]}"](**json.loads(sys.argv[3]))))
    return True


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; the first column is text, the others are aligned to the right."""
    cells = [list(columns), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    print(f"\n{title}")
    for row in cells:
        first, *rest = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip())


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format the same table for a Markdown page."""
    lines = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *([shown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def shown(value: object) -> str:
    """Three digits of a number, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 99.5 else f"{value:.3g}"
    return str(value)
