"""MIDAS events and banks: the structures, and how to walk through them.

A MIDAS file is a plain sequence of events, little-endian, without header or index. An event is a 16-byte header and
its data; the data of a user event is a list of named banks, that of the begin and end of run a dump of the DAQ's
settings, that of a message a text.

For every event of a file, in its order::

    for item in iter_events("run05001.mid.gz"):
        if isinstance(item, Fault):          # of the file as a whole: broken compression, a missing end of run
            ...
        elif item.fault is not None:         # a broken event: `raw` is what there is of it, `banks` is empty;
            ...                              # also bytes without meaning that were skipped, where `raw` is empty
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

import itertools
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

#: Bytes searched at a time for the next event.
_SEARCH = 1 << 20

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


def iter_events(source: Path | str | InflatedStream, *, limit: int = MAX_EVENT_BYTES) -> Iterator[Event | Fault]:
    """Go through a run, event by event, and past what is broken.

    An event is trusted if another one, or the end of the file, follows it. Where this fails, the next place is
    searched that begins an event and a list of banks which agree on their length.

    Parameters
    ----------
    source : path or InflatedStream
        The run.
    limit : int
        An event that claims more bytes than this is not believed.

    Yields
    ------
    Event or Fault
        Events in the order of the file, broken ones with their ``fault``; skipped bytes count as one broken event.
        A Fault for what concerns the whole file: damaged compression, no begin or end of run.
    """
    stream = source if isinstance(source, InflatedStream) else open_stream(source)
    begun, ended, number = False, False, 0
    for event in _events(stream, limit):
        sound = event.fault is None
        begun = begun or (sound and event.header.event_id == BEGIN_OF_RUN)
        ended = sound and event.header.event_id == END_OF_RUN
        if event.number == 0 and not begun:
            yield Fault("no-begin-of-run", "the first event is not a begin of run", event=0, offset=0)
        yield event
        number = event.number + 1
    if stream.fault is not None:
        yield stream.fault
    if not ended:
        yield Fault("no-end-of-run", "the last event is not an end of run", event=number, offset=stream.offset)


def _events(stream: InflatedStream, limit: int) -> Iterator[Event]:
    held: Event | None = None
    for number in itertools.count():
        event = _next_event(stream, number, limit) if len(stream.peek(1)) else None
        if held is not None:
            yield _doubted(held, event)
        if event is None:
            return
        held = event


def _doubted(event: Event, follower: Event | None) -> Event:
    """Set an event aside if bytes follow it that belong nowhere.

    Damage to a compressed file may add bytes in the middle of an image; they push its end out of the event.
    """
    foreign = follower is not None and follower.fault is not None and follower.fault.kind == "foreign-bytes"
    if not foreign or event.fault is not None or event.internal:
        return event
    message = "bytes that are no event follow, and may be its displaced end"
    return _broken(event.number, event.offset, event.header, event.raw, "event-size", message)


def _next_event(stream: InflatedStream, number: int, limit: int) -> Event:
    """Return the event at the head of the stream; bytes that had to be skipped count as one that is broken."""
    offset = stream.offset
    start = stream.peek(_START)
    if len(start) < EVENT_HEADER.size:
        raw = stream.take(len(start))
        header = EventHeader(0, 0, 0, 0, 0)
        return _broken(number, offset, header, raw, "truncated", f"the file ends {len(raw)} bytes into an event header")
    header = EventHeader(*EVENT_HEADER.unpack_from(start))
    convincing = _begins_event(start, limit)
    if not convincing and (header.data_size > limit or header.event_id == 0):
        return _resynchronise(stream, number, header, limit)
    raw = stream.take(EVENT_HEADER.size + header.data_size)
    follower = stream.peek(_START)
    cut = len(raw) < EVENT_HEADER.size + header.data_size
    if cut or (len(follower) and not _begins_event(follower, limit)):
        # Either this event's size is wrong (bytes of the file are missing), or what follows is.
        embedded = find_event(raw, EVENT_HEADER.size, limit)
        if embedded is not None:
            stream.push_back(raw[embedded:])
            missing = f"another event begins {embedded} bytes into one of {len(raw)} bytes"
            return _broken(number, offset, header, raw[:embedded], "event-size", missing)
        if not convincing:
            stream.push_back(raw)
            return _resynchronise(stream, number, header, limit)
    if cut:
        message = f"the file ends {len(raw)} bytes into an event of {EVENT_HEADER.size + header.data_size}"
        return _broken(number, offset, header, raw, "truncated", message)
    if header.event_id in INTERNAL_EVENTS:
        return Event(number, offset, header, raw)
    try:
        flags, banks = parse_banks(raw[EVENT_HEADER.size :])
    except BrokenBanks as error:
        return _broken(number, offset, header, raw, error.kind, error.message, error.offset)
    return Event(number, offset, header, raw, flags, banks)


#: Bytes that tell whether an event begins: its header and that of its list of banks.
_START = EVENT_HEADER.size + BANK_LIST_HEADER.size


def _begins_event(start: memoryview, limit: int) -> bool:
    """Whether bytes convince as the begin of an event, or of one that the end of the file cuts."""
    if len(start) < EVENT_HEADER.size:
        return False
    event_id, mask, _, _, size = EVENT_HEADER.unpack_from(start)
    if size > limit or event_id == 0:
        return False
    if event_id in INTERNAL_EVENTS:
        return event_id == MESSAGE or mask == MIDAS_MAGIC
    if size == 0:
        return True
    if len(start) < _START:
        return size >= BANK_LIST_HEADER.size
    total, flags = BANK_LIST_HEADER.unpack_from(start, EVENT_HEADER.size)
    return total == size - BANK_LIST_HEADER.size and bank_variant(flags) is not None


def find_event(data: memoryview, start: int = 0, limit: int = MAX_EVENT_BYTES) -> int | None:
    """First place from `start` on where an event with banks, or an end of run, begins; None if there is none."""
    values = np.frombuffer(data, "u1")
    best: int | None = None
    for shift in range(4):  # an event may begin at any byte, for settings and texts have any length
        first = start + shift
        count = (len(data) - first) // 4 * 4
        words = values[first : first + count].view("<u4") if count else np.empty(0, "<u4")
        if len(words) >= 6:
            size, total, flags = words[3:-2], words[4:-1], words[5:]
            likely = (total == size - np.uint32(8)) & (size <= limit) & ((flags & ~np.uint32(0x30)) == 1)
        else:
            likely = np.zeros(0, bool)
        ends = words[: max(0, len(words) - 3)] == np.uint32(MIDAS_MAGIC << 16 | END_OF_RUN)
        for places in (np.flatnonzero(likely), np.flatnonzero(ends)):
            for place in places:
                found = first + 4 * int(place)
                if best is not None and found >= best:
                    break
                if _begins_event(data[found : found + _START], limit):
                    best = found
                    break
    return best


def _resynchronise(stream: InflatedStream, number: int, header: EventHeader, limit: int) -> Event:
    """Skip to the next event, at most to the end of the stream."""
    offset, start = stream.offset, bytes(stream.peek(_START))
    cameras: tuple[str, ...] = ()
    begin = 1
    while True:
        window = stream.take(_SEARCH)
        found = find_event(window, begin, limit)
        # What might begin in the last bytes is looked at again together with what follows.
        keep = found or (len(window) if len(window) < _SEARCH else len(window) - _START + 1)
        cameras += _camera_headers(window[:keep])
        stream.push_back(window[keep:])
        begin = 0
        if found is not None or not len(stream.peek(1)):
            break
    skipped = stream.offset - offset
    # As many bytes as the header or its list of banks announce are an event, if one with a damaged header.
    announced = (header.data_size, int.from_bytes(start[16:20], "little") + BANK_LIST_HEADER.size)
    is_event = skipped - EVENT_HEADER.size in announced or not len(stream.peek(1))
    kind = "event-header" if is_event else "foreign-bytes"
    message = f"{header.pack().hex()} is no event header: {skipped} bytes skipped"
    fault = Fault(kind, message, event=number, offset=offset)
    return Event(number, offset, header, memoryview(b""), fault=fault, lost_cameras=cameras)


def _broken(
    number: int, offset: int, header: EventHeader, raw: memoryview, kind: str, message: str, where: int | None = 0
) -> Event:
    fault = Fault(kind, message, event=number, offset=offset + (where or 0))
    return Event(number, offset, header, raw, fault=fault, lost_cameras=_camera_headers(raw))


def _camera_headers(data: memoryview) -> tuple[str, ...]:
    """Names of the camera banks that seem to begin in damaged bytes: a name, the type of pixels, an even size."""
    names = []
    for match in re.finditer(rb"CAM[ -~\0](?:\x04\0\0\0(?:..){2}|\x04\0(?!\0\0)..)", data, re.DOTALL):
        names.append(bank_name(match.group()[:4]))
    return tuple(names)
