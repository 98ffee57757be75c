# Raw flows: bytes between a socket and a stream, both ways, with half-close.
from spokes._fastpath.conn cimport Conn
from spokes._fastpath.mux cimport Stream
from spokes._fastpath.route cimport Upstream
from spokes._fastpath.types cimport uint16_t

cdef void relay_join(Conn *conn, Stream *stream) noexcept nogil             # both open; bytes may wait in the conn's rx
cdef int relay_to_upstream(Stream *stream, Upstream *upstream) noexcept nogil   # 0, or a reason to refuse
cdef uint16_t reason_of(int rc) noexcept nogil                              # an upstream conn's code as a wire reason
