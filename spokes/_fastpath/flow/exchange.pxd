# HTTP exchanges: every request is routed by itself, every response framed; a conn may visit several tunnels.
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.io.conn_state cimport End, Loop
from spokes._fastpath.link.frame cimport Visitor

# Serve HTTP on an end from now on; bytes may wait in its rx. 0, or < 0 when out of memory. `faces_visitor`: it is the
# visitor's own, whatever it is; else whoever has that has looked at what comes, and keeps the deadlines.
cdef int exchange_start(End *down, Loop *loop, const Visitor *visitor, bint faces_visitor,
                        uint64_t coverage) noexcept nogil

# A hand-over, between requests with nothing upstream: the exchange travels as a copy, as its conn does.
cdef Exchange *exchange_detach(Exchange *exchange) noexcept nogil           # the copy; NULL when out of memory
cdef int exchange_attach(Exchange *copy, End *down, Loop *loop) noexcept nogil  # 0, or < 0 when out of memory
