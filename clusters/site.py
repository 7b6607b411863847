"""A site: where work runs, described in a TOML file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from dask.utils import parse_bytes, parse_timedelta
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from clusters.pool import default_folder
from cygnoreco.errors import InputError, nearest


def _expanded(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) else value


def _seconds(value: object) -> object:
    try:
        return parse_timedelta(value) if isinstance(value, str) else value
    except KeyError:
        raise ValueError("expected a number with a unit of time: s, m, h or d") from None


def _bytes(value: object) -> object:
    return parse_bytes(value) if isinstance(value, str) else value


#: Written ``"8 h"`` or ``"90 s"``; a bare number is in seconds.
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
#: Written ``"4 GB"``; a bare number is in bytes.
Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
#: ``~`` stands for the home folder.
File = Annotated[Path, BeforeValidator(_expanded)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pool(_Section):
    """How to find the pool and to be let in.

    Attributes
    ----------
    config : Path or None
        A ``condor_config``; by default the one that HTCondor finds (``CONDOR_CONFIG``, ``/etc/condor``).
    collector : str or None
        ``host[:port]`` of the pool's central manager, if it is not that of the configuration.
    schedd : str or None
        Name of the schedd that takes the jobs; by default the one of this machine.
    token : Path or None
        File with an IDTOKEN or SciToken. It is read anew with every request, so that whoever renews it needs to tell
        nobody.
    """

    config: File | None = None
    collector: str | None = None
    schedd: str | None = None
    token: File | None = None


class Job(_Section):
    """What a job asks for, and what it runs in. A job is one worker, of one process.

    Attributes
    ----------
    cores : int
        Processor cores: threads of the worker.
    memory, disk : int
        Bytes.
    gpus : int
        GPUs.
    wall_time : float
        Seconds after which the pool ends the job; the worker leaves by itself a little before.
    python : str or None
        Interpreter on the execute machine, with the driver's versions of cygnoreco and Dask; by default the driver's
        own path, for pools that share their file system, or ``python3`` in a container.
    container : str or None
        Image in which the job runs, ``docker://...`` or a ``.sif`` file.
    environment : dict
        Variables of the job.
    scratch : str or None
        Folder for the worker's files on the execute machine; by default the job's own.
    requirements : str or None
        A ClassAd expression that machines must fulfil.
    submit : dict
        Further submit commands as they are, ``{"+AccountingGroup" = '"cygno"'}``.
    """

    cores: Positive = 1
    memory: Bytes = parse_bytes("4 GB")
    disk: Bytes = parse_bytes("4 GB")
    gpus: Count = 0
    wall_time: Seconds = parse_timedelta("24 h")
    python: str | None = None
    container: str | None = None
    environment: dict[str, str] = {}
    scratch: str | None = None
    requirements: str | None = None
    submit: dict[str, str | int | float | bool] = {}


class Scheduler(_Section):
    """Where the scheduler runs, and where workers find it.

    Attributes
    ----------
    where : {'driver', 'pool'}
        In the driver's process, which workers must reach; or in a job of the pool that runs the whole campaign, for a
        driver that they cannot reach, behind NAT say (:mod:`clusters.inside`).
    host : str or None
        Address of its machine as the pool sees it; by default the one of its network interface.
    port : int
        Port; 0 for any that is free.
    cores : int
        Of the job, if there is one.
    memory : int
        Bytes, likewise.
    """

    where: Literal["driver", "pool"] = "driver"
    host: str | None = None
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    cores: Positive = 1
    memory: Bytes = parse_bytes("2 GB")

    @model_validator(mode="after")
    def _of_a_job(self) -> Scheduler:
        odd = sorted(self.model_fields_set & {"cores", "memory"})
        if self.where == "driver" and odd:
            raise ValueError(f"{' and '.join(odd)} are of the scheduler's job: expected where = 'pool' with them")
        return self


class Workers(_Section):
    """How many.

    Attributes
    ----------
    minimum, maximum : int or None
        Between these the number follows the blocks that wait. Without a maximum: one a core on this machine, as many as
        the blocks are worth on a pool.
    blocks : int
        Unfinished blocks that are worth a worker.
    cooldown : float
        Seconds for which fewer must have been enough before some are sent away.
    """

    minimum: Count = 0
    maximum: Positive | None = None
    blocks: Positive = 4
    cooldown: Seconds = 60.0

    @model_validator(mode="after")
    def _in_order(self) -> Workers:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"maximum = {self.maximum} is less than minimum = {self.minimum}")
        return self


class Limits(_Section):
    """What is borne before something is done about it; all times in seconds.

    Attributes
    ----------
    interval : float
        Between two looks at the pool.
    connect : float
        That a running job may take until its worker reports, or be without one.
    idle : float
        That jobs may wait for a machine while there is no worker at all.
    steady : float
        After which a worker counts as good: earlier failures are forgotten.
    failures : int
        Jobs in a row that fail, at least as many as workers are wanted, before no more are tried.
    backoff, backoff_max : float
        Before a failed job is replaced: doubled with every failure in a row, up to the maximum.
    stagger : float
        Between the starts of two jobs.
    request : float
        That a request to the pool may take.
    away : float
        That the schedd may be away while there is no worker.
    lease : float
        After which a pool removes the jobs of a driver that no longer renews it.
    close : float
        That removing the jobs at the end may take.
    """

    interval: Seconds = 5.0
    connect: Seconds = 300.0
    idle: Seconds = 1800.0
    steady: Seconds = 120.0
    failures: Positive = 5
    backoff: Seconds = 10.0
    backoff_max: Seconds = 300.0
    stagger: Seconds = 0.1
    request: Seconds = 30.0
    away: Seconds = 900.0
    lease: Seconds = 900.0
    close: Seconds = 120.0

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Limits:
        if self.lease < 3 * self.interval:
            raise ValueError(f"lease = {self.lease:g} s is less than three times interval = {self.interval:g} s")
        return self


class Site(_Section):
    """Where work runs.

    Attributes
    ----------
    name : str
        Short name: that of its file.
    kind : {'local', 'htcondor'}
        This machine, or an HTCondor pool.
    description : str
        One line for people.
    pool, job, scheduler, workers, limits
        See their classes.
    """

    name: str
    kind: Literal["local", "htcondor"]
    description: str = ""
    pool: Pool = Pool()
    job: Job = Job()
    scheduler: Scheduler = Scheduler()
    workers: Workers = Workers()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _has_a_pool(self) -> Site:
        if self.kind == "local" and self.scheduler.where == "pool":
            raise ValueError("scheduler.where = 'pool' on this machine: expected 'driver', or kind = 'htcondor'")
        return self


def load_site(name: str | Path | Site) -> Site:
    """Read the description of a site.

    Parameters
    ----------
    name : str, Path or Site
        ``local``; a file ``.../cnaf.toml``; or a name, ``cnaf`` or ``htcondor:cnaf``, that is looked for as
        ``cnaf.toml`` in the user's folder of sites and among those that come with the package.

    Returns
    -------
    Site

    Raises
    ------
    InputError
        No such site; or its description is wrong: says where and what was expected.
    """
    if isinstance(name, Site):
        return name
    kind, _, short = str(name).rpartition(":")
    if Path(name).suffix == ".toml":
        path = Path(name)
        if not path.is_file():
            raise InputError(f"no site file at '{path}'")
    else:
        known = known_sites()
        if short not in known:
            raise InputError(f"no site '{short}' in '{site_folder()}' or in the package{nearest(short, known)}")
        path = known[short]
    site = _read(path, short if Path(name).suffix != ".toml" else path.stem)
    if kind and kind != site.kind:
        raise InputError(f"site '{short}' is of kind '{site.kind}', not '{kind}' ('{path}')")
    return site


def site_folder() -> Path:
    """Folder of the user's own sites."""
    return platformdirs.user_config_path("cygnoreco") / "sites"


