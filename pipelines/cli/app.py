"""Every command with its options; what a command does is loaded when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="cygnoreco",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunArgument = Annotated[
    Path, typer.Argument(help="Raw run: .mid[.gz|.lz4|.bz2], .root, .h5, .zarr or s3://bucket/key.zarr.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no summary; errors only.")]
CameraOption = Annotated[str | None, typer.Option(help="Bank of the camera; needed if there are several.")]
PedestalOption = Annotated[
    Path | None,
    typer.Option(help="Raw pedestal run, saved pedestal (ours or pedmap_run*_rebin1.root), or a folder of those."),
]
VignettingOption = Annotated[
    str | None, typer.Option(help="Lens response: a ROOT map, a file of ours, 'generated:lime' or 'none'.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Blocks computed at once in this process; by default one a core, on a GPU 2.")
]
WorkersOption = Annotated[int, typer.Option(min=0, help="Worker processes, instead of threads of this one.")]
SiteOption = Annotated[
    str | None, typer.Option(help="Where workers run: a name of `cygnoreco cluster sites`, or a TOML file.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 and so on, or auto: a GPU if there is one.")]
RecipeOption = Annotated[str, typer.Option(help="Name of a shipped recipe or a TOML file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="stage.parameter=value; may be repeated.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"cygnoreco {version('cygnoreco')}")
        raise typer.Exit


@app.callback(
    epilog="Example: cygnoreco demo -o demo/\n\n"
    "Exit codes: 0 all good; 1 a bug; 2 wrong usage or input; 3 done, but with bad events or bad runs; "
    "4 a passing fault, try again; 130 interrupted, the same command goes on."
)
def cygnoreco(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Reconstruct raw runs of optical time projection chambers."""


