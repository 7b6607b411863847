"""How closely tables of a GPU agree with the CPU's: within the tolerances that docs/gpu.md quotes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.cuda.energy import ENERGY_TOLERANCE
from cygnoreco.cuda.variables import FIT_TOLERANCE, THETA_TOLERANCE
from cygnoreco.types import CLUSTER_DTYPE

TOLERANCES = {
    "ENERGY_TOLERANCE": ENERGY_TOLERANCE,
    "FIT_TOLERANCE": FIT_TOLERANCE,
    "THETA_TOLERANCE": THETA_TOLERANCE,
}
#: What a fit finds, by profile.
FITS = [(f"sc_{p}gaussamp", f"sc_{p}gaussmean", f"sc_{p}gausssigma", f"sc_{p}chi2") for p in "lt"]
#: Columns whose last digits depend on functions of the processor; all others have the CPU's bits.
FITTED = {name for names in FITS for name in names}
CLOSE = FITTED | {"sc_theta", "sc_energy"}
#: Two numbers as close as these can be rounded to neighbours in single precision.
_SINGLE = 2.0**-23


def assert_columns_agree(found: Mapping[str, Any] | NDArray[Any], expected: NDArray[Any]) -> None:
    """Compare columns, in double or in single precision, with those of the CPU's table."""
    scales = {"sc_theta": (THETA_TOLERANCE, 1.0), "sc_energy": (ENERGY_TOLERANCE, np.abs(expected["sc_energy"]))}
    for names in FITS:
        _, mean, sigma, _ = names
        scales |= {name: (FIT_TOLERANCE, np.maximum(np.abs(expected[name]), 1)) for name in names}
        scales[mean] = FIT_TOLERANCE, np.abs(expected[sigma]) + np.abs(expected[mean])
    for name in CLUSTER_DTYPE.names or ():
        one, other = np.asarray(found[name], np.float64), expected[name].astype(np.float64)
        if name in CLOSE:
            tolerance, scale = scales[name]
            # What is not finite (a fit that went nowhere) must be the same.
            agree = (one == other) | (np.isnan(one) & np.isnan(other))
            with np.errstate(invalid="ignore"):
                agree |= np.abs(one - other) <= tolerance * scale + _SINGLE * np.abs(other)
            assert agree.all(), f"{name}: {one[~agree]} instead of {other[~agree]}"
        else:
            rounded = np.asarray(found[name]).astype(expected[name].dtype)
            np.testing.assert_array_equal(rounded, expected[name], err_msg=name)
