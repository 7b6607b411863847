"""A page on the scheduler's own web server that shows a campaign: runs, blocks, jobs and what happened to them.

The driver publishes a document about once a second, as metadata of the scheduler. The page is made of it when somebody
asks, at ``/cygnoreco``; ``/cygnoreco.json`` is the document itself. It needs neither Bokeh nor JavaScript.

A scheduler that runs by itself shows the page if its configuration names this module among its routes,
``distributed.scheduler.http.routes``. One in this process is given it by :func:`add_pages`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Protocol

from distributed.http.utils import RequestHandler, get_handlers
from tornado.template import Template

if TYPE_CHECKING:
    from distributed import Client, Scheduler

    from cygnoreco.campaign import Standing

#: Where the document lies among the scheduler's metadata.
KEY = "cygnoreco"
#: How many runs and events are shown; so many of the runs may be failed ones that are not among the latest.
RUNS, FAILED, EVENTS = 50, 10, 20
#: Letters of a text that are shown at most.
_LETTERS = 2000
#: Seconds between two looks of the browser, and after which the driver is missed.
_REFRESH, _SILENT = 2, 15.0


@dataclass(frozen=True)
class Run:
    """One camera of one run, as the page shows it.

    Attributes
    ----------
    path : str
        The run.
    camera : str or None
        Its camera, if known.
    status : {'running', 'good', 'bad events', 'failed'}
        What became of it.
    frames, known : int
        Frames that are committed, of all.
    started, ended : float or None
        UNIX seconds, if known.
    error : str or None
        Why there is no result.
    """

    path: str
    camera: str | None
    status: Literal["running", "good", "bad events", "failed"]
    frames: int = 0
    known: int = 0
    started: float | None = None
    ended: float | None = None
    error: str | None = None


def run_of(outcome: Mapping[str, Any], ended: float, started: float | None = None) -> Run:
    """Say for the page what became of a run.

    Parameters
    ----------
    outcome : mapping
        Summary of its result; or ``status`` (``failed``), ``input``, ``camera`` and ``error``.
    ended : float
        UNIX seconds at which that was known.
    started : float, optional
        UNIX seconds at which it was begun. That of the summary is when it began to be published.
    """
    path, camera = str(outcome["input"]), outcome.get("camera")
    if outcome["status"] == "failed":
        return Run(path, camera, "failed", started=started, ended=ended, error=str(outcome["error"]))
    frames = outcome["frames"]
    status: Literal["good", "bad events"] = "good" if outcome["status"] == "good" else "bad events"
    return Run(path, camera, status, frames, frames + outcome["frames_lost"], started, ended)


class _Event(Protocol):
    """What is used of a :class:`clusters.htcondor.Event`, whose module knows this one."""

    @property
    def time(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def worker(self) -> str | None: ...
    @property
    def log(self) -> str: ...


def document_of(
    standing: Standing,
    runs: Iterable[Run],
    events: Iterable[_Event],
    jobs: Mapping[str, int],
    *,
    site: str | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Make the document that the page is made of; parameters as for :func:`publish`.

    Returns
    -------
    dict
        Of plain values, and of texts that can be sent.

        * ``time``: now, in UNIX seconds; ``started``; ``site``.
        * ``standing``: the attributes of Standing. ``jobs``: number by state.
        * ``runs``: the attributes of :class:`Run`; those that are worked on before those that have ended.
        * ``events``: the attributes of :class:`clusters.htcondor.Event`.

        The latest come first.
    """
    counts = {name: value for name, value in vars(standing).items() if isinstance(value, int)}
    seconds = {_clean(stage): float(value) for stage, value in standing.seconds.items()}
    latest = sorted(events, key=lambda event: event.time, reverse=True)[:EVENTS]
    return {
        "time": time.time(),
        "site": None if site is None else _clean(site),
        "started": started,
        "standing": {**counts, "seconds": seconds},
        "jobs": {_clean(state): int(number) for state, number in jobs.items()},
        "runs": [_cleaned(vars(run)) for run in _shown(runs)],
        "events": [
            _cleaned({name: getattr(event, name) for name in ("time", "kind", "text", "worker", "log")})
            for event in latest
        ],
    }


def _shown(runs: Iterable[Run]) -> list[Run]:
    """Pick the latest runs, and always some that failed: in a long campaign these are soon not the latest."""
    ranked = sorted(runs, key=_news, reverse=True)
    failed = [run for run in ranked if run.status == "failed"][:FAILED]
    kept = set(map(id, failed))
    others = [run for run in ranked if id(run) not in kept][: RUNS - len(failed)]
    return sorted([*failed, *others], key=lambda run: (run.ended is None, _news(run)), reverse=True)


