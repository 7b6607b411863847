"""Drives a run through its blocks: plans what is missing, has it done, merges and publishes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.dataset import Dataset, begin, complete, dataset_of, finished, load_tables, locked, publishing
from cygnoreco.device import plan_device
from cygnoreco.errors import DataError, InputError, TransientError
from cygnoreco.graph import CalibrationChoice, Work, at_hand, choose_calibration
from cygnoreco.io.parts import Receipt
from cygnoreco.io.source import beginning_of
from cygnoreco.lineage import key_of, lineage
from cygnoreco.plan import NOISE, available_memory, check_memory
from cygnoreco.raw import Run, open_run
from cygnoreco.recipe import Recipe
from cygnoreco.spread import Made, Workers, by_number, first_pass, missing
from cygnoreco.summary import late_faults, of_this_call, reco_params, summarise
from cygnoreco.tables import FILE_CHECKSUM, Tables
from cygnoreco.types import Camera, Fault


@dataclass(frozen=True)
class Progress:
    """How far a run is; passed to the caller's ``watch`` after every block.

    Attributes
    ----------
    frames, total : int
        Frames done, of all, parts of an earlier start counted in.
    estimated : bool
        The total is an estimate from the size of a file that is read for the first time.
    clusters : int
        Clusters found so far.
    bytes : int
        Raw pixels read by this start.
    parts : Path
        Folder where blocks are committed until the run is finished.
    """

    frames: int
    total: int
    clusters: int
    bytes: int
    parts: Path
    estimated: bool = False


@dataclass(frozen=True)
class Result:
    """A finished reconstruction.

    Attributes
    ----------
    summary : mapping
        Counts, faults, timings, provenance; what ``--json`` prints.
    path : Path or None
        The ROOT file, None if no output folder was given.
    resumed : int
        Frames that an earlier start had done; all of them when the result was there already.
    """

    summary: Mapping[str, Any]
    path: Path | None
    resumed: int
    _folder: Path = field(repr=False)

    @cached_property
    def tables(self) -> Tables:
        """Events, clusters and saved pixels as structured arrays, read when first asked for."""
        return load_tables(self._folder)


def reconstruct(
    run: Run | str | Path,
    *,
    pedestal: Pedestal | str | Path,
    response: str | Path | None = None,
    recipe: Recipe | str | Path = "lime",
    camera: str | None = None,
    client: Workers = None,
    threads: int = 1,
    device: str = "cpu",
    block: int = 8,
    out: str | Path | None = None,
    force: bool = False,
    keep_parts: bool = False,
    strict: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> Result:
    """Reconstruct a raw run.

    The result depends on the run, the recipe and the calibration alone: not on block size, client, threads or order,
    and on the device only within the tolerance of its arithmetic.

    A MIDAS file that nobody has read before is inflated once, from its first byte to its last, while other threads
    of this process reconstruct what was read; on the way its index is made. With the index, blocks are found by their
    numbers: by the threads of this process or the workers of a client, each of which inflates its own.

    Parameters
    ----------
    run : Run, str or Path
        An opened run or its file.
    pedestal : Pedestal, str or Path
        A pedestal; or the path of a raw pedestal run, of a saved pedestal (ours or ``pedmap_run*_rebin1.root``), or of
        a folder of those, of which the latest one not after the run is taken.
    response : str or Path, optional
        Lens response: the experiment's ROOT file, a file of ours, ``none`` for a flat one, ``generated:...``; by
        default the recipe's.
    recipe : Recipe, str or Path
        Recipe, name of a shipped one, or a TOML file.
    camera : str, optional
        Bank name; needed when the run has several cameras.
    client : distributed.Client, optional
        Whose workers compute the blocks; without one, this process does. A function is called for it when there are
        blocks that can be found by their numbers: workers take seconds to start.
    threads : int
        Blocks computed at once in this process.
    device : str
        ``cpu``; ``cuda`` or ``cuda:1``, a GPU; ``auto``, a GPU if there is one; see
        :func:`cygnoreco.device.plan_device`.
    block : int
        Frames a block: the unit of work, of memory and of resuming.
    out : str or Path, optional
        Output folder, shared with the client's workers. Blocks are committed there as they finish, and a second call
        does only what is missing. Without it nothing is kept on disk.
    force : bool
        Do it again even if it is done.
    keep_parts : bool
        With ``force``, make the result again of the parts that are there.
    strict : bool
        Raise at the first fault of the raw file instead of going on without the bad events.
    watch : callable, optional
        Called with :class:`Progress` at the start and after every block.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        Wrong file, recipe, calibration or camera.
    DataError
        With ``strict``, the first fault of the file.
    TransientError
        Workers died again and again.
    """
    run = run if isinstance(run, Run) else open_run(run)
    recipe = Recipe.load(recipe)
    check_numbers(block, threads)
    sensor = run.camera(camera)
    computed_on = device
    if client is None or callable(client):  # workers elsewhere look for themselves
        chosen = plan_device(device, sensor, block, recipe, at_once=threads)
        device, computed_on = chosen.name, chosen.description
        if chosen.kind == "cpu":
            check_memory(sensor, block, recipe, available=available_memory(), threads=threads, occupancy=NOISE)
    with _folder(out) as folder:
        plan = prepare(
            run,
            sensor,
            pedestal=pedestal,
            response=response,
            recipe=recipe,
            device=device,
            folder=folder,
            here=client is None,
        )
        del pedestal  # its maps can go when the calibration is made, if nobody else holds it
        if strict:
            stop_at(f"'{run.path}'", run.faults)
            stop_at(f"the pedestal of run {plan.choice.pedestal_run}", plan.choice.pedestal_faults)
        with locked(plan.dataset):
            summary = None if force else finished(plan.dataset)
            resumed = 0 if summary is None else summary["frames"]
            if summary is None:
                done = begin(plan.dataset, plan.document, force=force and not keep_parts)
                resumed = sum(receipt.stop - receipt.start for receipt in done)
                here = client is None or callable(client)  # workers elsewhere find the calibration themselves
                with at_hand(plan.choice, plan.work) if here else nullcontext():
                    summary = _work(run, plan, computed_on, done, client, threads, block, strict, watch)
            elif strict:
                stop_at(f"'{run.path}'", tuple(Fault(**fault) for fault in summary["faults"]))
            dataset = _dataset(folder, run, sensor, plan.document)  # the run may have shown another camera
            result = Result(
                # Names and places are those of this call: the result may have been made under others.
                summary={
                    **summary,
                    **of_this_call(run, recipe, plan.choice, dataset),
                    "status": "bad events" if summary["faults"] or plan.choice.pedestal_faults else "good",
                },
                path=dataset.official if out is not None else None,
                resumed=resumed,
                _folder=dataset.result,
            )
            if out is None:
                _ = result.tables  # the folder is gone in a moment
            return result


@dataclass(frozen=True)
class Plan:
    """What is to be done with one camera of a run.

    Attributes
    ----------
    work : Work
        What is done with every block.
    choice : CalibrationChoice
        With what calibration.
    document : mapping
        The lineage.
    dataset : Dataset
        Where the result goes.
    """

    work: Work
    choice: CalibrationChoice
    document: Mapping[str, Any]
    dataset: Dataset


def prepare(
    run: Run,
    sensor: Camera,
    *,
    pedestal: Pedestal | str | Path,
    response: str | Path | None,
    recipe: Recipe,
    device: str,
    folder: Path,
    here: bool,
) -> Plan:
    """Choose the calibration of a run, and name its result; nothing is computed yet.

    Parameters
    ----------
    run : Run
        The run.
    sensor : Camera
        One of its cameras.
    pedestal, response, recipe, device
        As for :func:`reconstruct`.
    folder : Path
        Output folder.
    here : bool
        All blocks are computed in this process: the calibration need not be stored for others.

    Raises
    ------
    InputError
        Wrong calibration, or one that does not fit the camera.
    """
    choice = choose_calibration(
        run.number, sensor, recipe, pedestal, response, folder=folder / "calibration", here=here
    )
    document = lineage(
        run=run.number,
        digest=run.source.digest,
        camera=sensor.name,
        recipe=recipe,
        pedestal=choice.reference.pedestal_digest,
        response=choice.reference.response_digest,
    )
    dataset = _dataset(folder, run, sensor, document)
    parts = str(dataset.parts.resolve())
    work = Work(run.ref(sensor.name), choice.reference, run.number, choice.pedestal_run, parts, device)
    return Plan(work, choice, document, dataset)


def check_numbers(block: int, threads: int) -> None:
    """Refuse blocks of no frames, and no threads."""
    if block < 1:
        raise InputError(f"block = {block}: at least 1 frame is needed")
    if threads < 1:
        raise InputError(f"threads = {threads}: at least 1 is needed")


def _dataset(folder: Path, run: Run, camera: Camera, document: Mapping[str, Any]) -> Dataset:
    several = len(run.known_cameras) > 1
    return dataset_of(folder, run=run.number, camera=camera.name, key=key_of(document), several=several)


def _work(
    run: Run,
    plan: Plan,
    computed_on: str,
    done: list[Receipt],
    client: Workers,
    threads: int,
    block: int,
    strict: bool,
    watch: Callable[[Progress], None] | None,
) -> dict[str, Any]:
    work, choice, dataset, document = plan.work, plan.choice, plan.dataset, plan.document
    started = time.time()
    receipts = list(done)
    fresh: list[Receipt] = []
    camera = work.ref.camera
    recipe = work.calibration.recipe

    def report(total: int) -> None:
        if watch:
            watch(
                Progress(
                    frames=sum(each.stop - each.start for each in receipts),
                    total=total,
                    clusters=sum(each.counts["clusters"] for each in receipts),
                    bytes=sum(each.counts["bytes"] for each in fresh),
                    parts=dataset.parts,
                    estimated=beginning_of(run.source) is not None,
                )
            )

    if strict:
        stop_at(f"'{run.path}'", late_faults(receipts))

    with publishing(
        dataset,
        key=key_of(document),
        time=_begin_of(run, camera.name),
        quality=0 if beginning_of(run.source) is not None else _quality_of(run),
        thread=threads > 1 or client is not None,
    ) as merge:
        for receipt in receipts:
            merge.add(receipt)

        def collect(made: Made) -> None:
            with closing(made):  # at once, also after an error: nothing works on behind its back
                for receipt, total in made:
                    if receipt is not None:
                        if strict:
                            stop_at(f"'{run.path}'", receipt.faults)
                        receipts.append(receipt)
                        fresh.append(receipt)
                        merge.add(receipt)
                    report(total)

        if (client is None or callable(client)) and beginning_of(run.source) is not None:
            try:
                collect(first_pass(run, work, done, threads, block))
            except DataError:
                kept = {receipt.path for receipt in done}
                # Of a file that changed on the way: the key is another content's.
                for path in dataset.parts.iterdir():
                    if str(path) not in kept:
                        path.unlink()
                raise
        total = len(run.table(camera.name))
        receipts[:] = [receipt for receipt in receipts if receipt.stop <= total]
        collect(by_number(work, missing(0, total, sorted(receipts), block), total, client, threads))
        receipts.sort()
        _check_cover(receipts, total)
        merge.finish(
            receipts,
            quality=_quality_of(run),
            time=_begin_of(run, camera.name),
            parameters=reco_params(recipe, camera),
            provenance={
                "key": key_of(document),
                "lineage": document,
                "pedestal_run": choice.pedestal_run,
                "faults": [asdict(fault) for fault in (*run.faults, *late_faults(receipts))],
                "vetoed": sorted(frame for receipt in receipts for frame in receipt.vetoed),
            },
        )
        dataset = _dataset(dataset.out, run, camera, document)  # all cameras are known now
        summary = summarise(run, recipe, choice, dataset, document, receipts, fresh, started)
        complete(dataset, merge, receipts, {**summary, "device": computed_on})
    found = finished(dataset)
    if found is None:
        raise TransientError(f"the result in '{dataset.result}' is not what was just written: check the disk")
    return found


def _check_cover(receipts: list[Receipt], total: int) -> None:
    """Make sure, before anything is published, that the parts hold every frame once."""
    position = 0
    for receipt in [*receipts, Receipt(total, total, "", {}, {})]:
        if receipt.start != position:
            raise RuntimeError(f"the parts jump from frame {position} to {receipt.start}: {receipt.path}")
        position = receipt.stop


def stop_at(what: str, faults: tuple[Fault, ...]) -> None:
    """Raise the first fault of a run, if there is one."""
    for fault in faults:
        raise DataError(f"{what}: {fault.message}", event=fault.event, offset=fault.offset)


def _quality_of(run: Run) -> int:
    """Quality bits of all events: a wrong checksum of the file may stand for any of its frames."""
    return FILE_CHECKSUM * any(fault.kind == "trailer" for fault in run.faults)


def _begin_of(run: Run, camera: str) -> int:
    """UNIX seconds of the first frame of a camera, or of the first image of all while the file has not been read."""
    beginning = beginning_of(run.source)
    if beginning is not None:
        return beginning.timestamp
    table = run.table(camera)
    return int(table["timestamp"][0]) if len(table) else 0


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """Make the user's output folder, or a temporary one that is gone at the end."""
    if out is not None:
        if Path(out).exists() and not Path(out).is_dir():
            raise InputError(f"the output folder '{out}' is a file")
        Path(out).mkdir(parents=True, exist_ok=True)
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="cygnoreco-") as temporary:
        yield Path(temporary)
