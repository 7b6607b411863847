"""``cygnoreco cluster``: where the work runs; the pool of our own on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path

from clusters import pool
from clusters.pool import Pool
from cygnoreco.errors import InputError
from pipelines.cli import GOOD, TRANSIENT
from pipelines.cli.console import ERR, print_facts, print_json, print_line


def pool_up(
    folder: Path | None,
    cpus: int | None,
    memory: int | None,
    port: int | None,
    extra: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Start a pool, or find it up, and say how to use it."""
    lines = _lines(extra)
    if quiet or as_json:
        found = pool.up(folder, cpus=cpus, memory_mb=memory, port=port, extra=lines)
    else:
        with ERR.status("starting the pool; the first time HTCondor is fetched before"):
            found = pool.up(folder, cpus=cpus, memory_mb=memory, port=port, extra=lines)
    if as_json:
        print_json(_fields(found))
    elif not quiet:
        _print(found)
    return GOOD


def pool_down(folder: Path | None, purge: bool, as_json: bool, quiet: bool) -> int:
    """End a pool and its jobs, and remove its files if that is asked for."""
    where = folder or pool.default_folder()
    if purge:
        pool.purge(where)
    else:
        pool.down(where)
    if as_json:
        print_json({"folder": where, "up": False, "purged": purge})
    elif not quiet:
        print_line(f"{where}: the pool is down" + (", its files are removed" if purge else ""))
    return GOOD


def pool_status(folder: Path | None, as_json: bool) -> int:
    """Say whether a pool is up, by the exit code as well."""
    found = pool.status(folder)
    where = folder or pool.default_folder()
    if as_json:
        print_json(_fields(found) if found else {"folder": where, "up": False})
    elif found:
        _print(found)
    else:
        print_line(f"{where}: the pool is down")
    return GOOD if found else TRANSIENT


def _lines(extra: Path | None) -> str:
    if extra is None:
        return ""
    try:
        return extra.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{extra}: no file of configuration lines ({error})") from error


def _fields(found: Pool) -> dict[str, object]:
    return {
        "folder": found.folder,
        "up": True,
        "address": _address(found),
        "port": found.port,
        "config": found.config,
        "site": found.site,
        "log": found.log,
        "environment": found.environment,
    }


def _print(found: Pool) -> None:
    facts = {
        "address": _address(found),
        "folder": found.folder,
        "logs": found.log,
        "for cygnoreco": f"--site {shlex.quote(str(found.site))}",
        "for a shell": f"export CONDOR_CONFIG={shlex.quote(str(found.config))}",
        "condor's commands": found.programs,
    }
    print_facts("the pool is up", facts)


def _address(found: Pool) -> str:
    return f"127.0.0.1:{found.port}"
