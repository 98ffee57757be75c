# What the threads of one engine share, and what is one worker's own; declarations alone.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.buf cimport Budget
from spokes._fastpath.base.ring cimport Msg, Ring
from spokes._fastpath.base.throttle cimport Throttle
from spokes._fastpath.base.timer cimport Timer
from spokes._fastpath.base.types cimport uint32_t, uint64_t, uint8_t
from spokes._fastpath.http.page cimport PAGE_COUNT, Page
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.link_state cimport TUNNEL_VISITOR_COUNTERS, Link
from spokes._fastpath.route.tunnel cimport Node
from spokes._fastpath.tls.openssl cimport SSL_CTX

cdef enum CommandKind:
    COMMAND_STOP = 1, COMMAND_LISTEN = 2, COMMAND_UNLISTEN = 3, COMMAND_TABLE = 4, COMMAND_CONNECT = 5
    COMMAND_CONTROL = 6, COMMAND_BIND = 7, COMMAND_DRAIN = 8, COMMAND_CLOSE = 9, COMMAND_ABORT = 10
    COMMAND_TAKE_CONN = 11              # from another worker
    COMMAND_TAKE_UDP = 12
    COMMAND_PING = 13
    COMMAND_SWEEP = 14                  # services or upstreams were ended
    COMMAND_RELIEVE = 15                # the kernel's memory for TCP is short

cdef enum:
    HANDSHAKE_MS = 10000                # TLS of a visitor or a link; of a link that is dialled, its connect too
    LINK_BUCKETS = 4096
    ADDRESS_COUNTERS = 16384
    EVENT_RING_CAPACITY = 16384
    EVENT_BYTES_MAX = 33554432          # undrained payloads above which no link is read; one read of each comes on top
    COMMAND_RING_CAPACITY = 4096
    VIA_BYTES_MAX = 64

cdef struct LinkSlot:                   # a link known to Python by its id: being made, or standing
    uint64_t id
    LinkSlot *next
    Conn *conn
    Link *link
    Address peer                        # of a link being made
    uint8_t has_pin
    uint8_t peer_worker                 # the worker there that is asked for: its number and 1; 0 = any
    uint8_t pin[32]
    char server_name[256]
    SSL_CTX *context                    # of a link being made; referenced by the engine

cdef struct Pending:                    # an event the ring had no place for
    Pending *next
    Msg msg

cdef struct Shared:                     # one engine's
    Budget budget
    Ring events
    uint64_t event_bytes                # atomic: payloads of events nobody has drained yet
    Page pages[PAGE_COUNT]
    Page json_pages[PAGE_COUNT]
    char via[VIA_BYTES_MAX]
    uint8_t via_bytes
    Worker *workers
    uint32_t worker_count
    uint32_t stream_count_max
    uint64_t tunnel_stream_count_max    # 0 = any number
    uint64_t tunnel_visitors[TUNNEL_VISITOR_COUNTERS]   # atomic; tunnel_slots.pyx
    Node *nodes                         # NODE_COUNT_MAX + 1; NULL at a client
    uint64_t *dialled                   # upstream.pyx; a client's alone
    uint64_t visitor_count_max
    uint64_t visitor_count              # atomic
    uint64_t visitor_count_per_address_max
    uint64_t address_counts[ADDRESS_COUNTERS]   # atomic
    Throttle handshakes                 # of visitors and links that arrive, by their address
    uint64_t link_serial                # atomic
    SSL_CTX *link_context               # of links that arrive; NULL at a client
    SSL_CTX *visitor_context            # the same of visitors
    uint64_t udp_idle_ms
    uint8_t accepting

cdef struct Worker:
    Loop loop                           # must be first
    Ring commands
    Shared *shared
    LinkSlot *slots[LINK_BUCKETS]
    Link *ended                         # links whose memory is given back when the pass is over
    Pending *pending_first
    Pending *pending_last
    Conn *listeners_paused
    Timer accept_timer
    Timer sweep_timer
    uint64_t swept_ms
    uint64_t table_version              # atomic: of the table in force here
    Conn *wake
    uint64_t trimmed_ms
    uint8_t stopping
