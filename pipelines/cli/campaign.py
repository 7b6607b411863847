"""``cygnoreco campaign``: campaigns that run inside a pool, seen from outside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cygnoreco.errors import InputError
from pipelines.cli import GOOD
from pipelines.cli.console import ERR, print_json, print_line, print_table
from pipelines.cli.follow import follow, stop
from pipelines.cli.inside import run_inside
from pipelines.cli.reco import report
from pipelines.cli.record import campaign_named, campaigns, is_over, read_request, read_standing


def list_campaigns(out: Path, as_json: bool) -> int:
    """List the campaigns of an output folder, the latest last."""
    found = [_described(folder) for folder in campaigns(out)]
    if as_json:
        print_json(found)
        return GOOD
    rows = [
        (
            each["id"], each["state"], f"{each['runs']} of {each['total']}", each["failed"] or "", each["frames"],
            "" if each["silent_s"] is None else f"{each['silent_s']:.0f}", each["site"],
        )
        for each in found
    ]  # fmt: skip
    print_table("campaigns", ("campaign", "state", "runs ", "failed ", "frames ", "silent, s ", "site"), rows)
    return GOOD


def follow_campaign(out: Path, name: str | None, as_json: bool, quiet: bool) -> int:
    """Follow a campaign to its end, and report as ``reco`` does."""
    outcomes = follow(campaign_named(out, name), bar=not (quiet or as_json), quiet=quiet)
    return report(outcomes, as_json=as_json, quiet=quiet)


def stop_campaign(out: Path, name: str, as_json: bool, quiet: bool) -> int:
    """Stop a campaign, and say how far it came."""
    folder = campaign_named(out, name)
    with ERR.status("stopping"):
        standing = stop(folder)
    if as_json:
        print_json({"id": folder.name, **standing})
    elif not quiet:
        print_line(
            f"campaign {folder.name} {'had' if standing['state'] != 'stopped' else 'is'} {standing['state']}: "
            f"{standing['runs']} of {standing['total']} runs, {standing['frames']} frames committed"
        )
    return GOOD


def run_campaign(folder: Path) -> int:
    """Do a campaign in this process; what its job does."""
    return run_inside(folder.absolute())


def _described(folder: Path) -> dict[str, Any]:
    standing = read_standing(folder)
    try:
        request = read_request(folder)
        site, total = request.site.name, len(request.runs)
    except InputError:  # of another version
        site, total = "?", 0
    empty = {"runs": 0, "total": total, "failed": 0, "frames": 0}
    return {
        "id": folder.name,
        "site": site,
        "state": standing.get("state", "waiting"),
        **{key: standing.get(key, value) for key, value in empty.items()},
        "silent_s": None if not standing or is_over(standing) else max(0.0, time.time() - standing["time"]),
    }
