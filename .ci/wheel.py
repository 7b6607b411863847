"""Build the wheel, install it in an environment of its own, run its command, and look for its kernels."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

repository = Path(__file__).parents[1]
kernel_files = sorted((repository / "cygnoreco" / "cuda").glob("*.cu"))
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
    # The kernels are no modules: only a wheel that packs them as data has them.
    kernels = "from cygnoreco.cuda.program import source; print(source().count('__global__'))"
    python = [str(home / "venv" / "bin" / "python"), "-I", "-c", kernels]
    done = subprocess.run(python, check=True, cwd=folder, capture_output=True, text=True)
    if int(done.stdout) != (expected := sum(path.read_text().count("__global__") for path in kernel_files)):
        sys.exit(f"the installed package has {int(done.stdout)} kernels for a GPU instead of {expected}")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB, installed and run")
