"""The page of a campaign, from the scheduler's web server."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import distributed
import pytest
from distributed.comm.core import CommClosedError

from clusters import dashboard, htcondor
from clusters.dashboard import EVENTS, FAILED, RUNS, Run, add_pages, document_of, page, page_address, publish, run_of
from clusters.htcondor import SLOT, Event, PoolCluster
from clusters.schedd import PoolError
from clusters.site import Site
from cygnoreco.campaign import Standing
from tests.services.condor import wait_until

NOW = 1_800_000_000.0
STANDING = Standing(
    runs=3, total=10, failed=1, frames=900, known=1200, retried=2, quarantined=1, blocks=110, bytes=9_000_000_000,
    seconds=Counter({"read": 3.5, "noise": 6.5}), waiting=17,
)  # fmt: skip
RUNNING = Run("/data/run00012.mid.gz", "cam0", "running", 100, 400, NOW - 30)
GOOD = Run("/data/run00011.mid.gz", "cam0", "good", 400, 400, NOW - 900, NOW - 60)
BROKEN = Run("/data/run00010.mid.gz", None, "failed", ended=NOW - 4000, error="no such file")
HELD = Event(NOW - 5, "held", "job 7.0 of worker 3 is held: memory", "3", "Traceback\n  MemoryError")


class _Seen(HTMLParser):
    """Tags, and the text between them, of a page as a browser takes it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._parts: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self._parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self._parts.append(data)


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "time", SimpleNamespace(time=lambda: NOW))


@pytest.fixture
def client() -> Iterator[distributed.Client]:
    """A client of a cluster with our pages, and without a worker."""
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, scheduler_kwargs=LOOPBACK) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        add_pages(cluster.scheduler)
        yield client


LOOPBACK = {"dashboard_address": "127.0.0.1:0"}


def read(client: distributed.Client, end: str = "") -> tuple[str, Message]:
    with urllib.request.urlopen(f"{page_address(client)}{end}", timeout=10) as answer:
        assert answer.status == 200
        return answer.read().decode(), answer.headers


def test_nothing_yet(client: distributed.Client) -> None:
    text, headers = read(client)
    assert "No campaign has reported yet." in text
    assert '<meta http-equiv="refresh" content="2">' in text
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    text, headers = read(client, ".json")
    assert json.loads(text) == {}
    assert headers["Content-Type"].startswith("application/json")


def test_the_page_shows_what_was_published(client: distributed.Client) -> None:
    publish(client, STANDING, [BROKEN, GOOD, RUNNING], [HELD], {"running": 4, "held": 1}, started=NOW - 100)
    text, headers = read(client)
    seen = _Seen(text).text
    for part in (
        "3 of 10 runs have ended 30 %",
        "900 of 1,200 frames are done, of the runs planned so far 75 %",
        "runs failed 1",
        "blocks done 110",
        "frames set aside 1",
        "pixels read 9 GB",
        "4 running 1 held",
        "run00012.mid.gz cam0 running 100 of 400 for 30 s",
        "run00011.mid.gz cam0 good 400 of 400 took 14 min · 1 min ago",
        "run00010.mid.gz failed 1 h 06 min ago no such file",
        "held job 7.0 of worker 3 is held: memory Traceback MemoryError",
        "noise 65 % read 35 %",
    ):
        assert part in seen
    assert seen.index("run00012") < seen.index("run00011") < seen.index("run00010")
    assert "No news" not in seen
    assert 'style="width:75.0%"' in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_the_document_is_there_as_json(client: distributed.Client) -> None:
    publish(client, STANDING, [GOOD], [HELD], {"idle": 2})
    document = json.loads(read(client, ".json")[0])
    counts = {name: value for name, value in vars(STANDING).items() if isinstance(value, int)}
    assert document == {
        "time": NOW,
        "site": None,
        "started": None,
        "standing": {**counts, "seconds": {"read": 3.5, "noise": 6.5}},
        "jobs": {"idle": 2},
        "runs": [vars(GOOD)],
        "events": [vars(HELD)],
    }
    publish(client, replace(STANDING, frames=901), [], [], {})
    assert json.loads(read(client, ".json")[0])["standing"]["frames"] == 901


HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7 * 7 }}{% raw x %}"


