# What Python is told of links, in order and without loss.
from spokes._fastpath.base.types cimport int32_t, uint32_t, uint64_t, uint8_t
from spokes._fastpath.core.shared cimport Worker
from spokes._fastpath.io.conn_state cimport Loop

cpdef enum EventKind:
    EVENT_LINK_UP = 1, EVENT_LINK_DOWN = 2, EVENT_CONTROL = 3, EVENT_LINK_WANTED = 4, EVENT_DRAIN = 5
    EVENT_LINK_CONNECTED = 6, EVENT_PONG = 7, EVENT_UPSTREAM_FAULT = 8

cpdef enum LinkDown:                    # why a link ended
    DOWN_CLOSED = 1, DOWN_LOCAL = 2, DOWN_SYSTEM = 3, DOWN_TLS = 4, DOWN_PIN = 5, DOWN_PROTOCOL = 6
    DOWN_DEAD = 7, DOWN_HANDSHAKE = 8

cdef void emit(Worker *worker, uint32_t kind, uint64_t link, int32_t code, const uint8_t *data,
               uint32_t data_bytes) noexcept nogil

cdef void emit_down(Worker *worker, uint64_t id, int rc) noexcept nogil     # LINK_DOWN with a reason and words for rc
# A dial failed: told where the ring has room, and not more often than upstream.pyx asks for.
cdef void emit_upstream_fault(Loop *loop, uint64_t upstream, int rc) noexcept nogil
cdef void emit_pending(Worker *worker) noexcept nogil               # what the ring had no place for
cdef bint events_have_room(Worker *worker) noexcept nogil           # False: Python is behind
cdef void events_clear(Worker *worker) noexcept nogil