def known_sites() -> dict[str, Path]:
    """Files of all sites by name.

    Those of the package; ``pool``, the pool on this machine, if one was started; and the user's own, which win.
    """
    shipped = Path(str(resources.files("clusters") / "sites"))
    own = default_folder() / "site.toml"
    return {
        **{path.stem: path for path in sorted(shipped.glob("*.toml"))},
        **({"pool": own} if own.is_file() else {}),
        **{path.stem: path for path in sorted(site_folder().glob("*.toml"))},
    }


def _read(path: Path, name: str) -> Site:
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is not TOML: {error}") from None
    try:
        return Site(name=name, **document)
    except (ValidationError, TypeError) as error:
        raise InputError(f"site file '{path}': {_explained(error)}") from None


def _explained(error: ValidationError | TypeError) -> str:
    """Say in a line what is wrong: the first fault, with the nearest valid name for one that is unknown."""
    if isinstance(error, TypeError):
        return "'name' is the name of the file and cannot be set in it"
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        model: Any = Site
        for step in fault["loc"][:-1]:
            model = model.model_fields[step].annotation
        return f"unknown '{where}'{nearest(str(fault['loc'][-1]), model.model_fields)}"
    what = str(fault.get("ctx", {}).get("error", fault["msg"]))
    return f"'{where}' = {fault['input']!r}: {what}" if fault["type"] != "value_error" or where else what
