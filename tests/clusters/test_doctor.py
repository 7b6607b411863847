"""The doctor finds what is wrong with a site, and says what to do; on the real pool."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from clusters.connect import connect
from clusters.doctor import Check, examine
from clusters.overview import overview
from clusters.pool import Pool as CondorPool
from clusters.site import Pool, Scheduler, Site, load_site
from tests.services.condor import start_schedd, stop_schedd, wait_until

PATIENCE = 15.0


@pytest.fixture
def site(condor_pool: CondorPool) -> Site:
    return load_site(condor_pool.site)


def with_job(site: Site, **job: Any) -> Site:
    return site.model_copy(update={"job": site.job.model_copy(update=job)})


def bad(site: Site, **options: Any) -> Check:
    """Return the one finding that is bad."""
    (found,) = [check for check in examine(site, **{"patience": PATIENCE, **options}) if not check.good]
    assert found.remedy
    return found


def token(path: Path, **claims: Any) -> Path:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    path.write_text(f"head.{middle}.signature\n")
    return path


def test_a_good_site_is_fit(site: Site, tmp_path: Path) -> None:
    told: list[Check] = []
    checks = examine(site, store=str(tmp_path), patience=PATIENCE, watch=told.append)
    assert told == checks
    assert [check for check in checks if not check.good] == []
    assert {
        "schedd",
        "machines",
        "job to driver",
        "driver to job",
        "Python",
        "packages",
        "disk",
        "memory",
        "store",
    } <= {check.name for check in checks}


def test_a_python_that_is_not_there(site: Site) -> None:
    found = bad(with_job(site, python="/no/such/python"))
    assert (found.name, "job.python" in found.remedy) == ("job", True)
    assert "not found" in found.found


def test_a_job_that_no_machine_can_hold(site: Site) -> None:
    checks = examine(with_job(site, memory=10**15), patience=3.0)
    assert [check.name for check in checks if not check.good] == ["machines", "job"]
    assert checks[1].found.startswith("0 of 1 slots")
    assert "idle after" in checks[-1].found


def test_a_job_that_is_held(site: Site) -> None:
    found = bad(with_job(site, submit={"Output": "/no/such/folder/out", "Stream_Output": "False"}))
    assert "held" in found.found
    assert "/no/such/folder" in found.found


def test_a_submission_that_is_refused(site: Site) -> None:
    assert bad(with_job(site, submit={"request_cpus": "many and more"})).name == "submission"


def test_a_store_that_is_not_there(site: Site) -> None:
    found = bad(site, store="/no/such/store")
    assert (found.name, "FileNotFoundError" in found.found) == ("store", True)


def test_an_address_that_is_not_of_this_machine(site: Site) -> None:
    found = bad(site.model_copy(update={"scheduler": Scheduler(host="192.0.2.1")}))
    assert (found.name, "192.0.2.1:0" in found.found) == ("address", True)


def test_a_gpu_that_is_not_there(site: Site) -> None:
    checks = examine(with_job(site, gpus=1, submit={"request_gpus": 0}), patience=PATIENCE)
    assert [check.name for check in checks if not check.good] == ["GPU"]


def test_a_schedd_that_is_down(condor_pool: CondorPool, site: Site) -> None:
    stop_schedd(condor_pool)
    try:
        assert bad(site).name == "schedd"
    finally:
        start_schedd(condor_pool)


def test_tokens(site: Site, tmp_path: Path) -> None:
    def found(path: Path) -> Check:
        return examine(site.model_copy(update={"pool": Pool(config=site.pool.config, token=path)}), patience=PATIENCE)[
            0
        ]

    assert "cannot be read" in found(tmp_path / "none").found
    (tmp_path / "other").write_text("no token")
    assert "holds no token" in found(tmp_path / "other").found
    ended = found(token(tmp_path / "old", sub="cygno@pool", exp=time.time() - 60))
    assert (ended.good, "of cygno@pool, ended" in ended.found) == (False, True)
    assert found(token(tmp_path / "new", sub="cygno@pool", exp=time.time() + 60)).good
    assert "without an end" in found(token(tmp_path / "ever")).found


def test_the_overview_shows_our_jobs(site: Site, tmp_path: Path) -> None:
    wait_until(lambda: overview(site).free_cores == 4, "no claim of an earlier job")
    before = overview(site)
    assert (before.machines, before.cores, before.jobs) == (1, 4, ())
    with connect(site, workers=1, logs=tmp_path) as client:
        client.wait_for_workers(1)
        wait_until(lambda: [job.state for job in overview(site).jobs] == ["running"], "a job that runs")
        now = overview(site)
        (job,) = now.jobs
        assert job.worker == f"{client.cluster.tag}-0"
        assert 0 < job.lease_s <= site.limits.lease
        wait_until(lambda: overview(site).free_cores == 3, "a core less")
