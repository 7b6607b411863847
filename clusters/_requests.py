"""One request to an HTCondor pool: JSON on standard input, the answer as JSON on standard output.

``clusters.schedd`` starts a process for each. The bindings hold Python's lock while they wait for a daemon, and read
their configuration and tokens once a process: in the driver, a schedd that does not answer would stop the scheduler.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import classad2
import htcondor2


def _plain(value: object) -> object:
    """Value of a ClassAd's attribute as JSON has it; an expression that is none is None."""
    if isinstance(value, classad2.ExprTree):
        value = value.eval()
    return None if isinstance(value, classad2.Value) else value if isinstance(value, (int, float, bool)) else str(value)


def _ads(ads: list[Any], projection: list[str]) -> list[dict[str, object]]:
    return [{name: _plain(ad[name]) for name in projection if name in ad} for ad in ads]


def _schedd(collector: htcondor2.Collector, name: str | None) -> htcondor2.Schedd:
    if name is None:
        return htcondor2.Schedd()
    return htcondor2.Schedd(collector.locate(htcondor2.DaemonType.Schedd, name))


def answer(request: dict[str, Any]) -> object:
    """Do what a request wants.

    Parameters
    ----------
    request : dict
        ``what`` is ``submit``, ``query``, ``history``, ``remove``, ``edit`` or ``machines``; ``collector`` and
        ``schedd`` name the daemons; the rest are the arguments of it.
    """
    collector = htcondor2.Collector(request["collector"]) if request["collector"] else htcondor2.Collector()
    what = request["what"]
    if what == "machines":
        ads = collector.query(htcondor2.AdType.Startd, request["constraint"], request["projection"])
        return _ads(ads, request["projection"])
    schedd = _schedd(collector, request["schedd"])
    if what == "submit":
        return [_submitted(schedd, description) for description in request["descriptions"]]
    if what == "query":
        return _ads(schedd.query(request["constraint"], request["projection"]), request["projection"])
    if what == "history":
        found = schedd.history(request["constraint"], request["projection"], match=request["limit"])
        return _ads(list(found), request["projection"])
    if what == "remove":
        # A plain string is lost by the bindings of 25.x: a pair of text and code is not.
        done = schedd.act(htcondor2.JobAction.Remove, request["constraint"], (request["reason"], 0))
        return None if done is None else done["TotalSuccess"]
    return schedd.edit(request["constraint"], request["attribute"], request["value"])


def _submitted(schedd: htcondor2.Schedd, description: str) -> dict[str, str]:
    """Submit one job: its number, or why there is none. The others go on."""
    try:
        result = schedd.submit(htcondor2.Submit(description), count=1)
    except (htcondor2.HTCondorException, ValueError, RuntimeError) as error:
        return {"error": str(error)}
    return {"id": f"{result.cluster()}.0"}


def main() -> None:
    """Answer the request on standard input; what went wrong is an answer too."""
    try:
        answered = {"answer": answer(json.load(sys.stdin))}
    except (htcondor2.HTCondorException, OSError, RuntimeError, ValueError, TypeError) as error:
        answered = {"error": str(error) or type(error).__name__}
    json.dump(answered, sys.stdout)


if __name__ == "__main__":
    main()
