"""The pedestal: what every pixel counts in the dark, and how much that fluctuates."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cygnoreco.calib._files import contents, histograms, read_archive, require_file, two_dimensional, write_archive
from cygnoreco.errors import InputError
from cygnoreco.image.orient import Orientation
from cygnoreco.io.atomic import atomic_write
from cygnoreco.kernels.pedestal import MAX_FRAMES, accumulate, moments
from cygnoreco.types import Fault, Frames

_KIND = "cygnoreco pedestal 1"


@dataclass(frozen=True, eq=False)
class Pedestal:
    """Mean and noise of every pixel of one camera, in the orientation of the sensor.

    Attributes
    ----------
    mean : ndarray, shape (H, W), float64
        Mean counts in the dark, ADU. Read-only, like the other.
    rms : ndarray, shape (H, W), float64
        Standard deviation of the counts, with n - 1, ADU.
    n_frames : int
        Frames it was made of, 0 if unknown.
    run : int
        Run it was made of, -1 if unknown.
    camera : str
        Bank name of the camera, empty if unknown.
    faults : tuple of Fault
        What was wrong with the run; no part of the digest.

    Raises
    ------
    InputError
        Maps of different shapes, or a value that is negative or not finite.
    """

    mean: NDArray[np.float64]
    rms: NDArray[np.float64]
    n_frames: int = 0
    run: int = -1
    camera: str = ""
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if self.mean.ndim != 2 or self.mean.shape != self.rms.shape:
            raise InputError(f"pedestal: a mean of shape {self.mean.shape} and an rms of shape {self.rms.shape}")
        for name in ("mean", "rms"):
            values = np.ascontiguousarray(getattr(self, name), np.float64).view()
            # Two comparisons instead of isfinite: a NaN fails the first, and no frame-sized temporary is kept.
            if not (values.min() >= 0 and values.max() < np.inf):
                raise InputError(f"pedestal of run {self.run}: the {name} is negative or not finite somewhere")
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what results depend on, hexadecimal: the two maps, their shape and the run number."""
        digest = hashlib.sha256(f"pedestal {self.run} {self.mean.shape}".encode())
        digest.update(self.mean.data)
        digest.update(self.rms.data)
        return digest.hexdigest()

    @classmethod
    def from_frames(cls, blocks: Iterable[Frames], *, run: int = -1, camera: str = "") -> Pedestal:
        """Make a pedestal from dark frames in one pass.

        Parameters
        ----------
        blocks : iterable of ndarray, shape (k, H, W), uint16
            The frames, k at a time, in the orientation of the sensor.
        run : int
            Run number.
        camera : str
            Bank name.

        Raises
        ------
        InputError
            Fewer than 2 or more than 65,536 frames, or frames of different shapes or not uint16.

        Notes
        -----
        The sums are whole numbers, so the result is that of two passes (mean first, then deviations from it) and
        does not depend on the order or the size of the blocks.
        """
        shape: tuple[int, ...] | None = None
        n_frames = 0
        sums, squares = np.empty(0, np.uint32), np.empty(0, np.uint64)
        for block in blocks:
            if block.ndim != 3 or block.dtype != np.uint16:
                raise InputError(
                    f"pedestal: frames of shape {block.shape} and type {block.dtype}, expected 3 axes, uint16"
                )
            if shape is None:
                shape = block.shape[1:]
                pixels = shape[0] * shape[1]
                sums, squares = np.zeros(pixels, np.uint32), np.zeros(pixels, np.uint64)
            elif block.shape[1:] != shape:
                raise InputError(f"pedestal of run {run}: frames of {block.shape[1:]} pixels after frames of {shape}")
            n_frames += len(block)
            if n_frames > MAX_FRAMES:
                raise InputError(f"pedestal of run {run}: more than {MAX_FRAMES} frames")
            accumulate(np.ascontiguousarray(block).reshape(len(block), sums.size), sums, squares)
        if shape is None:
            raise InputError(f"pedestal of run {run}: no frames, at least 2 are needed")
        return cls.from_sums(sums.reshape(shape), squares.reshape(shape), n_frames, run=run, camera=camera)

    @classmethod
    def from_sums(
        cls, sums: NDArray[Any], squares: NDArray[Any], n_frames: int, *, run: int = -1, camera: str = ""
    ) -> Pedestal:
        """Make a pedestal from the exact sums over dark frames.

        Parameters
        ----------
        sums : ndarray, shape (H, W), unsigned integer
            Sum of the counts.
        squares : ndarray, shape (H, W), unsigned integer
            Sum of (counts - 100)^2.
        n_frames : int
            Frames summed.
        run, camera
            As in :meth:`from_frames`.

        Raises
        ------
        InputError
            Fewer than 2 frames.
        """
        if n_frames < 2:
            raise InputError(f"pedestal of run {run}: {n_frames} frame, at least 2 are needed for its noise")
        mean, rms = np.empty(sums.shape), np.empty(sums.shape)
        flat_sums = np.ascontiguousarray(sums, np.uint32).reshape(-1)
        flat_squares = np.ascontiguousarray(squares, np.uint64).reshape(-1)
        moments(flat_sums, flat_squares, n_frames, mean.reshape(-1), rms.reshape(-1))
        return cls(mean, rms, n_frames, run, camera)

    def save(self, path: str | Path) -> None:
        """Write it to a file of our format (``.npz``), whole or not at all; the same pedestal gives the same bytes."""
        write_archive(
            path,
            _KIND,
            mean=self.mean,
            rms=self.rms,
            n_frames=self.n_frames,
            run=self.run,
            camera=self.camera,
            faults=json.dumps([asdict(fault) for fault in self.faults]),
        )

    def save_root(self, path: str | Path, *, orientation: Orientation = "sensor") -> None:
        """Write it in the experiment's format, to be named ``pedmap_run<run>_rebin1.root``.

        Parameters
        ----------
        path : path-like
            The file.
        orientation : {'sensor', 'd03a058'}
            Which program is to read it: that of after March 2024, or the one that mirrors the columns.

        Notes
        -----
        TH2D ``pedmap`` (content mean, error rms) and ``pedmapsigma`` (content rms), x = column and y = row of the
        image; TH1D ``pedmean`` (500 bins, 97 to 103) and ``pedrms`` (1000 bins, 0 to 10) of all pixels.
        """
        import uproot  # a quarter of a second, needed here only

        mean, rms = (_turn(each, orientation) for each in (self.mean, self.rms))
        with atomic_write(path) as partial, uproot.recreate(partial, compression=uproot.LZ4(1)) as file:
            file["pedmap"] = _th2d("pedmap", mean, rms)
            file["pedmapsigma"] = _th2d("pedmapsigma", rms)
            file["pedmean"] = np.histogram(mean, bins=500, range=(97, 103))
            file["pedrms"] = np.histogram(rms, bins=1000, range=(0, 10))
            # The experiment's program ignores these; our reader need not be told.
            file["orientation"] = orientation
            file["camera"] = self.camera

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        shape: tuple[int, int] | None = None,
        camera: str = "",
        orientation: Orientation = "sensor",
    ) -> Pedestal:
        """Read a pedestal in our format or the experiment's.

        Parameters
        ----------
        path : path-like
            ``.npz``, or a ROOT file with ``pedmap``.
        shape : tuple of int, optional
            (H, W) that the sensor should have.
        camera : str
            Bank name, for ROOT files of the experiment, which do not say.
        orientation : {'sensor', 'd03a058'}
            Who wrote the ROOT file, unless it says so itself, as ours do. Nothing in others tells: the experiment's
            program of March 2024 (``d03a058``) wrote
            maps with the columns mirrored, later ones and ours do not. A wrong choice shows as a few hundred warm
            pixels per frame, at the mirrored places of those of the pedestal.

        Raises
        ------
        InputError
            No such file, not a pedestal, one of rebinned images, or one for another sensor.
        """
        path = Path(path)
        require_file(path)
        with path.open("rb") as stream:
            is_root = stream.read(4) == b"root"
        pedestal = _load_root(path, camera, orientation) if is_root else _load_archive(path)
        if shape is not None and pedestal.mean.shape != tuple(shape):
            raise InputError(
                f"the pedestal '{path}' is for a sensor of {pedestal.mean.shape} pixels, expected {tuple(shape)}"
            )
        return pedestal


