"""Have the blocks of a run reconstructed: on the way of its first reading, or by their numbers, here or by workers."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, TypeAlias

from cygnoreco.errors import TransientError
from cygnoreco.graph import Work, commit_block, cut, make_part, parts_array
from cygnoreco.io.parts import Receipt
from cygnoreco.io.source import Block, Buffers, blocks
from cygnoreco.raw import Run
from cygnoreco.threads import executor

if TYPE_CHECKING:
    from distributed import Client

#: A Dask client, or a function that gives one when it is needed; None for this process.
Workers: TypeAlias = "Client | Callable[[], Client | None] | None"

#: A new receipt if there is one, and the frames of the run as far as they are known.
Made: TypeAlias = Generator[tuple[Receipt | None, int]]


#: Seconds between two looks whether a cluster has given up.
_PATIENCE = 1.0


def missing(start: int, stop: int, done: list[Receipt], block: int) -> list[tuple[int, int]]:
    """Bounds of the blocks of some frames that are not covered by committed parts.

    Parameters
    ----------
    start, stop : int
        The frames.
    done : list of Receipt
        Parts that are there, in order, without overlap.
    block : int
        Frames a block at most.
    """
    bounds = []
    position = start
    for first, last in [(receipt.start, receipt.stop) for receipt in done] + [(stop, stop)]:
        free = min(first, stop) - position
        bounds += [(position + begin, position + end) for begin, end in cut(max(free, 0), block)]
        position = max(position, last)
    return bounds


def first_pass(run: Run, work: Work, done: list[Receipt], threads: int, block: int) -> Made:
    """Read a file from its first byte to its last, while threads reconstruct what was read."""
    camera = work.ref.camera
    # Inflating keeps one thread busy, this one, and a second one can hardly keep up with several others.
    helpers = threads - 1
    buffers = Buffers(helpers + 1, block, camera)
    receipts: queue.SimpleQueue[Receipt] = queue.SimpleQueue()

    def make(whole: Block) -> None:
        try:
            for start, stop in missing(whole.start, whole.stop, done, block):
                inside = slice(start - whole.start, stop - whole.start)
                receipts.put(make_part(Block(start, whole.frames[inside], whole.rows[inside]), work))
        finally:
            buffers.give(whole.frames)

    total = 0
    with ExitStack() as stack:
        pool = stack.enter_context(executor(helpers))
        futures: deque[Future[None]] = deque()
        try:
            for whole in stack.enter_context(closing(blocks(run.source, camera, buffers, block))):
                futures.append(pool.submit(make, whole))
                total = round(whole.stop / whole.part)
                while futures and futures[0].done():
                    futures.popleft().result()
                while not receipts.empty():
                    yield receipts.get(), total
            total = len(run.table(camera.name))
            for future in futures:
                future.result()
                while not receipts.empty():
                    yield receipts.get(), total
        finally:
            pool.shutdown(cancel_futures=True)


def by_number(work: Work, bounds: list[tuple[int, int]], total: int, client: Workers, threads: int) -> Made:
    """Have blocks computed by their numbers, in whatever order."""
    yield None, total
    if bounds:
        workers = client() if callable(client) else client
        with closing(_here(work, bounds, threads) if workers is None else _there(work, bounds, workers)) as made:
            for receipt in made:
                yield receipt, total


def _here(work: Work, bounds: list[tuple[int, int]], threads: int) -> Generator[Receipt]:
    """Commit blocks in this process.

    Each is what a task of a graph would do, and nothing else: making graphs takes loading Dask's arrays, as long as
    some forty frames.
    """
    if threads == 1:
        yield from (commit_block(work, start, stop) for start, stop in bounds)
        return
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(commit_block, work, start, stop) for start, stop in bounds]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _there(work: Work, bounds: list[tuple[int, int]], client: Client) -> Generator[Receipt]:
    """Have blocks committed by the workers of a client, a task each."""
    from dask.base import annotate
    from distributed import KilledWorker, futures_of

    # In the order of the run: Dask by itself begins anywhere, and merging would wait for the first parts. An optimized
    # graph would lose both annotations; there is nothing to optimize, each task stands by itself.
    with annotate(priority=lambda key: -key[1], retries=2):  # retries: a passing fault of a disk, say
        parts = parts_array(work, bounds)
    futures = futures_of(client.persist(parts, optimize_graph=False))
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for future in futures:
        future.add_done_callback(finished.put)
    try:
        for _ in futures:
            yield _next(finished, client).result()[0]
    except KilledWorker:
        raise TransientError(
            "workers died again and again on the same block, most likely for want of memory: "
            "fewer workers or smaller blocks need less"
        ) from None
    finally:
        client.cancel(futures)


def _next(finished: queue.SimpleQueue[Any], client: Client) -> Any:
    """Next future that has finished; the error of the cluster if there is no hope that any will."""
    while True:
        try:
            return finished.get(timeout=_PATIENCE)
        except queue.Empty:
            check_cluster(client)


def check_cluster(client: Client) -> None:
    """Raise the error of a cluster that has given up.

    A cluster that knows when its workers are gone for good says why in its attribute ``fault``. To Dask, a graph
    without workers only waits.
    """
    if fault := getattr(client.cluster, "fault", None):
        raise fault
