"""Words of the house as data: cameras, faults, and the columns of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, order=True)
class Camera:
    """One camera of a run: the name of its bank (``CAM0``) and its sensor's shape in pixels."""

    name: str
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a frame."""
        return self.height, self.width


#: Sensors of the field by their shape (rows, columns): ORCA Flash, Fusion and Quest.
SENSORS: dict[tuple[int, int], str] = {
    (2048, 2048): "flash",
    (2304, 2304): "fusion",
    (2304, 4096): "quest",
}


@dataclass(frozen=True)
class Fault:
    """Something wrong that was found in a run and did not stop it.

    Attributes
    ----------
    kind : str
        Short fixed word: ``truncated``, ``bank-total``, ``trailer``, ``no-end-of-run``, ``camera-size``...
    message : str
        What was found and what was expected.
    event : int or None
        Position of the event in the file, counted from 0 over events of all kinds.
    offset : int or None
        Byte offset in the inflated stream.
    frame : int or None
        Frame number (column ``event`` of the frame table) that is lost by it, when one is.
    """

    kind: str
    message: str
    event: int | None = None
    offset: int | None = None
    frame: int | None = None


#: One row a frame of one camera. ``event``: running number of the camera's banks in the file, from 0, broken
#: ones counted; ``serial`` and ``timestamp`` (UNIX seconds): of the event's header, 0 where the container has none.
FRAME_DTYPE = np.dtype([("event", "<i4"), ("serial", "<u4"), ("timestamp", "<u4")])


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
        Branch name in the ROOT file.
    dtype : str
        NumPy type.
    unit : str
        Physical unit, empty for pure numbers.
    description : str
        What it is, in one line.
    standard : bool
        True for the columns of the experiment's official file, False for ours.
    """

    name: str
    dtype: str
    unit: str
    description: str
    standard: bool = True


def table_dtype(columns: tuple[Column, ...]) -> np.dtype[Any]:
    """Structured dtype of a table from its columns."""
    return np.dtype([(column.name, column.dtype) for column in columns])


EVENT_COLUMNS: tuple[Column, ...] = (
    Column("run", "<i4", "", "run number"),
    Column("event", "<i4", "", "running number of the camera's frames in the file, from 0"),
    Column("pedestal_run", "<i4", "", "run of the pedestal, -1 if unknown"),
    Column("serial", "<u4", "", "serial number of the DAQ event", False),
    Column("timestamp", "<u4", "s", "time of the DAQ event, UNIX seconds", False),
    Column(
        "quality",
        "<u4",
        "",
        "bits: 1 spark, 2 saturated pixel in a cluster, 4 clustering cut short, 8 checksum of the file wrong",
        False,
    ),
    Column("cmos_integral", "<f4", "ADU", "sum of the zero-suppressed image inside the acceptance"),
    Column("cmos_mean", "<f4", "ADU", "its mean over all pixels of the sensor"),
    Column("cmos_rms", "<f4", "ADU", "its population standard deviation over all pixels of the sensor"),
    Column("lp_len", "<f4", "", "points that survived the filters"),
    Column("nSc", "<u4", "", "clusters"),
    Column("nRedpix", "<u4", "", "saved pixels"),
)

#: Wall seconds of the stages, -1 unless the recipe asks for them (they differ from one pass to the next).
TIMING_COLUMNS: tuple[Column, ...] = tuple(
    Column(f"t_{name}", "<f4", "s", f"wall time of {what}, -1 if not recorded")
    for name, what in (
        ("DBSCAN", "the clustering"),
        ("variables", "the cluster variables"),
        ("pedsub", "the pedestal subtraction"),
        ("saturation", "the saturation correction"),
        ("zerosup", "the zero suppression"),
        ("xycut", "the acceptance cut"),
        ("rebin", "the rebinning"),
        ("medianfilter", "the median filter"),
        ("noisered", "the noise filter"),
    )
)

