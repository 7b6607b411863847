"""The endpoint for Prometheus, read as Prometheus reads it."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections import Counter
from importlib.metadata import version

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from cygnoreco.campaign import Standing
from cygnoreco.errors import InputError
from pipelines import metrics as module
from pipelines.metrics import Metrics, serving

Samples = dict[tuple[str, str], float]
STANDING = Standing(
    runs=3, total=10, failed=1, frames=900, known=1200, retried=2, quarantined=1, blocks=110, bytes=9_000_000_000,
    seconds=Counter({"read": 3.5, "noise": 7.25}), waiting=17, resumed=20,
)  # fmt: skip


def scrape(metrics: Metrics, accept: str = "text/plain") -> str:
    request = urllib.request.Request(metrics.url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
        text: str = answer.read().decode()
    return text


def samples(text: str) -> Samples:
    """Values by name and by the value of the only label."""
    found = [sample for family in parser.text_string_to_metric_families(text) for sample in family.samples]
    values = {(each.name, "".join(each.labels.values())): each.value for each in found}
    assert len(values) == len(found)
    return values


def test_a_standing_is_read_over_http() -> None:
    with serving(0) as metrics:
        metrics.update(STANDING, {"running": 4, "idle": 2})
        values = samples(scrape(metrics))
    assert values == {
        ("cygnoreco_blocks_total", "done"): 110,
        ("cygnoreco_blocks_total", "retried"): 2,
        ("cygnoreco_frames_total", ""): 880,
        ("cygnoreco_frames_quarantined_total", ""): 1,
        ("cygnoreco_bytes_total", ""): 9e9,
        ("cygnoreco_runs_total", "done"): 2,
        ("cygnoreco_runs_total", "failed"): 1,
        ("cygnoreco_stage_seconds_total", "read"): 3.5,
        ("cygnoreco_stage_seconds_total", "noise"): 7.25,
        ("cygnoreco_runs_known", ""): 10,
        ("cygnoreco_frames_known", ""): 1200,
        ("cygnoreco_frames_resumed", ""): 20,
        ("cygnoreco_tasks_waiting", ""): 17,
        ("cygnoreco_jobs", "idle"): 2,
        ("cygnoreco_jobs", "running"): 4,
        ("cygnoreco_jobs", "removed"): 0,
        ("cygnoreco_jobs", "completed"): 0,
        ("cygnoreco_jobs", "held"): 0,
        ("cygnoreco_build_info", version("cygnoreco")): 1,
    }


def test_before_the_first_standing_everything_is_nought() -> None:
    with serving(0) as metrics:
        values = samples(scrape(metrics))
    assert values.pop(("cygnoreco_build_info", version("cygnoreco"))) == 1
    assert set(values.values()) == {0}
    assert ("cygnoreco_frames_total", "") in values


def test_the_stricter_format_that_prometheus_asks_for() -> None:
    with serving(0) as metrics:
        metrics.update(STANDING, {"running": 4})
        text = scrape(metrics, openmetrics.exposition.CONTENT_TYPE_LATEST)
    families = list(parse_openmetrics(text))
    assert len({family.name for family in families}) == len(families) == 12
    kinds = {family.name: family.type for family in families}
    assert (kinds["cygnoreco_frames"], kinds["cygnoreco_jobs"], kinds["cygnoreco_build"]) == (
        "counter",
        "gauge",
        "info",
    )
    assert all(family.documentation.endswith(".") for family in families)
    (frames,) = [family for family in families if family.name == "cygnoreco_frames"]
    assert "rate(cygnoreco_frames_total[1m])" in frames.documentation


number = st.integers(0, 1000)
standings = st.builds(
    Standing, runs=number, total=number, failed=number, frames=number, known=number, retried=number, quarantined=number,
    blocks=number, bytes=number, seconds=st.dictionaries(st.sampled_from(["read", "noise", "merge"]), number),
    waiting=number, resumed=st.just(0),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(standings, min_size=2, max_size=5))
def test_counters_never_decrease(many: list[Standing]) -> None:
    metrics = Metrics("", 0)
    before: Samples = {}
    for standing in many:
        metrics.update(standing, {})
        found = [sample for family in metrics.collect() for sample in family.samples]
        after = {(each.name, str(each.labels)): each.value for each in found if each.name.endswith("_total")}
        assert before.keys() <= after.keys()
        assert all(after[name] >= value >= 0 for name, value in before.items())
        before = after


def test_a_scrape_never_sees_half_of_an_update() -> None:
    with serving(0) as metrics:
        over = threading.Event()

        def go_on() -> None:
            n = 0
            while not over.is_set():
                n += 1
                metrics.update(Standing(frames=8 * n, blocks=n, total=n, seconds={"read": float(n)}), {"running": n})

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            last = 0.0
            for _ in range(20):
                values = samples(scrape(metrics))
                n = values["cygnoreco_blocks_total", "done"]
                assert n >= last
                assert (values["cygnoreco_frames_total", ""], values["cygnoreco_runs_known", ""]) == (8 * n, n)
                assert values["cygnoreco_jobs", "running"] == n
                last = n
        finally:
            over.set()
            thread.join()
        assert last > 0


def test_nothing_is_left_behind() -> None:
    before = threading.enumerate()
    with serving(0) as metrics:
        scrape(metrics)
        address = ("127.0.0.1", metrics.port)
    assert threading.enumerate() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    with serving(metrics.port) as again:
        assert again.port == metrics.port
        scrape(again)


def test_a_silent_client_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.3)
    before = threading.enumerate()
    with serving(0) as metrics:
        with socket.create_connection(("127.0.0.1", metrics.port)) as silent:
            silent.sendall(b"GET /metrics")
            scrape(metrics)  # nor the others
            began = time.monotonic()
            time.sleep(0.05)
        silent = socket.create_connection(("127.0.0.1", metrics.port))
        time.sleep(0.2)  # until it has been accepted
    with silent:
        assert time.monotonic() - began < 5
        assert threading.enumerate() == before
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_said() -> None:
    with serving(0) as metrics:
        taken = rf"port {metrics.port} of 127.0.0.1: .*in use"
        with pytest.raises(InputError, match=taken), serving(metrics.port):
            pass


def test_a_host_that_nobody_knows_is_said() -> None:
    with pytest.raises(InputError, match=r"cannot listen at port 0 of 192\.0\.2\.1"), serving(0, "192.0.2.1"):
        pass


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6() -> None:
    try:
        with serving(0, "::1") as metrics:
            assert metrics.url == f"http://[::1]:{metrics.port}/metrics"
            assert samples(scrape(metrics))
    except InputError as error:
        pytest.skip(str(error))
