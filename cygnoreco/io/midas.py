"""MIDAS events and banks: the structures, and how to walk through them.

A MIDAS file is a plain sequence of events, little-endian, without header or index. An event is a 16-byte header and
its data; the data of a user event is a list of named banks, that of the begin and end of run a dump of the DAQ's
settings, that of a message a text.

For every event of a file, in its order::

    for item in iter_events("run05001.mid.gz"):
        if isinstance(item, Fault):          # not an event: skipped bytes, broken compression, a missing end of run
            ...
        elif item.fault is not None:         # a broken event: `raw` is what there is of it, `banks` is empty
            ...
        else:
            item.header.event_id, item.number, item.offset
            item.raw                         # the event as it stands in the file, header included
            for bank in item.banks:          # in the order of the event; a name may come twice
                bank.name, bank.type
                bank.array()                 # its values, a view
                bank.offset                  # item.raw[bank.offset : bank.offset + bank.size] are its bytes

``raw`` of all events and nothing else, put one after the other, is the inflated file (of a sound one).

Source of the format: MIDAS wiki, "Event Structure", and ``midas.h`` of MIDAS 2023.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError
from cygnoreco.io.streams import InflatedStream, open_stream
from cygnoreco.types import Fault

BEGIN_OF_RUN = 0x8000
END_OF_RUN = 0x8001
MESSAGE = 0x8002
INTERNAL_EVENTS = frozenset((BEGIN_OF_RUN, END_OF_RUN, MESSAGE))
#: Trigger mask of begin and end of run ("MI").
MIDAS_MAGIC = 0x494D

#: event_id, trigger_mask, serial, timestamp, data_size
EVENT_HEADER = struct.Struct("<HHIII")
#: total bytes of all banks with headers and padding, flags
BANK_LIST_HEADER = struct.Struct("<II")
#: name, type, size[, reserved] by the flags of the bank list
BANK_HEADERS = {0x01: struct.Struct("<4sHH"), 0x11: struct.Struct("<4sII"), 0x31: struct.Struct("<4sIII")}

#: NumPy types of the bank types that have one; all others (strings, structures) are bytes.
BANK_DTYPES: dict[int, np.dtype[Any]] = {
    number: np.dtype(code)
    for number, code in {
        1: "u1", 2: "i1", 3: "S1", 4: "<u2", 5: "<i2", 6: "<u4", 7: "<i4", 8: "<u4",
        9: "<f4", 10: "<f8", 11: "<u4", 17: "<i8", 18: "<u8",
    }.items()
}  # fmt: skip
CAMERA_TYPE = 4

#: Sixteen images of the largest sensor, and room for the waveforms: a header that claims more is damaged.
MAX_EVENT_BYTES = 16 * 2304 * 4096 * 2 + 2**26
#: A bank may be empty, so the size of an event does not bound their number.
MAX_BANKS = 10_000


@dataclass(frozen=True, slots=True)
class EventHeader:
    """The 16 bytes in front of an event; ``data_size`` is what follows them, ``timestamp`` in UNIX seconds."""

    event_id: int
    trigger_mask: int
    serial: int
    timestamp: int
    data_size: int

    def pack(self) -> bytes:
        """Return the header as it stands in a file."""
        return EVENT_HEADER.pack(self.event_id, self.trigger_mask, self.serial, self.timestamp, self.data_size)


@dataclass(frozen=True, slots=True)
class Bank:
    """One bank of an event.

    Attributes
    ----------
    name : str
        One to four characters.
    type : int
        MIDAS type number, see ``BANK_DTYPES``.
    data : memoryview
        Its bytes, without padding.
    offset : int
        Where they begin in the event, its header counted.
    """

    name: str
    type: int
    data: memoryview
    offset: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def array(self) -> NDArray[Any]:
        """Return the values, a read-only view; bytes if the type has no number format or they do not divide."""
        dtype = BANK_DTYPES.get(self.type, np.dtype("u1"))
        return np.frombuffer(self.data, dtype if self.size % dtype.itemsize == 0 else np.dtype("u1"))


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a file.

    Attributes
    ----------
    number : int
        Position in the file, counted from 0 over events of all kinds, broken ones included.
    offset : int
        Byte offset of its header in the inflated file.
    header : EventHeader
        Its header.
    raw : memoryview
        Header and data as they stand in the file; shorter than the header says if the file ends inside.
    flags : int or None
        Kind of its bank list; None for internal events and those without any data.
    banks : tuple of Bank
        Its banks; empty if it is broken.
    fault : Fault or None
        What is wrong with it.
    lost_cameras : tuple of str
        Camera banks that could be made out in a broken event: each is a frame that is lost.
    """

    number: int
    offset: int
    header: EventHeader
    raw: memoryview
    flags: int | None = None
    banks: tuple[Bank, ...] = ()
    fault: Fault | None = None
    lost_cameras: tuple[str, ...] = ()

    @property
    def payload(self) -> memoryview:
        """The data after the header."""
        return self.raw[EVENT_HEADER.size :]

    @property
    def internal(self) -> bool:
        """Whether it is a begin or end of run or a message, which have no banks."""
        return self.header.event_id in INTERNAL_EVENTS


class BrokenBanks(DataError):
    """A list of banks that contradicts itself; ``kind`` is the word for :class:`cygnoreco.types.Fault`."""

    def __init__(self, kind: str, message: str, *, offset: int) -> None:
        super().__init__(message, offset=offset)
        self.kind = kind
        self.message = message


def is_camera(name: str) -> bool:
    """Whether a bank of this name holds an image."""
    return name.startswith("CAM")
