"""Help that is quick and true, and refusals that say what was expected."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from pipelines.cli.app import app
from tests.pipelines.conftest import Command

HEAVY = {
    "numpy",
    "numba",
    "scipy",
    "dask",
    "distributed",
    "uproot",
    "awkward",
    "h5py",
    "zarr",
    "matplotlib",
    "pydantic",
}


def commands(command: Any, words: tuple[str, ...] = ("cygnoreco",)) -> Iterator[tuple[str, Any]]:
    """Every command and group of commands, by what one types."""
    yield " ".join(words), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pipelines.cli import run; assert run(['--help']) == 0; "
        f"sys.exit(' '.join({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "reco" in done.stdout
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_the_parser_takes(name: str, call: Command) -> None:
    help_text = call(*name.split()[1:], "--help")
    assert help_text.code == 0
    example = next(line for line in COMMANDS[name].epilog.splitlines() if line.startswith("Example: "))
    assert " ".join(example.split()) in " ".join(help_text.out.split())
    words = shlex.split(example.removeprefix("Example: "))
    words = words[: min([words.index(each) for each in ("&&", ">", "|") if each in words], default=len(words))]
    place = max(n for n in range(len(words) + 1) if " ".join(words[:n]) in COMMANDS)
    called = " ".join(words[:place])
    assert called.startswith(name)
    COMMANDS[called].make_context(called, words[place:])  # raises at an option that does not exist


def test_help_tells_the_exit_codes(call: Command) -> None:
    text = " ".join(call("--help").out.split())
    for code in (
        "0 all good",
        "1 a bug",
        "2 wrong usage or input",
        "3 done, but",
        "4 a passing fault",
        "130 interrupted",
    ):
        assert code in text


def test_version(call: Command) -> None:
    assert call("--version").out.startswith("cygnoreco ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("reco", "Missing argument 'RUN...'"),
        ("reco x.mid --pedstal y", "No such option: --pedstal"),
        ("recoo", "No such command 'recoo'"),
        ("reco x.mid --workers -1", "Invalid value for '--workers'"),
        ("reco x.mid --block 0", "Invalid value for '--block'"),
        ("reco x.mid", "error: no pedestal: name a pedestal run"),
        ("reco x.mid --pedestal p.npz --recipe lme", "error: unknown recipe 'lme'; did you mean 'lime'?"),
        ("reco x.mid --pedestal p.npz --set accptt.xmax=1", "did you mean 'accept'?"),
        ("reco x.mid --pedestal p.npz --set accept.xmx=1", "did you mean 'xmax'?"),
        ("reco x.mid --pedestal p.npz --set accept.xmax=wide", "'accept.xmax' = 'wide'"),
        ("reco x.mid --pedestal p.npz --set accept.xmax", "is not of the form stage.parameter=value"),
        ("reco no/such.mid --pedestal p.npz --workers 0", "no/such.mid: no such file"),
        ("info no/such.mid", "no/such.mid: no such file"),
        ("convert x.mid --to zarrr", "error: unknown container 'zarrr'; did you mean 'zarr'?"),
        ("show x.mid --pedestal p.npz", "is not of the form RUN:EVENT"),
        ("show x.mid:1 --pedestal p.npz -o x.gif", "must end in .png or .html"),
        ("show x.mid:1", "error: no pedestal"),
        ("recipes print lme", "did you mean 'lime'?"),
    ],
)
def test_wrong_usage_is_one_clear_message(arguments: str, message: str, call: Command) -> None:
    outcome = call(*arguments.split())
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
