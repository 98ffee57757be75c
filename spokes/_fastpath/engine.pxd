# The engine as Python has it, of the parts in bindings/.
from spokes._fastpath.bindings.links cimport Links
from spokes._fastpath.bindings.listeners cimport Listeners
from spokes._fastpath.bindings.nodes cimport Nodes
from spokes._fastpath.bindings.routes cimport Routes
from spokes._fastpath.bindings.slots cimport Slots
from spokes._fastpath.bindings.threads cimport Threads

cdef class Engine:
    cdef Threads threads
    cdef Listeners listeners
    cdef Slots slots
    cdef Routes routes
    cdef Links links
    cdef Nodes nodes
    cdef readonly int event_fd
    cdef readonly int worker_count
