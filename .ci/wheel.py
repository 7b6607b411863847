"""Build the wheel, install it in an environment of its own, and run the command that it brings."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

repository = Path(__file__).parents[1]
with tempfile.TemporaryDirectory() as folder:
    home = Path(folder)
    venv.create(home / "venv", with_pip=True)
    pip = [str(home / "venv" / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(home), str(repository)], check=True)
    (wheel,) = home.glob("*.whl")
    subprocess.run([*pip, "install", "-q", "-c", str(repository / "constraints.txt"), str(wheel)], check=True)
    command = [str(home / "venv" / "bin" / "cygnoreco"), "recipes", "list"]
    done = subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True)
    if "winter23" not in done.stdout:
        sys.exit(f"the installed command does not know its recipes:\n{done.stdout}")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB, installed and run")
