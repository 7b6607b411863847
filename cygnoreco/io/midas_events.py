"""Go through a MIDAS file, event by event, and past what is broken.

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
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cygnoreco.io.midas import (
    BANK_LIST_HEADER,
    BEGIN_OF_RUN,
    END_OF_RUN,
    EVENT_HEADER,
    INTERNAL_EVENTS,
    MAX_EVENT_BYTES,
    MESSAGE,
    MIDAS_MAGIC,
    BrokenBanks,
    Event,
    EventHeader,
    bank_name,
    bank_variant,
    parse_banks,
)
from cygnoreco.io.streams import InflatedStream, open_stream
from cygnoreco.types import Fault

#: Bytes that tell whether an event begins: its header and that of its list of banks.
_START = EVENT_HEADER.size + BANK_LIST_HEADER.size
#: Bytes searched at a time for the next event.
_SEARCH = 1 << 20
#: By so much a damaged block of compressed data may displace what follows it.
_DISPLACED = 64 << 10


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
    # An event with a damaged header has an image, or the length that its list of banks announces, or just much data.
    announced = (header.data_size, int.from_bytes(start[16:20], "little") + BANK_LIST_HEADER.size)
    is_event = bool(cameras) or skipped - EVENT_HEADER.size in announced or skipped > _DISPLACED
    is_event = is_event or not len(stream.peek(1))
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
