# What a worker's loop, its conns, and the ends of flows are.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.buf cimport Chain, Pool, Slab
from spokes._fastpath.base.net cimport close, recv
from spokes._fastpath.base.stats cimport Stats
from spokes._fastpath.base.throttle cimport Throttle
from spokes._fastpath.base.timer cimport Timer, Wheel
from spokes._fastpath.base.types cimport uint16_t, uint32_t, uint64_t, uint8_t
from spokes._fastpath.base.access_log cimport AccessLog
from spokes._fastpath.http.httpdate cimport HTTP_DATE_BYTES, httpdate_write
from spokes._fastpath.http.page cimport Page
from spokes._fastpath.route.route cimport RouteTable
from spokes._fastpath.route.tunnel cimport Node
from spokes._fastpath.tls.openssl cimport SSL
from spokes._fastpath.tls.tls_context cimport TlsIo

# Sockets: a worker's loop, the ends that flows are made of, and conns, which are ends over a socket, TLS or plain.
cdef enum:
    RX_BYTES = 262144                   # scratch: one read
    CIPHER_BYTES = 294912               # scratch: ciphertext of one read or write, with records' overhead
    HEAD_BYTES = 65536                  # scratch: a head being rewritten, a page
    JOIN_BYTES = 65536                  # scratch: bytes that waited in a chain, made contiguous
    CONN_OUT_BYTES_MAX = 65536          # what a conn lets wait before its source must stop
    UNSENT_BYTES_MIN = 2048             # in the kernel, of a link: ten milliseconds' worth, one segment at least …
    UNSENT_BYTES_START = 32768          # … this much until the path's rate is known …
    UNSENT_BYTES_MAX = 2097152          # … and no more than this
    LINGER_VISITOR_BYTES_MAX = 67108864  # read of a visitor and dropped: the rest of a body whose answer came early
    PROOF_BYTES = 524288                # carried by a conn before its kernel buffers may grow: its reader reads
    CONN_DIRECT_BYTES = 4096            # writes from this size go to the kernel at once, smaller ones at a pass's end
    SO_BUF_LOCK = 72                    # asm-generic/socket.h since 5.15; the C library's headers may be older

cdef enum TlsAlert:                     # RFC 8446, section 6
    ALERT_UNEXPECTED_MESSAGE = 10, ALERT_RECORD_OVERFLOW = 22, ALERT_DECODE_ERROR = 50, ALERT_PROTOCOL_VERSION = 70
    ALERT_INTERNAL_ERROR = 80, ALERT_UNRECOGNIZED_NAME = 112

cdef enum:                              # of End.eof; 0 = more may come
    EOF_SEEN = 1
    EOF_TOLD = 2                        # … and the owner knows

cdef struct End:                        # one end of a flow; first member of what it is (Conn, Stream)
    const EndKind *kind                 # what it is
    const EndOps *ops                   # what its owner wants to be told; NULL = nobody
    void *owner
    Chain rx                            # received, not yet taken by the owner
    uint16_t reset_reason               # Reason that the peer gave for its going; 0 = none, or it cannot give one
    uint8_t eof                         # EOF_: the peer has sent its last byte (rx may still hold some)
    uint8_t fin                         # we have sent, or queued, our last byte
    uint8_t wants_room                  # the owner waits for ops.room
    uint8_t closed
    uint8_t paused                      # set by the owner: it cannot take more until it pulls again
    uint8_t heard                       # set by the owner: its peer has said something

