"""Upstream as Python has it: one reference to the engine's own, which others hold as well."""
from libc.string cimport memcpy

from spokes._fastpath.base.net cimport AF_UNIX, sockaddr_un
from spokes._fastpath.base.types cimport atomic_get, uint64_t, uint8_t
from spokes._fastpath.bindings.socket_address cimport write_address
from spokes._fastpath.route.outcome cimport FAULT_COUNT
from spokes._fastpath.route.site cimport UPSTREAM_ADDRESS_COUNT_MAX, upstream_new, upstream_release

import os

from spokes._fastpath.bindings.codes import page_id
from spokes.errors import EngineError

cdef uint64_t upstream_serial = 0


cdef class Upstream:
    def __cinit__(self, *, list addresses=None, str unix_path="", str host="", str name="", str fault_page=""):
        global upstream_serial
        cdef bytes path = os.fsencode(unix_path)
        cdef bytes host_bytes = host.encode("ascii")
        cdef bytes name_bytes = name.encode("ascii", "replace")[:255]
        cdef sockaddr_un *local
        self.c = upstream_new()
        if self.c == NULL:
            raise MemoryError
        upstream_serial += 1
        self.c.id = upstream_serial
        if len(host_bytes) > 255:
            raise EngineError("the upstream's host name is longer than 255 bytes")
        self.c.host_bytes = <uint8_t>len(host_bytes)
        memcpy(self.c.host, <const char *>host_bytes, len(host_bytes))
        self.c.name_bytes = <uint8_t>len(name_bytes)
        memcpy(self.c.name, <const char *>name_bytes, len(name_bytes))
        self.c.fault_page = <uint8_t>page_id(fault_page)
        if unix_path:
            if len(path) > 107 or b"\0" in path:
                raise EngineError(f"the socket's path is longer than 107 bytes: {unix_path}")
            local = <sockaddr_un *>&self.c.addresses[0]
            local.sun_family = AF_UNIX
            memcpy(local.sun_path, <const char *>path, len(path))
            self.c.address_bytes[0] = sizeof(sockaddr_un)
            self.c.address_count = 1
            return
        for host_text, port in (addresses or [])[:UPSTREAM_ADDRESS_COUNT_MAX]:
            self.c.address_bytes[self.c.address_count] = write_address(
                &self.c.addresses[self.c.address_count], host_text, port)
            self.c.address_count += 1

    @property
    def id(self):
        return self.c.id

    def outcomes(self):
        cdef uint64_t last = atomic_get(&self.c.outcomes.last)
        cdef int i
        cdef list counts = []
        for i in range(<int>FAULT_COUNT):
            counts.append(atomic_get(&self.c.outcomes.faults[i]))
        return <int>(last & 0xff), (last >> 8) / 1000.0, counts

    def has_answered(self):
        return atomic_get(&self.c.outcomes.answered) != 0

    def __dealloc__(self):
        upstream_release(self.c)
