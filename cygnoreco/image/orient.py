"""Which way up an image is: the only place that turns one."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cygnoreco.stage import stage

Orientation = Literal["sensor", "d03a058"]

#: Containers whose frames the experiment's 2024 program mirrors; it reads ROOT and HDF5 pictures as they are.
MIRRORED_CONTAINERS = ("midas", "zarr")


@stage(name="orient", version=1)
def orient(frames: NDArray[Any], container: str, *, orientation: Orientation = "sensor") -> NDArray[Any]:
    """Turn frames, or maps of the sensor, from the orientation of the sensor to that of the recipe's images.

    After it axis 0 is the row and axis 1 the column of the image, whatever the tables call x and y.

    Parameters
    ----------
    frames : ndarray, shape (..., H, W)
        Frames or calibration maps in the orientation of the sensor.
    container : str
        What the frames come from: ``midas``, ``zarr``, ``root`` or ``hdf5``.
    orientation : {'sensor', 'd03a058'}
        ``sensor`` leaves the image as the camera sent it. ``d03a058`` (winter23) mirrors the columns of MIDAS
        and Zarr frames, image[a, b] = frame[a, W-1-b]: that program turned by 90 degrees and then transposed.

    Returns
    -------
    ndarray, shape (..., H, W)
        The same array, or a contiguous mirrored copy: everything that follows runs along the rows.
    """
    if orientation == "sensor" or container not in MIRRORED_CONTAINERS:
        return frames
    return np.ascontiguousarray(frames[..., ::-1])
