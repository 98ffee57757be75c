# The visitor's side of an exchange.
from spokes._fastpath.conn cimport EndOps

cdef EndOps down_ops