@app.command(
    epilog="Example: cygnoreco reco run05001.mid.gz --pedestal run05000.mid.gz -o reco/\n\n"
    "On a pool: cygnoreco reco run05*.mid.gz --pedestal pedestals/ -o reco/ --site pool"
)
def reco(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Raw runs.")],
    pedestal: PedestalOption = None,
    vignetting: VignettingOption = None,
    recipe: RecipeOption = "lime",
    settings: SetOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path(),
    camera: Annotated[str | None, typer.Option(help="Bank of a camera; by default all of them, a file each.")] = None,
    threads: ThreadsOption = None,
    workers: WorkersOption = 0,
    site: SiteOption = None,
    device: DeviceOption = "cpu",
    block: Annotated[int, typer.Option(min=1, help="Frames a block: unit of work, memory and resuming.")] = 8,
    force: Annotated[bool, typer.Option("--force", help="Do it again even if it is done.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad event or run.")] = False,
    metrics: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="With --site: serve metrics for Prometheus here."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Reconstruct raw runs to official ROOT files; go on where an earlier start stopped."""
    from pipelines.cli.reco import reco as command

    return command(
        runs,
        pedestal=pedestal,
        vignetting=vignetting,
        recipe=recipe,
        settings=settings or [],
        out=out,
        camera=camera,
        threads=threads,
        workers=workers,
        site=site,
        device=device,
        block=block,
        force=force,
        strict=strict,
        metrics=metrics,
        as_json=as_json,
        quiet=quiet,
    )


@app.command(epilog="Example: cygnoreco demo -o demo/")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for all that it makes.")] = Path("cygnoreco-demo"),
    frames: Annotated[int, typer.Option(help="Frames of the data run.", min=1)] = 20,
    pedestal_frames: Annotated[int, typer.Option(help="Frames of the pedestal run.", min=2)] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    threads: ThreadsOption = None,
    workers: WorkersOption = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Simulate a pedestal run and a data run, reconstruct them, and draw an event."""
    from pipelines.cli.demo import demo as command

    return command(out, frames, pedestal_frames, seed, threads, workers, as_json, quiet)


@app.command(epilog="Example: cygnoreco info run05001.mid.gz")
def info(
    run: RunArgument,
    events: Annotated[bool, typer.Option("--events", help="One line of CSV an event, banks with CRC-32.")] = False,
    as_json: Json = False,
) -> int:
    """Say what is in a raw run: events, banks, times, settings without their secrets."""
    from pipelines.cli.raw import info as command

    return command(run, events, as_json)


@app.command(epilog="Example: cygnoreco verify run05001.mid.gz && echo sound")
def verify(run: RunArgument, as_json: Json = False) -> int:
    """Read a raw run from end to end and list everything that is wrong with it."""
    from pipelines.cli.raw import verify as command

    return command(run, as_json)


@app.command(
    epilog="Example: cygnoreco convert run05001.mid.gz --to zarr -o run05001.zarr\n\n"
    "To go through it again and again: cygnoreco convert run05001.mid.gz --to zarr --preset fast\n\n"
    "To have the DAQ's file back: cygnoreco convert s3://bucket/run05001.zarr --to midas -o run05001.mid.gz"
)
def convert(
    run: RunArgument,
    to: Annotated[str, typer.Option(help="zarr, root, h5 or midas.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Target; by default beside the run.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="For zarr: archive (the default) is smallest, fast is quickest to read."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a target that is there already.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a run with bad events.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Copy a raw run to another container, without loss."""
    from pipelines.cli.raw import convert as command

    return command(run, to, out, preset, force, strict, as_json, quiet)


@app.command(epilog="Example: cygnoreco pedestal run05000.mid.gz -o pedestals/")
def pedestal(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; gets our file and the experiment's.")] = Path(),
    camera: CameraOption = None,
    max_frames: Annotated[int | None, typer.Option(min=2, help="Use the first ones only; winter23 took 201.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make the pedestal of a run: mean and noise of every pixel."""
    from pipelines.cli.raw import pedestal as command

    return command(run, out, camera, max_frames, as_json, quiet)


@app.command(epilog="Example: cygnoreco show run05001.mid.gz:7 --pedestal run05000.mid.gz -o event7.png")
def show(
    what: Annotated[str, typer.Argument(metavar="RUN:EVENT", help="Raw run and event number.")],
    pedestal: PedestalOption = None,
    vignetting: VignettingOption = None,
    recipe: RecipeOption = "lime",
    settings: SetOption = None,
    reco: Annotated[Path | None, typer.Option(help="Reconstructed file: overlay the clusters stored there.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .png or .html file.")] = None,
    camera: CameraOption = None,
) -> int:
    """Draw a frame with its clusters outlined and numbered."""
    from pipelines.cli.show import show as command

    return command(what, pedestal, vignetting, recipe, settings or [], reco, out, camera)


recipes = typer.Typer(
    help="List, print and compare recipes.", epilog="Example: cygnoreco recipes list", no_args_is_help=True
)
app.add_typer(recipes, name="recipes")


@recipes.command("list", epilog="Example: cygnoreco recipes list")
def list_recipes(as_json: Json = False) -> int:
    """List the recipes that come with the package."""
    from pipelines.cli.recipes import list_recipes as command

    return command(as_json)


@recipes.command("print", epilog="Example: cygnoreco recipes print winter23 > mine.toml")
def print_recipe(
    recipe: Annotated[str, typer.Argument(help="Name or TOML file.")] = "lime",
    settings: SetOption = None,
    as_json: Json = False,
) -> int:
    """Print a recipe with every parameter and its description, as a TOML file to start from."""
    from pipelines.cli.recipes import print_recipe as command

    return command(recipe, settings or [], as_json)


@recipes.command("diff", epilog="Example: cygnoreco recipes diff lime winter23")
def diff_recipes(
    first: Annotated[str, typer.Argument(help="Name or TOML file.")],
    second: Annotated[str, typer.Argument(help="Name or TOML file.")],
    as_json: Json = False,
) -> int:
    """Compare two recipes parameter by parameter."""
    from pipelines.cli.recipes import diff_recipes as command

    return command(first, second, as_json)


campaign = typer.Typer(
    help="Campaigns that run inside a pool, asked for by `reco --site` where the site's scheduler is in the pool.",
    epilog="Example: cygnoreco campaign list reco/",
    no_args_is_help=True,
)
app.add_typer(campaign, name="campaign")

CampaignFolder = Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of `cygnoreco reco`.")]


@campaign.command("list", epilog="Example: cygnoreco campaign list reco/")
def campaign_list(out: CampaignFolder, as_json: Json = False) -> int:
    """List the campaigns of an output folder, and how far they are."""
    from pipelines.cli.campaign import list_campaigns as command

    return command(out, as_json)


@campaign.command("follow", epilog="Example: cygnoreco campaign follow reco/ 3f2a")
def campaign_follow(
    out: CampaignFolder,
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="By default the latest one.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Follow a campaign to its end, and report as `reco` does; Ctrl-C leaves it going on."""
    from pipelines.cli.campaign import follow_campaign as command

    return command(out, name, as_json, quiet)


@campaign.command("stop", epilog="Example: cygnoreco campaign stop reco/ 3f2a")
def campaign_stop(
    out: CampaignFolder,
    name: Annotated[str, typer.Argument(metavar="ID", help="Beginning of the name of a campaign.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """End a campaign and its jobs; what is committed stays, and the same `reco` goes on from there."""
    from pipelines.cli.campaign import stop_campaign as command

    return command(out, name, as_json, quiet)


@campaign.command("run", hidden=True, epilog="Example: cygnoreco campaign run reco/campaigns/3f2a6b01c9d4")
def campaign_run(folder: Annotated[Path, typer.Argument(help="Folder of the campaign.")]) -> int:
    """Do a campaign here: what its job does."""
    from pipelines.cli.campaign import run_campaign as command

    return command(folder)


cluster = typer.Typer(
    help="Where work can run: sites, their health, and a pool on this machine.",
    epilog="Example: cygnoreco cluster doctor pool",
    no_args_is_help=True,
)
app.add_typer(cluster, name="cluster")
pool = typer.Typer(
    help="A real HTCondor pool on this machine, for trying out.",
    epilog="Example: cygnoreco cluster pool up",
    no_args_is_help=True,
)
cluster.add_typer(pool, name="pool")

SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="Name of a site, or a TOML file.")]
PoolFolder = Annotated[Path | None, typer.Option("--folder", help="Folder of the pool; by default one of the user's.")]


@cluster.command("sites", epilog="Example: cygnoreco cluster sites")
def cluster_sites(as_json: Json = False) -> int:
    """List the sites that can be named."""
    from pipelines.cli.sites import sites as command

    return command(as_json)


@cluster.command("doctor", epilog="Example: cygnoreco cluster doctor pool --store s3://cygno")
def cluster_doctor(
    site: SiteArgument,
    store: Annotated[str | None, typer.Option(help="URL that jobs should reach, s3://bucket say.")] = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds for the probe job to start and report.")] = 60.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Submit one probe job, and report what it finds, with a remedy for each fault."""
    from pipelines.cli.sites import doctor as command

    return command(site, store, patience, as_json, quiet)


@cluster.command("status", epilog="Example: cygnoreco cluster status pool")
def cluster_status(site: SiteArgument, as_json: Json = False) -> int:
    """Say what a pool has free, and list our jobs in its queue."""
    from pipelines.cli.sites import status as command

    return command(site, as_json)


@pool.command("up", epilog="Example: cygnoreco cluster pool up && cygnoreco cluster pool status")
def pool_up(
    folder: PoolFolder = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores that jobs may ask for; by default all.")] = None,
    memory: Annotated[int | None, typer.Option(min=1, help="Megabytes that jobs may ask for.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="By default, and if 0, a free one.")] = None,
    extra: Annotated[Path | None, typer.Option(help="File with more lines for HTCondor's configuration.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Start a pool, or find that it is up, and say how to use it."""
    from pipelines.cli.cluster import pool_up as command

    return command(folder, cpus, memory, port, extra, as_json, quiet)


@pool.command("down", epilog="Example: cygnoreco cluster pool down")
def pool_down(
    folder: PoolFolder = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove its files as well.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """End the pool and its jobs."""
    from pipelines.cli.cluster import pool_down as command

    return command(folder, purge, as_json, quiet)


@pool.command("status", epilog="Example: cygnoreco cluster pool status && echo up")
def pool_status(folder: PoolFolder = None, as_json: Json = False) -> int:
    """Say whether the pool is up, by the exit code as well."""
    from pipelines.cli.cluster import pool_status as command

    return command(folder, as_json)
