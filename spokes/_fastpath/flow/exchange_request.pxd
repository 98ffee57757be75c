# The visitor's side of an exchange.
from spokes._fastpath.io.conn_state cimport EndOps

cdef EndOps down_ops
