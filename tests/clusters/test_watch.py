"""Decisions about jobs: every fault of a pool, without a pool."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusters.site import Limits, Workers
from clusters.watch import Decision, Health, Job, Lost, Seen, Slot, decide, failed, wanted

LIMITS = Limits(interval=1, connect=10, idle=60, steady=30, failures=3, backoff=2, backoff_max=5, away=40, lease=9)


def look(
    now: float,
    jobs: dict[str, str] | None = None,
    workers: set[str] = frozenset(),  # type: ignore[assignment]
    *,
    health: Health = Health(),  # noqa: B008
    names: set[str] | None = None,
    backlog: int = 1,
    reason: str = "",
) -> Decision:
    """Decide on jobs given as ``{slot: state}``."""
    queue = (
        None if jobs is None else {name: Job(f"{7}.{i}", state, reason) for i, (name, state) in enumerate(jobs.items())}
    )
    return decide(health, names if names is not None else set(health.slots), Seen(now, queue, workers, backlog), LIMITS)


def with_slot(**times: float) -> Health:
    return Health({"a": Slot("a", **times)})


def only(decision: Decision) -> Lost:
    (lost,) = decision.lost
    return lost


def test_a_new_slot_gets_a_job() -> None:
    assert look(0, {}, names={"a", "b"}).submit == ("a", "b")


def test_a_slot_with_a_job_gets_no_second_one() -> None:
    assert look(1, {"a": "idle"}, health=with_slot(submitted=0)).submit == ()


def test_a_job_whose_submission_was_not_answered_is_adopted() -> None:
    decision = look(1, {"a": "idle"}, names={"a"})
    assert decision.submit == ()
    assert decision.health.slots["a"].submitted == 1


def test_submissions_are_staggered() -> None:
    names = {f"w{i:02}" for i in range(30)}
    assert len(look(0, {}, names=names).submit) == LIMITS.interval / LIMITS.stagger


def test_nothing_is_submitted_while_the_schedd_is_away() -> None:
    assert look(0, None, names={"a"}).submit == ()


def test_a_held_job_is_lost_with_its_reason() -> None:
    lost = only(look(5, {"a": "held"}, health=with_slot(submitted=0), reason="no such image"))
    assert lost.kind == "held"
    assert "no such image" in lost.reason


def test_a_held_job_is_lost_even_if_its_worker_is_still_connected() -> None:
    health = with_slot(submitted=0, running=1, connected=2, seen=4)
    assert only(look(5, {"a": "held"}, {"a"}, health=health)).kind == "held"


def test_a_job_that_left_the_queue_is_lost() -> None:
    assert only(look(5, {}, health=with_slot(submitted=0))).kind == "gone"
    assert only(look(5, {"a": "removed"}, health=with_slot(submitted=0))).kind == "gone"


def test_nothing_is_lost_while_the_schedd_is_away() -> None:
    assert look(5, None, health=with_slot(submitted=0, running=1)).lost == ()


def test_a_job_that_ends_after_good_work_is_no_failure() -> None:
    decision = look(100, {}, health=with_slot(submitted=0, running=1, connected=2, seen=99))
    assert only(decision).kind == "ended"
    assert decision.health.failures == 0
    assert decision.grow


def test_a_running_job_whose_worker_never_reports_is_lost_in_time() -> None:
    health = with_slot(submitted=0, running=1)
    assert look(10, {"a": "running"}, health=health).lost == ()
    assert only(look(11, {"a": "running"}, health=health)).kind == "silent"


def test_a_worker_that_is_away_for_a_moment_is_not_lost() -> None:
    health = with_slot(submitted=0, running=1, connected=2, seen=50)
    assert look(59, {"a": "running"}, health=health).lost == ()
    assert only(look(60, {"a": "running"}, health=health)).kind == "silent"


def test_a_job_without_a_slot_is_a_stray() -> None:
    decision = look(1, {"a": "idle", "old": "idle", "going": "removed"}, health=with_slot(submitted=0))
    assert decision.strays == ("7.1",)


def test_a_lost_job_is_a_stray_at_once() -> None:
    assert look(5, {"a": "held"}, health=with_slot(submitted=0)).strays == ("7.0",)


def test_failures_are_replaced_later_and_later() -> None:
    health, pauses = Health(), []
    for _ in range(4):
        health = failed(health, "out of memory", 100.0, LIMITS)
        pauses.append(health.not_before - 100)
    assert pauses == [2, 4, 5, 5]
    waiting = look(101, {}, health=replace(health, failures=1), names={"b"})
    assert waiting.submit == ()
    assert not waiting.grow
    assert look(106, {}, health=replace(health, failures=1), names={"b"}).submit == ("b",)


def test_a_steady_worker_makes_up_for_failures() -> None:
    health = replace(with_slot(submitted=0, running=1, connected=2, seen=3), failures=2)
    assert look(31, {"a": "running"}, {"a"}, health=health).health.failures == 2
    assert look(32, {"a": "running"}, {"a"}, health=health).health.failures == 0


def test_too_many_failures_are_a_fault_that_says_the_reason() -> None:
    health = replace(with_slot(submitted=0), failures=2)
    decision = look(5, {"a": "held"}, health=health, reason="memory usage exceeded")
    assert decision.fault is not None
    assert "memory usage exceeded" in decision.fault
    assert not decision.grow


def test_too_many_failures_are_none_while_a_worker_is_left() -> None:
    health = replace(Health({"a": Slot("a", 0), "b": Slot("b", 0, 1, 2, 3)}), failures=2)
    decision = look(5, {"a": "held", "b": "running"}, {"b"}, health=health)
    assert decision.fault is None
    assert not decision.grow


def test_many_workers_may_fail_once_each() -> None:
    names = {f"w{i}" for i in range(9)}
    health = Health({name: Slot(name, 0) for name in names}, failures=4)
    assert look(5, dict.fromkeys(names, "idle"), health=health).fault is None


def test_no_work_is_no_fault() -> None:
    health = replace(with_slot(submitted=0), failures=9)
    assert look(500, {"a": "idle"}, health=health, backlog=0).fault is None


def test_jobs_that_nobody_takes_are_a_fault_in_time() -> None:
    health = with_slot(submitted=0)
    assert look(59, {"a": "idle"}, health=health).fault is None
    fault = look(60, {"a": "idle"}, health=health).fault
    assert fault is not None
    assert "wait for a machine" in fault


def test_a_schedd_that_stays_away_is_a_fault_in_time() -> None:
    health = look(10, None, health=with_slot(submitted=0)).health
    assert look(49, None, health=health).fault is None
    fault = look(50, None, health=health).fault
    assert fault is not None
    assert "has not answered for 40 s" in fault


def test_a_schedd_that_stays_away_is_no_fault_while_workers_work() -> None:
    health = look(10, None, {"a"}, health=with_slot(submitted=0, running=1)).health
    assert look(500, None, {"a"}, health=health).fault is None


@pytest.mark.parametrize(
    ("backlog", "current", "target"), [(0, 0, 1), (1, 0, 1), (9, 1, 3), (1000, 3, 10), (4, 10, 10)]
)
def test_the_number_of_workers_follows_the_backlog(backlog: int, current: int, target: int) -> None:
    assert wanted(current, backlog, None, 0.0, Workers(minimum=1, maximum=10))[0] == target


def test_workers_are_sent_away_only_after_a_while() -> None:
    workers = Workers(minimum=0, maximum=10, cooldown=60)
    target, low = wanted(10, 4, None, 100.0, workers)
    assert (target, low) == (10, 100.0)
    assert wanted(10, 4, low, 159.0, workers) == (10, 100.0)
    assert wanted(10, 400, low, 159.0, workers) == (10, None)
    assert wanted(10, 4, low, 160.0, workers) == (1, None)
