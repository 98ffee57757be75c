# The upstream's side of an exchange.
from spokes._fastpath.conn cimport EndOps

cdef EndOps up_ops