def test_hostile_text_is_text(client: distributed.Client) -> None:
    status: Any = HOSTILE
    run = Run(f"/data/{HOSTILE}/{HOSTILE}.mid.gz", HOSTILE, status, ended=NOW, error=HOSTILE)
    event = Event(NOW, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    publish(client, replace(STANDING, seconds={HOSTILE: 1.0}), [run], [event], {HOSTILE: 1})
    seen = _Seen(read(client)[0])
    assert not {"script", "img"} & set(seen.tags)
    assert seen.tags.count("style") == 1
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert seen.text.count(HOSTILE) == 8
    assert ("title", run.path) in seen.attributes
    assert json.loads(read(client, ".json")[0])["runs"][0]["error"] == HOSTILE


def test_text_that_is_none_is_made_one(client: distributed.Client) -> None:
    name = b"/data/run\xff\xed.mid.gz".decode(errors="surrogateescape")  # as the system gives names
    run = replace(BROKEN, path=name, error="\x1b[31mred\x00\nnext line " + 5000 * "x")
    publish(client, STANDING, [run], [], {})
    text = _Seen(read(client)[0]).text
    assert r"run\udcff\udced.mid.gz" in text
    assert "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER} next line xxx" in text
    error = json.loads(read(client, ".json")[0])["runs"][0]["error"]
    assert len(error) < 2100
    assert error.endswith("x …")


def test_old_news_are_called_so() -> None:
    document = document_of(STANDING, [RUNNING], [], {})
    assert "No news for 2 h 00 min" in page(document, NOW + 7200).decode()
    assert "for 30 s" in page(document, NOW + 7200).decode()  # as it was then
    assert "No news" not in page(document, NOW + 3).decode()


def test_a_campaign_that_has_just_begun() -> None:
    document = document_of(Standing(total=1), [], [], {}, site="a pool", started=NOW)
    seen = _Seen(page(document, NOW).decode()).text
    assert "a pool" in seen
    assert "0 of 1 runs have ended 0 %" in seen
    assert "0 of 0 frames are done, of the runs planned so far 0 %" in seen
    assert "No run to show yet." in seen


def test_the_latest_are_shown_and_failed_ones_stay() -> None:
    runs = [replace(GOOD, path=f"{n}", ended=NOW - n) for n in range(200)]
    failed = [replace(BROKEN, path=f"failed {n}", ended=NOW - 1000 - n) for n in range(20)]
    events = [replace(HELD, text=f"{n}", time=NOW - n) for n in range(100)]
    document = document_of(STANDING, [*failed, *reversed(runs), RUNNING], events, {})
    shown = [run["path"] for run in document["runs"]]
    assert shown == [
        RUNNING.path,
        *(f"{n}" for n in range(RUNS - FAILED - 1)),
        *(f"failed {n}" for n in range(FAILED)),
    ]
    assert [event["text"] for event in document["events"]] == [f"{n}" for n in range(EVENTS)]


def test_what_became_of_a_run() -> None:
    summary = {"status": "bad events", "input": "/a/run1.mid", "camera": "cam1", "frames": 397, "frames_lost": 3}
    assert run_of(summary, 7.0, 5.0) == Run("/a/run1.mid", "cam1", "bad events", 397, 400, 5.0, 7.0)
    failure = {"status": "failed", "input": "/a/run2.mid", "camera": None, "error": "no such file"}
    assert run_of(failure, 7.0) == Run("/a/run2.mid", None, "failed", ended=7.0, error="no such file")


def test_a_connection_that_is_gone_stops_nothing(client: distributed.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise CommClosedError("gone")

    monkeypatch.setattr(client, "set_metadata", gone)
    publish(client, STANDING, [], [], {})


def test_a_scheduler_that_is_told_so_by_its_configuration_shows_the_page() -> None:
    routes = [*dask.config.get("distributed.scheduler.http.routes"), "clusters.dashboard"]
    with (
        dask.config.set({"distributed.scheduler.http.routes": routes}),
        distributed.LocalCluster(n_workers=0, dashboard_address=None, scheduler_kwargs=LOOPBACK) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        publish(client, STANDING, [GOOD], [], {})
        assert "run00011.mid.gz" in read(client)[0]
        assert json.loads(read(client, ".json")[0])["runs"] == [vars(GOOD)]


class _Schedd:
    """A schedd that holds three jobs until they are removed; every second question it does not answer."""

    def __init__(self, *_: object) -> None:
        self._states = [2, 1, 2]
        self._asked = 0

    async def query(self, constraint: str, projection: list[str]) -> list[dict[str, Any]]:
        self._asked += 1
        if self._states and not self._asked % 2:
            raise PoolError("no answer")
        return [{"ClusterId": n, "ProcId": 0, "JobStatus": state, SLOT: f"{n}"} for n, state in enumerate(self._states)]

    async def remove(self, constraint: str, reason: str) -> None:
        if reason == "the driver has ended":
            self._states = []

    async def edit(self, constraint: str, attribute: str, value: str) -> None: ...


def test_a_cluster_on_a_pool_has_the_page_and_counts_its_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(htcondor, "Schedd", _Schedd)
    events: list[Event] = []
    with (
        PoolCluster(Site.model_validate(SITE), logs=tmp_path, notify=events.append) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        assert "clusters.dashboard" not in dask.config.get("distributed.scheduler.http.routes")
        wait_until(lambda: {"away", "back"} <= {event.kind for event in events}, "an answer after none", 10)
        assert cluster.jobs_by_state == {"running": 2, "idle": 1}
        publish(client, STANDING, [], [], cluster.jobs_by_state)
        seen = _Seen(read(client)[0]).text
        assert "2 running 1 idle" in seen
        assert "a pool" in seen


SITE = {
    "name": "a pool", "kind": "htcondor", "job": {"cores": 1}, "scheduler": {"host": "127.0.0.1"},
    "workers": {"maximum": 4}, "limits": {"interval": 0.2, "close": 0.1},
}  # fmt: skip
