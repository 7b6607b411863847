"""A real pool of our own: up, down, two of them, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import socket
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clusters import pool
from clusters.pool import Pool
from clusters.site import load_site
from cygnoreco.errors import InputError, TransientError
from pipelines.cli import GOOD, TRANSIENT
from pipelines.cli.cluster import pool_down, pool_status, pool_up
from tests.services.condor import (
    QUICK,
    frozen_schedd,
    kill_schedd,
    master_pid,
    processes,
    processes_of,
    run_python,
    run_tool,
    schedd_pid,
    start_schedd,
    stop_schedd,
    wait_for_schedd,
    wait_until,
)

#: Submit a shell command, wait for a state of the job (4: completed, and so gone from the queue), print its number.
SUBMIT = """
import sys, time, htcondor2
command, wanted = sys.argv[1], int(sys.argv[2])
schedd = htcondor2.Schedd()
job = {"executable": "/bin/sh", "arguments": f'"-c \\'{command}\\'"', "should_transfer_files": "NO",
       "request_memory": "10MB", "request_disk": "1MB"}
number = schedd.submit(htcondor2.Submit(job)).cluster()
for _ in range(250):
    states = [int(ad["JobStatus"]) for ad in schedd.query(f"ClusterId == {number}", ["JobStatus"])]
    if states == ([] if wanted == 4 else [wanted]):
        break
    time.sleep(0.1)
else:
    sys.exit(f"job {number} is in state {states}")
