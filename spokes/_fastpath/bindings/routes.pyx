"""The route table as Python changes it: a draft, and what was published of it.

Owns: one reference to the table that was published last; its draft. Fails: EngineError for a key that is none.
"""
cimport cython
from libc.string cimport memset

from spokes._fastpath.base.ring cimport Msg
from spokes._fastpath.base.types cimport atomic_add, atomic_get
from spokes._fastpath.bindings.site cimport new_site
from spokes._fastpath.core.shared cimport COMMAND_TABLE
from spokes._fastpath.route.route cimport (
    ROUTE_CERTIFICATE, ROUTE_HTTP, ROUTE_LINK, ROUTE_TCP, ROUTE_TLS, ROUTE_UDP, route_find, route_table_discard,
    route_table_drop, route_table_drop_tunnel, route_table_fork, route_table_put, route_table_release,
    route_table_succeed,
)
from spokes._fastpath.route.site cimport site_release
from spokes._fastpath.route.tunnel cimport Tunnel

from spokes.errors import EngineError


cdef bytes key_name(int kind, object key):
    """The name under which a table has a host name or a port."""
    if kind == ROUTE_HTTP or kind == ROUTE_TLS:
        if not isinstance(key, str) or len(key) > 253:
            raise EngineError(f"route key {key!r} is no host name")
        return key.encode("ascii")
    if kind == ROUTE_TCP or kind == ROUTE_UDP:
        if isinstance(key, bool) or not isinstance(key, int) or not 0 < key < 65536:
            raise EngineError(f"route key {key!r} is no port")
        return bytes((key >> 8, key & 255))
    raise EngineError(f"kind={kind} is no RouteKind")


@cython.no_gc                           # it is in no circle; what it holds must be whole when it ends
cdef class Routes:
    def __cinit__(self, Threads threads not None, Slots slots not None):
        self.threads = threads
        self.slots = slots

    def __dealloc__(self):
        self.threads.stop()
        self.release()

    cdef int release(self) except -1:
        route_table_discard(self.draft)
        route_table_release(self.table)
        self.draft = self.table = NULL
        return 0

    cdef int need_draft(self) except -1:
        """A change is made in a draft; publish() puts it in force."""
        if self.draft == NULL:
            self.draft = route_table_fork(self.table)
            if self.draft == NULL:
                raise MemoryError
        return 0

    cdef int put(self, int kind, bytes name, Site *site) except -1:
        self.need_draft()
        if route_table_put(self.draft, kind, name, len(name), site) < 0:
            raise MemoryError
        return 0

    cdef int drop(self, int kind, bytes name) except -1:
        if route_find(self.table if self.draft == NULL else self.draft, kind, name, len(name)) == NULL:
            return 0
        self.need_draft()
        if route_table_drop(self.draft, kind, name, len(name)) < 0:
            raise MemoryError
        return 0

    cdef int set_route(self, int kind, object key, object site) except -1:
        cdef Site *made
        cdef bytes name = key_name(kind, key)
        made = new_site(self.slots, site)
        try:
            return self.put(kind, name, made)
        finally:
            site_release(made)

    cdef int drop_route(self, int kind, object key) except -1:
        return self.drop(kind, key_name(kind, key))

    cdef int drop_tunnel(self, uint32_t tunnel) except -1:
        """Every route that still leads there."""
        cdef Tunnel *slot = self.slots.tunnel_at(tunnel)
        if slot.route_count:
            self.need_draft()
            if route_table_drop_tunnel(self.draft, slot) < 0:
                raise MemoryError
        return 0

    cdef int set_certificate(self, str name, Certificate certificate) except -1:
        return self.put(ROUTE_CERTIFICATE, name.lower().encode("ascii"), certificate.site)

    cdef int drop_certificate(self, str name) except -1:
        return self.drop(ROUTE_CERTIFICATE, name.lower().encode("ascii"))

    cdef int set_link_certificate(self, Certificate certificate) except -1:
        return self.put(ROUTE_LINK, b"", certificate.site)

    cdef uint64_t publish(self) except? 0:
        cdef Msg msg
        cdef uint32_t i
        if self.threads.stopped:
            return 0
        if self.table == NULL:
            self.need_draft()                           # workers want a table, be it an empty one
        if self.draft == NULL:
            return self.table.version
        atomic_add(&self.draft.references, self.threads.shared.worker_count)
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_TABLE
        msg.p = self.draft
        route_table_succeed(self.table, self.draft)
        route_table_release(self.table)
        self.table = self.draft
        self.draft = NULL
        for i in range(self.threads.shared.worker_count):
            self.threads.push(i, &msg)
        return self.table.version

    cdef uint64_t version_in_force(self) except? 0:
        cdef uint64_t version, oldest = 0
        cdef uint32_t i
        for i in range(0 if self.threads.stopped else self.threads.shared.worker_count):
            version = atomic_get(&self.threads.shared.workers[i].table_version)
            if i == 0 or version < oldest:
                oldest = version
        return oldest
