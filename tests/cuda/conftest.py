"""Programs that the tests of the kernels run on: the emulator, and a GPU when there is one and it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import cupy_or_skip
from tests.cuda.emulator import EmulatedProgram, compiler


@pytest.fixture(scope="session")
def _build(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=["emulated", "reordered", pytest.param("cuda", marks=pytest.mark.gpu)])
def program(request: pytest.FixtureRequest, _build: Any) -> Any:
    """Kernels on the host in two orders of their threads, and on a GPU (``pytest -m gpu``)."""
    if request.param == "cuda":
        cupy_or_skip()
        from cygnoreco.cuda.program import cupy_program

        return cupy_program()
    if compiler() is None:
        pytest.skip("needs g++")
    return EmulatedProgram(_build, seed=17 if request.param == "reordered" else 0)
