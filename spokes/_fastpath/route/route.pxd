# Where a host name or port leads: immutable tables the workers read without a lock, built by the control plane.
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint32_t, uint64_t
from spokes._fastpath.route.site cimport Site
from spokes._fastpath.route.tunnel cimport Tunnel

cpdef enum RouteKind:
    ROUTE_HTTP = 1, ROUTE_TCP = 2, ROUTE_TLS = 3, ROUTE_UDP = 4

cdef struct RouteEntry:
    uint32_t name                       # offset into names
    uint16_t name_bytes
    uint8_t kind                        # RouteKind, ROUTE_CERTIFICATE or ROUTE_LINK
    uint8_t unused
    Site *site                          # held

cdef enum:
    ROUTE_CERTIFICATE = 16              # key kind for certificates: exact name or "*.parent"
    ROUTE_LINK = 17                     # what links that arrive are shown; under the empty name

cdef struct RoutePage:                  # the entries of one bucket; immutable, shared by every table since its version
    uint64_t version                    # of the table it was made for
    RoutePage *next                     # in a list of pages that a later table has replaced
    uint32_t count
    uint32_t name_bytes
    uint64_t *hashes
    RouteEntry *entries
    char *names

cdef struct RouteTable:
    uint64_t references                 # atomic: builder and workers
    uint64_t version                    # one more than that of the table it was made from
    uint32_t mask                       # pages - 1
    uint32_t count
    uint32_t line_bytes_max             # the longest line that a route has allowed so far; 0 = none has
    RoutePage **pages                   # by the low bits of the hash; NULL = empty
    RoutePage *replaced                 # while it is built: pages of its predecessor that it has no more
    RoutePage *retired                  # once it is succeeded: pages to free with it
    uint8_t is_succeeded

# Built by one thread: fork a table (NULL: from nothing), change the fork, publish it in the place of the table, which
# its holders then release one after the other, in the order of publication.
cdef RouteTable *route_table_fork(const RouteTable *table) noexcept nogil
cdef int route_table_put(RouteTable *draft, uint8_t kind, const char *name, size_t name_bytes,
                         Site *site) noexcept nogil
# 1: dropped, 0: there was none.
cdef int route_table_drop(RouteTable *draft, uint8_t kind, const char *name, size_t name_bytes) noexcept nogil
cdef int route_table_drop_tunnel(RouteTable *draft, const Tunnel *tunnel) noexcept nogil
cdef void route_table_succeed(RouteTable *table, RouteTable *draft) noexcept nogil
cdef void route_table_discard(RouteTable *draft) noexcept nogil
cdef void route_table_release(RouteTable *table) noexcept nogil
# NULL: no such route.
cdef Site *route_find(RouteTable *table, uint8_t kind, const char *name, size_t name_bytes) noexcept nogil
cdef Site *route_find_port(RouteTable *table, uint8_t kind, uint16_t port) noexcept nogil
# Exact, then "*.parent".
cdef Site *route_find_certificate(RouteTable *table, const char *name, size_t name_bytes) noexcept nogil
