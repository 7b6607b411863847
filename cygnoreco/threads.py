"""Pools of threads, among them one without any."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any


def executor(threads: int) -> Executor:
    """Make a pool of threads; of none, it does its work at once, in the thread that tells it to."""
    return ThreadPoolExecutor(threads) if threads else _Inline()


class _Inline(Executor):
    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*arguments, **named))
        return future
