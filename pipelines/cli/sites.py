"""``cygnoreco cluster sites``, ``doctor`` and ``status``: where work can run, and how it is there."""

from __future__ import annotations

from dataclasses import asdict

from clusters.site import Site, known_sites, load_site, site_folder
from cygnoreco.errors import InputError
from pipelines.cli import BAD_DATA, GOOD
from pipelines.cli.console import ERR, OUT, print_facts, print_json, print_line, print_table


def sites(as_json: bool) -> int:
    """List the sites that can be named."""
    found = [(load_site(name), path) for name, path in known_sites().items()]
    if as_json:
        print_json([{"name": site.name, "kind": site.kind, "description": site.description, "file": path}
                    for site, path in found])  # fmt: skip
    else:
        print_table(
            "sites", ("name", "kind", "description"), [(site.name, site.kind, site.description) for site, _ in found]
        )
        print_line(f"your own: {site_folder()}/NAME.toml")
    return GOOD


def doctor(name: str, store: str | None, patience: float, as_json: bool, quiet: bool) -> int:
    """Examine a site, from here and from inside a job; the exit code says whether all is well."""
    from clusters.doctor import Check, examine

    site = _pool_site(name)

    def show(check: Check) -> None:
        if as_json or (quiet and check.good):
            return
        OUT.print("  good " if check.good else "  BAD  ", style="green" if check.good else "red", end="")
        print_line(f"{check.name:<14} {check.found}")
        if check.remedy:
            print_line(f"{'':22}-> {check.remedy}")

    with ERR.status("examining"):
        checks = examine(site, store=store, patience=patience, watch=show)
    if as_json:
        print_json([asdict(check) for check in checks])
    bad = sum(not check.good for check in checks)
    if not (as_json or quiet):
        print_line(f"{site.name}: {f'{bad} of {len(checks)} findings are bad' if bad else 'fit for work'}")
    return BAD_DATA if bad else GOOD


def status(name: str, as_json: bool) -> int:
    """Say what a pool has, and what jobs of ours are in its queue."""
    from dask.utils import format_bytes

    from clusters.overview import overview

    found = overview(_pool_site(name))
    if as_json:
        print_json(asdict(found))
        return GOOD
    states = [job.state for job in found.jobs]
    facts = {
        "machines": found.machines,
        "cores free": f"{found.free_cores} of {found.cores}",
        "memory free": f"{format_bytes(found.free_memory)} of {format_bytes(found.memory)}",
        "GPUs": found.gpus or "none",
        "our jobs": ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "none",
        "other jobs": found.others or "none",
    }
    print_facts(f"site {name}", facts)
    if found.jobs:
        rows = [
            (
                job.id, job.worker or job.cluster, job.state, f"{job.waited_s:.0f}",
                job.reason or job.host, f"{job.lease_s:.0f}" if job.lease_s > 0 else "dead",
            )
            for job in found.jobs
        ]  # fmt: skip
        print_table("our jobs", ("job", "worker", "state", "s ", "where, or why not", "driver's lease, s "), rows)
    return GOOD


def _pool_site(name: str) -> Site:
    site = load_site(name)
    if site.kind != "htcondor":
        raise InputError(f"site '{name}' is this machine, not a pool; see `cygnoreco cluster sites`")
    return site
