"""The one door: a Dask client for a site."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusters.local import cores, local_client
from clusters.site import Site, load_site

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def connect(
    site: str | Path | Site,
    *,
    workers: int | None = None,
    logs: str | Path | None = None,
    notify: Callable[[Any], None] | None = None,
) -> Iterator[Client]:
    """Get a Dask client whose workers run at a site, for the length of a ``with`` block.

    Parameters
    ----------
    site : str, Path or Site
        As for :func:`clusters.site.load_site`: ``local``, ``htcondor:cnaf``, ``cnaf``, or a TOML file.
    workers : int, optional
        So many workers. By default as many as the unfinished blocks are worth, between the bounds of the site; on this
        machine, one a core or the site's maximum.
    logs : str or Path, optional
        Folder for the logs of the jobs; by default a temporary one. On a pool that shares its file system the jobs
        write there.
    notify : callable, optional
        Called with every :class:`clusters.htcondor.Event` of the jobs.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        No such site, or its description is wrong.
    clusters.schedd.PoolError
        The pool refuses, or gives no working workers.
    """
    site = load_site(site)
    if site.kind == "local":
        with local_client(workers or site.workers.maximum or cores()) as client:
            assert client is not None
            yield client
        return
    from distributed import Client

    from clusters.htcondor import PoolCluster

    with tempfile.TemporaryDirectory(prefix="cygnoreco-jobs-", ignore_cleanup_errors=True) as temporary:
        cluster = PoolCluster(site, logs=Path(logs or temporary), notify=notify)
        try:
            if workers is not None:
                cluster.scale(workers)
            with Client(cluster, set_as_default=False) as client:
                yield client
        finally:
            cluster.close()
