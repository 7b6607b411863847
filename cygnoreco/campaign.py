"""Many runs on the workers of a Dask client: a window of runs slides over the list, and one bad run stops no other.

The driver holds no frame, no table and no file: a run is planned by a worker, its blocks are made by any, and it is
published by a worker. A run whose MIDAS file nobody has read is planned by reading it, which commits its blocks on the
way. What is committed is on the disk; a second campaign does only what is missing.
"""

from __future__ import annotations

import queue
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from cygnoreco import elsewhere
from cygnoreco.alone import commit_alone, quarantine
from cygnoreco.chain import check_camera
from cygnoreco.dataset import begin, finished, locked
from cygnoreco.driver import check_numbers, prepare, reconstruct, stop_at
from cygnoreco.elsewhere import Place
from cygnoreco.errors import CygnoError, DataError, TransientError
from cygnoreco.graph import Work, at_hand, parts_array
from cygnoreco.io import objects
from cygnoreco.io.parts import Receipt
from cygnoreco.io.remote import url_of
from cygnoreco.io.source import beginning_of
from cygnoreco.plan import check_memory
from cygnoreco.raw import open_run
from cygnoreco.recipe import Recipe
from cygnoreco.spread import check_cluster, first_pass, missing
from cygnoreco.types import Camera, Fault

if TYPE_CHECKING:
    from distributed import Client, Future


