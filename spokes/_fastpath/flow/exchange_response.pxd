# The upstream's side of an exchange.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.io.conn_state cimport EndOps

cdef EndOps up_ops
# A fault of the upstream, where this end has its conn; once a conn.
cdef void up_count(Exchange *x, uint8_t fault) noexcept nogil
