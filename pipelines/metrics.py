"""How far a campaign is, for Prometheus: an HTTP endpoint of the driver."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from clusters.watch import STATES
from cygnoreco.campaign import Standing
from cygnoreco.errors import InputError

#: Seconds that a client may be silent in the middle of a request. Leaving the endpoint waits for it.
_PATIENCE = 5.0
#: Counters: the label that they have, and what they say.
_COUNTERS = {
    "blocks": (
        "outcome",
        (
            "Blocks that were committed (done), and those that were done again, frame by frame, after their workers "
            "had died (retried); these are counted as done, too, once they are."
        ),
    ),
    "frames": (
        None,
        "Frames that were committed in this campaign; frames/s is rate(cygnoreco_frames_total[1m]).",
    ),
    "frames_quarantined": (None, "Frames that were set aside because workers died of them."),
    "bytes": (None, "Bytes of raw pixels that were read for the blocks of this campaign."),
    "runs": ("outcome", "Runs that have ended, every camera for itself: with a result (done), or without (failed)."),
    "stage_seconds": ("stage", "Wall seconds of the workers by stage."),
}


class Metrics(Collector):
    """The metrics of one campaign.

    They are made of the latest :class:`~cygnoreco.campaign.Standing` when they are asked for.

    Parameters
    ----------
    host : str
        Where they are served.
    port : int
        Likewise.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        # One object, replaced by one assignment: a scrape, which is in another thread, never sees half of an update.
        self._latest: tuple[Standing, Mapping[str, int], _Counts] = (Standing(), {}, _counts(Standing()))

    @property
    def url(self) -> str:
        """Where they can be read."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def update(self, standing: Standing, jobs: Mapping[str, int]) -> None:
        """Take how things are now.

        Parameters
        ----------
        standing : Standing
            Of the campaign. What it counts never goes back: a smaller count is no news.
        jobs : mapping
            Number of jobs by their states; empty where there are none.
        """
        before = self._latest[2]
        counts = {
            name: {**before[name], **{label: max(value, before[name].get(label, 0)) for label, value in new.items()}}
            for name, new in _counts(standing).items()
        }
        self._latest = (standing, dict(jobs), counts)

    def collect(self) -> Iterator[Metric]:
        """Give every metric, with its samples: what a registry asks of its collectors."""
        standing, jobs, counts = self._latest
        for name, (label, text) in _COUNTERS.items():
            counter = CounterMetricFamily(f"cygnoreco_{name}", text, labels=None if label is None else [label])
            for value_of_label, value in counts[name].items():
                counter.add_metric([] if label is None else [value_of_label], value)
            yield counter
        # Not cygnoreco_runs: OpenMetrics takes a counter's name without its _total, and would see one name twice.
        yield GaugeMetricFamily(
            "cygnoreco_runs_known", "Runs that are asked for, a camera each as soon as it is known.", standing.total
        )
        yield GaugeMetricFamily("cygnoreco_frames_known", "Frames of the runs that are planned.", standing.known)
        yield GaugeMetricFamily("cygnoreco_frames_resumed", "Of these, those of earlier starts.", standing.resumed)
        yield GaugeMetricFamily("cygnoreco_tasks_waiting", "Tasks that are with the scheduler.", standing.waiting)
        states = GaugeMetricFamily("cygnoreco_jobs", "Jobs in the queue of the pool, by state.", labels=["state"])
        for state, number in {**dict.fromkeys(STATES.values(), 0), **jobs}.items():
            states.add_metric([state], number)
        yield states
        yield InfoMetricFamily("cygnoreco_build", "What is running.", {"version": version("cygnoreco")})


#: Values of the counters, by name and by the value of their label; "" for a counter without one.
_Counts = dict[str, dict[str, float]]


def _counts(standing: Standing) -> _Counts:
    return {
        "blocks": {"done": standing.blocks, "retried": standing.retried},
        "frames": {"": standing.frames - standing.resumed},
        "frames_quarantined": {"": standing.quarantined},
        "bytes": {"": standing.bytes},
        "runs": {"done": standing.runs - standing.failed, "failed": standing.failed},
        "stage_seconds": dict(standing.seconds),
    }


@contextmanager
def serving(port: int, host: str = "127.0.0.1") -> Iterator[Metrics]:
    """Serve metrics over HTTP for the length of a ``with`` block.

    Parameters
    ----------
    port : int
        Where; 0 for any that is free.
    host : str
        Address to listen at. By default only this machine can read them; ``0.0.0.0`` or ``::`` is for all.

    Yields
    ------
    Metrics
        To be updated; knows its real port.

    Raises
    ------
    InputError
        One cannot listen there.
    """
    metrics = Metrics(host, port)
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server = _listen(host, port, make_wsgi_app(registry))
    except OSError as error:
        raise InputError(f"metrics: cannot listen at port {port} of {host}: {error.strerror or error}") from error
    metrics.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        yield metrics
    finally:
        server.shutdown()
        thread.join()
        server.server_close()  # waits for the threads of requests


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request. prometheus_client's own server forgets these, and leaves them and their sockets behind."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: a client that has hung up is none of the user's business."""


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: a scrape comes every few seconds."""


def _listen(host: str, port: int, app: Any) -> WSGIServer:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    of_family = type("_Server", (_Server,), {"address_family": family})
    return make_server(host, port, app, of_family, _Handler)
