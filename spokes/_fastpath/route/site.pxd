# What a route leads to: one immutable value, counted, shared by every route and table that has it.
from spokes._fastpath.base.net cimport sockaddr_storage, socklen_t
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint32_t, uint64_t
from spokes._fastpath.route.outcome cimport Outcomes
from spokes._fastpath.route.tunnel cimport Service, Tunnel
from spokes._fastpath.tls.certificate cimport Certificate

cdef enum SiteKind:                     # who answers there
    SITE_TUNNELS = 1, SITE_UPSTREAM = 2, SITE_DIRECTORY = 3, SITE_PAGE = 4
    SITE_CERTIFICATE = 5                # nobody: it is what TLS is shown under that name

cdef enum:
    UPSTREAM_ADDRESS_COUNT_MAX = 8
    SITE_TUNNEL_COUNT_MAX = 32

cdef struct Upstream:                   # immutable after creation but for what is atomic; reference-counted
    uint64_t references                 # atomic; the first member (base/counted.pxd)
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
    uint64_t references                 # atomic; the first member (base/counted.pxd)
    int fd                              # O_PATH; closed with the last reference
    uint8_t beneath                     # the kernel holds what is opened below it (openat2)

cdef struct Limits:                     # of one rule; 0 = what counts where a rule says nothing
    uint64_t body_bytes_max             # of a request's body; 0 = any number
    uint32_t line_bytes_max             # of one line of a request's head
    uint32_t silence_ms                 # of the upstream, until its response begins or goes on
    uint32_t udp_idle_ms                # of a peer, in both directions

cdef struct Policy:                     # what a rule asks of whoever comes by it
    Limits limits
    uint16_t https_port                 # visitors without TLS are sent there; 0 = they are served

cdef struct Site:                       # immutable once a table has it
    uint64_t references                 # atomic; the first member (base/counted.pxd)
    Policy policy
    Service *service                    # what is counted there; NULL = the tunnel alone
    Upstream *upstream                  # held
    Directory *directory                # held
    Certificate *certificate            # held
    uint8_t kind                        # SiteKind
    uint8_t page                        # PageId, of SITE_PAGE
    uint8_t tunnel_count
    Tunnel *tunnels[1]                  # … and on, the preferred one first

# With one reference, and with references of its own to what is given; NULL: out of memory.
cdef Site *site_to_tunnels(Tunnel *const *tunnels, uint8_t tunnel_count, Service *service,
                           const Policy *policy) noexcept nogil
cdef Site *site_to_upstream(Upstream *upstream, const Policy *policy) noexcept nogil
cdef Site *site_to_directory(Directory *directory, const Policy *policy) noexcept nogil
cdef Site *site_to_page(uint8_t page) noexcept nogil
cdef Site *site_with_certificate(Certificate *certificate) noexcept nogil
# The same, less one of its tunnels.
cdef Site *site_without(const Site *site, const Tunnel *tunnel) noexcept nogil
cdef Site *site_hold(Site *site) noexcept nogil
cdef void site_release(Site *site) noexcept nogil
cdef bint site_has(const Site *site, const Tunnel *tunnel) noexcept nogil
cdef Upstream *upstream_new() noexcept nogil                        # with one reference; NULL: out of memory
cdef Upstream *upstream_hold(Upstream *upstream) noexcept nogil
cdef void upstream_release(Upstream *upstream) noexcept nogil
cdef Directory *directory_new(int fd) noexcept nogil
cdef Directory *directory_hold(Directory *directory) noexcept nogil
cdef void directory_release(Directory *directory) noexcept nogil

# Of this process, atomic: those that somebody holds, so that a reference that was forgotten is seen.
cdef uint64_t sites_live, upstreams_live, directories_live
