# Where a host name or port leads: immutable tables the workers read without a lock, built by the control plane.
from spokes._fastpath.certificate cimport Certificate
from spokes._fastpath.net cimport sockaddr_storage, socklen_t
from spokes._fastpath.outcome cimport Outcomes
from spokes._fastpath.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum RouteKind:
    ROUTE_HTTP = 1, ROUTE_TCP = 2, ROUTE_TLS = 3, ROUTE_UDP = 4

cdef enum TargetKind:
    TARGET_TUNNEL = 1, TARGET_UPSTREAM = 2, TARGET_PAGE = 3, TARGET_CERTIFICATE = 4, TARGET_DIRECTORY = 5
    TARGET_SECURE = 6                   # 308 to https, where TLS is passed through

cdef enum:
    UPSTREAM_ADDRESS_COUNT_MAX = 8
    WORKER_COUNT_MAX = 64

cdef enum:
    END_NEVER = 0                       # of end_ms: routes lead there
    END_IDLE = 1                        # no route does: what is idle goes, flows end by themselves; > 1: flows end then

cdef struct Counts:                     # what a stream's bytes are counted under
    uint64_t bytes_in                   # atomic: from visitors
    uint64_t bytes_out                  # atomic: to visitors

cdef struct Tunnel:                     # one slot; lives as long as the engine
    Counts counts                       # of streams that serve none of its services, and of those it had before
    uint64_t worker_mask                # atomic: workers that have a bound link
    uint64_t stream_count               # atomic: open now …
    uint64_t flow_count                 # atomic: … of those, of datagrams; counted where there is a maximum of streams
    uint64_t held_bytes                 # atomic: of the blocks in which something of its streams waits
    uint64_t last_heard_ms              # atomic: wall clock, stamped by workers
    uint64_t rtt_us                     # atomic: of the link that measured last
    void *links[WORKER_COUNT_MAX]       # first bound link of each worker; each entry touched by its worker only
    uint32_t slot
    uint32_t route_count                # the builder's: in the newest table, published or not
    Service *services                   # the builder's: counted beside the tunnel, and a part of its sum
    uint8_t is_open

cdef struct Service:                    # what a route leads to, as it is counted; one slot, lives as long as the engine
    Counts counts
    uint64_t streams_total              # atomic: that began to serve it
    uint64_t streams_open               # atomic: that serve it now
    uint64_t requests_total             # atomic: of HTTP
    uint64_t end_ms                     # atomic: END_NEVER, or when streams that serve it are ended
    uint64_t id                         # of this use of the slot; the builder changes it when nobody serves it
    Tunnel *tunnel                      # the builder's, as all that follows; NULL = that tunnel is gone
    Service *next                       # of the tunnel's
    uint64_t taken_in                   # bytes and streams that the control plane has taken over
    uint64_t taken_out
    uint64_t taken_streams
    uint8_t is_open

cdef struct Upstream:                   # immutable after creation but for what is atomic; reference-counted
    uint64_t references                 # atomic
    uint64_t end_ms                     # atomic: END_NEVER, END_IDLE, or when its flows are ended
    uint64_t fault_ms                   # atomic: when a failed dial was last told to Python
    uint64_t first_address              # atomic: the one that worked last is tried first …
    uint64_t first_address_udp          # atomic: … and the one that a datagram last came back from
    uint64_t id                         # unique: pools of idle conns are kept under it
    uint8_t address_count
    uint8_t host_bytes
    uint8_t name_bytes
    uint8_t fault_page                  # PageId for whatever it fails with; 0 = the page of that fault
    char host[256]                      # Host header instead of the visitor's
    char name[256]                      # for people
    socklen_t address_bytes[UPSTREAM_ADDRESS_COUNT_MAX]
    sockaddr_storage addresses[UPSTREAM_ADDRESS_COUNT_MAX]
    uint64_t idle_learned_ms            # atomic: it closed a conn that had been idle for so long …
    uint64_t idle_learned_until_ms      # atomic: … which counts until then (monotonic)
    uint64_t closes_early_until_ms      # atomic: it closed one that had just answered; counts until then
    Outcomes outcomes

cdef struct Directory:                  # immutable after creation, reference-counted
    uint64_t references                 # atomic
    int fd                              # O_PATH; closed with the last reference
    uint8_t beneath                     # the kernel holds what is opened below it (openat2)

cdef struct Limits:                     # of one rule; 0 = what counts where a rule says nothing
    uint64_t body_bytes_max             # of a request's body; 0 = any number
    uint32_t line_bytes_max             # of one line of a request's head
    uint32_t silence_ms                 # of the upstream, until its response begins or goes on
    uint32_t udp_idle_ms                # of a peer, in both directions

cdef struct Target:
    uint8_t kind                        # TargetKind; 0 = nothing
    uint8_t page
    uint16_t port                       # of TARGET_SECURE, where https is
    Tunnel *tunnel
    Service *service                    # what is counted there; NULL = the tunnel alone
    Upstream *upstream
    Directory *directory
    Certificate *certificate
    Limits limits

cdef struct RouteEntry:
    uint32_t name                       # offset into names
    uint16_t name_bytes
    uint8_t kind                        # RouteKind, ROUTE_CERTIFICATE or ROUTE_LINK
    uint8_t unused
    Target target

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
                         const Target *target) noexcept nogil
# 1: dropped, 0: there was none.
cdef int route_table_drop(RouteTable *draft, uint8_t kind, const char *name, size_t name_bytes) noexcept nogil
cdef int route_table_drop_tunnel(RouteTable *draft, const Tunnel *tunnel) noexcept nogil
cdef void route_table_succeed(RouteTable *table, RouteTable *draft) noexcept nogil
cdef void route_table_discard(RouteTable *draft) noexcept nogil
cdef void route_table_release(RouteTable *table) noexcept nogil
# NULL: no such route.
cdef Target *route_find(RouteTable *table, uint8_t kind, const char *name, size_t name_bytes) noexcept nogil
cdef Target *route_find_port(RouteTable *table, uint8_t kind, uint16_t port) noexcept nogil
# Exact, then "*.parent".
cdef Target *route_find_certificate(RouteTable *table, const char *name, size_t name_bytes) noexcept nogil
cdef Upstream *upstream_new() noexcept nogil                        # with one reference; NULL: out of memory
cdef Upstream *upstream_hold(Upstream *upstream) noexcept nogil
cdef void upstream_release(Upstream *upstream) noexcept nogil
cdef Directory *directory_new(int fd) noexcept nogil
cdef Directory *directory_hold(Directory *directory) noexcept nogil
cdef void directory_release(Directory *directory) noexcept nogil