def _news(run: Run) -> float:
    """When something was heard of a run."""
    return run.ended or run.started or 0.0


def _cleaned(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _clean(value) if isinstance(value, str) else value for name, value in fields.items()}


def _clean(text: str) -> str:
    """Text that can be sent: a file's name need not be UTF-8, and what a job wrote need not be text, nor short."""
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.encode(errors="backslashreplace").decode())
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]} …"


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def publish(
    client: Client,
    standing: Standing,
    runs: Iterable[Run],
    events: Iterable[_Event],
    jobs: Mapping[str, int],
    *,
    started: float | None = None,
) -> None:
    """Have the page show how a campaign is now; at most once a second, please.

    A page that cannot be told is no reason to stop a campaign: a fault of the connection passes without a word.

    Parameters
    ----------
    client : distributed.Client
        Of the campaign.
    standing : Standing
        How far it is.
    runs : iterable of Run
        Runs that have been begun, or have ended. The latest are shown.
    events : iterable of clusters.htcondor.Event
        What happened to jobs. The latest are shown.
    jobs : mapping
        Number of jobs by their states.
    started : float, optional
        UNIX seconds at which the campaign began.
    """
    site = getattr(getattr(client.cluster, "site", None), "name", None)
    document = document_of(standing, runs, events, jobs, site=site, started=started)
    with contextlib.suppress(OSError):
        client.set_metadata([KEY], document)


def page_address(client: Client) -> str | None:
    """Address of the page, after the user's template for those of Dask; None if the scheduler has no web server."""
    link = client.dashboard_link
    return f"{link.rpartition('/')[0]}/{KEY}" if link else None


def add_pages(scheduler: Scheduler) -> None:
    """Have a scheduler of this process show the pages.

    Its configuration, which is the whole process's, stays as it is.
    """
    scheduler.http_application.add_handlers(".*$", get_handlers(scheduler, [__name__]))


class Page(RequestHandler):
    """The campaign, for people."""

    def get(self) -> None:
        """Make the page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        # Every text is escaped. Should one not be, there is still nothing that it could have done.
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.write(page(_document(self.server), time.time()))


class Document(RequestHandler):
    """The document, for machines; ``{}`` if there is none."""

    def get(self) -> None:
        """Give it."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.write(_document(self.server) or {})


#: What Dask looks for in a module that it is told to take routes from.
routes: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [
    (rf"{KEY}", Page, {}),
    (rf"{KEY}\.json", Document, {}),
]


def _document(scheduler: Any) -> dict[str, Any] | None:
    found = scheduler.task_metadata.get(KEY)
    return found if isinstance(found, dict) and "standing" in found else None


def page(document: Mapping[str, Any] | None, now: float) -> bytes:
    """Make the page of a document, as UTF-8.

    Parameters
    ----------
    document : mapping or None
        Of :func:`document_of`; None if there is none yet.
    now : float
        UNIX seconds.
    """
    return _PAGE.generate(
        refresh=_REFRESH,
        style=_STYLE,
        document=document,
        now=now,
        silent=document is not None and now - document["time"] > _SILENT,
        bars=_bars(document["standing"]) if document else (),
        tiles=_tiles(document) if document else (),
        stages=_stages(document["standing"]["seconds"]) if document else (),
        percent=_percent,
        span=_span,
        when=_when,
        name=lambda path: PurePosixPath(path).name or path,
        kind=_KINDS.get,
    )


#: Which statuses, states and kinds of event are good, bad, or worth a look.
_KINDS = {
    "good": "good", "running": "busy", "bad events": "warn", "failed": "bad", "held": "bad", "refused": "bad",
    "fault": "bad", "left": "bad", "gone": "warn", "silent": "warn", "away": "warn", "back": "good",
}  # fmt: skip


def _bars(standing: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Say what the large bars show."""
    return [  # frames alone would be nearly done at any time: they are only known as runs are planned
        ("runs have ended", standing["runs"], standing["total"]),
        ("frames are done, of the runs planned so far", standing["frames"], standing["known"]),
    ]


def _tiles(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Numbers to show large: what it is, the number, and whether it is bad."""
    standing = document["standing"]
    tiles = [("runs failed", f"{standing['failed']:,}", "bad")] if standing["failed"] else []
    tiles += [("blocks done", f"{standing['blocks']:,}", "")]
    tiles += [("blocks retried", f"{standing['retried']:,}", "warn")] if standing["retried"] else []
    tiles += [("frames set aside", f"{standing['quarantined']:,}", "warn")] if standing["quarantined"] else []
    tiles += [("tasks waiting", f"{standing['waiting']:,}", ""), ("pixels read", _bytes(standing["bytes"]), "")]
    if document.get("started") is not None:
        elapsed = max(document["time"] - document["started"], 1.0)
        speed = (standing["frames"] - standing["resumed"]) / elapsed
        tiles += [("elapsed", _span(elapsed), ""), ("frames/s on average", f"{speed:,.3g}", "")]
    return tiles


def _stages(seconds: Mapping[str, float], most: int = 8) -> list[tuple[str, float]]:
    """Stages and their shares of the time, the largest first; the small ones together."""
    total = sum(seconds.values())
    ranked = sorted(((name, value / total) for name, value in seconds.items() if value > 0), key=lambda each: -each[1])
    rest = sum(share for _, share in ranked[most:])
    return ranked[:most] + ([("others", rest)] if rest else [])


def _percent(part: float, whole: float) -> float:
    return 0.0 if whole <= 0 else min(100.0 * part / whole, 100.0)


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} PB"


