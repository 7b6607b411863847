"""Descriptions of sites."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusters import site
from clusters.site import Site, known_sites, load_site
from cygnoreco.errors import InputError


def written(folder: Path, text: str, name: str = "here") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_every_site_of_the_package_is_valid() -> None:
    sites = [load_site(name) for name in known_sites()]
    assert {"local", "condor", "remote", "gpu", "inside"} <= {each.name for each in sites}
    assert all(each.description for each in sites)


def test_sizes_and_times_have_units(tmp_path: Path) -> None:
    read = load_site(written(tmp_path, 'kind = "htcondor"\n[job]\nmemory = "3 GB"\nwall_time = "90 m"\ncores = 2\n'))
    assert (read.name, read.job.memory, read.job.wall_time, read.job.cores) == ("here", 3_000_000_000, 5400.0, 2)


def test_the_users_sites_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "site_folder", lambda: tmp_path)
    written(tmp_path, 'kind = "htcondor"\ndescription = "mine"\n', "condor")
    written(tmp_path, 'kind = "htcondor"\n', "cnaf")
    assert load_site("condor").description == "mine"
    assert load_site("htcondor:cnaf").name == "cnaf"


def test_the_pool_of_this_machine_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "default_folder", lambda: tmp_path)
    assert "pool" not in known_sites()
    written(tmp_path, 'kind = "htcondor"\ndescription = "just started"\n', "site")
    found = load_site("pool")
    assert (found.name, found.description) == ("pool", "just started")


def test_a_home_folder_is_expanded(tmp_path: Path) -> None:
    read = load_site(written(tmp_path, 'kind = "htcondor"\n[pool]\ntoken = "~/token"\n'))
    assert read.pool.token == Path.home() / "token"


def test_a_site_is_passed_through() -> None:
    given = Site(name="x", kind="local")
    assert load_site(given) is given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind =", "is not TOML"),
        ("", "'kind'"),
        ('kind = "slurm"', "'local' or 'htcondor'"),
        ('kind = "htcondor"\n[job]\nmemry = 1', "unknown 'job.memry'; did you mean 'memory'?"),
        ('kind = "htcondor"\n[jobs]\ncores = 1', "unknown 'jobs'; did you mean 'job'?"),
        ('kind = "htcondor"\n[job]\nmemory = "3 apples"', "'job.memory' = '3 apples': Could not interpret 'apples'"),
        ('kind = "htcondor"\n[job]\nwall_time = "3 min"', "'job.wall_time' = '3 min': expected a number with a unit"),
        ('kind = "htcondor"\n[job]\ncores = 0', "'job.cores' = 0"),
        ('kind = "htcondor"\n[workers]\nminimum = 3\nmaximum = 2', "maximum = 2 is less than minimum = 3"),
        ('kind = "htcondor"\n[limits]\nlease = 1', "lease = 1 s is less than three times interval = 5 s"),
        ('kind = "local"\nname = "x"', "'name' is the name of the file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=r"here\.toml") as caught:
        load_site(written(tmp_path, text))
    assert message in str(caught.value)


def test_an_unknown_site_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'remote'"):
        load_site("htcondor:remoet")


def test_the_kind_must_be_that_of_the_site() -> None:
    with pytest.raises(InputError, match="of kind 'local', not 'htcondor'"):
        load_site("htcondor:local")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no site file at"):
        load_site(tmp_path / "no.toml")
