"""Slots of tunnels and services: what Python opens, routes point at and workers count in.

Owns: the slots, which are used again and freed with the engine. Bound: as many as were open at once.
Fails: EngineError for a slot that is not open.
"""
cimport cython
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from spokes._fastpath.base.types cimport atomic_add, atomic_get, atomic_set
from spokes._fastpath.core.shared cimport COMMAND_SWEEP
from spokes._fastpath.route.tunnel cimport END_IDLE

import time
from collections import deque

from spokes.errors import EngineError

END_AFTER_S_MAX = 86400.0
QUARANTINE_S = 10.0                     # a closed slot is not used while a worker may have commands about it


@cython.no_gc                           # it is in no circle; those who hold it must find it whole when they end
cdef class Slots:
    def __cinit__(self, Threads threads not None):
        self.threads = threads
        self.tunnels_free = deque()
        self.services_free = deque()

    def __dealloc__(self):
        cdef uint32_t i
        self.threads.stop()
        for i in range(self.tunnel_count):
            free(self.tunnels[i])
        free(self.tunnels)
        for i in range(self.service_count):
            free(self.services[i])
        free(self.services)

    # --- tunnels ---

    cdef object open_tunnel(self):
        cdef Tunnel *tunnel
        cdef Tunnel **more
        slot = self.quarantined_tunnel()
        if slot is not None:
            tunnel = self.tunnels[<uint32_t>slot]
            while tunnel.services != NULL:
                tunnel.services.tunnel = NULL       # of the tunnel that had the slot before
                tunnel.services = tunnel.services.next
            tunnel.counts.bytes_in = tunnel.counts.bytes_out = tunnel.last_heard_ms = 0
            tunnel.is_open = 1
            tunnel.is_node = 0
            atomic_set(&tunnel.via, 0)
            return slot
        if self.tunnel_count == self.tunnel_capacity:
            self.tunnel_capacity = self.tunnel_capacity * 2 if self.tunnel_capacity else 64
            more = <Tunnel **>malloc(self.tunnel_capacity * sizeof(Tunnel *))
            if more == NULL:
                raise MemoryError
            if self.tunnel_count:           # memcpy from NULL is undefined, even of nothing
                memcpy(more, self.tunnels, self.tunnel_count * sizeof(Tunnel *))
            free(self.tunnels)
            self.tunnels = more
        tunnel = <Tunnel *>calloc(1, sizeof(Tunnel))
        if tunnel == NULL:
            raise MemoryError
        tunnel.slot = self.tunnel_count
        tunnel.is_open = 1
        self.tunnels[self.tunnel_count] = tunnel
        self.tunnel_count += 1
        return tunnel.slot

    cdef Tunnel *tunnel_at(self, uint32_t slot) except NULL:
        if slot >= self.tunnel_count or not self.tunnels[slot].is_open:
            raise EngineError(f"tunnel slot {slot} is not open")
        return self.tunnels[slot]

    cdef int close_tunnel(self, uint32_t tunnel) except -1:
        """No route leads there any more, and its links are closed; the slot is used again later."""
        self.tunnel_at(tunnel).is_open = 0
        self.tunnels_free.append((tunnel, time.monotonic()))
        return 0

    cdef object quarantined_tunnel(self):
        """A slot that nothing points at any more, nor does a command on its way to a worker; None where there is none.

        One that is still in use after its quarantine gets another, behind the others: it must not hold them up."""
        cdef Tunnel *tunnel
        now = time.monotonic()
        for _ in range(len(self.tunnels_free)):
            slot, closed = self.tunnels_free[0]
            if now - closed < QUARANTINE_S:
                return None
            self.tunnels_free.popleft()
            tunnel = self.tunnels[<uint32_t>slot]
            if atomic_get(&tunnel.worker_mask) == 0 and atomic_get(&tunnel.stream_count) == 0:
                return slot
            self.tunnels_free.append((slot, now))
        return None

    cdef tuple tunnel_counters(self, uint32_t tunnel):
        cdef Tunnel *slot = self.tunnel_at(tunnel)
        cdef uint64_t bytes_in = atomic_get(&slot.counts.bytes_in)
        cdef uint64_t bytes_out = atomic_get(&slot.counts.bytes_out)
        cdef Service *service = slot.services
        while service != NULL:
            bytes_in += atomic_get(&service.counts.bytes_in)
            bytes_out += atomic_get(&service.counts.bytes_out)
            service = service.next
        return bytes_in, bytes_out, atomic_get(&slot.stream_count), atomic_get(&slot.last_heard_ms) / 1000.0

    # --- services ---

    cdef uint64_t open_service(self, uint32_t tunnel) except? 0:
        cdef Tunnel *owner = self.tunnel_at(tunnel)
        cdef Service *service = self.quarantined_service()
        cdef Service **more
        if service == NULL:
            if self.service_count == self.service_capacity:
                self.service_capacity = self.service_capacity * 2 if self.service_capacity else 64
                more = <Service **>malloc(self.service_capacity * sizeof(Service *))
                if more == NULL:
                    raise MemoryError
                if self.service_count:
                    memcpy(more, self.services, self.service_count * sizeof(Service *))
                free(self.services)
                self.services = more
            service = <Service *>calloc(1, sizeof(Service))
            if service == NULL:
                raise MemoryError
            service.id = self.service_count
            self.services[self.service_count] = service
            self.service_count += 1
        self.service_serial += 1
        service.id = (self.service_serial << 32) | <uint32_t>service.id
        service.is_open = 1
        service.tunnel = owner
        service.next = owner.services
        owner.services = service
        return service.id

    cdef Service *quarantined_service(self) except? NULL:
        """A slot that no stream serves, nor does a worker know a route to it; NULL where there is none. What it has
        counted stays in its tunnel's sum."""
        cdef Service *service
        cdef Service **place
        now = time.monotonic()
        for _ in range(len(self.services_free)):
            slot, closed = self.services_free[0]
            if now - closed < QUARANTINE_S:
                return NULL
            self.services_free.popleft()
            service = self.services[<uint32_t>slot]
            if atomic_get(&service.streams_open):
                self.services_free.append((slot, now))
                continue
            if service.tunnel != NULL:
                atomic_add(&service.tunnel.counts.bytes_in, service.counts.bytes_in)
                atomic_add(&service.tunnel.counts.bytes_out, service.counts.bytes_out)
                place = &service.tunnel.services
                while place[0] != service:
                    place = &place[0].next
                place[0] = service.next
            memset(service, 0, sizeof(Service))
            service.id = <uint32_t>slot
            return service
        return NULL

    cdef Service *service_at(self, uint64_t id) except NULL:
        cdef uint32_t slot = <uint32_t>id
        if slot >= self.service_count or self.services[slot].id != id or not self.services[slot].is_open:
            raise EngineError(f"service {id} is not open")
        return self.services[slot]

    cdef int close_service(self, uint64_t service) except -1:
        self.service_at(service).is_open = 0
        self.services_free.append((<uint32_t>service, time.monotonic()))
        return 0

    # --- the end of flows ---

    cdef int end_service(self, uint64_t service, double after_s) except -1:
        return self.end_at(&self.service_at(service).end_ms, after_s)

    cdef int retire_upstream(self, Upstream upstream) except -1:
        atomic_set(&upstream.c.end_ms, END_IDLE)
        return self.sweep()

    cdef int end_upstream(self, Upstream upstream, double after_s) except -1:
        return self.end_at(&upstream.c.end_ms, after_s)

    cdef int end_at(self, uint64_t *end_ms, double after_s) except -1:
        if not 0 <= after_s <= END_AFTER_S_MAX:
            raise EngineError(f"after_s={after_s} is not between 0 and {END_AFTER_S_MAX}")
        atomic_set(end_ms, <uint64_t>((time.monotonic() + after_s) * 1000))
        return self.sweep()

    cdef int sweep(self) except -1:
        """Behind the table that leads nowhere there any more: no flow begins after it."""
        return self.threads.push_all(COMMAND_SWEEP)

    # --- counters ---

    cdef tuple service_counters(self, uint64_t service):
        cdef Service *slot = self.service_at(service)
        return (atomic_get(&slot.counts.bytes_in), atomic_get(&slot.counts.bytes_out), atomic_get(&slot.streams_total),
                atomic_get(&slot.requests_total), atomic_get(&slot.streams_open))

    cdef list take_traffic(self):
        cdef Service *service
        cdef uint64_t bytes_in, bytes_out, streams
        cdef uint32_t i
        cdef list taken = []
        for i in range(self.service_count):
            service = self.services[i]
            if not service.is_open:
                continue
            bytes_in = atomic_get(&service.counts.bytes_in)
            bytes_out = atomic_get(&service.counts.bytes_out)
            streams = atomic_get(&service.streams_total)
            if bytes_in == service.taken_in and bytes_out == service.taken_out and streams == service.taken_streams:
                continue
            taken.append((service.id, bytes_in - service.taken_in, bytes_out - service.taken_out,
                          streams - service.taken_streams))
            service.taken_in = bytes_in
            service.taken_out = bytes_out
            service.taken_streams = streams
        return taken
