"""A real HTCondor pool of our own on this machine, for tests and for trying things out.

``condor-pool.sh`` beside this file does the work and says how; these functions call it, and what they are not told is
left to its knobs in the environment. The program is fetched once, to the folder named by ``CONDOR_POOL_PREFIX``; every
pool has a folder and a port of its own, so that several can be up.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from cygnoreco.errors import InputError, TransientError
from cygnoreco.io.atomic import atomic_write

_SCRIPT = Path(__file__).with_name("condor-pool.sh")
#: Exit codes of the script; any other fault may be gone the next time.
_DONE, _MEND, _IS_DOWN = 0, 2, 3

_SITE = """\
kind = "htcondor"
description = "a pool of our own on this machine"

[pool]
config = {config}

[job]
cores = 1
memory = "1 GB"
disk = "1 GB"

[scheduler]
host = "127.0.0.1"
"""


@dataclass(frozen=True)
class Pool:
    """A pool on this machine.

    Attributes
    ----------
    folder : Path
        Its configuration and its state.
    config : Path
        HTCondor's configuration file, for daemons and clients.
    port : int
        Where all of its daemons are reached, on 127.0.0.1.
    environment : mapping of str to str
        ``CONDOR_CONFIG``, and ``PATH`` with condor's commands before the ``PATH`` of this process. HTCondor's bindings
        read the first when they are imported, so a process that has imported them cannot turn to another pool.
    """

    folder: Path
    config: Path
    port: int
    environment: Mapping[str, str] = field(hash=False)

    @property
    def site(self) -> Path:
        """The file that describes the pool as a site where work can be sent."""
        return self.folder / "site.toml"

    @property
    def log(self) -> Path:
        """Folder of the logs of its daemons."""
        return self.folder / "state" / "log"

    @property
    def programs(self) -> Path:
        """Folder of condor's commands."""
        return Path(self.environment["PATH"].partition(os.pathsep)[0])


def default_folder() -> Path:
    """Folder of the pool that is meant if none is named: ``CONDOR_POOL_DIR``, or one of the user's state."""
    return Path(os.environ.get("CONDOR_POOL_DIR") or platformdirs.user_state_path("cygnoreco") / "pool")


def install() -> None:
    """Fetch HTCondor, unless it is there: about 40 MB, 10 s, and 130 MB on the disk.

    `up` does it by itself.

    Raises
    ------
    InputError
        The machine has no ``apt``, or no Debian mirror among its sources, or the folder cannot be written.
    TransientError
        The mirror did not answer.
    """
    _call("install", default_folder())


def up(
    folder: Path | None = None,
    *,
    cpus: int | None = None,
    memory_mb: int | None = None,
    port: int | None = None,
    extra: str = "",
) -> Pool:
    """Start a pool with an empty queue, or find that it is up already.

    Parameters
    ----------
    folder : Path, optional
        New, empty, or that of a pool; by default :func:`default_folder`.
    cpus : int, optional
        Cores that jobs may ask for, more than there are if need be; by default as many as this process may use.
    memory_mb : int, optional
        Megabytes that jobs may ask for; by default three quarters of the machine's.
    port : int, optional
        By default, and if 0, a free one.
    extra : str, optional
        More lines for HTCondor's configuration, which win over ours.

    Returns
    -------
    Pool
        A pool that answers. If it was up before, what was not asked for is as it was.

    Raises
    ------
    InputError
        The port is taken, the lines are no configuration, the folder holds other things, or its pool is up with
        other settings than those asked for; or what :func:`install` says.
    TransientError
        The pool did not come up, with its last words; or it is up and does not answer.
    """
    where = _resolved(folder)
    asked = {"CONDOR_POOL_CPUS": cpus, "CONDOR_POOL_MEMORY": memory_mb, "CONDOR_POOL_PORT": port}
    knobs = {name: str(value) for name, value in asked.items() if value is not None}
    with tempfile.NamedTemporaryFile("w", prefix="pool-", suffix=".conf", encoding="utf-8") as lines:
        if extra:
            lines.write(extra if extra.endswith("\n") else extra + "\n")
            lines.flush()
            knobs["CONDOR_POOL_EXTRA"] = lines.name
        _call("up", where, knobs)
    pool = _described(where)
    with atomic_write(pool.site) as partial:
        # A JSON string is a TOML string, but for characters that JSON would write as two.
        partial.write_text(_SITE.format(config=json.dumps(str(pool.config), ensure_ascii=False)), encoding="utf-8")
    return pool


def down(folder: Path | None = None) -> None:
    """End the pool and its jobs, whatever they are doing; no more than that if it is down already.

    Parameters
    ----------
    folder : Path, optional
        By default :func:`default_folder`. Configuration, logs and the queue's files stay there.

    Raises
    ------
    InputError
        There never was a pool in the folder.
    TransientError
        A process could not be ended.
    """
    _call("down", _resolved(folder))


def status(folder: Path | None = None) -> Pool | None:
    """Ask whether a pool is up and answers.

    Parameters
    ----------
    folder : Path, optional
        By default :func:`default_folder`.

    Returns
    -------
    Pool or None
        None if it is down or does not answer.

    Raises
    ------
    InputError
        There never was a pool in the folder.
    """
    where = _resolved(folder)
    return _described(where) if _call("status", where, allowed=(_DONE, _IS_DOWN)).returncode == _DONE else None


def purge(folder: Path | None = None) -> None:
    """End the pool and remove its files; the installed program stays, for others.

    Parameters
    ----------
    folder : Path, optional
        By default :func:`default_folder`. It goes as well, unless it holds files of others.

    Raises
    ------
    InputError
        There never was a pool in the folder.
    TransientError
        A process could not be ended.
    """
    where = _resolved(folder)
    if (where / "pool.lock").exists():  # else the script says what is wrong
        (where / "site.toml").unlink(missing_ok=True)
    _call("purge", where)


def _described(folder: Path) -> Pool:
    """Ask the script's ``env`` what a pool is, so that names and port are chosen in one place."""
    words = dict(word.split("=", 1) for word in shlex.split(_call("env", folder).stdout) if "=" in word)
    programs = words["PATH"].removesuffix(":$PATH")
    environment = {
        "CONDOR_CONFIG": words["CONDOR_CONFIG"],
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
    }
    port = int(words["CONDOR_POOL_ADDRESS"].rpartition(":")[2])
    return Pool(folder, Path(words["CONDOR_CONFIG"]), port, environment)


def _call(
    command: str, folder: Path, knobs: Mapping[str, str] | None = None, allowed: tuple[int, ...] = (_DONE,)
) -> subprocess.CompletedProcess[str]:
    """Run the script; what it says of a fault becomes one of our errors."""
    environment = {**os.environ, **(knobs or {}), "CONDOR_POOL_DIR": str(folder)}
    try:
        done = subprocess.run(
            ["bash", str(_SCRIPT), command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise InputError("no bash on this machine, which starts and ends the pool") from error
    if done.returncode in allowed:
        return done
    lines = [line.removeprefix("condor-pool: ").strip() for line in done.stderr.splitlines()]
    said = "; ".join(filter(None, lines)) or f"condor-pool.sh {command} ended with code {done.returncode}"
    raise InputError(said) if done.returncode == _MEND else TransientError(said)


def _resolved(folder: Path | None) -> Path:
    return (folder or default_folder()).expanduser().resolve()
