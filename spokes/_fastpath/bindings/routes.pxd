# The route table as Python changes it.
from spokes._fastpath.bindings.certificate cimport Certificate
from spokes._fastpath.bindings.slots cimport Slots
from spokes._fastpath.bindings.threads cimport Threads
from spokes._fastpath.base.types cimport uint32_t, uint64_t
from spokes._fastpath.route.route cimport RouteTable
from spokes._fastpath.route.site cimport Site

cdef class Routes:
    cdef Threads threads
    cdef Slots slots
    cdef RouteTable *table              # the one published last; NULL = none yet
    cdef RouteTable *draft              # its successor, with what changed since; NULL = nothing did
    cdef int set_route(self, int kind, object key, object site) except -1
    cdef int drop_route(self, int kind, object key) except -1
    cdef int set_certificate(self, str name, Certificate certificate) except -1
    cdef int drop_certificate(self, str name) except -1
    cdef int set_link_certificate(self, Certificate certificate) except -1
    cdef int drop_tunnel(self, uint32_t tunnel) except -1
    cdef uint64_t publish(self) except? 0
    cdef uint64_t version_in_force(self) except? 0
    cdef int release(self) except -1            # behind the end of the threads
    cdef int need_draft(self) except -1
    cdef int put(self, int kind, bytes name, Site *site) except -1
    cdef int drop(self, int kind, bytes name) except -1
