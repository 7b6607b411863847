"""A part: the committed tables of one block, in a file that is there whole or not at all."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cygnoreco.io.atomic import atomic_write
from cygnoreco.tables import Tables
from cygnoreco.types import Fault

_NAME = re.compile(r"frames-(\d{6})-(\d{6})\.part\.npz")


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
    members = {
        "events": tables.events,
        "clusters": tables.clusters,
        "redpix": tables.redpix,
        "note": np.frombuffer(json.dumps(note).encode(), np.uint8),
    }
    # An archive as numpy.savez writes it, which would first copy the arrays to fresh memory.
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy.write_array_header_2_0(stream, npy.header_data_from_array_1_0(array))
                stream.write(np.ascontiguousarray(array).view(np.uint8).data)
    return _receipt(path, start, stop, note)


def read_part(path: Path) -> Tables:
    """Tables of a part; the CRC-32 of every member is verified on the way.

    Raises
    ------
    ValueError, zipfile.BadZipFile
        The part is damaged.
    """
    # As numpy.load, which goes through the file in small pieces: the members are stored as they are, so that the arrays
    # can lie where the file was read to.
    content = np.fromfile(path, np.uint8)
    members: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                long = npy.read_magic(stream) > (1, 0)
                shape, _, dtype = (npy.read_array_header_2_0 if long else npy.read_array_header_1_0)(stream)
                start = stream.tell()
            name_length, extra_length = content[member.header_offset + 26 :][:4].view("<u2").tolist()
            begin = member.header_offset + 30 + name_length + extra_length
            data = content[begin : begin + member.file_size]
            if zlib.crc32(data.data) != member.CRC:
                raise ValueError(f"'{path}': {member.filename} does not fit its CRC-32")
            members[member.filename.removesuffix(".npy")] = data[start:].view(dtype).reshape(shape)
    note = json.loads(members["note"].tobytes())
    return Tables(members["events"], members["clusters"], members["redpix"], tuple(note["vetoed"]))


def committed_parts(folder: Path) -> list[Receipt]:
    """Find the sound parts in a folder: in order, none overlapping another.

    A part whose checksum is wrong is deleted, so that its block is done again. Parts may overlap when two passes
    used different blocks: the longer one is kept.
    """
    found = []
    for path in sorted(folder.glob("frames-*.part.npz")):
        match = _NAME.fullmatch(path.name)
        if not match:
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                sound = archive.testzip() is None
                note = json.loads(np.lib.format.read_array(archive.open("note.npy")).tobytes())
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError):
            sound = False
        if sound:
            found.append(_receipt(path, int(match[1]), int(match[2]), note))
        else:
            path.unlink()
    kept: list[Receipt] = []
    for receipt in sorted(found, key=lambda each: (each.start - each.stop, each.start)):
        if all(receipt.stop <= other.start or receipt.start >= other.stop for other in kept):
            kept.append(receipt)
    return sorted(kept)


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