print(number)
"""


@pytest.fixture
def folder(condor: None, tmp_path: Path) -> Iterator[Path]:
    """Where a test may start a pool of its own, that is down afterwards."""
    where = tmp_path / "pool"
    yield where
    if (where / "pool.lock").exists():
        pool.down(where)


def test_up_twice_is_the_same_pool(condor_pool: Pool) -> None:
    master = master_pid(condor_pool)
    assert pool.up(condor_pool.folder) == condor_pool
    assert pool.up(condor_pool.folder, cpus=4, port=condor_pool.port, extra=QUICK) == condor_pool
    assert pool.status(condor_pool.folder) == condor_pool
    assert master_pid(condor_pool) == master


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cpus": 3}, "its pool is up with NUM_CPUS = 4, not 3; take it down first"),
        ({"memory_mb": 100}, "MEMORY = 8192, not 100"),
        ({"port": 19}, r"SHARED_PORT_PORT = \d+, not 19"),
        ({"extra": "A = 1"}, "is up without the lines of"),
    ],
)
def test_a_pool_that_is_up_is_not_changed(condor_pool: Pool, asked: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pool.up(condor_pool.folder, **asked)
    assert pool.status(condor_pool.folder) == condor_pool


def test_a_pool_describes_itself_as_a_site(condor_pool: Pool) -> None:
    site = tomllib.loads(condor_pool.site.read_text())
    assert site["kind"] == "htcondor"
    assert site["pool"] == {"config": str(condor_pool.config)}
    assert site["job"] == {"cores": 1, "memory": "1 GB", "disk": "1 GB"}
    assert site["scheduler"] == {"host": "127.0.0.1"}
    assert load_site(str(condor_pool.site)).pool.config == condor_pool.config
    assert condor_pool.environment["CONDOR_CONFIG"] == str(condor_pool.config)


def test_lines_of_the_caller_win(condor_pool: Pool) -> None:
    assert run_tool(condor_pool, "condor_config_val", "-schedd", "PERIODIC_EXPR_INTERVAL").strip() == "1"
    assert run_tool(condor_pool, "condor_status", "-af", "TotalCpus", "TotalMemory").split() == ["4.0", "8192"]


def test_a_job_runs_and_finishes(condor_pool: Pool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_python(condor_pool, SUBMIT, f"echo done > {out}", "4")
    assert out.read_text() == "done\n", "the job writes where whoever has the pool writes"


def test_two_pools_side_by_side(condor_pool: Pool, folder: Path) -> None:
    other = pool.up(folder, cpus=1)
    assert other.port != condor_pool.port
    assert other.programs == condor_pool.programs, "the program is installed once"
    run_python(other, SUBMIT, "sleep 61.25", "2")
    assert "61.25" in run_tool(other, "condor_q", "-all", "-af", "Arguments")
    assert "61.25" not in run_tool(condor_pool, "condor_q", "-all", "-af", "Arguments")
    pool.down(folder)
    assert pool.status(folder) is None
    assert pool.status(condor_pool.folder) == condor_pool


@pytest.mark.parametrize("fault", ["none", "the master is killed", "the schedd hangs"])
def test_down_leaves_no_process(fault: str, folder: Path) -> None:
    found = pool.up(folder, cpus=1)
    run_python(found, SUBMIT, "sleep 300 & sleep 300", "2")
    wait_until(lambda: list(processes_of(folder).values()).count("sleep") == 2, "the job has begun")
    assert {"condor_master", "condor_schedd", "condor_startd", "condor_starter"} <= set(processes_of(folder).values())
    if fault == "the master is killed":
        os.kill(master_pid(found), signal.SIGKILL)
    elif fault == "the schedd hangs":
        pid = schedd_pid(found)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    pool.down(folder)
    assert processes_of(folder) == {}
    assert pool.status(folder) is None
    pool.down(folder)  # nothing more to do


def test_the_number_of_a_dead_master_says_nothing(condor_pool: Pool, folder: Path) -> None:
    pool.up(folder, cpus=1)
    pool.down(folder)
    (folder / "master.pid").write_text(f"{master_pid(condor_pool)}\n")
    assert pool.status(folder) is None
    pool.down(folder)
    assert pool.status(condor_pool.folder) == condor_pool, "the process of that number is another pool's"


def test_one_pool_for_all_who_ask_at_the_same_moment(folder: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: pool.up(folder, cpus=1), range(4)))
    assert found == [found[0]] * 4
    assert list(processes_of(folder).values()).count("condor_master") == 1


def test_a_port_that_is_taken(condor_pool: Pool, folder: Path) -> None:
    with pytest.raises(InputError, match=f"port {condor_pool.port} is taken; .* finds a free one"):
        pool.up(folder, port=condor_pool.port)
    assert pool.status(folder) is None


def test_a_port_of_ones_own_choice(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert pool.up(folder, cpus=1, port=port).port == port


@pytest.mark.parametrize("ask", [pool.status, pool.down, pool.purge])
def test_a_folder_without_a_pool(tmp_path: Path, ask: object) -> None:
    assert callable(ask)
    with pytest.raises(InputError, match=f"{tmp_path}/none: no pool here; 'up' makes one"):
        ask(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_with_other_things_is_left_alone(condor: None, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(InputError, match="there are other things in this folder"):
        pool.up(tmp_path)
    assert (tmp_path / "state").is_dir()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cpus": 0}, "CONDOR_POOL_CPUS=0: a whole number from 1 to 9999"),
        ({"memory_mb": -5}, "CONDOR_POOL_MEMORY=-5: a whole number"),
        ({"port": 65536}, "CONDOR_POOL_PORT=65536: a whole number from 0 to 65535"),
        ({"extra": "if nonsense"}, "the configuration with the lines of .* is wrong: .*nonsense"),
    ],
)
def test_settings_that_cannot_be(folder: Path, asked: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pool.up(folder, **asked)
    assert processes_of(folder) == {}


def test_a_folder_whose_name_condor_cannot_read(condor: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names of folders without spaces"):
        pool.up(tmp_path / "a pool")


def test_purge_removes_what_is_ours(folder: Path) -> None:
    pool.up(folder, cpus=1)
    (folder / "notes").write_text("of somebody")
    pool.purge(folder)
    assert [each.name for each in folder.iterdir()] == ["notes"]
    assert processes_of(folder) == {}


def test_a_mirror_that_does_not_answer(condor: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDOR_POOL_PREFIX", str(tmp_path / "prefix"))
    monkeypatch.setenv("DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    with pytest.raises((TransientError, InputError), match=r"apt could not fetch condor|no apt-get|no /usr/share"):
        pool.up(tmp_path / "pool")
    assert not (tmp_path / "prefix" / "ok").exists()


@pytest.mark.slow
def test_faults_of_the_schedd(condor_pool: Pool) -> None:
    number = run_python(condor_pool, SUBMIT, "sleep 299", "2").strip()
    wait_until(lambda: "sleep" in processes(condor_pool).values(), "the job has begun")
    jobs = [pid for pid, name in processes(condor_pool).items() if name == "sleep"]
    before = schedd_pid(condor_pool)
    stop_schedd(condor_pool)
    assert pool.status(condor_pool.folder) is None
    with pytest.raises(TransientError, match="is up but does not answer"):
        pool.up(condor_pool.folder)
    start_schedd(condor_pool)
    second = schedd_pid(condor_pool)
    assert second not in (None, before)
    with frozen_schedd(condor_pool):
        assert schedd_pid(condor_pool) == second
    kill_schedd(condor_pool)
    wait_for_schedd(condor_pool)
    assert schedd_pid(condor_pool) not in (None, second)
    wait_until(lambda: pool.status(condor_pool.folder) == condor_pool, "the pool is as before")
    assert [pid for pid, name in processes(condor_pool).items() if name == "sleep"] == jobs, "the job never noticed"
    run_tool(condor_pool, "condor_rm", number)
    wait_until(lambda: "sleep" not in processes(condor_pool).values(), "the job is gone")


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool_up(folder, 1, None, None, None, as_json=True, quiet=False) == GOOD
    said = json.loads(capsys.readouterr().out)
    assert said["up"] is True
    assert said["config"] == str(folder / "condor_config")
    assert pool_status(folder, as_json=False) == GOOD
    assert f"127.0.0.1:{said['port']}" in capsys.readouterr().out
    assert pool_down(folder, purge=False, as_json=False, quiet=False) == GOOD
    assert capsys.readouterr().out == f"{folder}: the pool is down\n"
    assert pool_status(folder, as_json=True) == TRANSIENT
    assert json.loads(capsys.readouterr().out) == {"folder": str(folder), "up": False}
    assert pool_down(folder, purge=True, as_json=True, quiet=False) == GOOD
    assert not folder.exists()
    with pytest.raises(InputError, match="no file of configuration lines"):
        pool_up(folder, None, None, None, folder / "lines", as_json=True, quiet=False)
