"""What the job of a campaign writes and how it leaves, without a pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clusters.inside import AGAIN
from clusters.site import Site
from cygnoreco.campaign import Order, Standing
from cygnoreco.errors import InputError
from cygnoreco.recipe import Recipe
from pipelines.cli import inside
from pipelines.cli.inside import run_inside
from pipelines.cli.record import (
    Request,
    locked,
    read_outcomes,
    read_request,
    read_standing,
    request_of,
    write_request,
)


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    (tmp_path / "dark.npz").write_bytes(b"dark")
    recipe = Recipe.load("lime").override(["accept.xmax=none", "clustering=dbscan"])
    order = Order(tmp_path / "dark.npz", tmp_path / "out", recipe, "none", "cpu", 4, force=False, strict=True)
    site = Site.model_validate({"name": "here", "kind": "htcondor", "scheduler": {"where": "pool"}})
    request = request_of(["/data/run1.mid", "s3://bucket/run2.zarr"], order, "CAM0", site, 3)
    write_request(request)
    return request


Pretend = Callable[..., None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Put something in the place of a campaign: what it tells, what it gives, and what it raises."""

    def put(standings: int, error: BaseException | None = None) -> None:
        def campaign(*_: Any, watch: Callable[[Standing], None], **__: Any) -> Iterator[dict[str, Any]]:
            yield {"input": "run1.mid", "camera": "CAM0", "status": "good"}
            for frames in range(standings):
                watch(Standing(runs=1, total=2, frames=frames))
            if error is not None:
                raise error

        monkeypatch.setattr(inside, "campaign", campaign)
        monkeypatch.setattr(inside, "_SECOND", 0.0)

    return put


def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    assert read_request(request_.folder) == replace(
        request_, files={name: list(each) for name, each in request_.files.items()}
    )
    assert read_request(request_.folder).id == request_.id


def test_the_name_is_of_what_is_made_not_of_how(request_: Request, tmp_path: Path) -> None:
    how = replace(request_, workers=7, order=replace(request_.order, block=8, device="cuda"))
    assert how.id == request_.id
    assert how.how != request_.how
    assert replace(request_, runs=request_.runs[::-1]).id == request_.id
    assert replace(request_, camera=None).id != request_.id
    assert replace(request_, order=replace(request_.order, recipe=Recipe.load("winter23"))).id != request_.id
    (tmp_path / "dark.npz").write_bytes(b"another")
    assert request_of(request_.runs, request_.order, "CAM0", request_.site, 3).id != request_.id


def test_a_campaign_to_its_end(request_: Request, pretend: Pretend) -> None:
    pretend(3)
    assert run_inside(request_.folder) == 0
    standing = read_standing(request_.folder)
    assert (standing["state"], standing["frames"], standing["starts"]) == ("ended", 2, 1)
    assert [each["input"] for each in read_outcomes(request_.folder)] == ["run1.mid"]
    pretend(0, RuntimeError("it is over and not begun again"))
    assert run_inside(request_.folder) == 0


def test_a_campaign_that_is_stopped(request_: Request, pretend: Pretend) -> None:
    pretend(3)
    (request_.folder / "stop").touch()
    assert run_inside(request_.folder) == 0
    assert read_standing(request_.folder)["state"] == "stopped"
    assert read_outcomes(request_.folder) == []


def test_a_job_whose_wall_time_is_nearly_over_asks_to_be_started_again(
    request_: Request, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(3)
    monkeypatch.setattr(inside, "_LEAVING", 1e9)
    request = replace(request_, site=Site.model_validate(
        {"name": "here", "kind": "htcondor", "scheduler": {"where": "pool"}, "job": {"wall_time": 1e-6}}))  # fmt: skip
    write_request(request)
    assert run_inside(request.folder) == AGAIN
    assert read_standing(request.folder)["state"] == "again"


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt(), "interrupted"), (RuntimeError("x"), "interrupted")])
def test_a_job_that_is_ended_or_meets_a_bug_is_started_again(
    request_: Request, pretend: Pretend, error: BaseException, state: str
) -> None:
    pretend(1, error)
    with pytest.raises(type(error)):
        run_inside(request_.folder)
    assert read_standing(request_.folder)["state"] == state
    assert (request_.folder / "crashes.log").exists() == isinstance(error, RuntimeError)
    pretend(1)
    assert run_inside(request_.folder) == 0
    assert read_standing(request_.folder)["starts"] == 2


def test_what_another_start_would_not_mend_is_said(request_: Request, pretend: Pretend) -> None:
    pretend(1, InputError("no such thing"))
    assert run_inside(request_.folder) == 0
    assert (read_standing(request_.folder)["state"], read_standing(request_.folder)["error"]) == (
        "failed", "no such thing",
    )  # fmt: skip


def test_the_version_is_that_of_the_request(request_: Request, pretend: Pretend) -> None:
    pretend(1)
    other = replace(request_, version="9.9")
    write_request(other)
    assert run_inside(other.folder) == 0
    assert "expected 9.9, by which the campaign was asked for" in read_standing(other.folder)["error"]
    (other.folder / "request.json").write_text("{}")
    (other.folder / "standing.json").unlink()
    assert run_inside(other.folder) == 0
    assert "is not the request of a campaign of this version" in read_standing(other.folder)["error"]


def test_two_jobs_of_a_campaign_do_not_work_at_once(request_: Request, pretend: Pretend) -> None:
    pretend(1)
    with locked(request_.folder / "lock") as mine:
        assert mine
        second = threading.Thread(target=run_inside, args=(request_.folder,))
        second.start()
        time.sleep(0.2)
        assert read_standing(request_.folder) == {}
    second.join(10)
    assert read_standing(request_.folder)["state"] == "ended"
