# Other nodes of the cluster, as Python knows them: by numbers.
from spokes._fastpath.base.types cimport uint32_t, uint64_t
from spokes._fastpath.bindings.slots cimport Slots
from spokes._fastpath.bindings.threads cimport Threads

cdef class Nodes:
    cdef Threads threads
    cdef Slots slots
    cdef dict workers                   # node -> {its worker: slot}
    cdef int open_node(self) except -1
    cdef uint32_t node_worker(self, int node, int worker) except? 0
    cdef list close_node(self, int node)
    cdef int set_via(self, uint32_t tunnel, int node, uint64_t workers) except -1
