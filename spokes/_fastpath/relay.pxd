# Raw flows: bytes between a socket and a stream, both ways, with half-close.
from spokes._fastpath.conn cimport Conn
from spokes._fastpath.mux cimport Stream
from spokes._fastpath.route cimport Upstream

# Both open; bytes may wait in the conn's rx. `is_tls`: a visitor that sent its ClientHello and may be sent an alert.
cdef void relay_join(Conn *conn, Stream *stream, bint is_tls) noexcept nogil
cdef int relay_to_upstream(Stream *stream, Upstream *upstream) noexcept nogil   # 0, or a reason to refuse
