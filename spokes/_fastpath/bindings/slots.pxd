# Slots of tunnels and services: opened and closed by Python, counted in by workers.
from spokes._fastpath.base.types cimport uint32_t, uint64_t
from spokes._fastpath.bindings.threads cimport Threads
from spokes._fastpath.bindings.upstream cimport Upstream
from spokes._fastpath.route.tunnel cimport Service, Tunnel

cdef class Slots:
    cdef Threads threads
    cdef object tunnels_free            # deque of (slot, when it was closed), oldest first
    cdef Tunnel **tunnels
    cdef uint32_t tunnel_count
    cdef uint32_t tunnel_capacity
    cdef object services_free           # deque of (slot, when it was closed), oldest first
    cdef Service **services
    cdef uint32_t service_count
    cdef uint32_t service_capacity
    cdef uint64_t service_serial
    cdef object open_tunnel(self)
    cdef Tunnel *tunnel_at(self, uint32_t slot) except NULL
    cdef int close_tunnel(self, uint32_t tunnel) except -1
    cdef object quarantined_tunnel(self)
    cdef uint64_t open_service(self, uint32_t tunnel) except? 0
    cdef Service *quarantined_service(self) except? NULL
    cdef Service *service_at(self, uint64_t id) except NULL
    cdef int close_service(self, uint64_t service) except -1
    cdef int end_service(self, uint64_t service, double after_s) except -1
    cdef int retire_upstream(self, Upstream upstream) except -1
    cdef int end_upstream(self, Upstream upstream, double after_s) except -1
    cdef int end_at(self, uint64_t *end_ms, double after_s) except -1
    cdef int sweep(self) except -1
    cdef tuple tunnel_counters(self, uint32_t tunnel)
    cdef tuple service_counters(self, uint64_t service)
    cdef list take_traffic(self)
