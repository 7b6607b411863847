"""The array's type chooses the device: plain stages ask an array for the functions that work on it.

They use what the array API standard has, so that they run on NumPy, on CuPy and on any other library that keeps to it.
"""

from __future__ import annotations

import sys
from typing import Any


def namespace(array: Any) -> Any:
    """Find the module whose functions work on an array: ``numpy``, ``cupy`` or another of the array API standard.

    Parameters
    ----------
    array : ndarray
        Any array.

    Raises
    ------
    TypeError
        It is not an array.
    """
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    module = sys.modules.get(type(array).__module__.partition(".")[0])
    if not hasattr(module, "asarray"):  # arrays of CuPy do not name their namespace
        raise TypeError(f"a {type(array).__name__} is not an array")
    return module