ctypedef size_t (*end_data_fn)(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil
ctypedef void (*end_fn)(End *end) noexcept nogil
ctypedef void (*end_gone_fn)(End *end, int rc) noexcept nogil
ctypedef size_t (*end_size_fn)(End *end) noexcept nogil
ctypedef void (*end_write_fn)(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil
ctypedef ssize_t (*end_push_chain_fn)(End *end, Chain *chain) noexcept nogil
ctypedef void (*end_taken_fn)(End *end, size_t bytes) noexcept nogil
ctypedef uint8_t (*end_source_fn)(End *end) noexcept nogil
ctypedef ssize_t (*end_recv_fn)(End *end, uint8_t *dst, size_t dst_bytes) noexcept nogil
ctypedef Conn *(*end_conn_fn)(End *end) noexcept nogil
ctypedef ssize_t (*end_read_from_fn)(End *end, Conn *source, size_t bytes_max) noexcept nogil
ctypedef bint (*end_hand_over_fn)(End *end, uint64_t worker_mask, uint64_t *workers_tried) noexcept nogil
ctypedef void (*end_reason_fn)(End *end, uint16_t reason) noexcept nogil
ctypedef void (*end_linger_fn)(End *end, bint is_mid_request) noexcept nogil
ctypedef Loop *(*end_loop_fn)(End *end) noexcept nogil

cdef enum:                              # of EndKind.source
    SOURCE_READABLE = 1                 # more can be read than waits in rx
    SOURCE_ENDS = 2                     # the peer has shut its side: a read comes to the end

cdef struct EndKind:                    # what an end is: one constant table a kind, in the kind's own file
    end_size_fn room                    # how much a write accepts now
    end_size_fn room_unread             # … of what may as well wait where it is: nothing while memory is short
    end_size_fn credit                  # how much the peer lets us send, whatever waits here
    end_write_fn write                  # no more than `room`, or our own last words
    end_data_fn push                    # as much as it takes at once; what it does not waits with its owner
    end_push_chain_fn push_chain        # … without a copy: bytes, 0 = none this way, < 0 = wait for ops.room
    end_fn wait_room                    # ops.room will be called
    end_fn fin                          # our last byte has been written
    end_taken_fn taken                  # the owner took so much out of rx
    end_source_fn source                # SOURCE_ flags; 0 where all that arrives is put into rx
    end_recv_fn recv                    # of what is readable, as conn_recv; of kinds that have a source
    end_write_fn keep                   # … what was read and not taken, behind what waits in rx
    end_conn_fn plain_socket            # where its bytes can be read as they are; NULL = nowhere
    end_read_from_fn read_from          # from such a socket without a copy, as conn_recv; NULL = it cannot
    end_hand_over_fn hand_over          # as conn_hand_over; False: it stays with its worker
    end_fn close                        # in order, now; no callback
    end_reason_fn abort                 # at once; no callback
    end_reason_fn refuse                # of a TLS flow that nobody has answered: in the peer's own words
    end_linger_fn linger                # what was written goes out, what comes is dropped; no callback
    end_fn finish                       # both sides have ended: what was written goes out; no callback
    end_loop_fn loop

cdef struct EndOps:
    end_data_fn on_data                    # bytes arrived: how many the owner takes now; the rest waits in rx
    end_fn eof                          # the last byte has been taken
    end_fn room                         # output is possible again; pull what waits on the other end
    end_gone_fn gone                    # the end failed or was closed by its peer; do not touch it afterwards
    end_fn ready                        # its source has become readable; of kinds that have one

ctypedef void (*conn_fn)(Conn *conn) noexcept nogil
ctypedef void (*task_fn)(void *owner) noexcept nogil
ctypedef void (*upstream_fault_fn)(Loop *loop, uint64_t upstream, int rc) noexcept nogil

cdef struct Task:                       # something to do later in the same pass
    Task *next
    task_fn run
    void *owner
    uint8_t queued

cdef struct DeferredFree:                     # an object that ended in this pass; given back when the pass is over
    DeferredFree *next
    Slab *slab
    void *item

cdef struct TlsState:
    SSL *ssl
    Chain rx                            # ciphertext read, not yet taken by libssl
    Chain tx                            # ciphertext not yet sent
    uint8_t handshaking

cdef enum ConnRole:
    ROLE_LISTENER = 1, ROLE_WAKE = 2, ROLE_VISITOR = 3, ROLE_LINK = 4, ROLE_UPSTREAM = 5, ROLE_UDP = 6

cdef union ConnSpan:                    # two things of a conn's life that never meet: its first moments and its last
    uint64_t workers_tried              # that had no usable link when it looked; raw flows and datagrams
    uint64_t linger_end_ms              # conn_linger closes it then; 0 = not set: as long as some goes out

cdef struct Conn:                       # 256 bytes: without a gap between its fields
    End end                             # must be first
    int fd
    int error                           # < 0 once a system call has failed
    uint32_t unproven_bytes             # left to carry until its kernel buffers may grow; 0 = they may
    uint32_t held_blocks                # its part of what `holder` counts
    uint8_t role
    uint8_t readable                    # as far as the last event and read say
    uint8_t writable
    uint8_t rdhup                       # the peer has shut its side: a read ends in EOF
    uint8_t connecting
    uint8_t dirty                       # in loop.dirty
    uint8_t fin_sent
    uint8_t close_when_flushed
    uint8_t closed
    uint8_t listed                      # in loop.conns
    uint8_t worker_next                 # worker + 1 to be handed to at the end of the pass; 0 = stays
    uint8_t tag                         # of a conn that has just come: what it is (visitor.pyx)
    uint8_t on_slow_line                # of a link: its writes are pieces of their own to the kernel
    uint8_t is_mid_request              # of a visitor: more is on its way when conn_linger begins
    uint16_t port                       # public port it came through
    conn_fn on_ready
    conn_fn on_flush                    # conn_flush, unless its owner has more to do
    conn_fn on_close                    # NULL = nothing to give back
    void *extra                         # of the role
    Loop *loop
    TlsState *tls                       # NULL = plain
    Chain out                           # plaintext waiting to be sent
    Timer timer
    ConnSpan span
    Address peer
    uint32_t linger_bytes               # what conn_linger has read and dropped; within a bound
    uint64_t *holder                    # of a visitor: what its address holds; NULL = not counted
    Conn *next_dirty
    Conn *next_deferred
    Conn *next                          # loop.conns
    Conn *prev

cdef struct Loop:                       # one worker's: everything here is touched by its thread alone
    int epoll_fd
    uint32_t index
    uint64_t now_ms                     # monotonic, once a pass
    uint64_t now_us
    uint64_t wall_ms
    Pool pool
    Wheel wheel
    Stats stats
    AccessLog access_log
    Slab conns_slab
    Slab streams_slab
    Slab exchanges_slab
    Slab flows_slab
    Conn *conns                         # all of them
    Conn *dirty                         # have output to flush at the end of the pass
    Conn *held                          # dirty too, but to be flushed with what the next pass brings
    Conn *deferred                        # closed in this pass
    DeferredFree *deferred_frees
    Conn *handing                       # to be handed to another worker
    Task *tasks_first
    Task *tasks_last
    uint8_t *rx
    uint8_t *cipher
    uint8_t *tx
    uint8_t *head
    uint8_t *join
    TlsIo io
    RouteTable *routes                  # the table of this pass
    const Page *pages                   # PAGE_COUNT of them, set before start
    const Page *json_pages              # the same for callers of an API; head NULL = there is none
    const char *via                     # our name in Via (RFC 9110 §7.6.3); NULL = none
    uint8_t via_bytes
    uint64_t date_s                     # what `date` says
    char date[HTTP_DATE_BYTES]
    void *idle_upstreams                # upstream.pyx
    uint64_t replay_bytes               # requests kept to be sent again
    const Node *nodes                   # by their numbers, of a server in a cluster; NULL = it is alone
    uint64_t *dialled                   # upstream.pyx; shared by all workers, NULL = none
    uint64_t tunnel_stream_count_max    # of one tunnel, all links together; 0 = any number
    uint64_t *tunnel_visitors           # TUNNEL_VISITOR_COUNTERS, shared by all workers; used where there is a maximum
    const Throttle *throttle            # shared by all workers: who is not counted
    uint8_t starved                     # a source was not read for want of memory
    uint8_t gathering                   # another pass follows at once, and is likely to bring links more to send
    upstream_fault_fn upstream_fault    # the worker's: a dial failed
    uint64_t udp_idle_ms                # a peer that is silent in both directions is forgotten
    void *worker

cdef inline const char *loop_date(Loop *loop) noexcept nogil:
    """HTTP_DATE_BYTES: the time of this pass, written once a second."""
    cdef uint64_t unix_s = loop.wall_ms // 1000
    if unix_s != loop.date_s:
        httpdate_write(loop.date, unix_s)
        loop.date_s = unix_s
    return loop.date
