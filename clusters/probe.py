"""What a job finds on its machine; runs there, and tells the driver (:mod:`clusters.doctor`).

Started as ``python -m clusters.probe HOST PORT``. Only Python's own library and versions of packages are needed, so
that a broken environment is a finding and not the end.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

#: Packages whose versions must be the driver's: what travels between them is pickled by one and read by the other.
PACKAGES = ("cygnoreco", "dask", "distributed", "numpy", "numba", "zarr", "s3fs")

#: Seconds for the driver to call back.
_PATIENCE = 20.0


def report(store: str | None = None, token: str | None = None) -> dict[str, Any]:
    """Describe this machine, and this Python.

    Parameters
    ----------
    store : str, optional
        URL of a folder or bucket that should be reachable.
    token : str, optional
        File that should be readable.
    """
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "versions": {name: _version(name) for name in PACKAGES},
        "disk": shutil.disk_usage(".").free,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": _gpus(),
        "store": _store(store) if store else None,
        "token": os.access(token, os.R_OK) if token else None,
        "folder": str(Path.cwd()),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    """Names of the GPUs that the driver of the machine shows to this job."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def _store(url: str) -> str:
    """Say ``reachable``, or why a store is not."""
    try:
        import fsspec

        files, path = fsspec.core.url_to_fs(url)
        files.ls(path)
    except Exception as error:  # whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    return "reachable"


def main(host: str, port: int, store: str | None, token: str | None) -> None:
    """Report to the driver, which calls back: workers and scheduler open connections to each other as well."""
    found = report(store, token)
    print(json.dumps(found), flush=True)  # for the log, should the driver not be reached
    with socket.create_server(("", 0)) as server:
        server.settimeout(_PATIENCE)
        with socket.create_connection((host, port), timeout=_PATIENCE) as line:
            found["address"] = [line.getsockname()[0], server.getsockname()[1]]
            line.sendall(json.dumps(found).encode() + b"\n")
            server.accept()[0].close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *(value or None for value in sys.argv[3:5]))
