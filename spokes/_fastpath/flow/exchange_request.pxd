# The visitor's side of an exchange.
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.io.conn_state cimport End, Loop
from spokes._fastpath.link.frame cimport Visitor

# Serve HTTP on an end from now on; bytes may wait in its rx. 0, or < 0 when out of memory. `faces_visitor`: it is the
# visitor's own, whatever kind of end it is; else the engine that has that end has checked what comes, and keeps the
# deadlines. `coverage`: of the certificate that the visitor's TLS was terminated with, 0 = plain.
cdef int exchange_start(End *downstream, Loop *loop, const Visitor *visitor, bint faces_visitor,
                        uint64_t coverage) noexcept nogil
