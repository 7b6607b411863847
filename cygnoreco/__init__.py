"""Reconstruction of optical time projection chambers: a raw run goes in, tables and a ROOT file come out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cygnoreco.calib.pedestal import Pedestal
    from cygnoreco.calib.response import Response
    from cygnoreco.dataset import load_tables
    from cygnoreco.driver import Result, reconstruct
    from cygnoreco.errors import CygnoError, DataError, InputError, TransientError
    from cygnoreco.raw import Run, open_run
    from cygnoreco.recipe import Recipe

#: Public names and where they live; loaded when first used, so that ``import cygnoreco`` costs nothing.
_HOMES = {
    "CygnoError": "errors",
    "DataError": "errors",
    "InputError": "errors",
    "Pedestal": "calib.pedestal",
    "Recipe": "recipe",
    "Response": "calib.response",
    "Result": "driver",
    "Run": "raw",
    "TransientError": "errors",
    "load_tables": "dataset",
    "open_run": "raw",
    "reconstruct": "driver",
}

__all__ = [
    "CygnoError",
    "DataError",
    "InputError",
    "Pedestal",
    "Recipe",
    "Response",
    "Result",
    "Run",
    "TransientError",
    "load_tables",
    "open_run",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cygnoreco' has no attribute '{name}'")
    return getattr(import_module(f"cygnoreco.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
