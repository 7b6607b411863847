"""A part: the committed tables of one block, in a file that is there whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from isal import isal_zlib
from numpy.lib import format as npy
from numpy.typing import NDArray

from cygnoreco.io.atomic import atomic_write
from cygnoreco.kernels.scratch import scratch
from cygnoreco.tables import TABLES, Tables
from cygnoreco.types import Fault

_NAME = re.compile(r"frames-(\d{6})-(\d{6})\.part\.npz")
_NOTE = "note.json"


@dataclass(frozen=True, order=True)
class Receipt:
    """What a committed part says of itself, without its tables.

    Attributes
    ----------
    start, stop : int
        Frames of the block.
    path : str
        The part's file.
    seconds : mapping
        Wall seconds by stage, summed over the block.
    counts : mapping
        ``events``, ``clusters``, ``redpix``, ``bytes`` (raw pixels read).
    vetoed : tuple of int
        Frames that the spark veto found.
    faults : tuple of Fault
        Frames that could not be read.
    """

    start: int
    stop: int
    path: str
    seconds: Mapping[str, float]
    counts: Mapping[str, int]
    vetoed: tuple[int, ...] = ()
    faults: tuple[Fault, ...] = ()


def part_path(folder: Path, start: int, stop: int) -> Path:
    """File of the part of frames ``start`` to ``stop``."""
    return folder / f"frames-{start:06d}-{stop:06d}.part.npz"


def write_part(
    folder: Path,
    start: int,
    stop: int,
    tables: Tables,
    *,
    seconds: Mapping[str, float],
    size: int,
    faults: tuple[Fault, ...] = (),
) -> Receipt:
    """Commit a part: write it under a temporary name, flush it to the disk, rename it.

    Parameters
    ----------
    folder : Path
        Folder of the dataset's parts.
    start, stop : int
        Frames of the block.
    tables : Tables
        Its results.
    seconds : mapping
        Wall seconds by stage.
    size : int
        Bytes of raw pixels that were read.
    faults : tuple of Fault
        Frames of the block that could not be read.
    """
    path = part_path(folder, start, stop)
    note = {
        "seconds": dict(seconds),
        "counts": {
            "events": len(tables.events),
            "clusters": len(tables.clusters),
            "redpix": len(tables.redpix),
            "bytes": size,
        },
        "vetoed": tables.vetoed,
        "faults": [asdict(fault) for fault in faults],
    }
    # An archive as numpy.savez writes it, which would first copy the arrays to fresh memory.
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, dtype in TABLES.items():
            table = getattr(tables, name)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                stream.write(_head(dtype, len(table)))
                stream.write(np.ascontiguousarray(table, dtype).view(np.uint8).data)
        archive.writestr(zipfile.ZipInfo(_NOTE), json.dumps(note))  # without the date
    return _receipt(path, start, stop, note)


def read_part(receipt: Receipt) -> Tables:
    """Tables of a part, in memory of this thread: valid until it reads the next one.

    The CRC-32 of every table is verified on the way.

    Raises
    ------
    ValueError
        The part is damaged.
    OSError
        It is not there, or cannot be read.
    """
    with _damage_is_value_error(), Path(receipt.path).open("rb") as file, zipfile.ZipFile(file) as archive:
        events, clusters, redpix = (
            _table(file, archive.getinfo(f"{name}.npy"), name, dtype, receipt.counts[name])
            for name, dtype in TABLES.items()
        )
    return Tables(events, clusters, redpix, receipt.vetoed)


@contextmanager
def _damage_is_value_error() -> Iterator[None]:
    """Make one error of all that reading a damaged archive can end in."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        EOFError,
        struct.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise ValueError(f"damaged archive: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a place before the beginning of the file
            raise
        raise ValueError(f"damaged archive: {error}") from error


def _table(file: IO[bytes], member: zipfile.ZipInfo, name: str, dtype: np.dtype[Any], rows: int) -> NDArray[Any]:
    """Read a table as :func:`write_part` stored it.

    NumPy would go through the member in small pieces, to fresh memory, and parse the head, which we know: comparing it
    takes less, and threads may do it at once (:mod:`cygnoreco.io.archive`).
    """
    file.seek(member.header_offset + 26)  # lengths of the member's name and of its extra field
    file.seek(sum(struct.unpack("<HH", file.read(4))), io.SEEK_CUR)
    table = scratch(f"part.{name}", (rows,), dtype)
    content = table.view(np.uint8).data
    expected = _head(dtype, rows)
    head = file.read(len(expected))
    whole = member.file_size == len(head) + len(content) and file.readinto(content) == len(content)  # type: ignore[attr-defined]
    if head != expected or not whole or isal_zlib.crc32(content, isal_zlib.crc32(head)) != member.CRC:
        raise ValueError(f"{member.filename} is not a table of {rows} rows with its CRC-32")
    return table


def _head(dtype: np.dtype[Any], rows: int) -> bytes:
    """Head of a table in NumPy's format."""
    stream = io.BytesIO()
    npy.write_array_header_2_0(stream, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)})
    return stream.getvalue()


def committed_parts(folder: Path) -> list[Receipt]:
    """Find the sound parts in a folder: in order, none overlapping another.

    A part whose checksum is wrong, or whose columns are not ours, is deleted: its block is done again. Parts may
    overlap when two passes used different blocks: the longer one is kept.
    """
    found = []
    for path in sorted(folder.glob("frames-*.part.npz")):
        frames = frames_of(path.name)
        if frames is None:
            continue
        try:
            receipt = receipt_of(path, *frames)
        except ValueError:
            path.unlink()
        else:
            found.append(receipt)
    return without_overlap(found)


def frames_of(name: str) -> tuple[int, int] | None:
    """Frames that a part has by its file's name; None if it is no part's."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def without_overlap(parts: list[Receipt]) -> list[Receipt]:
    """Choose parts, in order: of those that overlap, the longest."""
    kept: list[Receipt] = []
    for receipt in sorted(parts, key=lambda each: (each.start - each.stop, each.start)):
        if all(receipt.stop <= other.start or receipt.start >= other.stop for other in kept):
            kept.append(receipt)
    return sorted(kept)


def receipt_of(path: Path, start: int, stop: int) -> Receipt:
    """Receipt of a part that is there, and sound; ValueError if it is damaged."""
    with _damage_is_value_error(), zipfile.ZipFile(path) as archive:
        receipt = _receipt(path, start, stop, json.loads(archive.read(_NOTE)))
    read_part(receipt)
    return receipt


def _receipt(path: Path, start: int, stop: int, note: Mapping[str, Any]) -> Receipt:
    return Receipt(
        start,
        stop,
        str(path),
        note["seconds"],
        note["counts"],
        tuple(note["vetoed"]),
        tuple(Fault(**fault) for fault in note["faults"]),
    )