def _span(seconds: float) -> str:
    """Time for people, in two units at most."""
    minutes, hours, days = (int(seconds / unit) for unit in (60, 3600, 86400))
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{max(int(seconds), 0)} s"


def _when(run: Mapping[str, Any], told: float, now: float) -> str:
    """Say for how long a run had been worked on when we were told, or when it ended."""
    if run["ended"] is None:
        return "" if run["started"] is None else f"for {_span(told - run['started'])}"
    took = "" if run["started"] is None else f"took {_span(run['ended'] - run['started'])} · "
    return f"{took}{_span(now - run['ended'])} ago"


_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --text: #1c2430; --dim: #5c6878; --line: #dfe3e9;
  --busy: #2563c9; --good: #1a7f4b; --warn: #9a6200; --bad: #c0302b; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #12161c; --card: #1b2129; --text: #e4e8ee; --dim: #98a4b3; --line: #2d3641;
    --busy: #6aa5ff; --good: #4cc38a; --warn: #e5a73b; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; flex-wrap: wrap; gap: 0 .75rem; align-items: baseline; padding-top: 1rem; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: .8rem; margin: 1.5rem 0 .4rem; color: var(--dim); text-transform: uppercase; letter-spacing: .05em; }
section, .card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem; }
.dim, footer { color: var(--dim); }
.num { font-variant-numeric: tabular-nums; }
.news { margin-left: auto; }
.alarm { border-color: var(--bad); color: var(--bad); margin: 1rem 0; }
.whole { margin-top: .8rem; }
.whole p { margin: 0 0 .4rem; display: flex; gap: 1rem; justify-content: space-between; align-items: baseline; }
.whole b { font-size: 1.5rem; } .whole p > :last-child { white-space: nowrap; font-size: 1.1rem; }
.bar { display: block; height: .5rem; border-radius: .25rem; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--busy); }
.bar.good i { background: var(--good); } .bar.warn i { background: var(--warn); } .bar.bad i { background: var(--bad); }
.whole .bar { height: .8rem; border-radius: .4rem; margin-bottom: .8rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .7rem 1rem; margin: .9rem 0 0; }
dt { color: var(--dim); font-size: .85rem; } dd { margin: 0; font-size: 1.1rem; }
.busy { color: var(--busy); } .good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.chip { font-size: .8rem; border: 1px solid; border-radius: 1rem; padding: 0 .55rem; white-space: nowrap;
  justify-self: start; }
ul { list-style: none; margin: 0; padding: 0; }
li { padding: .45rem 0; border-top: 1px solid var(--line); } li:first-child { border-top: 0; }
.jobs { display: flex; flex-wrap: wrap; gap: .5rem 1.6rem; } .jobs b { font-size: 1.1rem; }
.run { display: grid; grid-template-columns: minmax(0, 1fr) 6.5rem minmax(6rem, 12rem) 7rem 11rem; gap: .1rem .9rem;
  align-items: center; }
.run > :nth-child(n + 4) { text-align: right; }
.name, .why, .text { overflow-wrap: anywhere; unicode-bidi: isolate; }
.run .why { grid-column: 1 / -1; text-align: left; margin: .1rem 0 0; font-size: .9rem; white-space: pre-wrap; }
.stage { display: grid; grid-template-columns: 9rem minmax(0, 1fr) 4rem; gap: .9rem; align-items: center; }
.stage > :last-child { text-align: right; }
.event { display: grid; grid-template-columns: 6.5rem 7rem minmax(0, 1fr); gap: 0 .9rem; align-items: baseline; }
pre { grid-column: 3; margin: .3rem 0 0; padding: .4rem .6rem; max-height: 11rem; overflow: auto; font-size: .8rem;
  background: var(--ground); border-radius: .4rem; }