def _load_archive(path: Path) -> Pedestal:
    arrays = read_archive(path, _KIND)
    return Pedestal(
        arrays["mean"],
        arrays["rms"],
        int(arrays["n_frames"]),
        int(arrays["run"]),
        str(arrays["camera"]),
        tuple(Fault(**fault) for fault in json.loads(str(arrays.get("faults", "[]")))),
    )


def _load_root(path: Path, camera: str, orientation: Orientation) -> Pedestal:
    rebin = re.search(r"rebin(\d+)", path.name)
    if rebin and int(rebin[1]) != 1:
        raise InputError(
            f"'{path}' is a pedestal of images rebinned by {int(rebin[1])}; every pixel's own is needed: "
            "pedmap_run<run>_rebin1.root"
        )
    with histograms(path) as file:
        pedmap = two_dimensional(file, path, "pedmap")
        mean = contents(pedmap)
        if "pedmapsigma" in file.keys(cycle=False):
            rms = contents(file["pedmapsigma"])  # exact, where the errors are the root of a stored square
        elif len(pedmap.member("fSumw2")):
            rms = np.ascontiguousarray(pedmap.errors().T)
        else:
            raise InputError(f"'{path}': 'pedmap' has no errors and there is no 'pedmapsigma', so no noise is known")
        if "orientation" in file:
            orientation = cast("Orientation", str(file["orientation"]))
            camera = str(file["camera"])
    run = re.match(r"pedmap_run(\d+)", path.name)
    return Pedestal(_turn(mean, orientation), _turn(rms, orientation), run=int(run[1]) if run else -1, camera=camera)


def _turn(values: NDArray[np.float64], orientation: Orientation) -> NDArray[np.float64]:
    """From the sensor's orientation to that of the maps of a program, or back: a mirror is its own inverse."""
    return values if orientation == "sensor" else np.ascontiguousarray(values[:, ::-1])


def _th2d(name: str, values: NDArray[np.float64], errors: NDArray[np.float64] | None = None) -> Any:
    from uproot.writing.identify import to_TAxis, to_TH2x

    height, width = values.shape
    # ROOT keeps a frame of under- and overflow bins, and x runs fastest: the memory order of an image.
    return to_TH2x(
        name,
        "",
        np.pad(values, 1).reshape(-1),
        *(float(values.size), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),  # entries; ROOT works the other moments out
        np.pad(errors * errors, 1).reshape(-1) if errors is not None else None,
        to_TAxis("xaxis", "", width, 0.0, float(width)),
        to_TAxis("yaxis", "", height, 0.0, float(height)),
    )