CLUSTER_COLUMNS: tuple[Column, ...] = (
    Column("sc_size", "<f4", "px", "number of pixels, without zero suppression"),
    Column("sc_nhits", "<f4", "px", "number of pixels above the zero suppression"),
    Column("sc_integral", "<f4", "ADU", "sum of all pixels"),
    Column("sc_corrintegral", "<f4", "ADU", "density-corrected sum (constants of LEMON)"),
    Column("sc_rms", "<f4", "ADU", "population standard deviation of all pixels"),
    Column("sc_energy", "<f4", "keV", "calibrated energy, -1 without a calibration"),
    Column("sc_pathlength", "<f4", "px", "length along the skeleton, -1 without the calibration stage"),
    Column("sc_redpixIdx", "<f4", "", "index of its first pixel among the event's saved pixels, -1 if not saved"),
    Column("sc_theta", "<f4", "deg", "direction of the axis in the x-y plane"),
    Column("sc_length", "<f4", "px", "extent along the major axis"),
    Column("sc_width", "<f4", "px", "extent along the minor axis"),
    Column("sc_longrms", "<f4", "px", "RMS along the major axis, of the unit-binned map"),
    Column("sc_latrms", "<f4", "px", "RMS along the minor axis, of the unit-binned map"),
    Column("sc_lfullrms", "<f4", "px", "RMS along the major axis, unbinned"),
    Column("sc_tfullrms", "<f4", "px", "RMS along the minor axis, unbinned"),
    Column("sc_lp0amplitude", "<f4", "ADU", "main peak of the longitudinal profile: height"),
    Column("sc_lp0prominence", "<f4", "ADU", "main peak of the longitudinal profile: prominence"),
    Column("sc_lp0fwhm", "<f4", "px", "main peak of the longitudinal profile: full width at half its prominence"),
    Column("sc_lp0mean", "<f4", "px", "main peak of the longitudinal profile: distance from the start"),
    Column("sc_tp0fwhm", "<f4", "px", "main peak of the transverse profile: full width at half its prominence"),
    Column("sc_xmean", "<f4", "px", "x of the barycentre of positive pixels"),
    Column("sc_ymean", "<f4", "px", "y of the barycentre of positive pixels"),
    Column("sc_xmax", "<f4", "px", "largest x"),
    Column("sc_xmin", "<f4", "px", "smallest x"),
    Column("sc_ymax", "<f4", "px", "largest y"),
    Column("sc_ymin", "<f4", "px", "smallest y"),
    Column("sc_pearson", "<f4", "", "Pearson coefficient; constant 999, as in the official file"),
    Column("sc_tgaussamp", "<f4", "ADU", "Gaussian fit of the transverse profile: amplitude"),
    Column("sc_tgaussmean", "<f4", "px", "Gaussian fit of the transverse profile: mean"),
    Column("sc_tgausssigma", "<f4", "px", "Gaussian fit of the transverse profile: sigma"),
    Column("sc_tchi2", "<f4", "", "Gaussian fit of the transverse profile: chi square"),
    Column("sc_tstatus", "<f4", "", "Gaussian fit of the transverse profile: 3 converged, -1 no fit"),
    Column("sc_lgaussamp", "<f4", "ADU", "Gaussian fit of the longitudinal profile: amplitude"),
    Column("sc_lgaussmean", "<f4", "px", "Gaussian fit of the longitudinal profile: mean"),
    Column("sc_lgausssigma", "<f4", "px", "Gaussian fit of the longitudinal profile: sigma"),
    Column("sc_lchi2", "<f4", "", "Gaussian fit of the longitudinal profile: chi square"),
    Column("sc_lstatus", "<f4", "", "Gaussian fit of the longitudinal profile: 3 converged, -1 no fit"),
    Column("sc_nsat", "<f4", "px", "number of saturated pixels", False),
    Column("sc_tag", "<f4", "", "from the clustering: 1-3 the iDBSCAN pass, 1 a directional cluster", False),
)

REDPIX_COLUMNS: tuple[Column, ...] = (
    Column("redpix_ix", "<i4", "px", "x of a saved pixel"),
    Column("redpix_iy", "<i4", "px", "y of a saved pixel"),
    Column("redpix_iz", "<f4", "ADU", "counts of a saved pixel, pedestal subtracted, vignetting corrected"),
)

EVENT_DTYPE = table_dtype(EVENT_COLUMNS + TIMING_COLUMNS)
CLUSTER_DTYPE = table_dtype(CLUSTER_COLUMNS)
REDPIX_DTYPE = table_dtype(REDPIX_COLUMNS)

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Frames = NDArray[np.uint16]
#: What a saturated pixel counts; see :func:`cygnoreco.image.correct.upper_cut`.
Saturated = Literal["keep", "zero"]


@dataclass(frozen=True)
class PackedFrames:
    """Frames as a fast copy holds them, for a device that unpacks them itself.

    Attributes
    ----------
    words : ndarray
        (w,) uint16: the packed frames one after the other (:mod:`cygnoreco.io.packing`).
    tiles : ndarray
        (t, 6) int64: where the tiles of all of them are, as :func:`cygnoreco.io.packing.tile_table` says it.
    shape : tuple of int
        (n, H, W) of the frames.
    """

    words: NDArray[np.uint16]
    tiles: NDArray[np.int64]
    shape: tuple[int, int, int]
