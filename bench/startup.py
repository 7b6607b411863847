"""How long a user waits for ``cygnoreco --help``, beside the interpreter alone in the same run."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time


def median_s(command: list[str], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--limit", type=float, help="fail above this many seconds")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    code = "from pipelines.cli import main; main(['--help'])"
    found = {
        "python_s": median_s([sys.executable, "-c", "pass"], arguments.repeats),
        "help_s": median_s([sys.executable, "-c", code], arguments.repeats),
    }
    found["ratio"] = found["help_s"] / found["python_s"]
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"python {found['python_s']:.3f} s, cygnoreco --help {found['help_s']:.3f} s, ratio {found['ratio']:.1f}")
    if arguments.limit and found["help_s"] > arguments.limit:
        sys.exit(f"--help takes {found['help_s']:.3f} s, more than {arguments.limit} s")


if __name__ == "__main__":
    main()
