# Conns as ends of flows: the first kind.
from spokes._fastpath.io.conn_state cimport EndKind

cdef EndKind conn_kind
