# When an exchange's sockets are read.
from spokes._fastpath.conn cimport Conn
from spokes._fastpath.exchange_state cimport Exchange

cdef void exchange_half_closed(Exchange *x) noexcept nogil
cdef void exchange_conn_ready(Conn *conn) noexcept nogil
cdef void exchange_task(void *owner) noexcept nogil
