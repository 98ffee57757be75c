"""Test hooks of frames, backlogs and links."""
from libc.string cimport memset

from spokes._fastpath.base.reason cimport (
    REASON_DRAIN, REASON_GONE, REASON_INTERNAL, REASON_LIMIT, REASON_LOOP, REASON_NO_SERVICE, REASON_PROTOCOL,
    REASON_REFUSED, REASON_TIMEOUT, REASON_UNREACHABLE,
)
from spokes._fastpath.base.types cimport uint32_t, uint8_t
from spokes._fastpath.core.shared cimport COMMAND_PING, LINK_BUCKETS, LinkSlot, Shared
from spokes._fastpath.engine cimport Engine
from spokes._fastpath.link.backlog cimport (
    Backlog, Datagram, backlog_drop, backlog_first, backlog_is_empty, backlog_push,
)
from spokes._fastpath.link.frame cimport (
    FRAME_CONTROL, FRAME_CREDIT, FRAME_DATA, FRAME_DATAGRAM, FRAME_DRAIN, FRAME_FIN, FRAME_HEADER_BYTES, FRAME_OPEN,
    FRAME_PAYLOAD_BYTES_MAX, FRAME_PING, FRAME_PONG, FRAME_RESET, FRAME_WINDOW, OPEN_FIXED_BYTES, STREAM_WINDOW_BYTES,
    Frame, Open, frame_parse, open_parse,
)


NUMBERS = {
    "header": FRAME_HEADER_BYTES, "payload_max": FRAME_PAYLOAD_BYTES_MAX, "window": STREAM_WINDOW_BYTES,
    "open_fixed": OPEN_FIXED_BYTES,
    "OPEN": FRAME_OPEN, "DATA": FRAME_DATA, "FIN": FRAME_FIN, "RESET": FRAME_RESET, "CREDIT": FRAME_CREDIT,
    "PING": FRAME_PING, "PONG": FRAME_PONG, "CONTROL": FRAME_CONTROL, "DRAIN": FRAME_DRAIN, "DATAGRAM": FRAME_DATAGRAM,
    "WINDOW": FRAME_WINDOW,
    "gone": REASON_GONE, "no_service": REASON_NO_SERVICE, "refused": REASON_REFUSED, "unreachable": REASON_UNREACHABLE,
    "timeout": REASON_TIMEOUT, "limit": REASON_LIMIT, "protocol": REASON_PROTOCOL, "internal": REASON_INTERNAL,
    "drain": REASON_DRAIN, "loop": REASON_LOOP,
}


def parse_frame(bytes data not None):
    """(rc, type, flags, stream, length)."""
    cdef Frame frame
    memset(&frame, 0, sizeof(Frame))
    cdef ssize_t rc = frame_parse(&frame, <const uint8_t *><const char *>data, len(data))
    return rc, frame.type, frame.flags, frame.stream, frame.length


def parse_open(bytes data not None):
    """(rc, service, flags, port, hops, family, visitor_port, ip, name)."""
    cdef Open out
    memset(&out, 0, sizeof(Open))
    cdef int rc = open_parse(&out, <const uint8_t *><const char *>data, len(data))
    return (rc, out.service, out.flags | out.visitor.secure, out.visitor.port, out.visitor.hops,
            out.visitor.address.family, out.visitor.address.port, (<char *>out.visitor.address.ip)[:16],
            out.name[:out.name_bytes])


def backlog_trace(list pushes not None):
    """Pushes (stream, data) in turn, then everything taken: ([dropped for each], [(stream, data), …])."""
    cdef Backlog backlog
    cdef Datagram first
    cdef bytes data
    backlog.records = NULL
    backlog.head = backlog.tail = 0
    dropped = []
    taken = []
    for stream, data in pushes:
        dropped.append(backlog_push(&backlog, stream, <const uint8_t *><const char *>data, <uint32_t>len(data)))
    while backlog_first(&backlog, &first):
        taken.append((first.stream, first.data[:first.bytes]))
        backlog_drop(&backlog, &first)
    assert backlog_is_empty(&backlog) and backlog.records == NULL
    return dropped, taken


def set_last_id(Engine engine not None, uint32_t last_id):
    """The links that stand behave as if this were the last id either side had used; even. No stream may be open, nor
    open before a command that is given afterwards: it is what the worker sees the ids with."""
    cdef Shared *shared = engine.threads.shared
    cdef LinkSlot *slot
    cdef uint32_t i
    cdef int bucket
    for i in range(shared.worker_count):
        for bucket in range(<int>LINK_BUCKETS):
            slot = shared.workers[i].slots[bucket]
            while slot != NULL:
                if slot.link != NULL:
                    slot.link.last_id = last_id + (not slot.link.is_acceptor)
                    slot.link.peer_last_id = last_id + slot.link.is_acceptor
                    engine.links.command(COMMAND_PING, slot.id)
                slot = slot.next