footer { padding-top: 1.2rem; padding-bottom: 2rem; font-size: .85rem; }
a { color: inherit; }
@media (max-width: 54rem) {
  .run { display: flex; flex-wrap: wrap; justify-content: space-between; } .run .name { flex: 1 1 0; min-width: 60%; }
  .run .bar, .run .why { flex: 0 0 100%; } .run .bar { margin: .2rem 0; }
  .event { display: flex; flex-wrap: wrap; justify-content: space-between; } .event .at { order: 1; }
  .event .text, .event pre { order: 2; flex: 0 0 100%; min-width: 0; }
  .stage { grid-template-columns: 7rem minmax(0, 1fr) 3rem; } }
"""

#: Tornado escapes whatever is put in, unless it is marked ``raw``: the style, which is ours.
_PAGE = Template(
    """\
{% set standing = document["standing"] if document else None %}\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{{ refresh }}">
<link rel="icon" href="data:,">
<title>{% if document %}{{ standing["runs"] }} of {{ standing["total"] }} runs · {% end %}cygnoreco</title>
<style>{% raw style %}</style>
</head>
<body>
<header>
<h1>cygnoreco</h1>
{% if document and document.get("site") %}<span class="name">{{ document["site"] }}</span>{% end %}
{% if document %}<span class="news dim">updated {{ span(now - document["time"]) }} ago</span>{% end %}
</header>
<main>
{% if not document %}
<h2>Campaign</h2>
<section><p>No campaign has reported yet.</p>
<p class="dim">This page looks again every {{ refresh }} seconds.</p></section>
{% else %}
{% if silent %}
<p class="card alarm" role="alert">No news for {{ span(now - document["time"]) }}: the driver has ended, or is stuck.
What follows is how things were then.</p>
{% end %}
<section class="whole">
{% for what, part, whole in bars %}{% set done = percent(part, whole) %}\
<p><span><b class="num">{{ "{:,}".format(part) }}</b>
<span class="dim">of {{ "{:,}".format(whole) }} {{ what }}</span></span>
<span class="num">{{ int(done) }} %</span></p>
<span class="bar" role="progressbar" aria-label="{{ what }}" aria-valuemin="0" aria-valuemax="100"
 aria-valuenow="{{ int(done) }}"><i style="width:{{ "%.1f" % done }}%"></i></span>
{% end %}<dl>
{% for what, number, how in tiles %}<div><dt>{{ what }}</dt><dd class="num {{ how }}">{{ number }}</dd></div>
{% end %}</dl>
</section>
{% if document["jobs"] %}
<h2>Jobs</h2>
<section class="jobs">
{% for state, number in document["jobs"].items() %}\
<span><b class="num {{ kind(state, "") if number else "dim" }}">{{ number }}</b>
<span class="dim">{{ state }}</span></span>
{% end %}</section>
{% end %}
<h2>Runs</h2>
<section>
{% if not document["runs"] %}<p class="dim">No run to show yet.</p>{% end %}
<ul>
{% for run in document["runs"] %}{% set how = kind(run["status"], "") %}\
<li class="run">
<span class="name" title="{{ run["path"] }}">{{ name(run["path"]) }}
{% if run["camera"] %}<span class="dim">{{ run["camera"] }}</span>{% end %}</span>
<span class="chip {{ how }}">{{ run["status"] }}</span>
<span class="bar {{ how }}"><i style="width:{{ "%.1f" % percent(run["frames"], run["known"]) }}%"></i></span>
<span class="num">{% if run["known"] %}{{ run["frames"] }} of {{ run["known"] }}{% end %}</span>
<span class="dim num">{{ when(run, document["time"], now) }}</span>
{% if run["error"] %}<p class="why bad">{{ run["error"] }}</p>{% end %}
</li>
{% end %}</ul>
</section>
{% if document["events"] %}
<h2>What happened to jobs</h2>
<section><ul>
{% for event in document["events"] %}\
<li class="event">
<span class="at dim num">{{ span(now - event["time"]) }} ago</span>
<span class="chip {{ kind(event["kind"], "dim") }}">{{ event["kind"] }}</span>
<span class="text">{{ event["text"] }}</span>
{% if event["log"] %}<pre>{{ event["log"] }}</pre>{% end %}
</li>
{% end %}</ul></section>
{% end %}
{% if stages %}
<h2>Where the time of the workers goes</h2>
<section><ul>
{% for stage, share in stages %}\
<li class="stage"><span class="name">{{ stage }}</span>
<span class="bar"><i style="width:{{ "%.1f" % (100 * share) }}%"></i></span>
<span class="num">{{ "%.0f" % (100 * share) }} %</span></li>
{% end %}</ul></section>
{% end %}
{% end %}
</main>
<footer><a href="cygnoreco.json">The same as JSON</a> · <a href="info/main/workers.html">Dask's workers</a></footer>
</body>
</html>
""",
    name="cygnoreco.html",
    whitespace="single",
)
