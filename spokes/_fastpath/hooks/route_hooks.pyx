"""Test hooks of route tables and sites."""
from spokes._fastpath.base.types cimport RC_MEMORY, atomic_get, uint32_t, uint8_t
from spokes._fastpath.route.route cimport (
    RouteTable, route_find, route_table_discard, route_table_drop, route_table_fork, route_table_put,
    route_table_release, route_table_succeed,
)
from spokes._fastpath.route.site cimport Site, directories_live, site_release, site_to_page, sites_live, upstreams_live


def live_sites():
    """(sites, upstreams, directories) of this process that somebody holds: tables, conns, Python."""
    return atomic_get(&sites_live), atomic_get(&upstreams_live), atomic_get(&directories_live)


cdef class DraftedRoutes:
    """A draft and the tables published before it, oldest first; values are page numbers."""

    cdef RouteTable *draft
    cdef RouteTable *tables[8]
    cdef int table_count

    def __cinit__(self):
        self.draft = route_table_fork(NULL)
        if self.draft == NULL:
            raise MemoryError

    def __dealloc__(self):
        route_table_discard(self.draft)
        while self.table_count:
            self.release_oldest()

    cdef RouteTable *table_at(self, int table) except NULL:
        if not 0 <= table < self.table_count:
            raise IndexError(table)
        return self.tables[table]

    def put(self, int kind, bytes name not None, int page):
        cdef Site *site = site_to_page(<uint8_t>page)
        cdef int rc = RC_MEMORY
        if site != NULL:
            rc = route_table_put(self.draft, <uint8_t>kind, name, len(name), site)
            site_release(site)
        if rc < 0:
            raise MemoryError

    def drop(self, int kind, bytes name not None):
        return route_table_drop(self.draft, <uint8_t>kind, name, len(name))

    def publish(self):
        """The draft joins the tables; how many of its pages were made for it."""
        cdef RouteTable *following
        cdef uint32_t at, made = 0
        if self.table_count == 8:
            raise IndexError("too many tables at once")
        following = route_table_fork(self.draft)
        if following == NULL:
            raise MemoryError
        for at in range(self.draft.mask + 1):
            made += self.draft.pages[at] != NULL and self.draft.pages[at].version == self.draft.version
        route_table_succeed(self.tables[self.table_count - 1] if self.table_count else NULL, self.draft)
        self.tables[self.table_count] = self.draft
        self.table_count += 1
        self.draft = following
        return made

    cpdef release_oldest(self):
        cdef int i
        route_table_release(self.tables[0])
        self.table_count -= 1
        for i in range(self.table_count):
            self.tables[i] = self.tables[i + 1]

    def find(self, int table, int kind, bytes name not None):
        cdef Site *site = route_find(self.table_at(table), <uint8_t>kind, name, len(name))
        return site.page if site != NULL else None

    def count(self, int table):
        return self.table_at(table).count