@dataclass(frozen=True)
class Order:
    """What is asked for all runs alike; as for :func:`cygnoreco.reconstruct`, but every path as the workers see it.

    Attributes
    ----------
    pedestal : Path
        Saved pedestal, raw pedestal run, or a folder of those.
    out : Path
        Output folder.
    recipe : Recipe
        Recipe.
    response : str or None
        Lens response.
    device : str
        Device of the workers.
    block : int
        Frames a block.
    force, strict : bool
        Do it again; stop a run at its first fault.
    """

    pedestal: Path
    out: Path
    recipe: Recipe
    response: str | None = None
    device: str = "cpu"
    block: int = 8
    force: bool = False
    strict: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one camera of one run.

    Attributes
    ----------
    path : str
        The run, as it was named.
    camera : str or None
        Its camera; None if not even that is known.
    summary : mapping or None
        Of the finished result.
    resumed : int
        Frames that had been done before.
    error : Exception or None
        Why there is no result.
    """

    path: str
    camera: str | None
    summary: Mapping[str, Any] | None = None
    resumed: int = 0
    error: BaseException | None = None


class Going(NamedTuple):
    """A camera of a run that is being worked on.

    Attributes
    ----------
    path, camera : str
        Which.
    frames, known : int
        Frames that are committed, of all.
    started : float
        UNIX seconds at which it was planned.
    """

    path: str
    camera: str
    frames: int
    known: int
    started: float


@dataclass(frozen=True)
class Standing:
    """How far a campaign is.

    Attributes
    ----------
    runs, total : int
        Runs that have ended, of all; a run with several cameras counts for each of them.
    failed : int
        Of those, without a result.
    frames, known : int
        Frames that are committed, of those known so far.
    retried : int
        Tasks that were done again with more care after their workers had died.
    quarantined : int
        Frames that were set aside because workers died of them.
    blocks : int
        Blocks that are committed.
    bytes : int
        Raw pixels that were read for them.
    seconds : mapping
        Wall seconds of the workers by stage.
    waiting : int
        Tasks that are with the scheduler.
    resumed : int
        Of the frames, those that had been committed before.
    going : tuple of Going
        What is being worked on; not more than a few of them.
    """

    runs: int = 0
    total: int = 0
    failed: int = 0
    frames: int = 0
    known: int = 0
    retried: int = 0
    quarantined: int = 0
    blocks: int = 0
    bytes: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    waiting: int = 0
    resumed: int = 0
    going: tuple[Going, ...] = ()


@dataclass(frozen=True)
class Planned:
    """What a worker found out about a run.

    Attributes
    ----------
    camera : str
        The camera.
    cameras : tuple of str
        All that the run has.
    frames, done : int
        Frames of the camera, and those that are committed.
    work : Work or None
        What is to be done with the missing blocks; None if the result is there already.
    bounds : tuple
        Bounds of the missing blocks.
    made : tuple of Receipt
        Blocks that were committed on the way.
    """

    camera: str
    cameras: tuple[str, ...]
    frames: int
    done: int
    work: Work | None = None
    bounds: tuple[tuple[int, int], ...] = ()
    made: tuple[Receipt, ...] = ()


def plan_run(path: str, camera: str | None, order: Order, *, blocks_later: bool = False) -> Planned:
    """Find out what is to be done with a run; a task of a worker.

    Parameters
    ----------
    path : str
        The run.
    camera : str or None
        The camera; by default the first one.
    order : Order
        What is asked for.
    blocks_later : bool
        Only read a file that nobody has read, and leave its blocks to tasks of their own: workers died of this one.

    Returns
    -------
    Planned

    Raises
    ------
    CygnoError
        The run, or the calibration, is not fit.
    """
    run = open_run(path)
    if blocks_later:
        _ = run.cameras  # reads it to its end
    known = run.known_cameras
    sensor = run.camera(camera or (known[0].name if known else None))
    check_camera(order.recipe, sensor)
    _check_memory(sensor, order)
    with _output(order) as (folder, url):
        plan = prepare(
            run,
            sensor,
            pedestal=order.pedestal,
            response=order.response,
            recipe=order.recipe,
            device=order.device,
            folder=folder,
            here=False,
        )
        place = Place(url, plan.dataset) if url else None
        work = plan.work
        with locked(plan.dataset):
            looked = elsewhere.finished(place) if place else finished(plan.dataset)
            summary = None if order.force else looked
            done = [] if summary is not None else begin(plan.dataset, plan.document, force=order.force)
            if place and summary is None:
                done = elsewhere.begin(place, plan.document, force=order.force)
                work = replace(work, folder=place.parts, calibration=elsewhere.share(place, work.calibration))
            made: list[Receipt] = []
            if summary is None and beginning_of(run.source) is not None:
                try:
                    with (
                        at_hand(plan.choice, plan.work),
                        closing(first_pass(run, plan.work, done, 1, order.block)) as new,
                    ):
                        for part, _ in new:
                            if part is not None:
                                made.append(part)
                                if place:
                                    elsewhere.send_part(place, part)
                except DataError:  # of a file that changed on the way: the key is another content's
                    for part in made:
                        Path(part.path).unlink(missing_ok=True)
                    if place:
                        elsewhere.take_back(place, made)
                    raise
    if order.strict:
        stop_at(f"'{run.path}'", run.faults)
        stop_at(f"the pedestal of run {plan.choice.pedestal_run}", plan.choice.pedestal_faults)
    cameras = tuple(each.name for each in run.cameras)
    frames = len(run.table(sensor.name))
    if summary is not None:
        return Planned(sensor.name, cameras, frames, frames)
    before = sum(each.stop - each.start for each in done)
    bounds = missing(0, frames, sorted(done + made), order.block)
    return Planned(sensor.name, cameras, frames, before, work, tuple(bounds), tuple(made))


def _check_memory(sensor: Camera, order: Order) -> None:
    """Refuse blocks that this worker has no memory for, before one is tried; InputError."""
    from distributed import get_worker

    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # not in a worker
        limit = None
    if limit is not None:
        # Dask pauses a worker that has more, and memory that is used again is never given back.
        check_memory(
            sensor, order.block, order.recipe, available=int(limit * _USABLE), device=order.device, role="campaign"
        )


#: Of a worker's memory, before Dask pauses it.
_USABLE = 0.8


@contextmanager
def _output(order: Order) -> Iterator[tuple[Path, str | None]]:
    """Give the output folder; of one in a store, a folder that stands for it on this machine, and its URL."""
    url = url_of(order.out)
    if url is None:
        yield order.out, None
        return
    with objects.staging() as folder:
        yield folder, url.rstrip("/")


def publish_run(path: str, camera: str, order: Order) -> Mapping[str, Any]:
    """Make the result of committed blocks, and give its summary; a task of a worker.

    A block that is missing, or was damaged since, is done here.

    Raises
    ------
    CygnoError
        As for :func:`cygnoreco.reconstruct`; TransientError also while another process is at work on it.
    """
    run = open_run(path)
    with _output(order) as (folder, url):
        place = None
        if url:
            plan = prepare(
                run,
                run.camera(camera),
                pedestal=order.pedestal,
                response=order.response,
                recipe=order.recipe,
                device=order.device,
                folder=folder,
                here=True,
            )
            place = Place(url, plan.dataset)
            if not order.force and (summary := elsewhere.finished(place)):
                if order.strict:
                    stop_at(f"'{run.path}'", tuple(Fault(**fault) for fault in summary["faults"]))
                return summary
            elsewhere.fetch_parts(place)
        result = reconstruct(
            run,
            pedestal=order.pedestal,
            response=order.response,
            recipe=order.recipe,
            camera=camera,
            device=order.device,
            block=order.block,
            out=folder,
            force=order.force,
            keep_parts=True,
            strict=order.strict,
        )
        if place is None:
            return result.summary
        elsewhere.publish(place)
        return {**result.summary, **elsewhere.names(place)}


#: A task of a unit: a word, and the frames that it is about.
_What: TypeAlias = tuple[Any, ...]


@dataclass
class _Unit:
    """One camera of one run on its way."""

    path: str
    camera: str | None
    index: int  # in the order of the list: earlier ones go first
    step: Literal["plan", "blocks", "publish"] = "plan"
    planned: Planned | None = None
    waiting: int = 0  # tasks
    summary: Mapping[str, Any] | None = None
    error: BaseException | None = None
    frames: int = 0  # committed
    started: float = 0.0  # in UNIX seconds, when it was planned
    tries: Counter[_What] = field(default_factory=Counter)  # of tasks that failed for a passing reason


#: Tasks that a scheduler is given besides some for every worker: enough that a pool without workers is asked for some.
_TASKS, _TASKS_A_WORKER = 32, 4
#: How often a task is tried again that fails for a passing reason, and the seconds before: doubled, up to the longest.
_TRIES, _PAUSE, _LONGEST = 8, 2.0, 60.0
#: Runs that are told of while they are worked on.
_TOLD = 50


def reconstruct_many(
    runs: Iterable[str | Path],
    order: Order,
    client: Client,
    *,
    camera: str | None = None,
    watch: Callable[[Standing], None] | None = None,
) -> Generator[Outcome]:
    """Reconstruct runs on the workers of a client.

    Parameters
    ----------
    runs : iterable of str or Path
        The runs, as the workers see them.
    order : Order
        What is asked for all of them.
    client : distributed.Client
        Its workers do everything. If its cluster has an attribute ``fault`` that is not None, there is no hope for
        what is left.
    camera : str, optional
        Only this camera; by default all.
    watch : callable, optional
        Called with :class:`Standing` after every task, at most a few times a second.

    Yields
    ------
    Outcome
        For every camera of every run, in the order in which they end.

    Raises
    ------
    InputError
        A block of no frames.
    """
    check_numbers(order.block, 1)
    yield from _Campaign(runs, order, client, camera, watch).go()


class _Campaign:
    """The state of :func:`reconstruct_many`."""

    def __init__(
        self,
        runs: Iterable[str | Path],
        order: Order,
        client: Client,
        camera: str | None,
        watch: Callable[[Standing], None] | None,
    ) -> None:
        self._client = client
        self._order = order
        self._camera = camera
        self._watch = watch
        paths = [str(run) for run in runs]
        self._units = deque(_Unit(path, camera, index) for index, path in enumerate(paths))
        self._going = {id(unit): unit for unit in self._units}  # have not ended
        self._ready: deque[_Unit] = deque()  # planned
        self._events: queue.SimpleQueue[tuple[_Unit, _What, Future]] = queue.SimpleQueue()
        self._held: dict[Future, None] = {}  # a future that nobody holds is forgotten by the scheduler
        self._later: list[tuple[float, _Unit, _What]] = []  # tasks to try again, and when
        self._plans = 0
        self._standing = Standing(total=len(paths))
        self._seen = 0.0  # when the workers were counted
        self._limit = _TASKS
        self._told = 0.0

    def go(self) -> Iterator[Outcome]:
        """Do everything."""
        try:
            while self._units or self._ready or self._held or self._later:
                self._fill()
                if (event := self._next()) is None:
                    continue
                unit, what, future = event
                self._held.pop(future)
                unit.waiting -= 1
                self._take(unit, what, *self._result(future))
                if not unit.waiting and (outcome := self._advance(unit)):
                    self._add(runs=1, failed=int(outcome.error is not None))
                    del self._going[id(unit)]
                    yield outcome
                self._tell(force=not (self._held or self._later))
        except CygnoError as fault:  # of the cluster: it is the end of all that is left
            self._add(runs=len(self._going), failed=len(self._going))
            yield from (Outcome(unit.path, unit.camera, error=fault) for unit in self._going.values())
        finally:
            self._client.cancel(list(self._held))

    def _next(self) -> tuple[_Unit, _What, Future] | None:
        """Wait for a task that has finished, a second at most."""
        try:
            return self._events.get(timeout=1.0)
        except queue.Empty:
            check_cluster(self._client)
            self._tell(force=True)
            return None

    def _result(self, future: Future) -> tuple[Any, BaseException | None]:
        """Fetch what a task gave, or its error; if the worker that has it is gone, it is computed again meanwhile."""
        while True:
            try:
                return future.result(timeout=1.0), None
            except TimeoutError as error:
                if future.status == "error":  # the task's own
                    return None, error
            except CancelledError:
                return None, TransientError("the task was cancelled")
            except Exception as error:
                return None, error
            check_cluster(self._client)

    def _fill(self) -> None:
        """Give the scheduler work, but not more than it needs: what it holds must not grow with the campaign."""
        if time.monotonic() - self._seen > 1.0:
            self._seen = time.monotonic()
            workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
            self._limit = _TASKS + _TASKS_A_WORKER * workers
        now = time.monotonic()
        due = [each for each in self._later if each[0] <= now]
        self._later = [each for each in self._later if each[0] > now]
        for _, unit, what in due:
            unit.waiting -= 1
            self._begin(unit, what)
        while self._ready and len(self._held) < self._limit:
            unit = self._ready.popleft()
            assert unit.planned is not None
            self._submit_blocks(unit, unit.planned.bounds)
        while self._units and self._plans < self._limit and len(self._ready) < self._limit:
            self._begin(self._units.popleft(), ("plan",))

    def _begin(self, unit: _Unit, what: _What) -> None:
        """Submit a task of a unit."""
        kind, *frames = what
        if kind == "block":
            self._submit_blocks(unit, [(frames[0], frames[1])])
            return
        work = unit.planned.work if unit.planned else None
        task: Callable[..., Any]
        arguments: tuple[Any, ...]
        if kind == "plan":
            self._plans += 1
            task, arguments = partial(plan_run, blocks_later=bool(frames)), (unit.path, unit.camera, self._order)
        elif kind == "publish":
            order = self._order if work is not None else replace(self._order, force=False)
            task, arguments = publish_run, (unit.path, unit.camera, order)
        else:
            task, arguments = (commit_alone if kind == "alone" else quarantine), (work, *frames)
        # Publishing comes before blocks, and blocks before plans: what is begun is ended.
        priority = _RANKS[kind] * _MANY - unit.index
        self._follow(unit, what, self._client.submit(task, *arguments, pure=False, retries=2, priority=priority))

    def _submit_blocks(self, unit: _Unit, bounds: Iterable[tuple[int, int]]) -> None:
        """Have blocks of a run done, in its order."""
        from dask.base import annotate
        from distributed import futures_of

        assert unit.planned is not None
        assert unit.planned.work is not None
        cuts = tuple(bounds)
        rank = _RANKS["block"] * _MANY - unit.index
        with annotate(priority=lambda key: rank - key[1] / _MANY, retries=2):
            parts = parts_array(unit.planned.work, cuts)
        futures = {future.key: future for future in futures_of(self._client.persist(parts, optimize_graph=False))}
        for index, each in enumerate(cuts):
            self._follow(unit, ("block", *each), futures[parts.name, index])

    def _follow(self, unit: _Unit, what: _What, future: Future) -> None:
        unit.waiting += 1
        self._held[future] = None
        future.add_done_callback(lambda done: self._events.put((unit, what, done)))

    def _take(self, unit: _Unit, what: _What, result: Any, error: BaseException | None) -> None:
        """Note what a task has given, or what is done about its error."""
        from distributed import KilledWorker

        if what[0] == "plan":
            self._plans -= 1
        if error is None:
            self._note(unit, what, result)
        elif isinstance(error, KilledWorker):
            self._killed(unit, what, error)
        elif isinstance(error, TransientError):
            self._again(unit, what, error)
        elif isinstance(error, CygnoError):
            unit.error = unit.error or error
        else:
            text = "".join(traceback.format_exception_only(error)).strip()
            unit.error = unit.error or error
            unit.error.add_note(f"{unit.path}: {' '.join(map(str, what))}: {text}")

    def _note(self, unit: _Unit, what: _What, result: Any) -> None:
        if what[0] == "plan":
            unit.planned = result
            unit.camera = result.camera
            unit.started = time.time()
            unit.frames = result.done
            self._add(known=result.frames, frames=result.done, resumed=result.done)
            for receipt in result.made:
                self._note_block(unit, receipt)
            if self._camera is None and result.camera == result.cameras[0]:
                others = [_Unit(unit.path, name, unit.index) for name in result.cameras[1:]]
                self._units.extendleft(reversed(others))
                self._going.update((id(other), other) for other in others)
                self._add(total=len(others))
        elif what[0] == "publish":
            unit.summary = result
        elif what[0] == "quarantine":
            self._note_block(unit, result)
        else:
            for receipt in result:
                self._note_block(unit, receipt)

    def _note_block(self, unit: _Unit, receipt: Receipt) -> None:
        unit.frames += receipt.stop - receipt.start
        aside = sum(fault.kind == "quarantined" for fault in receipt.faults)
        self._add(blocks=1, frames=receipt.stop - receipt.start, bytes=receipt.counts["bytes"], quarantined=aside)
        seconds = Counter(self._standing.seconds)
        seconds.update(receipt.seconds)
        self._standing = replace(self._standing, seconds=seconds)

    def _killed(self, unit: _Unit, what: _What, error: BaseException) -> None:
        """Go on with more care after workers have died again and again of a task, or of another beside it."""
        kind, *frames = what
        self._add(retried=1)
        if kind == "plan" and not frames:
            self._begin(unit, ("plan", "blocks later"))
        elif kind == "block":
            self._begin(unit, ("alone", *frames))
        elif kind == "alone" and frames[1] - frames[0] > 1:
            for frame in range(*frames):
                self._begin(unit, ("alone", frame, frame + 1))
        elif kind == "alone":
            self._begin(unit, ("quarantine", frames[0], f"workers died of it again and again: {error}"))
        else:
            self._again(unit, what, TransientError(f"workers died again and again: {error}"))

    def _again(self, unit: _Unit, what: _What, error: TransientError) -> None:
        """Try a task again after a while, later and later; in the end the run has failed."""
        unit.tries[what] += 1
        if unit.tries[what] > _TRIES:
            unit.error = unit.error or error
            return
        pause = min(_PAUSE * 2 ** (unit.tries[what] - 1), _LONGEST)
        self._later.append((time.monotonic() + pause, unit, what))
        unit.waiting += 1

    def _advance(self, unit: _Unit) -> Outcome | None:
        """Go on to the next step of a run, or say how it ended."""
        planned = unit.planned
        if unit.error is not None or planned is None:
            return Outcome(unit.path, unit.camera, error=unit.error)
        if unit.step == "plan" and planned.bounds:
            unit.step = "blocks"
            self._ready.append(unit)
            return None
        if unit.step != "publish":
            unit.step = "publish"
            self._begin(unit, ("publish",))
            return None
        return Outcome(unit.path, planned.camera, unit.summary, planned.done)

    def _tell(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._watch and (force or now - self._told > 0.2):
            self._told = now
            self._watch(replace(self._standing, waiting=len(self._held), going=self._going_now()))

    def _going_now(self) -> tuple[Going, ...]:
        going = (
            Going(unit.path, unit.planned.camera, unit.frames, unit.planned.frames, unit.started)
            for unit in self._going.values()
            if unit.planned is not None
        )
        return tuple(islice(going, _TOLD))

    def _add(self, **counts: int) -> None:
        now = self._standing
        self._standing = replace(now, **{name: getattr(now, name) + more for name, more in counts.items()})


#: More than there are runs in a campaign, and frames in a run.
_MANY = 10_000_000
_RANKS = {"plan": 0, "block": 1, "alone": 1, "quarantine": 1, "publish": 2}
