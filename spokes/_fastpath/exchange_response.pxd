# The upstream's side of an exchange.
from spokes._fastpath.conn cimport EndOps
from spokes._fastpath.exchange_state cimport Exchange
from spokes._fastpath.types cimport uint8_t

cdef EndOps up_ops
# A fault of the upstream, where this end has its conn; once a conn.
cdef void up_count(Exchange *x, uint8_t fault) noexcept nogil
