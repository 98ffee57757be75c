# The visitor's side of an exchange.
from spokes._fastpath.io.conn cimport EndOps

cdef EndOps down_ops
