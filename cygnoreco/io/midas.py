"""MIDAS events and banks: the structures, and how to walk through them.

A MIDAS file is a plain sequence of events, little-endian, without header or index. An event is a 16-byte header and
its data; the data of a user event is a list of named banks, that of the begin and end of run a dump of the DAQ's
settings, that of a message a text.

:func:`cygnoreco.io.midas_events.iter_events` goes through a file.

Source of the format: MIDAS wiki, "Event Structure", and ``midas.h`` of MIDAS 2023.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError
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
        Header and data as they stand in the file; shorter than the header says if it is broken, empty if there was
        no header to be made out.
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


def parse_banks(payload: memoryview) -> tuple[int | None, tuple[Bank, ...]]:
    """Take a list of banks apart, without copying.

    Parameters
    ----------
    payload : memoryview
        Data of a user event, without the event's header.

    Returns
    -------
    flags : int or None
        Kind of the list; None for an event without any data.
    banks : tuple of Bank
        In their order, names that come twice included.

    Raises
    ------
    BrokenBanks
        ``flags``, ``bank-total``, ``bank-size`` or ``bank-count``; `offset` counts from the event's header.
    """
    if not len(payload):
        return None, ()
    if len(payload) < BANK_LIST_HEADER.size:
        raise BrokenBanks("bank-total", f"{len(payload)} bytes are no list of banks", offset=EVENT_HEADER.size)
    total, flags = BANK_LIST_HEADER.unpack_from(payload)
    variant = bank_variant(flags)
    if variant is None:
        raise BrokenBanks("flags", f"unknown bank flags {flags:#x}", offset=EVENT_HEADER.size)
    end = len(payload)
    if total != end - BANK_LIST_HEADER.size:
        message = f"banks of {total} bytes in an event that has {end - BANK_LIST_HEADER.size} for them"
        raise BrokenBanks("bank-total", message, offset=EVENT_HEADER.size)
    layout = BANK_HEADERS[variant]
    banks: list[Bank] = []
    position = BANK_LIST_HEADER.size
    while position < end:
        where = EVENT_HEADER.size + position
        if position + layout.size > end:
            raise BrokenBanks("bank-size", f"{end - position} bytes are no bank", offset=where)
        name, type_number, size = layout.unpack_from(payload, position)[:3]
        position += layout.size
        if position + size > end:
            message = f"bank {bank_name(name)!r} of {size} bytes where {end - position} are left"
            raise BrokenBanks("bank-size", message, offset=where)
        if len(banks) == MAX_BANKS:
            raise BrokenBanks("bank-count", f"more than {MAX_BANKS} banks", offset=where)
        banks.append(
            Bank(bank_name(name), type_number, payload[position : position + size], EVENT_HEADER.size + position)
        )
        position = min(position + size + -size % 8, end)
    return flags, tuple(banks)


def bank_variant(flags: int) -> int | None:
    """Which of the three bank headers the flags of a list mean; None if they are unknown.

    Bit 5 is tested before bit 4: lists with bank headers of 16 bytes have both.
    """
    if flags & ~0x31 or not flags & 0x01:
        return None
    return 0x31 if flags & 0x20 else 0x11 if flags & 0x10 else 0x01


def bank_name(name: bytes) -> str:
    """Return a bank's name without its padding."""
    return name.rstrip(b"\0 ").decode("latin-1")
