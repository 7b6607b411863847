"""A pool elsewhere that lets in by token: nothing but its name, a schedd and the token is known; on a real pool."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters import pool, site
from clusters.connect import connect
from clusters.htcondor import Event
from clusters.pool import Pool
from clusters.site import Limits, Scheduler, Site
from tests.services.condor import QUICK, run_tool, wait_until

TOKENS = """
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, IDTOKENS
SEC_PASSWORD_DIRECTORY = {keys}
SEC_TOKEN_POOL_SIGNING_KEY_FILE = {keys}/POOL
TRUST_DOMAIN = condor.test
"""


@pytest.fixture(scope="module")
def by_token(condor: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Give a pool that signs tokens."""
    keys = tmp_path_factory.mktemp("keys")
    keys.chmod(0o700)
    (keys / "POOL").write_text(secrets.token_hex(32))
    (keys / "POOL").chmod(0o600)
    folder = tmp_path_factory.mktemp("token-pool")
    try:
        yield pool.up(folder, cpus=2, memory_mb=4096, extra=QUICK + TOKENS.format(keys=keys))
    finally:
        pool.down(folder)


def renew(here: Pool, path: Path, lifetime: int) -> Path:
    """Write a token that is good for so many seconds."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    text = run_tool(here, "condor_token_create", "-identity", "cygno@condor.test", "-lifetime", str(lifetime))
    path.write_text(text)
    path.chmod(0o600)
    return path


def site_of(here: Pool, token: Path) -> Site:
    name = run_tool(here, "condor_status", "-schedd", "-af", "Name").strip()
    return Site(
        name="elsewhere",
        kind="htcondor",
        pool=site.Pool(collector=f"127.0.0.1:{here.port}", schedd=name, token=token),
        job=site.Job(memory=500_000_000, disk=100_000_000),
        scheduler=Scheduler(host="127.0.0.1"),
        limits=Limits(interval=0.5, lease=30, close=20),
    )


def later(x: int) -> int:
    time.sleep(0.2)
    return x


@pytest.mark.slow
def test_a_token_that_ends_on_the_way_stops_nobody(
    by_token: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONDOR_CONFIG", raising=False)
    token = renew(by_token, tmp_path / "tokens" / "cygno", 6)
    events: list[Event] = []
    with connect(site_of(by_token, token), workers=1, logs=tmp_path / "logs", notify=events.append) as client:
        client.wait_for_workers(1)
        assert run_tool(by_token, "condor_q", "-all", "-af", "User").split() == ["cygno@condor.test"]
        wait_until(lambda: any(event.kind == "away" for event in events), "the end of the token", 30)
        assert list(client.gather(client.map(later, range(5)))) == list(range(5))
        renew(by_token, token, 300)
        wait_until(lambda: any(event.kind == "back" for event in events), "that the new token is taken")
    assert run_tool(by_token, "condor_q", "-all", "-af", "User").split() == []
    assert not any(event.kind == "left" for event in events)
