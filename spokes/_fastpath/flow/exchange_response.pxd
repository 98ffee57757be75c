# The upstream's side of an exchange.
from spokes._fastpath.io.conn_state cimport EndOps

cdef EndOps upstream_ops
