"""What we ask of an HTCondor pool: submit, query, remove, edit; each request within a time limit."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.site import Pool
from cygnoreco.errors import TransientError

#: Where HTCondor looks for its configuration by itself.
_CONFIGS = (Path("/etc/condor/condor_config"), Path("~/.condor/user_config").expanduser())


class PoolError(TransientError):
    """The pool did not answer, refused a request, or gave no working workers."""


@dataclass(frozen=True)
class Schedd:
    """The schedd that holds our jobs.

    Attributes
    ----------
    pool : Pool
        How to find it.
    timeout : float
        Seconds that a request may take.
    """

    pool: Pool
    timeout: float = 30.0

    async def submit(self, descriptions: Sequence[str]) -> list[str | PoolError]:
        """Submit jobs.

        Parameters
        ----------
        descriptions : sequence of str
            A submit file's text each, without its ``queue``.

        Returns
        -------
        list of str or PoolError
            Number ``12.0`` of each, or why it was refused.

        Raises
        ------
        PoolError
            No answer. Jobs may have been submitted all the same: look for them by their attributes.
        """
        found = await self._ask("submit", descriptions=list(descriptions))
        return [one.get("id") or PoolError(f"submitting a job failed: {one['error']}") for one in found]

    async def query(self, constraint: str, projection: Sequence[str]) -> list[dict[str, Any]]:
        """Attributes of the jobs in the queue that fulfil a ClassAd expression."""
        return list(await self._ask("query", constraint=constraint, projection=list(projection)))

    async def history(self, constraint: str, projection: Sequence[str], limit: int) -> list[dict[str, Any]]:
        """Attributes of jobs that have left the queue, the latest first, so many at most."""
        return list(await self._ask("history", constraint=constraint, projection=list(projection), limit=limit))

    async def remove(self, constraint: str, reason: str) -> None:
        """Remove the jobs that fulfil a ClassAd expression; the reason stands in their history."""
        await self._ask("remove", constraint=constraint, reason=reason)

    async def edit(self, constraint: str, attribute: str, value: str) -> None:
        """Give an attribute of jobs a new value, a ClassAd expression."""
        await self._ask("edit", constraint=constraint, attribute=attribute, value=value)

    async def machines(self, projection: Sequence[str], constraint: str = "true") -> list[dict[str, Any]]:
        """Attributes of the slots of the pool."""
        return list(await self._ask("machines", constraint=constraint, projection=list(projection)))

    async def _ask(self, what: str, **arguments: Any) -> Any:
        """Have a process of its own ask (:mod:`clusters._requests` says why).

        Raises
        ------
        PoolError
            No answer in time, or an error.
        """
        request = {"what": what, "collector": self.pool.collector, "schedd": self.pool.schedd, **arguments}
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "clusters._requests",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=_environment(self.pool),
                start_new_session=True,  # the terminal's Ctrl-C is the driver's
            )  # fmt: skip
        except OSError as error:
            raise PoolError(f"{self}: no process to ask '{what}' with: {error}") from None
        try:
            out, said = await asyncio.wait_for(child.communicate(json.dumps(request).encode()), self.timeout)
        except TimeoutError:
            raise PoolError(f"{self}: no answer to '{what}' in {self.timeout:g} s") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
            raise PoolError(f"{self}: '{what}' failed: {last[0]}")
        try:
            found = json.loads(out)
        except ValueError:
            raise PoolError(f"{self}: no answer to '{what}' that can be read: {out[:200]!r}") from None
        if "error" in found:
            raise PoolError(f"{self}: '{what}' failed: {found['error']}")
        return found["answer"]

    def __str__(self) -> str:
        of = f" of {self.pool.collector}" if self.pool.collector else ""
        return f"schedd {self.pool.schedd or 'of this machine'}{of}"


def _environment(pool: Pool) -> dict[str, str]:
    """Environment in which HTCondor's bindings find pool and token."""
    environment = dict(os.environ)
    if pool.config is not None:
        environment["CONDOR_CONFIG"] = str(pool.config)
    elif "CONDOR_CONFIG" not in environment and not any(path.exists() for path in _CONFIGS):
        environment["CONDOR_CONFIG"] = "ONLY_ENV"  # a machine without HTCondor: else its absence is an error
    if pool.token is not None:
        environment["_CONDOR_SEC_TOKEN_DIRECTORY"] = str(pool.token.parent)  # for an IDTOKEN
        environment["BEARER_TOKEN_FILE"] = str(pool.token)  # for a SciToken
        environment["_CONDOR_SEC_CLIENT_AUTHENTICATION_METHODS"] = "IDTOKENS, SCITOKENS"  # and by nothing else
    return environment
