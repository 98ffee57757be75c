# Flows whose service or upstream has been ended.
from spokes._fastpath.core.shared cimport Worker

cdef void sweep_soon(Worker *worker) noexcept nogil                 # in this pass, or soon where one has just been
cdef void sweep(void *owner) noexcept nogil                         # a Worker
