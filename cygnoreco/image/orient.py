"""Which way up an image is: the only place that turns one."""

from __future__ import annotations

from typing import Any, Literal

from numpy.typing import NDArray

from cygnoreco.stage import stage

Orientation = Literal["sensor", "d03a058"]

#: Where frames come from that the experiment's 2024 program mirrors; it reads ROOT and HDF5 pictures as they are.
MIRRORED_ORIGIN = "midas"


@stage(name="orient", version=1)
def orient(frames: NDArray[Any], origin: str, *, orientation: Orientation = "sensor") -> NDArray[Any]:
    """Turn frames, or maps of the sensor, from the orientation of the sensor to that of the recipe's images.

    After it axis 0 is the row and axis 1 the column of the image, whatever the tables call x and y.

    Parameters
    ----------
    frames : ndarray, shape (..., H, W)
        Frames or calibration maps in the orientation of the sensor.
    origin : str
        Container that the frames first came in (``Source.origin``): ``midas``, ``root``, ``hdf5`` or ``zarr``.
    orientation : {'sensor', 'd03a058'}
        ``sensor`` leaves the image as the camera sent it. ``d03a058`` (winter23) mirrors the columns of MIDAS
        frames, image[a, b] = frame[a, W-1-b]: that program turned by 90 degrees and then transposed.

    Returns
    -------
    ndarray, shape (..., H, W)
        The same array, or a mirrored view of it: nothing is copied.
    """
    if orientation == "sensor" or origin != MIRRORED_ORIGIN:
        return frames
    return frames[..., ::-1]
