# Conns to upstreams: connecting with fall-back over addresses, and idle conns kept for the next request.
from spokes._fastpath.base.types cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport EndOps, Loop
from spokes._fastpath.route.outcome cimport FAULT_NONE, outcome_fault
from spokes._fastpath.route.site cimport Upstream

cdef enum:
    CONNECT_MS = 10000                  # all addresses together
    ADDRESS_MS = 2000                   # one that is silent while others are left, or its share of what is left
    FAULT_INTERVAL_MS = 1000            # between failed dials that are told; one not answered for so long is one
    BUSY_RETRY_MS = 16                  # a Unix socket whose backlog is full: first wait, doubled each time …
    BUSY_RETRY_MS_MAX = 512             # … up to this
    IDLE_MS = 30000
    IDLE_MARGIN_MS_MAX = 1000           # before the upstream's own idle time-out, a quarter of it at most
    IDLE_FRESH_MS = 250                 # idle for less, with no time-out known: good for what cannot be sent again
    LEARNED_MS_MIN = 500                # no idle time-out is shorter: who closes earlier closes behind its answers
    LEARNED_KEEP_MS = 600000            # until a time-out that was seen is tried again
    CLOSES_EARLY_KEEP_MS = 60000
    IDLE_COUNT_MAX = 1024               # a worker, all upstreams together

cdef struct UpstreamDial:               # of one that is connecting
    uint64_t deadline_ms
    uint64_t address_ms                 # … to the address that is being tried

cdef struct UpstreamPlace:              # of one that is idle: in its list, most recent first
    UpstreamConn *next
    UpstreamConn *prev

cdef union UpstreamPhase:
    UpstreamDial dial
    UpstreamPlace place

cdef union UpstreamMark:
    uint64_t idle_since_ms              # of one that is idle
    uint64_t acked_bytes                # else: by the peer's kernel, before the request under way was sent; 0 = unknown

cdef struct UpstreamConn:               # Conn.extra; 64 bytes
    Conn *conn
    Upstream *upstream
    UpstreamPhase phase
    UpstreamMark mark
    uint64_t *noted                     # where its own address is noted; NULL = nowhere
    uint32_t idle_timeout_ms            # the upstream's, from its Keep-Alive field; IDLE_UNSAID = it says none
    uint16_t retry_ms                   # 0 = not waiting for a place in the backlog
    uint8_t first                       # index of the address that was tried first; the others follow in turn
    uint8_t tried                       # how many have failed
    uint8_t idle
    uint8_t reused
    uint8_t hops                        # > 0: its own address is noted, with this number
    uint8_t fault                       # Fault that was counted of this conn, or FAULT_NONE

cdef enum:
    IDLE_UNSAID = 0xffffffff

cdef inline void upstream_count_fault(UpstreamConn *upstream_conn, uint8_t fault) noexcept nogil:
    """Count a fault of the upstream; of each conn the first alone."""
    if upstream_conn.fault == FAULT_NONE and fault != FAULT_NONE:
        upstream_conn.fault = fault
        outcome_fault(&upstream_conn.upstream.outcomes, fault, upstream_conn.conn.loop.wall_ms)

# A conn that is connecting, or connected; what is written waits. NULL: no descriptor or memory. Failure: ops.gone.
cdef Conn *upstream_connect(Loop *loop, Upstream *upstream, const EndOps *ops, void *owner) noexcept nogil
# The same for a raw flow, whose own address is noted.
cdef Conn *upstream_connect_raw(Loop *loop, Upstream *upstream, const EndOps *ops, void *owner,
                                uint8_t hops) noexcept nogil

# An idle conn that is likely to stay: the upstream's idle time-out is not near. `for_once`: what is sent cannot be sent
# again, so the socket is checked, and its time-out must be known or it must have been idle for a moment only.
# NULL: none.
cdef Conn *upstream_take_idle(Loop *loop, Upstream *upstream, const EndOps *ops, void *owner,
                              bint for_once) noexcept nogil

# Has nothing that was sent since upstream_take_idle reached the other end's kernel? Then no one has read it.
cdef bint upstream_unheard(const Conn *conn) noexcept nogil
cdef void upstream_says_keep_alive(Conn *conn, int32_t keep_alive_s) noexcept nogil     # -1: it says no time-out
# A dial or datagram was refused or is not answered: the control plane resolves the name again, it may have moved.
cdef void upstream_note_fault(Loop *loop, Upstream *upstream, int rc) noexcept nogil
cdef void upstream_give_back(Conn *conn) noexcept nogil             # keep it idle: nothing unread, nothing unsent
cdef void upstream_clear(Loop *loop) noexcept nogil
