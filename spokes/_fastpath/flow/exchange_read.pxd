# When an exchange's sockets are read.
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.io.conn_state cimport End

cdef void exchange_half_closed(Exchange *x) noexcept nogil
cdef void exchange_ready(End *end) noexcept nogil       # EndOps.ready of both ends
cdef void exchange_task(void *owner) noexcept nogil
