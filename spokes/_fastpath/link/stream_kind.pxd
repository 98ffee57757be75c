# Streams as ends of flows: the second kind.
from spokes._fastpath.io.conn_state cimport EndKind

cdef EndKind stream_kind
