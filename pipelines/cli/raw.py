"""``cygnoreco info``, ``verify``, ``convert`` and ``pedestal``: raw runs without reconstruction."""

from __future__ import annotations
